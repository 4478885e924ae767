//! The `aws-chunked` coding: chunks with sizes, signed one after the other or not at all, and trailers behind the last.
//!
//! Sans-IO: bytes in, decoded bytes out. Invariants: no byte of a signed chunk comes out before its signature was checked; the
//! decoded length is exactly what was announced; a stream without its last chunk, of no bytes, is incomplete wherever it
//! stops; nothing is kept but one chunk of at most [`CHUNK_LEN_MAX`] bytes.

use bytes::{Buf as _, Bytes};
use sha2::{Digest as _, Sha256};

use crate::s3::error::{Code, S3Result};
use crate::s3::signature::{ChunkSigner, hex};

/// Bytes of a signed chunk, which is held until its signature is checked.
pub(crate) const CHUNK_LEN_MAX: u64 = 16 << 20;
/// All signed chunks but the last have as many at least.
const CHUNK_LEN_MIN: u64 = 8 << 10;
/// Bytes of a chunk's head.
const HEAD_LEN_MAX: usize = 256;
/// Bytes of all trailers.
const TRAILERS_LEN_MAX: usize = 4 << 10;

/// Takes a body apart.
#[derive(Debug)]
pub(crate) struct ChunkedDecoder {
    state: State,
    /// Bytes of a head, an end or trailers that are not whole yet.
    pending: Vec<u8>,
    /// Of signed chunks.
    signer: Option<ChunkSigner>,
    /// Bytes of the chunk at hand, until its signature is checked.
    held: Vec<Bytes>,
    hash: Sha256,
    signature: Vec<u8>,
    /// Decoded bytes that are still to come.
    missing: u64,
    chunk_len_before: Option<u64>,
    /// Names in `x-amz-trailer`, in lower case; `None`: trailers are not part of this coding.
    trailers: Option<Vec<String>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Head,
    Data { left: u64 },
    DataEnd,
    Trailers,
}

impl ChunkedDecoder {
    /// - `len`: decoded bytes, `x-amz-decoded-content-length`.
    /// - `signer`: checks signed chunks; without one nothing is signed.
    /// - `trailers`: the value of `x-amz-trailer` where the coding has trailers.
    pub(crate) fn new(len: u64, signer: Option<ChunkSigner>, trailers: Option<&str>) -> Self {
        let names = |text: &str| {
            let names = text.split(',').map(|name| name.trim().to_ascii_lowercase());
            names.filter(|name| !name.is_empty()).collect()
        };
        Self {
            state: State::Head,
            pending: Vec::new(),
            signer,
            held: Vec::new(),
            hash: Sha256::new(),
            signature: Vec::new(),
            missing: len,
            chunk_len_before: None,
            trailers: trailers.map(names),
        }
    }

    /// Whether trailers come behind the last chunk.
    pub(crate) fn has_trailers(&self) -> bool {
        self.trailers.is_some()
    }

    /// Bytes of a signed chunk that is not whole yet.
    pub(crate) fn held_len(&self) -> usize {
        self.held.iter().map(Bytes::len).sum()
    }

    /// Takes the next bytes of the body and gives `out` those that they decode to.
    ///
    /// Errors: `IncompleteBody` for what breaks the coding or the announced length, `SignatureDoesNotMatch`,
    /// `InvalidChunkSizeError`, `MalformedTrailerError`.
    pub(crate) fn push(&mut self, mut bytes: Bytes, mut out: impl FnMut(Bytes)) -> S3Result<()> {
        while !bytes.is_empty() {
            match self.state {
                State::Head => {
                    if self.take_line(&mut bytes)? {
                        let line = std::mem::take(&mut self.pending);
                        self.begin_chunk(&line)?;
                    }
                }
                State::Data { left } => {
                    let len = left.min(bytes.len() as u64);
                    let piece = bytes.split_to(usize::try_from(len).unwrap_or(bytes.len()));
                    if self.signer.is_some() {
                        self.hash.update(&piece);
                        self.held.push(piece);
                    } else {
                        out(piece);
                    }
                    self.state = State::Data { left: left - len };
                    if left == len {
                        self.check_chunk()?;
                        self.held.drain(..).for_each(&mut out);
                        self.state = State::DataEnd;
                    }
                }
                State::DataEnd => {
                    self.pending.push(bytes.get_u8());
                    match self.pending.as_slice() {
                        b"\r\n" => {
                            self.pending.clear();
                            self.state = State::Head;
                        }
                        b"\r" => {}
                        _ => return Err(Code::IncompleteBody.into()),
                    }
                }
                State::Trailers => {
                    if self.pending.len() + bytes.len() > TRAILERS_LEN_MAX {
                        return Err(Code::MalformedTrailer.into());
                    }
                    self.pending.extend_from_slice(&bytes);
                    bytes.clear();
                }
            }
        }
        Ok(())
    }

    /// The body has ended: checks that it was whole, and answers its trailers, names in lower case.
    pub(crate) fn finish(mut self) -> S3Result<Vec<(String, String)>> {
        if self.state != State::Trailers || self.missing > 0 {
            return Err(Code::IncompleteBody.into());
        }
        let text = String::from_utf8(self.pending).map_err(|_| Code::MalformedTrailer)?;
        let Some(expected) = self.trailers else {
            return if text.trim_matches(['\r', '\n']).is_empty() {
                Ok(Vec::new())
            } else {
                Err(Code::IncompleteBody.into())
            };
        };
        let mut trailers = Vec::new();
        let mut signature = None;
        for line in text
            .split('\n')
            .map(|line| line.trim_end_matches('\r'))
            .filter(|line| !line.is_empty())
        {
            let (name, value) = line.split_once(':').ok_or(Code::MalformedTrailer)?;
            let (name, value) = (name.trim().to_ascii_lowercase(), value.trim().to_owned());
            if name == "x-amz-trailer-signature" {
                signature = Some(value);
            } else {
                trailers.push((name, value));
            }
        }
        if let Some(signer) = &mut self.signer {
            let canonical: String = trailers
                .iter()
                .map(|(name, value)| format!("{name}:{value}\n"))
                .collect();
            let signature = signature.ok_or(Code::MalformedTrailer)?;
            signer.trailer(&canonical, signature.as_bytes())?;
        }
        let mut names: Vec<&String> = trailers.iter().map(|(name, _)| name).collect();
        let mut expected: Vec<&String> = expected.iter().collect();
        names.sort_unstable();
        expected.sort_unstable();
        if names != expected {
            return Err(Code::MalformedTrailer.into());
        }
        Ok(trailers)
    }

    /// Moves bytes up to the end of a line into `pending`, without `\r\n`. `false`: it has not ended yet.
    fn take_line(&mut self, bytes: &mut Bytes) -> S3Result<bool> {
        let end = bytes.iter().position(|&byte| byte == b'\n');
        let taken = bytes.split_to(end.map_or(bytes.len(), |end| end + 1));
        self.pending.extend_from_slice(&taken);
        if self.pending.len() > HEAD_LEN_MAX {
            return Err(Code::IncompleteBody.into());
        }
        if end.is_none() {
            return Ok(false);
        }
        let len = self.pending.strip_suffix(b"\r\n").ok_or(Code::IncompleteBody)?.len();
        self.pending.truncate(len);
        Ok(true)
    }

    /// `<hex length>[;chunk-signature=<64 hex digits>]`.
    fn begin_chunk(&mut self, line: &[u8]) -> S3Result<()> {
        let line = std::str::from_utf8(line).map_err(|_| Code::IncompleteBody)?;
        let (len, extension) = line.split_once(';').unwrap_or((line, ""));
        let is_hex = !len.is_empty() && len.len() <= 16 && len.bytes().all(|byte| byte.is_ascii_hexdigit());
        let len = match u64::from_str_radix(len, 16) {
            Ok(len) if is_hex => len,
            _ => return Err(Code::IncompleteBody.into()),
        };
        if len > self.missing {
            return Err(Code::IncompleteBody.into());
        }
        if self.signer.is_some() {
            if len > CHUNK_LEN_MAX {
                return Err(Code::ChunkTooLarge.into());
            }
            if len > 0 && self.chunk_len_before.is_some_and(|before| before < CHUNK_LEN_MIN) {
                return Err(Code::InvalidChunkSize.into());
            }
            let signature = extension.strip_prefix("chunk-signature=");
            self.signature = signature.ok_or(Code::IncompleteBody)?.as_bytes().to_vec();
        }
        self.chunk_len_before = Some(len);
        self.missing -= len;
        if len > 0 {
            self.state = State::Data { left: len };
            return Ok(());
        }
        self.check_chunk()?;
        if self.missing > 0 {
            return Err(Code::IncompleteBody.into());
        }
        self.state = State::Trailers;
        Ok(())
    }

    fn check_chunk(&mut self) -> S3Result<()> {
        if let Some(signer) = &mut self.signer {
            let hash = std::mem::take(&mut self.hash).finalize();
            signer.chunk(&hex(&hash), &self.signature)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::s3::signature::sha256_hex;

    // Amazon's example ("Signature Calculations for the Authorization Header: Transferring Payload in Multiple Chunks").
    const SECRET: &str = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY";
    const SEED: &str = "4f232c4386841ef735655705268965c44a0e4690baa4adea153f7db9fa80a0a9";

    /// Bytes and trailers.
    type Decoded = (Vec<u8>, Vec<(String, String)>);

    fn signer() -> ChunkSigner {
        ChunkSigner::of_test(SECRET, "20130524T000000Z", SEED)
    }

    fn amazons_example() -> Vec<u8> {
        let mut body = Vec::new();
        for (len, signature) in [
            (
                65_536,
                "ad80c730a21e5b8d04586a2213dd63b9a0e99e0e2307b0ade35a65485a288648",
            ),
            (1024, "0055627c9e194cb4542bae2aa5492e3c1575bbb81b612b7d234b86a503ef5497"),
            (0, "b6c6ea8a5354eaf15b3cb7646744f4275b71ea724fed81ceb9323e279d449df9"),
        ] {
            body.extend_from_slice(format!("{len:x};chunk-signature={signature}\r\n").as_bytes());
            body.extend(std::iter::repeat_n(b'a', len));
            body.extend_from_slice(b"\r\n");
        }
        body
    }

    fn decode(mut decoder: ChunkedDecoder, body: &[u8], step: usize) -> Result<Decoded, Code> {
        let mut decoded = Vec::new();
        for piece in body.chunks(step) {
            decoder
                .push(Bytes::copy_from_slice(piece), |bytes| decoded.extend_from_slice(&bytes))
                .map_err(|error| error.code)?;
        }
        decoder
            .finish()
            .map(|trailers| (decoded, trailers))
            .map_err(|error| error.code)
    }

    fn signed(body: &[u8]) -> Result<usize, Code> {
        decode(ChunkedDecoder::new(66_560, Some(signer()), None), body, 4096).map(|(decoded, _)| decoded.len())
    }

    #[test]
    fn amazons_example_is_taken_however_it_is_sliced() {
        let body = amazons_example();
        for step in [1, 7, 1000, body.len()] {
            let decoder = ChunkedDecoder::new(66_560, Some(signer()), None);
            let (decoded, trailers) = decode(decoder, &body, step).unwrap();
            assert_eq!(decoded, vec![b'a'; 66_560]);
            assert!(trailers.is_empty());
        }
    }

    #[test]
    fn a_stream_that_stops_anywhere_is_incomplete() {
        let body = amazons_example();
        // The very last line end may be missing: all chunks were there.
        for len in (0..body.len() - 2).step_by(997).chain(body.len() - 100..body.len() - 2) {
            assert_eq!(signed(&body[..len]), Err(Code::IncompleteBody), "{len} bytes");
        }
        assert_eq!(signed(&body), Ok(66_560));
    }

    #[test]
    fn no_byte_of_a_chunk_comes_out_before_its_signature_was_checked() {
        let mut body = amazons_example();
        let second = 65_536 + 100 + 200;
        body[second] = b'b';
        let mut decoder = ChunkedDecoder::new(66_560, Some(signer()), None);
        let mut decoded = 0;
        let result = decoder.push(Bytes::from(body), |bytes| decoded += bytes.len());
        assert_eq!(result.unwrap_err().code, Code::SignatureDoesNotMatch);
        assert_eq!(decoded, 65_536);
    }

    #[test]
    fn the_announced_length_is_met_exactly() {
        let body = amazons_example();
        for len in [0, 66_559, 66_561, 1 << 40] {
            let decoder = ChunkedDecoder::new(len, Some(signer()), None);
            assert_eq!(decode(decoder, &body, 4096).unwrap_err(), Code::IncompleteBody, "{len}");
        }
    }

    fn unsigned(body: &str, len: u64, trailers: &str) -> Result<Decoded, Code> {
        decode(ChunkedDecoder::new(len, None, Some(trailers)), body.as_bytes(), 3)
    }

    #[test]
    fn unsigned_chunks_end_in_trailers() {
        let body = "5\r\nhello\r\n6\r\n world\r\n0\r\nx-amz-checksum-crc32:DUoRhQ==\r\n\r\n";
        let (decoded, trailers) = unsigned(body, 11, "x-amz-checksum-crc32").unwrap();
        assert_eq!(decoded, b"hello world");
        assert_eq!(trailers, [("x-amz-checksum-crc32".to_owned(), "DUoRhQ==".to_owned())]);
        let (decoded, _) = unsigned("0\r\nx-amz-checksum-crc32:AAAAAA==\r\n\r\n", 0, "X-Amz-Checksum-Crc32").unwrap();
        assert!(decoded.is_empty());
    }

    #[test]
    fn trailers_are_those_that_were_announced() {
        let body = "1\r\na\r\n0\r\nx-amz-checksum-crc32:DUoRhQ==\r\n\r\n";
        for announced in ["", "x-amz-checksum-crc32c", "x-amz-checksum-crc32,x-amz-checksum-sha1"] {
            assert_eq!(unsigned(body, 1, announced), Err(Code::MalformedTrailer), "{announced}");
        }
        assert_eq!(
            unsigned("0\r\nnonsense\r\n\r\n", 0, "nonsense"),
            Err(Code::MalformedTrailer)
        );
        let endless = format!("0\r\na:{}", "x".repeat(5000));
        assert_eq!(unsigned(&endless, 0, "a"), Err(Code::MalformedTrailer));
    }

    #[test]
    fn what_is_no_chunk_is_refused() {
        for body in [
            "hello",
            "5\nhello\r\n",
            "x\r\n",
            "\r\n",
            "-1\r\n",
            "+1\r\na",
            "5\r\nhelloX\r\n",
            "ffffffffffffffff1\r\n",
            "5 \r\nhello",
        ] {
            assert_eq!(unsigned(body, 5, ""), Err(Code::IncompleteBody), "{body}");
        }
        let head = "1;".to_owned() + &"x".repeat(300);
        assert_eq!(unsigned(&head, 5, ""), Err(Code::IncompleteBody));
    }

    /// A signed body of chunks of these lengths, with a signed trailer.
    fn signed_with_trailer(lens: &[usize]) -> Vec<u8> {
        const EMPTY: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        let mut signer = signer();
        let mut body = Vec::new();
        for &len in lens.iter().chain([&0]) {
            let data = vec![7; len];
            let signature = signer.sign_next("AWS4-HMAC-SHA256-PAYLOAD", &format!("{EMPTY}\n{}", sha256_hex(&data)));
            body.extend_from_slice(format!("{len:x};chunk-signature={signature}\r\n").as_bytes());
            body.extend_from_slice(&data);
            if len > 0 {
                body.extend_from_slice(b"\r\n");
            }
        }
        let signature = signer.sign_next(
            "AWS4-HMAC-SHA256-TRAILER",
            &sha256_hex(b"x-amz-checksum-crc32:AAAAAA==\n"),
        );
        let trailer = format!("x-amz-checksum-crc32:AAAAAA==\r\nx-amz-trailer-signature:{signature}\r\n\r\n");
        body.extend_from_slice(trailer.as_bytes());
        body
    }

    fn decode_signed_with_trailer(body: &[u8], len: u64) -> Result<usize, Code> {
        let decoder = ChunkedDecoder::new(len, Some(signer()), Some("x-amz-checksum-crc32"));
        decode(decoder, body, 1000).map(|(decoded, _)| decoded.len())
    }

    #[test]
    fn signed_trailers_are_checked() {
        let body = signed_with_trailer(&[10_000, 5]);
        assert_eq!(decode_signed_with_trailer(&body, 10_005), Ok(10_005));
        let text = String::from_utf8_lossy(&body).replace("AAAAAA==", "AAAAAB==");
        assert_eq!(
            decode_signed_with_trailer(text.as_bytes(), 10_005),
            Err(Code::SignatureDoesNotMatch)
        );
        let text = String::from_utf8_lossy(&body).replace("x-amz-trailer-signature", "x-other");
        assert_eq!(
            decode_signed_with_trailer(text.as_bytes(), 10_005),
            Err(Code::MalformedTrailer)
        );
    }

    #[test]
    fn signed_chunks_are_neither_tiny_nor_huge() {
        let body = signed_with_trailer(&[8191, 5]);
        assert_eq!(decode_signed_with_trailer(&body, 8196), Err(Code::InvalidChunkSize));
        let head = format!("{:x};chunk-signature={SEED}\r\n", CHUNK_LEN_MAX + 1);
        assert_eq!(
            decode_signed_with_trailer(head.as_bytes(), 1 << 30),
            Err(Code::ChunkTooLarge)
        );
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(body in prop::collection::vec(prop::sample::select(b"0123af;:\r\nx".to_vec()), 0..200), step in 1_usize..9) {
            let _ = decode(ChunkedDecoder::new(40, None, Some("x")), &body, step);
            let _ = decode(ChunkedDecoder::new(40, Some(signer()), Some("x")), &body, step);
        }
    }
}
