//! What a request is addressed to: Host and path to bucket and key, and the query as pairs.
//!
//! Invariants: a key is what one percent-decoding of the path gives, opaque, no segment of it ever normalised; a Host is a
//! bucket's only where it is `bucket.base` or `bucket.region.base` of a base domain that is configured.

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};

use crate::s3::error::{Code, S3Result};

/// All but RFC 3986's unreserved characters.
const RESERVED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~');
const RESERVED_BUT_SLASH: &AsciiSet = &RESERVED.remove(b'/');
/// Bytes of a key.
pub(crate) const KEY_LEN_MAX: usize = 1024;

/// What a request is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Target {
    /// The service: `/`.
    Service,
    /// A bucket. The name is valid; nothing says that it is there.
    Bucket(String),
    /// A key of a bucket, not checked yet: an absent bucket is told first.
    Object { bucket: String, key: String },
}

impl Target {
    pub(crate) fn bucket(&self) -> Option<&str> {
        match self {
            Self::Service => None,
            Self::Bucket(bucket) | Self::Object { bucket, .. } => Some(bucket),
        }
    }

    pub(crate) fn key(&self) -> Option<&str> {
        match self {
            Self::Object { key, .. } => Some(key),
            _ => None,
        }
    }

    /// What `Host` and the path of the request line are about.
    ///
    /// - `path`: as it came, percent-encoded.
    /// - `bases`: base domains of virtual-host style, lower case.
    /// - Errors: `InvalidURI` for what is not UTF-8, `InvalidBucketName`.
    pub(crate) fn parse(host: Option<&str>, path: &str, bases: &[String], region: &str) -> S3Result<Self> {
        let path = path.strip_prefix('/').unwrap_or(path);
        let (bucket, key) = match host.and_then(|host| bucket_of_host(host, bases, region)) {
            Some(bucket) => (bucket, path),
            None => {
                if path.is_empty() {
                    return Ok(Self::Service);
                }
                let (bucket, key) = path.split_once('/').unwrap_or((path, ""));
                (decode(bucket)?, key)
            }
        };
        if !is_bucket_name(&bucket) {
            return Err(Code::InvalidBucketName.with("BucketName", bucket));
        }
        Ok(if key.is_empty() {
            Self::Bucket(bucket)
        } else {
            let key = decode(key)?;
            Self::Object { bucket, key }
        })
    }
}

fn bucket_of_host(host: &str, bases: &[String], region: &str) -> Option<String> {
    let host = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => host,
    };
    let host = host.strip_suffix('.').unwrap_or(host).to_ascii_lowercase();
    bases.iter().find_map(|base| {
        let label = host.strip_suffix(base.as_str())?.strip_suffix('.')?;
        let bucket = match label.strip_suffix(region) {
            Some("") => return None,
            Some(bucket) => bucket.strip_suffix('.').unwrap_or(label),
            None => label,
        };
        Some(bucket.to_owned())
    })
}

/// Whether a bucket may have this name: Amazon's rules for new buckets.
pub(crate) fn is_bucket_name(name: &str) -> bool {
    let is_edge = |byte: Option<&u8>| byte.is_some_and(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit());
    let bytes = name.as_bytes();
    (3..=63).contains(&bytes.len())
        && bytes
            .iter()
            .all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'.' | b'-'))
        && is_edge(bytes.first())
        && is_edge(bytes.last())
        && !["..", ".-", "-."].iter().any(|pair| name.contains(pair))
        && name.parse::<std::net::Ipv4Addr>().is_err()
        && !name.starts_with("xn--")
        && !name.ends_with("-s3alias")
}

/// Refuses keys that are none: empty, or too long.
pub(crate) fn check_key(key: &str) -> S3Result<()> {
    if key.is_empty() || key.len() > KEY_LEN_MAX {
        return Err(Code::KeyTooLong
            .with("Size", key.len().to_string())
            .with("MaxSizeAllowed", KEY_LEN_MAX.to_string()));
    }
    Ok(())
}

/// One percent-decoding.
pub(crate) fn decode(text: &str) -> S3Result<String> {
    match percent_decode_str(text).decode_utf8() {
        Ok(decoded) => Ok(decoded.into_owned()),
        Err(_) => Err(Code::InvalidUri.into()),
    }
}

/// All but unreserved characters as `%XX`.
pub(crate) fn encode(text: &str) -> String {
    utf8_percent_encode(text, RESERVED).to_string()
}

/// As [`encode`], but `/` stays.
pub(crate) fn encode_path(text: &str) -> String {
    utf8_percent_encode(text, RESERVED_BUT_SLASH).to_string()
}

/// The query of a request, decoded; a pair without `=` has no value.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Query(Vec<(String, Option<String>)>);

impl Query {
    /// `+` is a space, as in forms: signers send `%2B` for plus.
    ///
    /// Errors: `InvalidURI` for what is not UTF-8.
    pub(crate) fn parse(query: Option<&str>) -> S3Result<Self> {
        let word = |text: &str| decode(&text.replace('+', " "));
        let pairs = query.unwrap_or("").split('&').filter(|pair| !pair.is_empty());
        let pairs = pairs.map(|pair| match pair.split_once('=') {
            Some((name, value)) => Ok((word(name)?, Some(word(value)?))),
            None => Ok((word(pair)?, None)),
        });
        Ok(Self(pairs.collect::<S3Result<_>>()?))
    }

    /// Whether it is there, with or without a value.
    pub(crate) fn has(&self, name: &str) -> bool {
        self.0.iter().any(|(own, _)| own == name)
    }

    /// The first value of that name; one without `=` is empty.
    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        let (_, value) = self.0.iter().find(|(own, _)| own == name)?;
        Some(value.as_deref().unwrap_or(""))
    }

    /// As [`Query::get`], but what is empty counts as not sent.
    pub(crate) fn filled(&self, name: &str) -> Option<&str> {
        self.get(name).filter(|value| !value.is_empty())
    }

    /// Names and values; what has no value has an empty one.
    pub(crate) fn pairs(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_deref().unwrap_or("")))
    }

    /// Names, and whether they have a value that is not empty.
    pub(crate) fn names(&self) -> impl Iterator<Item = (&str, bool)> {
        self.0.iter().map(|(name, value)| {
            let filled = value.as_ref().is_some_and(|value| !value.is_empty());
            (name.as_str(), filled)
        })
    }

    /// As signature version 4 has it: encoded, sorted, all but the signature itself.
    pub(crate) fn canonical(&self) -> String {
        let mut pairs: Vec<(String, String)> = self
            .0
            .iter()
            .filter(|(name, _)| name != "X-Amz-Signature")
            .map(|(name, value)| (encode(name), encode(value.as_deref().unwrap_or(""))))
            .collect();
        pairs.sort_unstable();
        let pairs: Vec<String> = pairs
            .into_iter()
            .map(|(name, value)| format!("{name}={value}"))
            .collect();
        pairs.join("&")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target(host: &str, path: &str) -> Target {
        let bases = ["s3.example.net".to_owned(), "localhost".to_owned()];
        Target::parse(Some(host), path, &bases, "eu-west-1").unwrap()
    }

    fn object(bucket: &str, key: &str) -> Target {
        Target::Object {
            bucket: bucket.to_owned(),
            key: key.to_owned(),
        }
    }

    #[test]
    fn a_host_is_a_buckets_only_under_a_base_domain() {
        for host in [
            "127.0.0.1:9000",
            "bucket.example.net",
            "s3.example.net",
            "[::1]:9000",
            "xs3.example.net",
            "eu-west-1.s3.example.net",
        ] {
            assert_eq!(target(host, "/"), Target::Service, "{host}");
            assert_eq!(target(host, "/abc/k"), object("abc", "k"), "{host}");
        }
        for host in [
            "abc.s3.example.net",
            "abc.S3.Example.net:9000",
            "abc.localhost",
            "abc.eu-west-1.s3.example.net",
        ] {
            assert_eq!(target(host, "/"), Target::Bucket("abc".to_owned()), "{host}");
            assert_eq!(target(host, "/x/y"), object("abc", "x/y"), "{host}");
        }
        assert_eq!(target("a.b.c.s3.example.net", "/"), Target::Bucket("a.b.c".to_owned()));
    }

    #[test]
    fn keys_are_opaque() {
        for (path, key) in [
            ("/abc/a", "a"),
            ("/abc/a/", "a/"),
            ("/abc/a//b", "a//b"),
            ("/abc/./a", "./a"),
            ("/abc/../a", "../a"),
            ("/abc//a", "/a"),
            ("/abc/a%2Fb+c%20d%25", "a/b+c d%"),
        ] {
            assert_eq!(target("x", path), object("abc", key), "{path}");
        }
        assert_eq!(target("x", "/abc/"), Target::Bucket("abc".to_owned()));
        assert_eq!(
            Target::parse(None, "/abc/%ff", &[], "r").unwrap_err().code,
            Code::InvalidUri
        );
    }

    #[test]
    fn bucket_names_follow_the_rules() {
        let long = "a".repeat(63);
        for name in ["abc", "a.b", "a-b", "0-0", "1.2.3", "a1.2.3.4", &long] {
            assert!(is_bucket_name(name), "{name}");
        }
        let too_long = "a".repeat(64);
        for name in [
            "",
            "ab",
            "Abc",
            "a_b",
            "-ab",
            "ab-",
            ".ab",
            "ab.",
            "a..b",
            "a.-b",
            "a-.b",
            "1.2.3.4",
            "xn--abc",
            "abc-s3alias",
            "ab/",
            "äbc",
            &too_long,
        ] {
            assert!(!is_bucket_name(name), "{name}");
        }
    }

    #[test]
    fn keys_have_1_to_1024_bytes() {
        assert!(check_key(&"é".repeat(512)).is_ok());
        assert_eq!(check_key(&"é".repeat(513)).unwrap_err().code, Code::KeyTooLong);
    }

    #[test]
    fn a_query_is_read_and_made_canonical() {
        let query = Query::parse(Some("prefix=a+b%2Bc&delete&X-Amz-Signature=00&a=&max-keys=2&a=1")).unwrap();
        assert!(query.has("delete") && !query.has("Delete"));
        assert_eq!(
            (query.get("prefix"), query.get("delete"), query.filled("a")),
            (Some("a b+c"), Some(""), None)
        );
        assert_eq!(query.canonical(), "a=&a=1&delete=&max-keys=2&prefix=a%20b%2Bc");
        assert_eq!(encode_path("/a b/~x*"), "/a%20b/~x%2A");
    }
}
