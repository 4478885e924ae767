//! Signature version 4, in the header and in the query; version 2 is refused.
//!
//! Two steps: [`read`] checks all that needs no secret (form, scope, time, which headers are signed), [`Signed::verify`] the
//! signature itself, in constant time. Both come before the first byte of a body is read. The path is signed as one encoding
//! of what it decodes to, never normalised.

use hmac::{Hmac, KeyInit as _, Mac as _};
use http::HeaderMap;
use http::header::{AUTHORIZATION, DATE};
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;

use crate::s3::date;
use crate::s3::error::{Code, S3Result};
use crate::s3::range::number;
use crate::s3::uri::{Query, decode, encode_path};

const ALGORITHM: &str = "AWS4-HMAC-SHA256";
/// Clocks of client and server may be so far apart.
const SKEW_SECONDS: i64 = 15 * 60;
/// A presigned link is good for so long at most.
const EXPIRES_MAX: u64 = 604_800;
/// SHA-256 of nothing.
const EMPTY_SHA256: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

/// What is signed of a request.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Head<'a> {
    pub(crate) method: &'a str,
    /// As it came, percent-encoded.
    pub(crate) path: &'a str,
    pub(crate) query: &'a Query,
    pub(crate) headers: &'a HeaderMap,
    /// `Host`, the authority of HTTP/2, or what a proxy says that it was asked.
    pub(crate) host: &'a str,
}

/// What a request says of its body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Payload {
    /// It hashes to this.
    Hashed([u8; 32]),
    /// Nothing.
    Unsigned,
    /// aws-chunked, each chunk signed; perhaps with trailers.
    SignedChunks { trailer: bool },
    /// aws-chunked with trailers, nothing signed.
    UnsignedChunks,
}

/// A request that says who it is from.
#[derive(Clone, Debug)]
pub(crate) struct Signed {
    pub(crate) access_key_id: String,
    pub(crate) payload: Payload,
    payload_text: String,
    /// As it came.
    signature: String,
    signed_headers: String,
    amz_date: String,
    region: String,
}

/// Signs what comes after the head of a request: chunks and trailers.
#[derive(Clone)]
pub(crate) struct ChunkSigner {
    key: [u8; 32],
    amz_date: String,
    scope: String,
    previous: String,
}

/// Reads and checks what a request says of its sender; `None`: nothing.
///
/// - `now`: seconds since 1970.
pub(crate) fn read(head: Head<'_>, region: &str, now: i64) -> S3Result<Option<Signed>> {
    let in_query =
        head.query.has("X-Amz-Signature") || head.query.has("X-Amz-Algorithm") || head.query.has("X-Amz-Credential");
    let in_query_v2 = head.query.has("Signature") && head.query.has("AWSAccessKeyId");
    let authorization = head.headers.get(AUTHORIZATION);
    if authorization.is_some() && (in_query || in_query_v2) {
        return Err(Code::OneAuthMechanism.into());
    }
    let signed = match authorization {
        Some(value) => of_header(head, value.to_str().unwrap_or(""), region, now)?,
        None if in_query => of_query(head, region, now)?,
        None if in_query_v2 => return Err(Code::SignatureV2.into()),
        None => return Ok(None),
    };
    // Whoever changes what is not signed on the way must not be heeded.
    let is_signed = |name: &str| signed.signed_headers.split(';').any(|own| own == name);
    let unsigned: Vec<&str> = std::iter::once("host")
        .chain(
            head.headers
                .keys()
                .map(http::HeaderName::as_str)
                .filter(|name| name.starts_with("x-amz-") || name.starts_with("x-cairn-")),
        )
        .filter(|name| !is_signed(name))
        // A presigned link says the hash in its query, or not at all; a client may say the same in a header.
        .filter(|name| !(in_query && *name == "x-amz-content-sha256"))
        .collect();
    if !unsigned.is_empty() {
        return Err(Code::HeadersNotSigned.with("HeadersNotSigned", unsigned.join(", ")));
    }
    if head.headers.contains_key("x-amz-security-token") || head.query.has("X-Amz-Security-Token") {
        return Err(Code::InvalidToken.into());
    }
    Ok(Some(signed))
}

fn of_header(head: Head<'_>, authorization: &str, region: &str, now: i64) -> S3Result<Signed> {
    let malformed = || Code::AuthorizationHeaderMalformed.into();
    if authorization.starts_with("AWS ") {
        return Err(Code::SignatureV2.into());
    }
    let Some(fields) = authorization.strip_prefix(ALGORITHM) else {
        return Err(Code::UnsupportedAuthorization.argument("Authorization", "…"));
    };
    let field = |name: &str| {
        fields
            .split(',')
            .filter_map(|field| field.trim().split_once('='))
            .find_map(|(own, value)| (own == name).then_some(value))
    };
    let (Some(credential), Some(signed_headers), Some(signature)) =
        (field("Credential"), field("SignedHeaders"), field("Signature"))
    else {
        return Err(malformed());
    };
    let text = |name: http::HeaderName| head.headers.get(name).and_then(|value| value.to_str().ok());
    let amz_date = match text(http::HeaderName::from_static("x-amz-date")) {
        Some(text) => text.to_owned(),
        None => {
            let seconds = text(DATE).and_then(date::parse_http).ok_or(Code::DateMissing)?;
            date::amz(i64::try_from(seconds).unwrap_or(i64::MAX))
        }
    };
    let time = date::parse_amz(&amz_date).ok_or(Code::DateMissing)?;
    let (access_key_id, region) = scope(credential, &amz_date, region)?;
    if (now - time).abs() > SKEW_SECONDS {
        return Err(skewed(&amz_date, now));
    }
    let payload_text = head
        .headers
        .get("x-amz-content-sha256")
        .ok_or(Code::ContentSha256Missing)?
        .to_str()
        .unwrap_or("");
    Ok(Signed {
        access_key_id,
        payload: Payload::parse(payload_text)?,
        payload_text: payload_text.to_owned(),
        signature: signature.to_owned(),
        signed_headers: signed_headers.to_owned(),
        amz_date,
        region,
    })
}

fn of_query(head: Head<'_>, region: &str, now: i64) -> S3Result<Signed> {
    let field = |name: &str| -> S3Result<&str> {
        head.query
            .filled(name)
            .ok_or_else(|| Code::AuthorizationQueryParametersError.into())
    };
    if field("X-Amz-Algorithm")? != ALGORITHM {
        return Err(Code::AuthorizationQueryParametersError.argument("X-Amz-Algorithm", field("X-Amz-Algorithm")?));
    }
    let (amz_date, expires) = (field("X-Amz-Date")?, field("X-Amz-Expires")?);
    let (signature, signed_headers) = (field("X-Amz-Signature")?, field("X-Amz-SignedHeaders")?);
    let time = date::parse_amz(amz_date).ok_or(Code::AuthorizationQueryParametersError)?;
    let expires = match number(expires) {
        None => return Err(Code::ExpiresNotANumber.into()),
        Some(0) => return Err(Code::ExpiresTooSmall.into()),
        Some(expires) if expires > EXPIRES_MAX => return Err(Code::ExpiresTooLarge.into()),
        // At most a week: it fits.
        Some(expires) => expires as i64,
    };
    let (access_key_id, region) = scope(field("X-Amz-Credential")?, amz_date, region)?;
    if time - now > SKEW_SECONDS {
        return Err(Code::NotYetValid
            .with("X-Amz-Date", amz_date)
            .with("ServerTime", date::iso(milliseconds(now))));
    }
    if now > time + expires {
        return Err(Code::RequestExpired
            .with("X-Amz-Expires", expires.to_string())
            .with("Expires", date::iso(milliseconds(time + expires)))
            .with("ServerTime", date::iso(milliseconds(now))));
    }
    let in_header = head
        .headers
        .get("x-amz-content-sha256")
        .and_then(|value| value.to_str().ok());
    let payload_text = head
        .query
        .filled("X-Amz-Content-Sha256")
        .or(in_header)
        .unwrap_or("UNSIGNED-PAYLOAD");
    Ok(Signed {
        access_key_id,
        payload: Payload::parse(payload_text)?,
        payload_text: payload_text.to_owned(),
        signature: signature.to_owned(),
        signed_headers: signed_headers.to_owned(),
        amz_date: amz_date.to_owned(),
        region,
    })
}

fn milliseconds(seconds: i64) -> u64 {
    u64::try_from(seconds).unwrap_or(0).saturating_mul(1000)
}

fn skewed(amz_date: &str, now: i64) -> crate::s3::error::S3Error {
    Code::RequestTimeTooSkewed
        .with("RequestTime", amz_date)
        .with("ServerTime", date::iso(milliseconds(now)))
        .with("MaxAllowedSkewMilliseconds", (SKEW_SECONDS * 1000).to_string())
}

/// Access key id and region of `<id>/<date>/<region>/s3/aws4_request`.
fn scope(credential: &str, amz_date: &str, region: &str) -> S3Result<(String, String)> {
    // An id of ours holds no slash, but a foreign one may.
    let mut parts = credential.rsplitn(5, '/');
    let (Some(terminator), Some(service), Some(own), Some(day), Some(id)) =
        (parts.next(), parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return Err(Code::AuthorizationHeaderMalformed.into());
    };
    if own != region {
        return Err(Code::AuthorizationHeaderMalformed.with("Region", region));
    }
    if terminator != "aws4_request" || service != "s3" || Some(day) != amz_date.get(..8) || id.is_empty() {
        return Err(Code::AuthorizationHeaderMalformed.into());
    }
    Ok((id.to_owned(), own.to_owned()))
}

impl Payload {
    fn parse(text: &str) -> S3Result<Self> {
        match text {
            "UNSIGNED-PAYLOAD" => Ok(Self::Unsigned),
            "STREAMING-UNSIGNED-PAYLOAD-TRAILER" => Ok(Self::UnsignedChunks),
            "STREAMING-AWS4-HMAC-SHA256-PAYLOAD" => Ok(Self::SignedChunks { trailer: false }),
            "STREAMING-AWS4-HMAC-SHA256-PAYLOAD-TRAILER" => Ok(Self::SignedChunks { trailer: true }),
            "STREAMING-AWS4-ECDSA-P256-SHA256-PAYLOAD" | "STREAMING-AWS4-ECDSA-P256-SHA256-PAYLOAD-TRAILER" => {
                Err(Code::NotImplemented.with("Header", "x-amz-content-sha256"))
            }
            hash => match from_hex(hash) {
                Some(hash) => Ok(Self::Hashed(hash)),
                None => Err(Code::ContentSha256Invalid.argument("x-amz-content-sha256", text)),
            },
        }
    }
}

impl Signed {
    /// Checks the signature with the key's secret.
    ///
    /// Returns what signs the chunks of the body. Errors: `SignatureDoesNotMatch`, with what was signed here, so that the
    /// authors of clients find the difference.
    pub(crate) fn verify(&self, head: Head<'_>, secret: &str) -> S3Result<ChunkSigner> {
        let canonical = self.canonical_request(head)?;
        let day = self.amz_date.get(..8).unwrap_or("");
        let scope = format!("{day}/{}/s3/aws4_request", self.region);
        let to_sign = format!(
            "{ALGORITHM}\n{}\n{scope}\n{}",
            self.amz_date,
            sha256_hex(canonical.as_bytes())
        );
        let key = signing_key(secret, day, &self.region);
        let expected = hex(&hmac(&key, to_sign.as_bytes()));
        if !bool::from(expected.as_bytes().ct_eq(self.signature.as_bytes())) {
            return Err(Code::SignatureDoesNotMatch
                .with("AWSAccessKeyId", &self.access_key_id)
                .with("StringToSign", to_sign)
                .with("SignatureProvided", &self.signature)
                .with("CanonicalRequest", canonical));
        }
        Ok(ChunkSigner {
            key,
            amz_date: self.amz_date.clone(),
            scope,
            previous: expected,
        })
    }

    fn canonical_request(&self, head: Head<'_>) -> S3Result<String> {
        let mut text = format!(
            "{}\n{}\n{}\n",
            head.method,
            encode_path(&decode(head.path)?),
            head.query.canonical()
        );
        for name in self.signed_headers.split(';') {
            text.push_str(name);
            text.push(':');
            // HTTP/2 has it elsewhere, and a proxy may have changed it.
            if name == "host" {
                text.push_str(head.host);
                text.push('\n');
                continue;
            }
            for (number, value) in head.headers.get_all(name).iter().enumerate() {
                if number > 0 {
                    text.push(',');
                }
                // Of bytes beyond ASCII all clients sign the UTF-8.
                let value = String::from_utf8_lossy(value.as_bytes());
                for (number, word) in value.split(' ').filter(|word| !word.is_empty()).enumerate() {
                    if number > 0 {
                        text.push(' ');
                    }
                    text.push_str(word);
                }
            }
            text.push('\n');
        }
        text.push('\n');
        text.push_str(&self.signed_headers);
        text.push('\n');
        text.push_str(&self.payload_text);
        Ok(text)
    }
}

/// The headers that sign a request as a client would, for tests.
#[cfg(test)]
pub(crate) fn sign(head: Head<'_>, id: &str, secret: &str, now: i64) -> HeaderMap {
    let amz_date = date::amz(now);
    let mut headers = head.headers.clone();
    headers.insert("x-amz-date", amz_date.parse().expect("digits"));
    headers.insert("x-amz-content-sha256", "UNSIGNED-PAYLOAD".parse().expect("ascii"));
    let mut names: Vec<&str> = headers.keys().map(http::HeaderName::as_str).chain(["host"]).collect();
    names.sort_unstable();
    names.dedup();
    let mut signed = Signed {
        access_key_id: id.to_owned(),
        payload: Payload::Unsigned,
        payload_text: "UNSIGNED-PAYLOAD".to_owned(),
        signature: String::new(),
        signed_headers: names.join(";"),
        amz_date: amz_date.clone(),
        region: "us-east-1".to_owned(),
    };
    let head = Head {
        headers: &headers,
        ..head
    };
    let canonical = signed.canonical_request(head).expect("a path that decodes");
    let scope = format!("{}/us-east-1/s3/aws4_request", &amz_date[..8]);
    let to_sign = format!("{ALGORITHM}\n{amz_date}\n{scope}\n{}", sha256_hex(canonical.as_bytes()));
    signed.signature = hex(&hmac(
        &signing_key(secret, &amz_date[..8], "us-east-1"),
        to_sign.as_bytes(),
    ));
    let authorization = format!(
        "{ALGORITHM} Credential={id}/{scope}, SignedHeaders={}, Signature={}",
        signed.signed_headers, signed.signature
    );
    headers.insert(AUTHORIZATION, authorization.parse().expect("ascii"));
    headers
}

impl ChunkSigner {
    /// Checks the next chunk's signature; the one after it is chained to it.
    ///
    /// - `sha256`: of the chunk's bytes, in hex.
    pub(crate) fn chunk(&mut self, sha256: &str, signature: &[u8]) -> S3Result<()> {
        self.next(
            "AWS4-HMAC-SHA256-PAYLOAD",
            &format!("{EMPTY_SHA256}\n{sha256}"),
            signature,
        )
    }

    /// Checks the trailers' signature.
    ///
    /// - `canonical`: `name:value\n` for each.
    pub(crate) fn trailer(&mut self, canonical: &str, signature: &[u8]) -> S3Result<()> {
        self.next("AWS4-HMAC-SHA256-TRAILER", &sha256_hex(canonical.as_bytes()), signature)
    }

    fn next(&mut self, kind: &str, what: &str, signature: &[u8]) -> S3Result<()> {
        let to_sign = format!("{kind}\n{}\n{}\n{}\n{what}", self.amz_date, self.scope, self.previous);
        let expected = hex(&hmac(&self.key, to_sign.as_bytes()));
        if !bool::from(expected.as_bytes().ct_eq(signature)) {
            return Err(Code::SignatureDoesNotMatch.with("StringToSign", to_sign));
        }
        self.previous = expected;
        Ok(())
    }

    /// What a client would send, for tests.
    #[cfg(any(test, feature = "fuzz"))]
    pub(crate) fn sign_next(&mut self, kind: &str, what: &str) -> String {
        let to_sign = format!("{kind}\n{}\n{}\n{}\n{what}", self.amz_date, self.scope, self.previous);
        self.previous = hex(&hmac(&self.key, to_sign.as_bytes()));
        self.previous.clone()
    }

    /// One of a request that nobody sent, for tests.
    #[cfg(any(test, feature = "fuzz"))]
    pub(crate) fn of_test(secret: &str, amz_date: &str, seed: &str) -> Self {
        Self {
            key: signing_key(secret, &amz_date[..8], "us-east-1"),
            amz_date: amz_date.to_owned(),
            scope: format!("{}/us-east-1/s3/aws4_request", &amz_date[..8]),
            previous: seed.to_owned(),
        }
    }
}

impl std::fmt::Debug for ChunkSigner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("ChunkSigner(…)")
    }
}

fn signing_key(secret: &str, day: &str, region: &str) -> [u8; 32] {
    let key = hmac(format!("AWS4{secret}").as_bytes(), day.as_bytes());
    let key = hmac(&key, region.as_bytes());
    hmac(&hmac(&key, b"s3"), b"aws4_request")
}

fn hmac(key: &[u8], message: &[u8]) -> [u8; 32] {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("HMAC takes keys of any length");
    mac.update(message);
    mac.finalize().into_bytes().into()
}

pub(crate) fn sha256_hex(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes))
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let mut text = String::with_capacity(2 * bytes.len());
    for byte in bytes {
        text.push(char::from(DIGITS[usize::from(byte >> 4)]));
        text.push(char::from(DIGITS[usize::from(byte & 15)]));
    }
    text
}

fn from_hex(text: &str) -> Option<[u8; 32]> {
    if text.len() != 64 || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return None;
    }
    let mut bytes = [0; 32];
    for (byte, pair) in bytes.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
        *byte = u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()?;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    // Key, secret and signatures of Amazon's own examples ("Authenticating Requests", S3 API reference).
    const ID: &str = concat!("AKIA", "IOSFODNN7EXAMPLE");
    const SECRET: &str = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY";
    const NOW: i64 = 1_369_353_600;

    struct Asked {
        method: &'static str,
        path: &'static str,
        query: String,
        headers: HeaderMap,
    }

    impl Asked {
        fn new(method: &'static str, path: &'static str, query: &str, headers: &[(&'static str, &str)]) -> Self {
            // The id is not written out in requests: whatever looks for keys in the sources would find it.
            let headers = headers.iter().map(|(name, value)| {
                let value = value.replace("@ID@", ID);
                (http::HeaderName::from_static(name), value.parse().unwrap())
            });
            Self {
                method,
                path,
                query: query.replace("@ID@", ID),
                headers: headers.collect(),
            }
        }

        fn check_at(&self, now: i64) -> S3Result<Option<ChunkSigner>> {
            let query = Query::parse(Some(&self.query))?;
            let head = Head {
                method: self.method,
                path: self.path,
                query: &query,
                headers: &self.headers,
                host: "examplebucket.s3.amazonaws.com",
            };
            let Some(signed) = read(head, "us-east-1", now)? else {
                return Ok(None);
            };
            assert_eq!(signed.access_key_id, ID);
            signed.verify(head, SECRET).map(Some)
        }

        fn refused(&self, now: i64) -> Code {
            self.check_at(now).unwrap_err().code
        }
    }

    fn get_with(change: impl Fn(&mut Asked)) -> Asked {
        let authorization = "AWS4-HMAC-SHA256 Credential=@ID@/20130524/us-east-1/s3/aws4_request,\
             SignedHeaders=host;range;x-amz-content-sha256;x-amz-date,\
             Signature=f0e8bdb87c964420e857bd35b5d6ed310bd44f0170aba48dd91039c6036bdb41";
        let mut asked = Asked::new(
            "GET",
            "/test.txt",
            "",
            &[
                ("host", "examplebucket.s3.amazonaws.com"),
                ("range", "bytes=0-9"),
                ("x-amz-content-sha256", EMPTY_SHA256),
                ("x-amz-date", "20130524T000000Z"),
                ("authorization", authorization),
            ],
        );
        change(&mut asked);
        asked
    }

    fn with_authorization(from: &str, to: &str) -> Asked {
        get_with(|asked| {
            let text = asked.headers["authorization"].to_str().unwrap().replace(from, to);
            asked.headers.insert("authorization", text.parse().unwrap());
        })
    }

    #[test]
    fn amazons_examples_are_taken() {
        assert!(get_with(|_| {}).check_at(NOW).unwrap().is_some());
        let put = Asked::new(
            "PUT",
            "/test%24file.text",
            "",
            &[
                ("host", "examplebucket.s3.amazonaws.com"),
                ("date", "Fri, 24 May 2013 00:00:00 GMT"),
                ("x-amz-date", "20130524T000000Z"),
                ("x-amz-storage-class", "REDUCED_REDUNDANCY"),
                (
                    "x-amz-content-sha256",
                    "44ce7dd67c959e0d3524ffac1771dfbba87d2b6b4b4e99e42034a8b803f8b072",
                ),
                (
                    "authorization",
                    "AWS4-HMAC-SHA256 Credential=@ID@/20130524/us-east-1/s3/aws4_request,\
                     SignedHeaders=date;host;x-amz-content-sha256;x-amz-date;x-amz-storage-class,\
                     Signature=98ad721746da40c64f1a55b78f14c238d841ea1380cd77a1b5971af0ece108bd",
                ),
            ],
        );
        assert!(put.check_at(NOW).unwrap().is_some());
        let list = Asked::new(
            "GET",
            "/",
            "max-keys=2&prefix=J",
            &[
                ("host", "examplebucket.s3.amazonaws.com"),
                ("x-amz-date", "20130524T000000Z"),
                ("x-amz-content-sha256", EMPTY_SHA256),
                (
                    "authorization",
                    "AWS4-HMAC-SHA256 Credential=@ID@/20130524/us-east-1/s3/aws4_request, \
                     SignedHeaders=host;x-amz-content-sha256;x-amz-date, \
                     Signature=34b48302e7b5fa45bde8084f4b7868a86f0a534bc59db6670ed5711ef69dc6f7",
                ),
            ],
        );
        assert!(list.check_at(NOW).unwrap().is_some());
    }

    fn presigned(change: impl Fn(String) -> String) -> Asked {
        let query = "X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential=@ID@%2F20130524%2Fus-east-1%2Fs3%2Faws4_request\
             &X-Amz-Date=20130524T000000Z&X-Amz-Expires=86400&X-Amz-SignedHeaders=host\
             &X-Amz-Signature=aeeed9bbccd4d02ee5c0109b86d86835f995330da4c265957d157751f604d404";
        Asked::new(
            "GET",
            "/test.txt",
            &change(query.to_owned()),
            &[("host", "examplebucket.s3.amazonaws.com")],
        )
    }

    #[test]
    fn presigned_links_are_good_from_their_date_until_they_expire() {
        let link = presigned(|query| query);
        assert!(link.check_at(NOW).unwrap().is_some());
        assert!(link.check_at(NOW + 86_400).unwrap().is_some());
        assert_eq!(link.refused(NOW + 86_401), Code::RequestExpired);
        assert!(link.check_at(NOW - 900).unwrap().is_some());
        assert_eq!(link.refused(NOW - 901), Code::NotYetValid);
    }

    #[test]
    fn presigned_links_say_for_how_long_and_whole() {
        for (expires, code) in [
            ("0", Code::ExpiresTooSmall),
            ("604801", Code::ExpiresTooLarge),
            ("-1", Code::ExpiresNotANumber),
            ("x", Code::ExpiresNotANumber),
            ("", Code::AuthorizationQueryParametersError),
        ] {
            let link = presigned(|query| query.replace("Expires=86400", &format!("Expires={expires}")));
            assert_eq!(link.refused(NOW), code, "{expires}");
        }
        for part in [
            "X-Amz-Date",
            "X-Amz-SignedHeaders",
            "X-Amz-Signature",
            "X-Amz-Algorithm",
            "X-Amz-Credential",
        ] {
            let link = presigned(|query| query.replace(part, "Y"));
            assert_eq!(link.refused(NOW), Code::AuthorizationQueryParametersError, "{part}");
        }
        let longer = presigned(|query| query.replace("Expires=86400", "Expires=86401"));
        assert_eq!(longer.refused(NOW), Code::SignatureDoesNotMatch);
        let more = presigned(|query| query + "&response-content-type=text%2Fhtml");
        assert_eq!(more.refused(NOW), Code::SignatureDoesNotMatch);
    }

    #[test]
    fn header_and_query_together_are_refused() {
        let mut link = presigned(|query| query);
        link.headers
            .insert("authorization", "AWS4-HMAC-SHA256 x".parse().unwrap());
        assert_eq!(link.refused(NOW), Code::OneAuthMechanism);
    }

    #[test]
    fn version_2_and_other_schemes_are_refused() {
        let of = |value: &str| {
            get_with(|asked| _ = asked.headers.insert("authorization", value.parse().unwrap())).refused(NOW)
        };
        assert_eq!(of("AWS someone:frJIUN8DYpKDtOLCwo//yllqDzg="), Code::SignatureV2);
        assert_eq!(of("Basic dTpw"), Code::UnsupportedAuthorization);
        let link = Asked::new("GET", "/k", "AWSAccessKeyId=a&Signature=b&Expires=1", &[]);
        assert_eq!(link.refused(NOW), Code::SignatureV2);
    }

    #[test]
    fn the_scope_is_day_region_service_and_terminator() {
        let region = with_authorization("us-east-1", "eu-west-1").check_at(NOW).unwrap_err();
        assert_eq!(region.code, Code::AuthorizationHeaderMalformed);
        assert!(region.fields.contains(&("Region", "us-east-1".to_owned())));
        for (from, to) in [
            ("20130524/", "20130525/"),
            ("/s3/", "/ec2/"),
            ("aws4_request", "aws4_x"),
            (&format!("{ID}/"), ""),
            ("Signature=", "S="),
        ] {
            assert_eq!(
                with_authorization(from, to).refused(NOW),
                Code::AuthorizationHeaderMalformed,
                "{from}"
            );
        }
    }

    #[test]
    fn clocks_may_be_a_quarter_of_an_hour_apart() {
        assert!(get_with(|_| {}).check_at(NOW + 900).is_ok());
        assert_eq!(get_with(|_| {}).refused(NOW + 901), Code::RequestTimeTooSkewed);
        assert_eq!(get_with(|_| {}).refused(NOW - 901), Code::RequestTimeTooSkewed);
        assert_eq!(
            get_with(|asked| _ = asked.headers.remove("x-amz-date")).refused(NOW),
            Code::DateMissing
        );
    }

    #[test]
    fn whatever_is_changed_on_the_way_no_longer_matches() {
        let changes: [fn(&mut Asked); 5] = [
            |asked| asked.method = "HEAD",
            |asked| asked.path = "/test.tx",
            |asked| asked.query = "a=b".to_owned(),
            |asked| _ = asked.headers.insert("range", "bytes=0-8".parse().unwrap()),
            |asked| {
                _ = asked
                    .headers
                    .insert("x-amz-content-sha256", "UNSIGNED-PAYLOAD".parse().unwrap())
            },
        ];
        for (number, change) in changes.into_iter().enumerate() {
            assert_eq!(
                get_with(change).refused(NOW),
                Code::SignatureDoesNotMatch,
                "change {number}"
            );
        }
        assert_eq!(
            with_authorization("bdb41", "bdb42").refused(NOW),
            Code::SignatureDoesNotMatch
        );
    }

    #[test]
    fn host_and_all_of_x_amz_are_signed() {
        let added = get_with(|asked| _ = asked.headers.insert("x-amz-meta-a", "1".parse().unwrap()));
        assert_eq!(added.refused(NOW), Code::HeadersNotSigned);
        assert_eq!(with_authorization("=host;", "=").refused(NOW), Code::HeadersNotSigned);
        let mut link = presigned(|query| query);
        link.headers.insert("x-amz-acl", "public-read".parse().unwrap());
        assert_eq!(link.refused(NOW), Code::HeadersNotSigned);
    }

    #[test]
    fn what_the_body_is_has_to_be_said() {
        let of = |value: &str| {
            get_with(|asked| _ = asked.headers.insert("x-amz-content-sha256", value.parse().unwrap())).refused(NOW)
        };
        assert_eq!(of("abc"), Code::ContentSha256Invalid);
        assert_eq!(of("STREAMING-AWS4-ECDSA-P256-SHA256-PAYLOAD"), Code::NotImplemented);
        assert_eq!(
            get_with(|asked| _ = asked.headers.remove("x-amz-content-sha256")).refused(NOW),
            Code::ContentSha256Missing
        );
    }

    #[test]
    fn who_says_nothing_is_anonymous_and_tokens_are_not_known_yet() {
        assert!(
            Asked::new("GET", "/k", "", &[("host", "x")])
                .check_at(NOW)
                .unwrap()
                .is_none()
        );
        let token = presigned(|query| query + "&X-Amz-Security-Token=t");
        assert_eq!(token.refused(NOW), Code::InvalidToken);
    }
}
