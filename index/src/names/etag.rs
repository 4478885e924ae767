//! Entity tags and check sums of objects, as values: how they are worked out is the object path's business.

use std::fmt;

use crate::{Error, Result};

/// Characters of an opaque tag, at most.
pub const ETAG_LEN_MAX: usize = 128;

/// An entity tag, without its quotes: the MD5 of an object of one part, the MD5 of parts' MD5s and their number, or any other words.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Etag(String);

impl Etag {
    /// That of an object that came in one part.
    pub fn of_md5(md5: &[u8; 16]) -> Self {
        Self(hex(md5))
    }

    /// That of an object of so many parts.
    ///
    /// - `md5`: of the parts' MD5s, one after the other.
    pub fn of_parts(md5: &[u8; 16], parts: u32) -> Self {
        Self(format!("{}-{parts}", hex(md5)))
    }

    /// One of our own: 1 to [`ETAG_LEN_MAX`] visible ASCII characters but `"`.
    ///
    /// Errors: [`Error::BadName`].
    pub fn opaque(text: &str) -> Result<Self> {
        let fits = |byte: u8| byte.is_ascii_graphic() && byte != b'"';
        if text.is_empty() || text.len() > ETAG_LEN_MAX || !text.bytes().all(fits) {
            return Err(Error::BadName {
                what: "entity tag",
                name: text.chars().take(64).collect(),
                rule: "1 to 128 visible ASCII characters but '\"'",
            });
        }
        Ok(Self(text.to_owned()))
    }

    /// Without quotes.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The MD5 of the content, if it is that.
    pub fn md5(&self) -> Option<[u8; 16]> {
        let mut md5 = [0; 16];
        if self.0.len() != 32 {
            return None;
        }
        for (byte, pair) in md5.iter_mut().zip(self.0.as_bytes().chunks_exact(2)) {
            *byte = u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()?;
        }
        Some(md5)
    }
}

impl fmt::Display for Etag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// How a check sum is worked out. The numbers are on disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
#[non_exhaustive]
pub enum ChecksumAlgorithm {
    /// CRC-32 of ISO 3309, 4 bytes.
    Crc32 = 1,
    /// CRC-32C of Castagnoli, 4 bytes.
    Crc32c = 2,
    /// CRC-64/NVME, 8 bytes.
    Crc64Nvme = 3,
    /// SHA-1, 20 bytes.
    Sha1 = 4,
    /// SHA-256, 32 bytes.
    Sha256 = 5,
}

impl ChecksumAlgorithm {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Crc32, Self::Crc32c, Self::Crc64Nvme, Self::Sha1, Self::Sha256];

    /// Bytes of a value.
    pub fn value_len(self) -> usize {
        match self {
            Self::Crc32 | Self::Crc32c => 4,
            Self::Crc64Nvme => 8,
            Self::Sha1 => 20,
            Self::Sha256 => 32,
        }
    }

    pub(super) fn of(number: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|algorithm| *algorithm as u8 == number)
    }
}

/// What a check sum is of. The numbers are on disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum ChecksumKind {
    /// All bytes of the object.
    FullObject = 1,
    /// The check sums of its parts.
    Composite = 2,
}

impl ChecksumKind {
    pub(super) fn of(number: u8) -> Option<Self> {
        [Self::FullObject, Self::Composite]
            .into_iter()
            .find(|kind| *kind as u8 == number)
    }
}

/// A check sum. Its value has the length that the algorithm says.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Checksum {
    algorithm: ChecksumAlgorithm,
    kind: ChecksumKind,
    value: Vec<u8>,
}

impl Checksum {
    /// A check sum; `None`: the value has another length. Big-endian, as in headers.
    pub fn new(algorithm: ChecksumAlgorithm, kind: ChecksumKind, value: &[u8]) -> Option<Self> {
        (value.len() == algorithm.value_len()).then(|| Self {
            algorithm,
            kind,
            value: value.to_vec(),
        })
    }

    /// How it was worked out.
    pub fn algorithm(&self) -> ChecksumAlgorithm {
        self.algorithm
    }

    /// What it is of.
    pub fn kind(&self) -> ChecksumKind {
        self.kind
    }

    /// Its bytes, big-endian.
    pub fn value(&self) -> &[u8] {
        &self.value
    }

    pub(super) fn encode(&self) -> Vec<u8> {
        [&[self.algorithm as u8, self.kind as u8], self.value.as_slice()].concat()
    }

    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
        let [algorithm, kind, value @ ..] = bytes else {
            return None;
        };
        Self::new(ChecksumAlgorithm::of(*algorithm)?, ChecksumKind::of(*kind)?, value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_are_written_as_s3_writes_them() {
        let md5 = [0xd4; 16];
        assert_eq!(Etag::of_md5(&md5).as_str(), "d4".repeat(16));
        assert_eq!(Etag::of_parts(&md5, 12).as_str(), format!("{}-12", "d4".repeat(16)));
        assert_eq!(Etag::of_md5(&md5).md5(), Some(md5));
        assert_eq!(Etag::of_parts(&md5, 2).md5(), None);
        assert!(["", "a\"b", "a b", "é"].iter().all(|text| Etag::opaque(text).is_err()));
    }

    #[test]
    fn check_sums_have_the_length_of_their_algorithm() {
        for algorithm in ChecksumAlgorithm::ALL {
            let sum = Checksum::new(algorithm, ChecksumKind::FullObject, &vec![7; algorithm.value_len()]).unwrap();
            assert_eq!(Checksum::decode(&sum.encode()), Some(sum));
            assert_eq!(Checksum::new(algorithm, ChecksumKind::Composite, &[7; 3]), None);
        }
        assert_eq!(Checksum::decode(&[9, 1, 0, 0, 0, 0]), None);
    }
}
