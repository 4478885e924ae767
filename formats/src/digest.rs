//! Digests that name chunks.

use sha2::Digest as _;

use crate::ChunkId;

/// The digest whose value names a chunk. Bit 61 of an index's feature flags tells which one an index uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub enum DigestAlgorithm {
    /// SHA-512/256 of FIPS 180-4 (its own initial state, not SHA-512 cut short). casync's default.
    #[default]
    Sha512_256,
    /// SHA-256.
    Sha256,
}

impl DigestAlgorithm {
    /// The id of one chunk's plain bytes.
    pub fn id(self, plain: &[u8]) -> ChunkId {
        ChunkId::from_bytes(match self {
            Self::Sha512_256 => sha2::Sha512_256::digest(plain).into(),
            Self::Sha256 => sha2::Sha256::digest(plain).into(),
        })
    }

    /// The ids of many chunks at once, in order; faster than one by one where the CPU can hash several together.
    pub fn id_many(self, plains: &[&[u8]]) -> Vec<ChunkId> {
        plains.iter().map(|plain| self.id(plain)).collect()
    }
}
