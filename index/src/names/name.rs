//! What people call things: buckets, keys of objects, owners.
//!
//! A key is opaque: it is never normalised, and never a path of files. Rules: the S3 surface, section 1.

use std::fmt;
use std::net::Ipv4Addr;
use std::str::FromStr as _;

use crate::{Error, Result};

/// Bytes of a key, at most.
pub const OBJECT_KEY_LEN_MAX: usize = 1024;

/// Bytes of an owner's id, at most.
pub const OWNER_LEN_MAX: usize = 128;

const BUCKET_RULE: &str = "3 to 63 of a-z, 0-9, '.' and '-', beginning and ending with a letter or digit, without '..', '.-' or '-.', \
                           no address, not beginning with 'xn--', not ending with '-s3alias'";

/// Name of a bucket, one for the whole server.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BucketName(String);

impl BucketName {
    /// A bucket's name.
    ///
    /// Errors: [`Error::BadName`].
    pub fn new(name: &str) -> Result<Self> {
        let outer = |byte: &u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
        let bytes = name.as_bytes();
        let good = (3..=63).contains(&bytes.len())
            && bytes.iter().all(|byte| outer(byte) || b".-".contains(byte))
            && bytes.first().is_some_and(outer)
            && bytes.last().is_some_and(outer)
            && !["..", ".-", "-."].iter().any(|pair| name.contains(pair))
            && Ipv4Addr::from_str(name).is_err()
            && !name.starts_with("xn--")
            && !name.ends_with("-s3alias");
        if !good {
            return Err(Error::BadName {
                what: "bucket",
                name: name.chars().take(64).collect(),
                rule: BUCKET_RULE,
            });
        }
        Ok(Self(name.to_owned()))
    }

    /// As it is written.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for BucketName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Name of an object in its bucket: 1 to [`OBJECT_KEY_LEN_MAX`] bytes of UTF-8, whatever they are. Sorts by its bytes.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ObjectKey(String);

impl ObjectKey {
    /// An object's key.
    ///
    /// Errors: [`Error::BadName`].
    pub fn new(key: impl Into<String>) -> Result<Self> {
        let key = key.into();
        if key.is_empty() || key.len() > OBJECT_KEY_LEN_MAX {
            return Err(Error::BadName {
                what: "key",
                name: key.chars().take(64).collect(),
                rule: "1 to 1024 bytes",
            });
        }
        Ok(Self(key))
    }

    /// As it is written.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ObjectKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Who a bucket, a version or an access key belongs to: 1 to [`OWNER_LEN_MAX`] visible ASCII characters.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Owner(String);

impl Owner {
    /// An owner's id.
    ///
    /// Errors: [`Error::BadName`].
    pub fn new(id: &str) -> Result<Self> {
        if id.is_empty() || id.len() > OWNER_LEN_MAX || !id.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(Error::BadName {
                what: "owner",
                name: id.chars().take(64).collect(),
                rule: "1 to 128 visible ASCII characters",
            });
        }
        Ok(Self(id.to_owned()))
    }

    /// As it is written.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_buckets_follow_the_rules_of_s3() {
        for name in ["abc", "a-b.c", "0ab", "my.bucket-1", &"a".repeat(63)] {
            assert_eq!(BucketName::new(name).unwrap().as_str(), name);
        }
        let bad = [
            "",
            "ab",
            "-ab",
            "ab-",
            ".ab",
            "ab.",
            "a..b",
            "a.-b",
            "a-.b",
            "Abc",
            "a_b",
            "192.168.0.1",
            "xn--abc",
            "a-s3alias",
            "a b",
            "aé",
            &"a".repeat(64),
        ];
        for name in bad {
            assert!(matches!(BucketName::new(name), Err(Error::BadName { .. })), "{name:?}");
        }
    }

    #[test]
    fn keys_are_any_text_up_to_a_length() {
        for key in ["a", "a/", "a//b", "../a", "./a", "\0", "é", " ", &"x".repeat(1024)] {
            assert_eq!(ObjectKey::new(key).unwrap().as_str(), key);
        }
        assert!(ObjectKey::new("").is_err() && ObjectKey::new("x".repeat(1025)).is_err());
        assert!(ObjectKey::new("é".repeat(513)).is_err(), "bytes count, not characters");
    }

    #[test]
    fn owners_are_plain_words() {
        assert_eq!(Owner::new("user-1").unwrap().as_str(), "user-1");
        assert!(
            ["", "a b", "é", &"x".repeat(129)]
                .iter()
                .all(|id| Owner::new(id).is_err())
        );
    }
}
