//! `x-amz-copy-source`: `/bucket/key` or `bucket/key`, percent-encoded, with `?versionId=` or without.

use crate::s3::error::{Code, S3Result};
use crate::s3::uri::{check_key, decode, is_bucket_name};

/// What is copied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct CopySource {
    pub(crate) bucket: String,
    pub(crate) key: String,
    /// As sent, not checked.
    pub(crate) version_id: Option<String>,
}

impl CopySource {
    /// Errors: `InvalidArgument`; `InvalidBucketName`, `KeyTooLongError` for names that none can have.
    pub(crate) fn parse(header: &[u8]) -> S3Result<Self> {
        let invalid = |text: &str| Code::CopySourceInvalid.argument("x-amz-copy-source", text);
        let text = std::str::from_utf8(header).map_err(|_| invalid(""))?;
        // A question mark of the key is encoded; one that is not begins the version.
        let (path, version_id) = match text.rsplit_once("?versionId=") {
            Some((path, version)) => (path, Some(decode(version)?)),
            None => (text, None),
        };
        // Some clients encode the slash between bucket and key too.
        let path = decode(path).map_err(|_| invalid(text))?;
        let path = path.strip_prefix('/').unwrap_or(&path);
        let (bucket, key) = path.split_once('/').ok_or_else(|| invalid(text))?;
        if bucket.is_empty() || key.is_empty() {
            return Err(invalid(text));
        }
        if !is_bucket_name(bucket) {
            return Err(Code::InvalidBucketName.with("BucketName", bucket));
        }
        check_key(key)?;
        Ok(Self {
            bucket: bucket.to_owned(),
            key: key.to_owned(),
            version_id,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sources_are_read_with_and_without_slash_and_version() {
        for (header, key, version) in [
            ("abc/k", "k", None),
            ("/abc/k", "k", None),
            ("/abc//k/", "/k/", None),
            ("abc%2Fk", "k", None),
            ("/abc/a%20b%3F+%25?versionId=v1", "a b?+%", Some("v1")),
            ("abc/a?versionId=null", "a", Some("null")),
            ("abc/a?b", "a?b", None),
        ] {
            let source = CopySource::parse(header.as_bytes()).unwrap();
            assert_eq!(
                (
                    source.bucket.as_str(),
                    source.key.as_str(),
                    source.version_id.as_deref()
                ),
                ("abc", key, version),
                "{header}"
            );
        }
    }

    #[test]
    fn what_names_no_object_is_refused() {
        for (header, code) in [
            ("", Code::CopySourceInvalid),
            ("abc", Code::CopySourceInvalid),
            ("/abc", Code::CopySourceInvalid),
            ("abc/", Code::CopySourceInvalid),
            ("//k", Code::CopySourceInvalid),
            ("AB/k", Code::InvalidBucketName),
            ("abc/%ff", Code::CopySourceInvalid),
        ] {
            assert_eq!(CopySource::parse(header.as_bytes()).unwrap_err().code, code, "{header}");
        }
    }
}
