//! Check sums of whole objects, as their senders name them: CRC-32, CRC-32C, CRC-64/NVME, SHA-1, SHA-256.
//!
//! The sums of two neighbouring pieces join arithmetically for the CRCs, so that an object that came in parts has one without
//! being read again. Values are big-endian, as S3 writes them.

use crc_fast::CrcAlgorithm;
use sha2::Digest as _;

/// A kind of check sum.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ChecksumAlgorithm {
    /// CRC-32 of zlib and IEEE 802.3, 4 bytes.
    Crc32,
    /// CRC-32C (Castagnoli) of iSCSI, 4 bytes.
    Crc32c,
    /// CRC-64/NVME, 8 bytes.
    Crc64Nvme,
    /// SHA-1, 20 bytes.
    Sha1,
    /// SHA-256, 32 bytes.
    Sha256,
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

    /// Whether sums of neighbours can be joined ([`Checksum::join`]).
    pub fn joins(self) -> bool {
        self.crc().is_some()
    }

    fn crc(self) -> Option<CrcAlgorithm> {
        match self {
            Self::Crc32 => Some(CrcAlgorithm::Crc32IsoHdlc),
            Self::Crc32c => Some(CrcAlgorithm::Crc32Iscsi),
            Self::Crc64Nvme => Some(CrcAlgorithm::Crc64Nvme),
            Self::Sha1 | Self::Sha256 => None,
        }
    }
}

/// A check sum.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Checksum {
    algorithm: ChecksumAlgorithm,
    /// The value, and zeros.
    bytes: [u8; 32],
}

impl Checksum {
    /// A value somebody gives. `None`: it has another length than this kind's.
    pub fn new(algorithm: ChecksumAlgorithm, value: &[u8]) -> Option<Self> {
        let mut bytes = [0; 32];
        (value.len() == algorithm.value_len()).then(|| bytes[..value.len()].copy_from_slice(value))?;
        Some(Self { algorithm, bytes })
    }

    /// Of these bytes.
    pub fn of(algorithm: ChecksumAlgorithm, bytes: &[u8]) -> Self {
        let mut stream = ChecksumStream::new(algorithm);
        stream.update(bytes);
        stream.finish()
    }

    /// Its kind.
    pub fn algorithm(&self) -> ChecksumAlgorithm {
        self.algorithm
    }

    /// The value, big-endian.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes[..self.algorithm.value_len()]
    }

    /// The sum of what this is of with `next` behind it.
    ///
    /// - `next_len`: bytes that `next` is of.
    /// - `None`: kinds differ, or cannot be joined.
    pub fn join(&self, next: &Self, next_len: u64) -> Option<Self> {
        let crc = self.algorithm.crc().filter(|_| self.algorithm == next.algorithm)?;
        let joined = crc_fast::checksum_combine(crc, self.number(), next.number(), next_len);
        Some(Self::of_number(self.algorithm, joined))
    }

    fn number(&self) -> u64 {
        self.as_bytes()
            .iter()
            .fold(0, |number, byte| number << 8 | u64::from(*byte))
    }

    fn of_number(algorithm: ChecksumAlgorithm, number: u64) -> Self {
        let len = algorithm.value_len();
        let mut bytes = [0; 32];
        bytes[..len].copy_from_slice(&number.to_be_bytes()[8 - len..]);
        Self { algorithm, bytes }
    }
}

/// The check sum of bytes that come in pieces.
#[derive(Clone, Debug)]
pub struct ChecksumStream {
    algorithm: ChecksumAlgorithm,
    sum: Sum,
}

#[derive(Clone, Debug)]
enum Sum {
    Crc(crc_fast::Digest),
    Sha1(sha1::Sha1),
    Sha256(sha2::Sha256),
}

impl ChecksumStream {
    /// Of no bytes yet.
    pub fn new(algorithm: ChecksumAlgorithm) -> Self {
        let sum = match (algorithm.crc(), algorithm) {
            (Some(crc), _) => Sum::Crc(crc_fast::Digest::new(crc)),
            (None, ChecksumAlgorithm::Sha1) => Sum::Sha1(sha1::Sha1::new()),
            (None, _) => Sum::Sha256(sha2::Sha256::new()),
        };
        Self { algorithm, sum }
    }

    /// Takes the next bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        match &mut self.sum {
            Sum::Crc(sum) => sum.update(bytes),
            Sum::Sha1(sum) => sum.update(bytes),
            Sum::Sha256(sum) => sum.update(bytes),
        }
    }

    /// The sum.
    pub fn finish(self) -> Checksum {
        let algorithm = self.algorithm;
        let mut bytes = [0; 32];
        match self.sum {
            Sum::Crc(sum) => return Checksum::of_number(algorithm, sum.finalize()),
            Sum::Sha1(sum) => bytes[..20].copy_from_slice(&sum.finalize()),
            Sum::Sha256(sum) => bytes.copy_from_slice(&sum.finalize()),
        }
        Checksum { algorithm, bytes }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn hex(sum: Checksum) -> String {
        sum.as_bytes().iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// The check values of the catalogue of CRC algorithms, and of FIPS 180-4's digests, for "123456789".
    #[test]
    fn known_answers() {
        for (algorithm, value) in [
            (ChecksumAlgorithm::Crc32, "cbf43926"),
            (ChecksumAlgorithm::Crc32c, "e3069283"),
            (ChecksumAlgorithm::Crc64Nvme, "ae8b14860a799888"),
            (ChecksumAlgorithm::Sha1, "f7c3bc1d808e04732adf679965ccc34ca7ae3441"),
            (
                ChecksumAlgorithm::Sha256,
                "15e2b0d3c33891ebb0f1ef609ec419420c20e320ce94c65fbc8c3312448eb225",
            ),
        ] {
            assert_eq!(hex(Checksum::of(algorithm, b"123456789")), value, "{algorithm:?}");
        }
    }

    #[test]
    fn a_value_of_another_length_is_none() {
        assert_eq!(Checksum::new(ChecksumAlgorithm::Crc32, &[1; 8]), None);
        let sum = Checksum::new(ChecksumAlgorithm::Crc32, &[1, 2, 3, 4]);
        assert_eq!(sum.map(|sum| sum.as_bytes().to_vec()), Some(vec![1, 2, 3, 4]));
    }

    proptest! {
        #[test]
        fn sums_of_pieces_join_to_the_sum_of_the_whole(
            pieces in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..3000), 1..6),
        ) {
            let whole = pieces.concat();
            for algorithm in ChecksumAlgorithm::ALL {
                let expected = Checksum::of(algorithm, &whole);
                let mut stream = ChecksumStream::new(algorithm);
                pieces.iter().for_each(|piece| stream.update(piece));
                prop_assert_eq!(stream.finish(), expected);
                let sums: Vec<_> = pieces.iter().map(|piece| (Checksum::of(algorithm, piece), piece.len() as u64)).collect();
                let joined = sums[1..].iter().try_fold(sums[0].0, |sum, (next, len)| sum.join(next, *len));
                prop_assert_eq!(joined, (algorithm.joins() || pieces.len() == 1).then_some(expected));
            }
        }
    }
}
