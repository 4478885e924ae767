//! Check sums of bodies: what a request announces, how they are worked out, and how those of parts become that of an object.
//!
//! All of CRC32, CRC32C, CRC64NVME, SHA-1 and SHA-256 are ours to verify and to compute. A CRC of an object is joined from its
//! parts' CRCs by arithmetic, without a second read.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use cairn_index::names;
use crc_fast::{CrcAlgorithm, Digest as Crc};
use http::HeaderMap;
use sha1::Sha1;
use sha2::{Digest as _, Sha256};

use crate::s3::error::{Code, S3Result};

/// How a check sum is worked out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Algorithm {
    Crc32,
    Crc32c,
    Crc64Nvme,
    Sha1,
    Sha256,
}

/// What a check sum of an upload is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// All bytes of the object.
    FullObject,
    /// The check sums of its parts.
    Composite,
}

impl Algorithm {
    pub(crate) const ALL: [Self; 5] = [Self::Crc32, Self::Crc32c, Self::Crc64Nvme, Self::Sha1, Self::Sha256];

    /// As in `x-amz-checksum-algorithm`.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Crc32 => "CRC32",
            Self::Crc32c => "CRC32C",
            Self::Crc64Nvme => "CRC64NVME",
            Self::Sha1 => "SHA1",
            Self::Sha256 => "SHA256",
        }
    }

    /// The header, and the trailer, of a value.
    pub(crate) fn header(self) -> &'static str {
        match self {
            Self::Crc32 => "x-amz-checksum-crc32",
            Self::Crc32c => "x-amz-checksum-crc32c",
            Self::Crc64Nvme => "x-amz-checksum-crc64nvme",
            Self::Sha1 => "x-amz-checksum-sha1",
            Self::Sha256 => "x-amz-checksum-sha256",
        }
    }

    /// The element of a value.
    pub(crate) fn element(self) -> &'static str {
        match self {
            Self::Crc32 => "ChecksumCRC32",
            Self::Crc32c => "ChecksumCRC32C",
            Self::Crc64Nvme => "ChecksumCRC64NVME",
            Self::Sha1 => "ChecksumSHA1",
            Self::Sha256 => "ChecksumSHA256",
        }
    }

    /// Bytes of a value.
    pub(crate) fn value_len(self) -> usize {
        match self {
            Self::Crc32 | Self::Crc32c => 4,
            Self::Crc64Nvme => 8,
            Self::Sha1 => 20,
            Self::Sha256 => 32,
        }
    }

    /// That of a row.
    pub(crate) fn of(algorithm: names::ChecksumAlgorithm) -> Self {
        let mut all = Self::ALL.into_iter();
        let own = all.find(|own| own.to_index() == algorithm);
        own.expect("each of rows is one of ours: a test holds it")
    }

    /// As rows have it.
    pub(crate) fn to_index(self) -> names::ChecksumAlgorithm {
        match self {
            Self::Crc32 => names::ChecksumAlgorithm::Crc32,
            Self::Crc32c => names::ChecksumAlgorithm::Crc32c,
            Self::Crc64Nvme => names::ChecksumAlgorithm::Crc64Nvme,
            Self::Sha1 => names::ChecksumAlgorithm::Sha1,
            Self::Sha256 => names::ChecksumAlgorithm::Sha256,
        }
    }

    /// As it is worked out.
    pub(crate) fn to_formats(self) -> cairn_formats::ChecksumAlgorithm {
        match self {
            Self::Crc32 => cairn_formats::ChecksumAlgorithm::Crc32,
            Self::Crc32c => cairn_formats::ChecksumAlgorithm::Crc32c,
            Self::Crc64Nvme => cairn_formats::ChecksumAlgorithm::Crc64Nvme,
            Self::Sha1 => cairn_formats::ChecksumAlgorithm::Sha1,
            Self::Sha256 => cairn_formats::ChecksumAlgorithm::Sha256,
        }
    }

    /// Errors: `InvalidRequest` for a name that is none of ours.
    pub(crate) fn of_name(name: &str) -> S3Result<Self> {
        let found = Self::ALL
            .into_iter()
            .find(|algorithm| algorithm.name().eq_ignore_ascii_case(name));
        found.ok_or_else(|| Code::ChecksumAlgorithmUnknown.into())
    }

    /// What an upload has where it does not say.
    pub(crate) fn default_kind(self) -> Kind {
        match self {
            Self::Crc64Nvme => Kind::FullObject,
            _ => Kind::Composite,
        }
    }

    fn crc(self) -> Option<CrcAlgorithm> {
        match self {
            Self::Crc32 => Some(CrcAlgorithm::Crc32IsoHdlc),
            Self::Crc32c => Some(CrcAlgorithm::Crc32Iscsi),
            Self::Crc64Nvme => Some(CrcAlgorithm::Crc64Nvme),
            Self::Sha1 | Self::Sha256 => None,
        }
    }

    /// A value as clients write it. Errors: `InvalidRequest` for what is not base64 or has another length.
    pub(crate) fn parse_value(self, text: &str) -> S3Result<Vec<u8>> {
        match BASE64_STANDARD.decode(text.trim()) {
            Ok(value) if value.len() == self.value_len() => Ok(value),
            _ => Err(Code::ChecksumInvalid.argument(self.header(), text)),
        }
    }
}

impl Kind {
    /// That of a row.
    pub(crate) fn of(kind: names::ChecksumKind) -> Self {
        match kind {
            names::ChecksumKind::FullObject => Self::FullObject,
            names::ChecksumKind::Composite => Self::Composite,
        }
    }

    /// As rows have it.
    pub(crate) fn to_index(self) -> names::ChecksumKind {
        match self {
            Self::FullObject => names::ChecksumKind::FullObject,
            Self::Composite => names::ChecksumKind::Composite,
        }
    }

    /// As in `x-amz-checksum-type`.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::FullObject => "FULL_OBJECT",
            Self::Composite => "COMPOSITE",
        }
    }

    /// Errors: `InvalidRequest`.
    pub(crate) fn of_name(name: &str) -> S3Result<Self> {
        match name {
            "FULL_OBJECT" => Ok(Self::FullObject),
            "COMPOSITE" => Ok(Self::Composite),
            _ => Err(Code::ChecksumTypeUnknown.into()),
        }
    }
}

/// Base64 of a value.
pub(crate) fn base64(value: &[u8]) -> String {
    BASE64_STANDARD.encode(value)
}

/// What a request announces of its body's check sum.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Announced {
    /// None.
    None,
    /// None to compare with, but one of this algorithm is wanted.
    Wanted(Algorithm),
    /// This value.
    Value(Algorithm, Vec<u8>),
    /// The value comes behind the body.
    Trailer(Algorithm),
}

impl Announced {
    /// Reads the headers `x-amz-checksum-*`, `x-amz-trailer` and `x-amz-sdk-checksum-algorithm`.
    ///
    /// Errors: `InvalidRequest` for more than one, for one that is malformed, and for one that the algorithm named beside it is
    /// not of.
    pub(crate) fn read(headers: &HeaderMap) -> S3Result<Self> {
        let text = |name: &str| headers.get(name).map(|value| value.to_str().unwrap_or(""));
        let named = text("x-amz-sdk-checksum-algorithm")
            .filter(|name| !name.is_empty())
            .map(Algorithm::of_name)
            .transpose()?;
        let trailers = text("x-amz-trailer").unwrap_or("").to_ascii_lowercase();
        let trails = |algorithm: Algorithm| trailers.split(',').any(|name| name.trim() == algorithm.header());
        let mut found = Vec::new();
        for algorithm in Algorithm::ALL {
            if let Some(value) = text(algorithm.header()) {
                found.push(Self::Value(algorithm, algorithm.parse_value(value)?));
            }
            if trails(algorithm) {
                found.push(Self::Trailer(algorithm));
            }
        }
        let unknown = headers
            .keys()
            .map(http::HeaderName::as_str)
            .chain(trailers.split(',').map(str::trim));
        if unknown.into_iter().any(is_unknown_checksum) {
            return Err(Code::ChecksumAlgorithmUnknown.into());
        }
        let announced = match (found.pop(), found.is_empty()) {
            (_, false) => return Err(Code::SeveralChecksums.into()),
            (Some(one), true) => one,
            (None, true) => named.map_or(Self::None, Self::Wanted),
        };
        match (named, announced.algorithm()) {
            (Some(named), Some(algorithm)) if named != algorithm => Err(Code::ChecksumAlgorithmMismatch.into()),
            _ => Ok(announced),
        }
    }

    pub(crate) fn algorithm(&self) -> Option<Algorithm> {
        match self {
            Self::None => None,
            Self::Wanted(algorithm) | Self::Value(algorithm, _) | Self::Trailer(algorithm) => Some(*algorithm),
        }
    }
}

/// Whether a header is that of a value of an algorithm that is not served.
fn is_unknown_checksum(name: &str) -> bool {
    let Some(rest) = name.strip_prefix("x-amz-checksum-") else {
        return false;
    };
    !["mode", "algorithm", "type"].contains(&rest) && !Algorithm::ALL.iter().any(|algorithm| algorithm.header() == name)
}

/// Works out a check sum.
#[derive(Debug)]
pub(crate) enum Hasher {
    Crc(Algorithm, Box<Crc>),
    Sha1(Sha1),
    Sha256(Sha256),
}

impl Hasher {
    pub(crate) fn new(algorithm: Algorithm) -> Self {
        match algorithm.crc() {
            Some(crc) => Self::Crc(algorithm, Box::new(Crc::new(crc))),
            None if algorithm == Algorithm::Sha1 => Self::Sha1(Sha1::new()),
            None => Self::Sha256(Sha256::new()),
        }
    }

    pub(crate) fn update(&mut self, bytes: &[u8]) {
        match self {
            Self::Crc(_, crc) => crc.update(bytes),
            Self::Sha1(hash) => hash.update(bytes),
            Self::Sha256(hash) => hash.update(bytes),
        }
    }

    /// The value, big-endian.
    pub(crate) fn finish(self) -> Vec<u8> {
        match self {
            Self::Crc(algorithm, crc) => crc_value(algorithm, crc.finalize()),
            Self::Sha1(hash) => hash.finalize().to_vec(),
            Self::Sha256(hash) => hash.finalize().to_vec(),
        }
    }
}

fn crc_value(algorithm: Algorithm, crc: u64) -> Vec<u8> {
    crc.to_be_bytes()[8 - algorithm.value_len()..].to_vec()
}

/// The check sum of an object from those of its parts, in order, each with its part's length in bytes.
///
/// `None`: a SHA has no value of a whole from its parts, or a part's value has not the algorithm's length.
pub(crate) fn join(algorithm: Algorithm, kind: Kind, parts: &[(Vec<u8>, u64)]) -> Option<Vec<u8>> {
    if parts.iter().any(|(value, _)| value.len() != algorithm.value_len()) {
        return None;
    }
    if kind == Kind::Composite {
        let mut hasher = Hasher::new(algorithm);
        parts.iter().for_each(|(value, _)| hasher.update(value));
        return Some(hasher.finish());
    }
    let crc = algorithm.crc()?;
    let number = |value: &[u8]| value.iter().fold(0, |number, byte| number << 8 | u64::from(*byte));
    let empty = crc_fast::checksum(crc, b"");
    let whole = parts.iter().fold(empty, |whole, (value, len)| {
        crc_fast::checksum_combine(crc, whole, number(value), *len)
    });
    Some(crc_value(algorithm, whole))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn value_of(algorithm: Algorithm, bytes: &[u8]) -> Vec<u8> {
        let mut hasher = Hasher::new(algorithm);
        hasher.update(bytes);
        hasher.finish()
    }

    #[test]
    fn values_of_hello_world_are_those_of_other_programs() {
        // boto3 1.44 with `awscrt` and `cksum`, `sha1sum`, `sha256sum`.
        for (algorithm, expected) in [
            (Algorithm::Crc32, "DUoRhQ=="),
            (Algorithm::Crc32c, "yZRlqg=="),
            (Algorithm::Sha1, "Kq5sNclPz7QV2+lfQIuc6R7oRu0="),
            (Algorithm::Sha256, "uU0nuZNNPgilLlLX2n2r+sSE7+N6U4DukIj3rOLvzek="),
        ] {
            assert_eq!(base64(&value_of(algorithm, b"hello world")), expected, "{algorithm:?}");
        }
        // The check value of CRC-64/NVME, of "123456789".
        assert_eq!(
            value_of(Algorithm::Crc64Nvme, b"123456789"),
            0xae8b_1486_0a79_9888_u64.to_be_bytes()
        );
    }

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        let pairs = pairs
            .iter()
            .map(|(name, value)| (http::HeaderName::from_static(name), value.parse().unwrap()));
        pairs.collect()
    }

    fn read(pairs: &[(&'static str, &str)]) -> Result<Announced, Code> {
        Announced::read(&headers(pairs)).map_err(|error| error.code)
    }

    #[test]
    fn one_check_sum_is_read_from_header_or_trailer() {
        assert_eq!(read(&[("x-amz-checksum-mode", "ENABLED")]), Ok(Announced::None));
        assert_eq!(
            read(&[
                ("x-amz-checksum-crc32", "DUoRhQ=="),
                ("x-amz-sdk-checksum-algorithm", "crc32")
            ]),
            Ok(Announced::Value(Algorithm::Crc32, vec![0x0d, 0x4a, 0x11, 0x85]))
        );
        assert_eq!(
            read(&[("x-amz-trailer", "x-amz-checksum-crc64nvme")]),
            Ok(Announced::Trailer(Algorithm::Crc64Nvme))
        );
        assert_eq!(
            read(&[("x-amz-sdk-checksum-algorithm", "SHA256")]),
            Ok(Announced::Wanted(Algorithm::Sha256))
        );
    }

    #[test]
    fn more_than_one_or_a_wrong_one_is_refused() {
        for (pairs, code) in [
            (
                &[
                    ("x-amz-checksum-crc32", "DUoRhQ=="),
                    ("x-amz-checksum-sha1", "Kq5sNclPz7QV2+lfQIuc6R7oRu0="),
                ][..],
                Code::SeveralChecksums,
            ),
            (
                &[
                    ("x-amz-checksum-crc32", "DUoRhQ=="),
                    ("x-amz-trailer", "x-amz-checksum-crc32"),
                ],
                Code::SeveralChecksums,
            ),
            (&[("x-amz-checksum-crc32", "DUoRhQ")], Code::ChecksumInvalid),
            (&[("x-amz-checksum-crc32", "AAAA")], Code::ChecksumInvalid),
            (
                &[
                    ("x-amz-checksum-crc32", "DUoRhQ=="),
                    ("x-amz-sdk-checksum-algorithm", "SHA1"),
                ],
                Code::ChecksumAlgorithmMismatch,
            ),
            (
                &[("x-amz-sdk-checksum-algorithm", "MD4")],
                Code::ChecksumAlgorithmUnknown,
            ),
            (
                &[("x-amz-checksum-xxhash64", "AAAAAAAAAAA=")],
                Code::ChecksumAlgorithmUnknown,
            ),
            (
                &[("x-amz-trailer", "x-amz-checksum-sha512")],
                Code::ChecksumAlgorithmUnknown,
            ),
        ] {
            assert_eq!(read(pairs), Err(code), "{pairs:?}");
        }
    }

    proptest! {
        #[test]
        fn the_crc_of_a_whole_is_joined_from_its_parts(parts in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..50), 0..6)) {
            let whole = parts.concat();
            for algorithm in [Algorithm::Crc32, Algorithm::Crc32c, Algorithm::Crc64Nvme] {
                let values: Vec<_> = parts.iter().map(|part| (value_of(algorithm, part), part.len() as u64)).collect();
                prop_assert_eq!(join(algorithm, Kind::FullObject, &values), Some(value_of(algorithm, &whole)));
            }
        }
    }

    #[test]
    fn each_algorithm_of_rows_is_one_of_ours() {
        for algorithm in names::ChecksumAlgorithm::ALL {
            assert_eq!(Algorithm::of(algorithm).to_index(), algorithm);
        }
    }

    #[test]
    fn a_composite_is_the_check_sum_of_check_sums_and_a_sha_has_no_whole() {
        let parts: Vec<_> = [&b"a"[..], b"b"]
            .iter()
            .map(|part| (value_of(Algorithm::Sha256, part), 1))
            .collect();
        let composite = join(Algorithm::Sha256, Kind::Composite, &parts).unwrap();
        assert_eq!(
            composite,
            value_of(Algorithm::Sha256, &[parts[0].0.clone(), parts[1].0.clone()].concat())
        );
        assert_eq!(join(Algorithm::Sha256, Kind::FullObject, &parts), None);
        assert_eq!(join(Algorithm::Crc32, Kind::FullObject, &parts), None);
    }
}
