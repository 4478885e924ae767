//! Signed links: the right to read one object, or all below a prefix, for a time, in the hands of whoever has the link.
//!
//! A link is five words beside the object's address, in a URL's query or in a cookie: `exp`, `kid`, `prefix`, `ip`, `sig`. The
//! signature is HMAC-SHA256, in hex, under the secret of key `kid` over these lines, joined by one line feed, the last without one:
//!
//! ```text
//! cairn-cdn-1
//! kid
//! exp                      seconds since 1970, as sent
//! ip                       as sent, or nothing
//! key | prefix             which of the two the last line is
//! version                  of one object's version that is named, or nothing
//! bucket
//! the object's key, or the prefix of keys: decoded, UTF-8
//! ```
//!
//! The last line alone may hold line feeds, so no two links have the same lines. No clock is read here: the time is an argument.

use core::fmt;
use core::net::IpAddr;
use std::fmt::Write as _;

use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;

use crate::AddressRange;

/// First line of what is signed: another form will have another one.
const FORM: &str = "cairn-cdn-1";
/// A secret has at least so many bytes.
pub const LINK_SECRET_LEN_MIN: usize = 32;
/// Characters of a key's id, at most.
const KEY_ID_LEN_MAX: usize = 32;

/// What a link opens. That it was signed, that its time is not over and that its address fits, was checked before one is made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    /// In whose tenant.
    pub tenant: String,
    /// In which bucket.
    pub bucket: String,
    /// Which keys.
    pub keys: LinkKeys,
}

/// Which keys of a bucket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LinkKeys {
    /// One object, and if a version is named that one.
    One {
        /// Its key.
        key: String,
        /// Its version's id.
        version: Option<String>,
    },
    /// The objects whose keys begin so, as they are now.
    Under(String),
}

impl LinkKeys {
    /// Whether the newest version of this key is among them.
    pub fn contains(&self, key: &str) -> bool {
        match self {
            Self::One { key: own, .. } => own == key,
            Self::Under(prefix) => key.starts_with(prefix.as_str()),
        }
    }
}

/// What is signed.
#[derive(Clone, Copy, Debug)]
pub struct Claims<'a> {
    /// The bucket.
    pub bucket: &'a str,
    /// The keys.
    pub keys: &'a LinkKeys,
    /// Seconds since 1970 from which on the link opens nothing.
    pub expires: u64,
    /// Addresses of clients it opens for, as written; `None`: any.
    pub address: Option<&'a str>,
}

/// A key that links are signed with.
#[derive(Clone, PartialEq, Eq)]
pub struct LinkKey {
    id: String,
    secret: Box<[u8]>,
    tenant: String,
    /// None: all of the tenant.
    buckets: Vec<String>,
}

/// A key that cannot be one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadLinkKey {
    /// Its id.
    #[error("an id is 1 to 32 letters, digits, `-`, `_` and `.`")]
    Id,
    /// Its secret.
    #[error("a secret has 32 characters or more: less can be guessed")]
    Secret,
}

/// A link as it was shown: nothing of it is believed yet.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ShownLink {
    kid: Option<String>,
    exp: Option<String>,
    prefix: Option<String>,
    ip: Option<String>,
    sig: Option<String>,
}

/// What was asked for with a link.
#[derive(Clone, Copy, Debug)]
pub struct Asked<'a> {
    /// The bucket.
    pub bucket: &'a str,
    /// The object's key, decoded.
    pub key: &'a str,
    /// The version that is named.
    pub version: Option<&'a str>,
    /// Who asks; `None`: not known, so that links that are bound to addresses open nothing.
    pub address: Option<IpAddr>,
    /// Seconds since 1970.
    pub now: u64,
}

/// Why a link opens nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LinkRefusal {
    /// A word of it is missing, there twice, or malformed.
    #[error("the link is not whole")]
    Malformed,
    /// No key here has its id, or it is not for this bucket.
    #[error("the link is signed with a key that is not known here")]
    UnknownKey,
    /// It was not signed by who has the key, or not for this.
    #[error("the link's signature is not right for what is asked")]
    Forged,
    /// Its time is over.
    #[error("the link has expired")]
    Expired,
    /// It is for somebody else.
    #[error("the link is not for this address")]
    Address,
    /// It is for keys that begin otherwise, or for their newest versions.
    #[error("the link is not for this object")]
    Outside,
}

impl LinkKey {
    /// - `tenant`: in which it opens buckets; `buckets`: which of them, or none for all.
    /// - Errors: an id or a secret that cannot be.
    pub fn new(id: &str, secret: &str, tenant: impl Into<String>, buckets: Vec<String>) -> Result<Self, BadLinkKey> {
        let is_word = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
        if !(1..=KEY_ID_LEN_MAX).contains(&id.len()) || !id.bytes().all(is_word) {
            return Err(BadLinkKey::Id);
        }
        if secret.len() < LINK_SECRET_LEN_MIN {
            return Err(BadLinkKey::Secret);
        }
        Ok(Self {
            id: id.to_owned(),
            secret: secret.as_bytes().into(),
            tenant: tenant.into(),
            buckets,
        })
    }

    /// Its id.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// The words of a link, as a query has them and a cookie's value: `exp=…&kid=…&sig=…`. The version of one object is not among
    /// them: it is in the address.
    pub fn sign(&self, claims: &Claims<'_>) -> String {
        let expires = claims.expires.to_string();
        let mut words = format!("exp={expires}&kid={}", self.id);
        if let LinkKeys::Under(prefix) = claims.keys {
            let _ = write!(words, "&prefix={}", encode(prefix));
        }
        if let Some(address) = claims.address {
            let _ = write!(words, "&ip={}", encode(address));
        }
        words.push_str("&sig=");
        let signature = self
            .digest(claims.bucket, claims.keys, &expires, claims.address)
            .finalize();
        for byte in signature.into_bytes() {
            let _ = write!(words, "{byte:02x}");
        }
        words
    }

    fn digest(&self, bucket: &str, keys: &LinkKeys, expires: &str, address: Option<&str>) -> Hmac<Sha256> {
        let (kind, version, last) = match keys {
            LinkKeys::One { key, version } => ("key", version.as_deref().unwrap_or(""), key),
            LinkKeys::Under(prefix) => ("prefix", "", prefix),
        };
        let mut hmac = Hmac::<Sha256>::new_from_slice(&self.secret).expect("a secret of any length is a key of HMAC");
        for line in [FORM, &self.id, expires, address.unwrap_or(""), kind, version, bucket] {
            hmac.update(line.as_bytes());
            hmac.update(b"\n");
        }
        hmac.update(last.as_bytes());
        hmac
    }

    fn opens(&self, bucket: &str) -> bool {
        self.buckets.is_empty() || self.buckets.iter().any(|own| own == bucket)
    }
}

impl fmt::Debug for LinkKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "LinkKey({})", self.id)
    }
}

impl ShownLink {
    /// The link among the words of a query or of a cookie, decoded; other words are passed over. `None`: none is there.
    ///
    /// Errors: [`LinkRefusal::Malformed`] for a word that is there twice.
    pub fn of<'a>(words: impl Iterator<Item = (&'a str, &'a str)>) -> Result<Option<Self>, LinkRefusal> {
        let mut link = Self::default();
        for (name, value) in words {
            let word = match name {
                "kid" => &mut link.kid,
                "exp" => &mut link.exp,
                "prefix" => &mut link.prefix,
                "ip" => &mut link.ip,
                "sig" => &mut link.sig,
                _ => continue,
            };
            if word.replace(value.to_owned()).is_some() {
                return Err(LinkRefusal::Malformed);
            }
        }
        // Without these it is somebody else's query.
        Ok(Some(link).filter(|link| link.sig.is_some() || link.kid.is_some()))
    }

    /// Whether it opens what is asked. The signature is compared in constant time, and before anything else of the link counts.
    ///
    /// Returns what it opens, and when it ends. Errors: [`LinkRefusal`].
    pub fn check(&self, keys: &[LinkKey], asked: &Asked<'_>) -> Result<(Link, u64), LinkRefusal> {
        let (Some(kid), Some(exp), Some(sig)) = (&self.kid, &self.exp, &self.sig) else {
            return Err(LinkRefusal::Malformed);
        };
        let signature = unhex(sig).ok_or(LinkRefusal::Malformed)?;
        if exp.is_empty() || !exp.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(LinkRefusal::Malformed);
        }
        let expires: u64 = exp.parse().map_err(|_| LinkRefusal::Malformed)?;
        let known = keys.iter().find(|key| key.id == *kid && key.opens(asked.bucket));
        let key = known.ok_or(LinkRefusal::UnknownKey)?;
        let opened = match &self.prefix {
            Some(prefix) => LinkKeys::Under(prefix.clone()),
            None => LinkKeys::One {
                key: asked.key.to_owned(),
                version: asked.version.map(str::to_owned),
            },
        };
        let digest = key.digest(asked.bucket, &opened, exp, self.ip.as_deref());
        digest.verify_slice(&signature).map_err(|_| LinkRefusal::Forged)?;
        if asked.now >= expires {
            return Err(LinkRefusal::Expired);
        }
        if let Some(range) = &self.ip {
            let range: AddressRange = range.parse().map_err(|_| LinkRefusal::Malformed)?;
            if !asked.address.is_some_and(|address| range.contains(address)) {
                return Err(LinkRefusal::Address);
            }
        }
        let is_older = matches!(opened, LinkKeys::Under(_)) && asked.version.is_some();
        if is_older || !opened.contains(asked.key) {
            return Err(LinkRefusal::Outside);
        }
        let link = Link {
            tenant: key.tenant.clone(),
            bucket: asked.bucket.to_owned(),
            keys: opened,
        };
        Ok((link, expires))
    }

    /// Whether it is bound to addresses.
    pub fn is_bound(&self) -> bool {
        self.ip.is_some()
    }
}

/// All but unreserved characters and `/` as `%XX`.
fn encode(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~/".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            let _ = write!(encoded, "%{byte:02X}");
        }
    }
    encoded
}

fn unhex(text: &str) -> Option<[u8; 32]> {
    let (digits, mut bytes) = (text.as_bytes(), [0; 32]);
    if digits.len() != 64 {
        return None;
    }
    for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
        let digit = |digit: u8| char::from(digit).to_digit(16);
        *byte = u8::try_from(digit(pair[0])? << 4 | digit(pair[1])?).ok()?;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECRET: &str = "0123456789abcdef0123456789abcdef";

    fn key(id: &str, buckets: &[&str]) -> LinkKey {
        let buckets = buckets.iter().map(|&bucket| bucket.to_owned()).collect();
        LinkKey::new(id, SECRET, "default", buckets).unwrap()
    }

    fn one(key: &str) -> LinkKeys {
        LinkKeys::One {
            key: key.to_owned(),
            version: None,
        }
    }

    fn asked(key: &str) -> Asked<'_> {
        Asked {
            bucket: "media",
            key,
            version: None,
            address: Some("192.0.2.7".parse().unwrap()),
            now: 1000,
        }
    }

    /// Decodes no more than `encode` has coded.
    fn shown(words: &str) -> ShownLink {
        let words: Vec<(String, String)> = words
            .split('&')
            .filter_map(|word| word.split_once('='))
            .map(|(name, value)| (name.to_owned(), value.replace("%20", " ").replace("%3A", ":")))
            .collect();
        let words = words.iter().map(|(name, value)| (name.as_str(), value.as_str()));
        ShownLink::of(words).unwrap().unwrap()
    }

    fn sign(key: &LinkKey, keys: &LinkKeys, address: Option<&str>) -> String {
        key.sign(&Claims {
            bucket: "media",
            keys,
            expires: 2000,
            address,
        })
    }

    #[test]
    fn the_lines_are_those_of_the_documentation() {
        // printf 'cairn-cdn-1\na\n2000\n\nkey\n\nmedia\nfilm/1.mp4' | openssl dgst -sha256 -hmac 0123456789abcdef0123456789abcdef
        let words = sign(&key("a", &[]), &one("film/1.mp4"), None);
        assert_eq!(
            words,
            "exp=2000&kid=a&sig=982705598fd8f8c62d964a7ebb893afcc03aca6fbeaa65a99d0d0921a6028a2f"
        );
    }

    #[test]
    fn a_link_opens_what_it_was_signed_for_and_until_its_end() {
        let keys = [key("new", &[]), key("old", &["media"])];
        for (signer, opened, address) in [
            (0, one("film/1 2.mp4"), None),
            (1, LinkKeys::Under("film/".to_owned()), Some("192.0.2.0/24")),
            (1, LinkKeys::Under(String::new()), Some("2001:db8::/32")),
        ] {
            let link = shown(&sign(&keys[signer], &opened, address));
            let checked = link.check(&keys, &asked("film/1 2.mp4"));
            if address == Some("2001:db8::/32") {
                assert_eq!(checked.unwrap_err(), LinkRefusal::Address);
                continue;
            }
            let (opens, expires) = checked.unwrap();
            assert_eq!((opens.keys, expires), (opened, 2000));
            let late = Asked {
                now: 2000,
                ..asked("film/1 2.mp4")
            };
            assert_eq!(link.check(&keys, &late).unwrap_err(), LinkRefusal::Expired);
        }
    }

    #[test]
    fn what_was_changed_is_forged_and_what_is_outside_is_refused() {
        let keys = [key("a", &[])];
        let words = sign(&keys[0], &one("k"), None);
        let forged = |words: &str, asked: &Asked<'_>| shown(words).check(&keys, asked).unwrap_err();
        assert_eq!(forged(&words, &asked("other")), LinkRefusal::Forged);
        assert_eq!(forged(&words.replace("2000", "3000"), &asked("k")), LinkRefusal::Forged);
        assert_eq!(forged(&format!("{words}&prefix="), &asked("k")), LinkRefusal::Forged);
        assert_eq!(
            forged(&format!("{words}&ip=192.0.2.7"), &asked("k")),
            LinkRefusal::Forged
        );
        assert_eq!(
            forged(&words.replace("kid=a", "kid=b"), &asked("k")),
            LinkRefusal::UnknownKey
        );
        assert_eq!(
            forged(&words.replace("sig=", "sig=0"), &asked("k")),
            LinkRefusal::Malformed
        );
        let versioned = Asked {
            version: Some("v"),
            ..asked("k")
        };
        assert_eq!(forged(&words, &versioned), LinkRefusal::Forged);
        let other = Asked {
            bucket: "other",
            ..asked("k")
        };
        assert_eq!(forged(&words, &other), LinkRefusal::Forged);
        let under = sign(&keys[0], &LinkKeys::Under("a/".to_owned()), None);
        assert_eq!(forged(&under, &asked("b/1")), LinkRefusal::Outside);
        assert_eq!(
            forged(&under.replace("prefix=a/", "prefix=a"), &asked("a/1")),
            LinkRefusal::Forged
        );
        let versioned = Asked {
            version: Some("v"),
            ..asked("a/1")
        };
        assert_eq!(forged(&under, &versioned), LinkRefusal::Outside);
        let own = [key("a", &["theirs"])];
        assert_eq!(
            shown(&words).check(&own, &asked("k")).unwrap_err(),
            LinkRefusal::UnknownKey
        );
        let unknown = Asked {
            address: None,
            ..asked("k")
        };
        let bound = sign(&keys[0], &one("k"), Some("192.0.2.7"));
        assert_eq!(shown(&bound).check(&keys, &unknown).unwrap_err(), LinkRefusal::Address);
    }

    #[test]
    fn a_word_that_is_there_twice_is_no_link() {
        let twice = [("kid", "a"), ("kid", "a")];
        assert_eq!(ShownLink::of(twice.into_iter()), Err(LinkRefusal::Malformed));
        let none = [("exp", "1"), ("versionId", "x")];
        assert_eq!(ShownLink::of(none.into_iter()), Ok(None));
    }

    #[test]
    fn keys_are_not_shown_and_weak_ones_are_none() {
        assert!(!format!("{:?}", key("a", &[])).contains(SECRET));
        assert_eq!(
            LinkKey::new("a", "short", "t", Vec::new()).unwrap_err(),
            BadLinkKey::Secret
        );
        for id in ["", "a b", "a&b", &"a".repeat(33)] {
            assert_eq!(LinkKey::new(id, SECRET, "t", Vec::new()).unwrap_err(), BadLinkKey::Id);
        }
    }
}
