//! What the fuzz targets call (`gateway/fuzz`): each parser of outside bytes, with what has to hold of its answer. Not part of a program.

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method};

use crate::s3::chunked::ChunkedDecoder;
use crate::s3::copy_source::CopySource;
use crate::s3::error::S3Result;
use crate::s3::operation::Operation;
use crate::s3::signature::{self, ChunkSigner, Head, sha256_hex};
use crate::s3::uri::{self, Query, Target};
use crate::s3::{condition, date, document, metadata, range, tagging};

const DATE: &str = "20130524T000000Z";
const EMPTY_SHA256: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
/// What the decoder is told to expect at most.
const LEN_MAX: u64 = 1 << 20;

/// Lines `name: value` as headers.
fn headers(text: &str) -> HeaderMap {
    let pairs = text.lines().filter_map(|line| {
        let (name, value) = line.split_once(':')?;
        let name = HeaderName::from_bytes(name.trim().as_bytes()).ok()?;
        Some((name, HeaderValue::from_bytes(value.trim().as_bytes()).ok()?))
    });
    let mut headers = HeaderMap::new();
    for (name, value) in pairs {
        headers.append(name, value);
    }
    headers
}

/// Method, host, path and query, a line each, then headers: an address, an operation, or a refusal.
///
/// What a key decodes to encodes to the same key again, and a query says the same in its canonical form.
pub fn address(data: &str) {
    let mut lines = data.splitn(4, '\n');
    let (method, host, target) = (lines.next(), lines.next(), lines.next().unwrap_or(""));
    let headers = headers(lines.next().unwrap_or(""));
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let bases = ["s3.test".to_owned()];
    let Ok(target) = Target::parse(host, path, &bases, "us-east-1") else {
        return;
    };
    if let Some(key) = target.key() {
        assert_eq!(uri::decode(&uri::encode_path(key)).ok().as_deref(), Some(key));
    }
    let Ok(query) = Query::parse(Some(query)) else { return };
    let canonical = query.canonical();
    let again = Query::parse(Some(&canonical)).expect("it is what we wrote");
    assert_eq!(again.canonical(), canonical);
    let Ok(method) = Method::from_bytes(method.unwrap_or("GET").as_bytes()) else {
        return;
    };
    let _ = Operation::of(&method, &target, &query, &headers);
    let _ = metadata::Metadata::read(&headers);
    let _ = metadata::content_md5(&headers);
    let _ = metadata::check_len(&headers);
    let _ = condition::of_write(&headers);
    let held = condition::Held {
        etag: "abc",
        modified: 100,
        now: 1000,
    };
    let _ = (condition::of_read(&headers, held), condition::of_copy(&headers, held));
}

/// A query, then headers: nobody gets in who does not know the secret.
pub fn signed(data: &str) {
    let (query, rest) = data.split_once('\n').unwrap_or((data, ""));
    let headers = headers(rest);
    let Ok(query) = Query::parse(Some(query)) else { return };
    let head = || Head {
        method: "PUT",
        path: "/bucket/key",
        query: &query,
        headers: &headers,
        host: "here",
    };
    let now = date::parse_amz(DATE).expect("it is a date");
    if let Ok(Some(signed)) = signature::read(head(), "us-east-1", now) {
        assert!(
            signed.verify(head(), "a secret that nobody knows").is_err(),
            "it was guessed"
        );
    }
}

fn decode(decoder: &mut ChunkedDecoder, body: &[u8], step: usize) -> (Vec<u8>, S3Result<()>) {
    let mut out = Vec::new();
    for piece in body.chunks(step.max(1)) {
        if let Err(error) = decoder.push(Bytes::copy_from_slice(piece), |bytes| out.extend_from_slice(&bytes)) {
            return (out, Err(error));
        }
    }
    (out, Ok(()))
}

/// A body in the coding aws-chunked: the same however it is sliced, never longer than was announced, and nothing of a signed chunk that
/// was changed on the way.
pub fn chunked(data: &[u8]) {
    let [mode, step, at, flip, len_high, len_low, body @ ..] = data else {
        return;
    };
    let announced = (u64::from(*len_high) << 8 | u64::from(*len_low)).min(LEN_MAX);
    let trailers = (mode & 1 == 1).then_some("x-amz-checksum-crc32");
    let signer = || (mode & 2 == 2).then(|| ChunkSigner::of_test("secret", DATE, EMPTY_SHA256));
    let mut whole = ChunkedDecoder::new(announced, signer(), trailers);
    let mut sliced = ChunkedDecoder::new(announced, signer(), trailers);
    let (out, result) = decode(&mut whole, body, body.len());
    let (pieces, of_pieces) = decode(&mut sliced, body, usize::from(*step));
    assert!(out.len() as u64 <= announced && pieces.len() as u64 <= announced);
    assert_eq!(result.is_ok(), of_pieces.is_ok(), "however it is sliced");
    if result.is_ok() {
        assert_eq!(out, pieces);
        let (ended, of_pieces) = (whole.finish(), sliced.finish());
        assert_eq!(ended.is_ok(), of_pieces.is_ok());
        assert!(ended.is_err() || out.len() as u64 == announced);
    }
    // What was signed, with one bit turned around: nothing comes out but what was sent, up to where it was.
    let mut signing = ChunkSigner::of_test("secret", DATE, EMPTY_SHA256);
    let mut sent = Vec::new();
    for piece in body.chunks(8192).chain([&[][..]]) {
        let what = format!("{EMPTY_SHA256}\n{}", sha256_hex(piece));
        let signature = signing.sign_next("AWS4-HMAC-SHA256-PAYLOAD", &what);
        sent.extend_from_slice(format!("{:x};chunk-signature={signature}\r\n", piece.len()).as_bytes());
        sent.extend_from_slice(piece);
        sent.extend_from_slice(b"\r\n");
    }
    let check = |sent: &[u8]| {
        let signer = ChunkSigner::of_test("secret", DATE, EMPTY_SHA256);
        let mut decoder = ChunkedDecoder::new(body.len() as u64, Some(signer), None);
        let (out, result) = decode(&mut decoder, sent, 1 + usize::from(*step) * 64);
        (out, result.and_then(|()| decoder.finish().map(drop)))
    };
    let (out, result) = check(&sent);
    assert!(result.is_ok() && out == body, "what was signed is taken");
    let place = (usize::from(*at) * 257) % sent.len();
    sent[place] ^= 1 << (flip & 7);
    let (out, _) = check(&sent);
    assert!(body.starts_with(&out), "what was not signed came out");
}

/// The documents that requests have.
pub fn documents(data: &[u8]) {
    let _ = document::location_constraint(data);
    let _ = document::versioning(data);
    if let Ok(deletes) = document::deletes(data) {
        assert!((1..=1000).contains(&deletes.entries.len()));
    }
    if let Ok(parts) = document::complete(data) {
        assert!(parts.windows(2).all(|two| two[0].number < two[1].number));
    }
    if let Ok(tags) = tagging::of_document(data) {
        let again = tagging::of_document(tagging::document(&tags).as_bytes());
        assert_eq!(again.ok(), Some(tags));
    }
}

/// Values of headers: ranges, tags, sources of copies, dates, numbers of parts.
pub fn values(data: &str) {
    for len in [0, 1, 5 << 20] {
        if let Ok(Some(range)) = range::requested(Some(data), len) {
            assert!(range.start < range.end && range.end <= len);
        }
        if let Ok(range) = range::copied(data, len) {
            assert!(range.start < range.end && range.end <= len);
        }
    }
    if let Ok(number) = range::part_number(data) {
        assert!((1..=range::PART_NUMBER_MAX).contains(&number));
    }
    if let Ok(tags) = tagging::of_header(data) {
        assert!(tags.len() <= 10);
    }
    if let Ok(source) = CopySource::parse(data.as_bytes()) {
        assert!(!source.bucket.is_empty() && !source.key.is_empty());
    }
    if let Some(seconds) = date::parse_amz(data) {
        assert_eq!(date::amz(seconds), data);
    }
    let _ = date::parse_http(data);
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The targets' own claims, on inputs as a fuzzer would make them; the fuzzer goes on from here.
    #[test]
    fn the_claims_of_the_fuzz_targets_hold() {
        let mut random = fastrand::Rng::with_seed(1);
        let words = [
            "GET\ns3.test\n/bucket/a%20b?list-type=2&prefix=%2B\nrange: bytes=0-1\nif-match: \"abc\"",
            "PUT\nb.s3.test:80\n/k//../%ff?partNumber=1&uploadId=x\nx-amz-meta-a: 1\nx-amz-copy-source: /b/k?versionId=null",
            "X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential=A%2F20130524%2Fus-east-1%2Fs3%2Faws4_request&X-Amz-Date=20130524T000000Z&X-Amz-Expires=60&X-Amz-SignedHeaders=host&X-Amz-Signature=00\nhost: here",
            "\nauthorization: AWS4-HMAC-SHA256 Credential=A/20130524/us-east-1/s3/aws4_request,SignedHeaders=host;x-amz-content-sha256;x-amz-date,Signature=00\nx-amz-date: 20130524T000000Z\nx-amz-content-sha256: UNSIGNED-PAYLOAD\nhost: here",
            "bytes=5-99",
            "bytes=-5",
            "/bucket/key?versionId=x",
            "a=1&b=2",
            "20130524T000000Z",
            "10000",
            "<Delete><Object><Key>a</Key></Object><Quiet>true</Quiet></Delete>",
            "<CompleteMultipartUpload><Part><PartNumber>1</PartNumber><ETag>\"a\"</ETag></Part></CompleteMultipartUpload>",
            "<Tagging><TagSet><Tag><Key>a</Key><Value>&amp;</Value></Tag></TagSet></Tagging>",
            "\u{1}\u{3}\u{0}\u{0}\u{0}\u{5}5\r\nhello\r\n0\r\nx-amz-checksum-crc32:NhCmhg==\r\n\r\n",
        ];
        for round in 0..2000 {
            let mut bytes = words[round % words.len()].as_bytes().to_vec();
            for _ in 0..random.usize(..4) {
                let at = random.usize(..=bytes.len());
                match random.u8(..3) {
                    0 if at < bytes.len() => bytes[at] ^= 1 << random.u8(..8),
                    1 if at < bytes.len() => _ = bytes.remove(at),
                    _ => bytes.insert(at, random.u8(..)),
                }
            }
            chunked(&bytes);
            documents(&bytes);
            if let Ok(text) = std::str::from_utf8(&bytes) {
                address(text);
                signed(text);
                values(text);
            }
        }
    }
}
