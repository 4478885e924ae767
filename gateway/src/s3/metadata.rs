//! What headers say of an object that is written: content headers, the user's metadata, tags, storage class.
//!
//! Values are kept as they were sent. User metadata of bytes beyond ASCII go out encoded as RFC 2047 says.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use http::HeaderMap;

use crate::s3::error::{Code, S3Result};

/// Bytes of names and values of the user's metadata.
const USER_LEN_MAX: usize = 2 << 10;
/// Bytes of all names and values of a request's headers.
const HEADERS_LEN_MAX: usize = 16 << 10;

/// Content headers that are kept and returned: the header, and its tag in our rows.
pub(crate) const KEPT: [&str; 7] = [
    "content-type",
    "content-encoding",
    "content-language",
    "content-disposition",
    "cache-control",
    "expires",
    "x-amz-website-redirect-location",
];

/// What an object has where its writer sent no type.
pub(crate) const DEFAULT_TYPE: &str = "binary/octet-stream";

/// Headers of an object as its writer sent them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Metadata {
    /// Of [`KEPT`], those that were sent, in that order.
    pub(crate) headers: Vec<(&'static str, String)>,
    /// Without `x-amz-meta-`, in lower case, sorted.
    pub(crate) user: Vec<(String, String)>,
    /// `STANDARD` is none.
    pub(crate) storage_class: Option<String>,
}

/// Holds all headers of a request to the bound.
pub(crate) fn check_len(headers: &HeaderMap) -> S3Result<()> {
    let len: usize = headers
        .iter()
        .map(|(name, value)| name.as_str().len() + value.len() + 4)
        .sum();
    if len > HEADERS_LEN_MAX {
        return Err(Code::HeadersTooLarge.with("MaxSizeAllowed", HEADERS_LEN_MAX.to_string()));
    }
    Ok(())
}

impl Metadata {
    /// Errors: `MetadataTooLarge`, `InvalidStorageClass`, `InvalidArgument` for an ACL that would need policies.
    pub(crate) fn read(headers: &HeaderMap) -> S3Result<Self> {
        let mut kept = Vec::new();
        for name in KEPT {
            let Some(value) = joined(headers, name) else { continue };
            // The coding of the transfer is not that of the content.
            let value = if name == "content-encoding" {
                let codings = value
                    .split(',')
                    .map(str::trim)
                    .filter(|coding| *coding != "aws-chunked");
                codings.collect::<Vec<_>>().join(",")
            } else {
                value
            };
            if !value.is_empty() {
                kept.push((name, value));
            }
        }
        let mut user: Vec<(String, String)> = headers
            .keys()
            .filter_map(|name| {
                Some((
                    name.as_str().strip_prefix("x-amz-meta-")?.to_owned(),
                    joined(headers, name.as_str())?,
                ))
            })
            .filter(|(name, _)| !name.is_empty())
            .collect();
        user.sort_unstable();
        let len: usize = user.iter().map(|(name, value)| name.len() + value.len()).sum();
        if len > USER_LEN_MAX {
            return Err(Code::MetadataTooLarge
                .with("Size", len.to_string())
                .with("MaxSizeAllowed", USER_LEN_MAX.to_string()));
        }
        check_acl(headers)?;
        Ok(Self {
            headers: kept,
            user,
            storage_class: storage_class(headers)?,
        })
    }
}

/// Tiers come later: labels that are kept.
fn storage_class(headers: &HeaderMap) -> S3Result<Option<String>> {
    match joined(headers, "x-amz-storage-class").as_deref() {
        None | Some("" | "STANDARD") => Ok(None),
        Some(class @ "REDUCED_REDUNDANCY") => Ok(Some(class.to_owned())),
        Some(class) => Err(Code::InvalidStorageClass.with("StorageClassRequested", class)),
    }
}

/// Ownership is enforced: an ACL that leaves everything with the owner changes nothing, another would be a lie.
pub(crate) fn check_acl(headers: &HeaderMap) -> S3Result<()> {
    match joined(headers, "x-amz-acl").as_deref() {
        None | Some("" | "private" | "bucket-owner-full-control") => Ok(()),
        Some(
            "public-read" | "public-read-write" | "authenticated-read" | "bucket-owner-read" | "aws-exec-read"
            | "log-delivery-write",
        ) => Err(Code::NotImplemented.with("Header", "x-amz-acl")),
        Some(acl) => Err(Code::AclInvalid.argument("x-amz-acl", acl)),
    }
}

/// The values of a header, joined by commas, as text: UTF-8, else Latin-1 as HTTP has it. RFC 2047 is taken apart.
fn joined(headers: &HeaderMap, name: &str) -> Option<String> {
    let mut values = headers
        .get_all(name)
        .iter()
        .map(|value| match std::str::from_utf8(value.as_bytes()) {
            Ok(text) => text.to_owned(),
            Err(_) => value.as_bytes().iter().map(|&byte| char::from(byte)).collect(),
        });
    let mut text = values.next()?;
    for value in values {
        text.push(',');
        text.push_str(&value);
    }
    Some(text)
}

/// A value of the user's metadata as it goes out: RFC 2047 where it is not plain ASCII.
pub(crate) fn outgoing(value: &str) -> String {
    if value.bytes().all(|byte| matches!(byte, b' '..=b'~' | b'\t')) {
        return value.to_owned();
    }
    format!("=?UTF-8?B?{}?=", BASE64_STANDARD.encode(value))
}

/// `Content-MD5`. Errors: `InvalidDigest`.
pub(crate) fn content_md5(headers: &HeaderMap) -> S3Result<Option<[u8; 16]>> {
    let Some(value) = headers.get("content-md5") else {
        return Ok(None);
    };
    let text = value.to_str().unwrap_or("");
    let md5 = BASE64_STANDARD
        .decode(text)
        .ok()
        .and_then(|bytes| bytes.try_into().ok());
    match md5 {
        Some(md5) => Ok(Some(md5)),
        None => Err(Code::InvalidDigest.with("Content-MD5", text)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            let value = http::HeaderValue::from_bytes(value.as_bytes()).unwrap();
            headers.append(http::HeaderName::from_static(name), value);
        }
        headers
    }

    #[test]
    fn headers_are_kept_as_sent() {
        let metadata = Metadata::read(&headers(&[
            ("content-type", "text/html; charset=x"),
            ("content-encoding", "aws-chunked, gzip"),
            ("expires", "whenever"),
            ("x-amz-meta-b", "2"),
            ("x-amz-meta-a", "1"),
            ("x-amz-meta-a", "3"),
            ("x-amz-storage-class", "REDUCED_REDUNDANCY"),
        ]))
        .unwrap();
        assert_eq!(
            metadata.headers,
            [
                ("content-type", "text/html; charset=x".to_owned()),
                ("content-encoding", "gzip".to_owned()),
                ("expires", "whenever".to_owned())
            ]
        );
        assert_eq!(
            metadata.user,
            [("a".to_owned(), "1,3".to_owned()), ("b".to_owned(), "2".to_owned())]
        );
        assert_eq!(metadata.storage_class.as_deref(), Some("REDUCED_REDUNDANCY"));
        let plain = Metadata::read(&headers(&[
            ("content-encoding", "aws-chunked"),
            ("x-amz-storage-class", "STANDARD"),
        ]));
        assert_eq!(plain, Ok(Metadata::default()));
    }

    #[test]
    fn user_metadata_are_bounded() {
        let value = "x".repeat(2047);
        assert!(Metadata::read(&headers(&[("x-amz-meta-a", &value)])).is_ok());
        let error = Metadata::read(&headers(&[("x-amz-meta-ab", &value)])).unwrap_err();
        assert_eq!(error.code, Code::MetadataTooLarge);
        let all = "x".repeat(16 << 10);
        assert_eq!(
            check_len(&headers(&[("cookie", &all)])).unwrap_err().code,
            Code::HeadersTooLarge
        );
    }

    #[test]
    fn what_is_beyond_ascii_goes_out_encoded() {
        assert_eq!(outgoing("plain = ?"), "plain = ?");
        assert_eq!(outgoing("é"), "=?UTF-8?B?w6k=?=");
        let metadata = Metadata::read(&headers(&[("x-amz-meta-a", "é")])).unwrap();
        assert_eq!(metadata.user[0].1, "é");
    }

    #[test]
    fn classes_and_acls_that_would_be_lies_are_refused() {
        let of =
            |name: &'static str, value: &str| Metadata::read(&headers(&[(name, value)])).map_err(|error| error.code);
        assert_eq!(
            of("x-amz-storage-class", "GLACIER").unwrap_err(),
            Code::InvalidStorageClass
        );
        assert_eq!(of("x-amz-acl", "public-read").unwrap_err(), Code::NotImplemented);
        assert_eq!(of("x-amz-acl", "nonsense").unwrap_err(), Code::AclInvalid);
        assert!(of("x-amz-acl", "bucket-owner-full-control").is_ok());
    }

    #[test]
    fn an_md5_is_base64_of_16_bytes() {
        let of = |value: &str| content_md5(&headers(&[("content-md5", value)])).map_err(|error| error.code);
        assert!(of("XrY7u+Ae7tCTyyK7j1rNww==").unwrap().is_some());
        for wrong in ["", "XrY7u+Ae7tCTyyK7j1rN", "!!!"] {
            assert_eq!(of(wrong), Err(Code::InvalidDigest), "{wrong}");
        }
    }
}
