//! Digests that name chunks, one at a time and many together.
//!
//! SHA-512/256 names every chunk on `make` and proves every chunk on `extract` and `verify`, so it is the slowest stage that
//! no data can avoid. Chunks are independent: the kernels here hash several in the lanes of one vector, where one message
//! alone leaves the core waiting for its own previous round. `lanes.rs` keeps the lanes busy, one file a kernel holds the
//! rounds, and the rest (one message, short batches, other machines) is the `sha2` crate's.
//!
//! On a Zen 5 core, chunks of 64 KiB: `sha2` 0.84 GB/s, OpenSSL 3.0 1.19, AVX2 1.6, AVX-512 4.5 (`make bench`, row `kernels`).
//!
//! Hot path. Keep out: copies of whole messages, allocations per message. `unsafe` is allowed in the kernel files alone.

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
#[cfg(target_arch = "x86_64")]
mod lanes;
#[cfg(target_arch = "x86_64")]
mod rounds;
#[cfg(target_arch = "x86_64")]
mod sha512_instructions;
#[cfg(test)]
mod tests;

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
    ///
    /// Best given the chunks of a MiB or more: the lanes run until the longest message of the batch ends.
    pub fn id_many(self, plains: &[&[u8]]) -> Vec<ChunkId> {
        match self {
            Self::Sha512_256 => DigestKernel::best().ids(plains),
            // One stream of the SHA instructions is faster than SHA-512/256 in lanes, so it stays as it is.
            Self::Sha256 => plains.iter().map(|plain| self.id(plain)).collect(),
        }
    }
}

/// A digest of bytes that come in pieces: of a file in an archive, which no chunk holds whole.
#[derive(Clone, Debug)]
pub struct DigestStream(Stream);

#[derive(Clone, Debug)]
enum Stream {
    Sha512_256(sha2::Sha512_256),
    Sha256(sha2::Sha256),
}

impl DigestStream {
    /// The digest of no bytes yet.
    pub fn new(algorithm: DigestAlgorithm) -> Self {
        Self(match algorithm {
            DigestAlgorithm::Sha512_256 => Stream::Sha512_256(sha2::Sha512_256::new()),
            DigestAlgorithm::Sha256 => Stream::Sha256(sha2::Sha256::new()),
        })
    }

    /// Takes the next bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        match &mut self.0 {
            Stream::Sha512_256(digest) => digest.update(bytes),
            Stream::Sha256(digest) => digest.update(bytes),
        }
    }

    /// The digest, 32 bytes.
    pub fn finish(self) -> [u8; 32] {
        match self.0 {
            Stream::Sha512_256(digest) => digest.finalize().into(),
            Stream::Sha256(digest) => digest.finalize().into(),
        }
    }
}

/// A way to compute many SHA-512/256 digests on this CPU.
///
/// Callers use [`DigestAlgorithm::id_many`], which takes the best; naming one is for tests and benches.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum DigestKernel {
    /// One message after the other by the `sha2` crate. Runs everywhere.
    Library,
    /// 4 messages in AVX2 vectors.
    Avx2,
    /// 2 messages interleaved on the SHA512 instructions (Intel Arrow Lake, Lunar Lake and later).
    Sha512Instructions,
    /// 8 messages in AVX-512 vectors.
    Avx512,
}

impl DigestKernel {
    /// All kernels, slowest first.
    const ALL: [Self; 4] = [Self::Library, Self::Avx2, Self::Sha512Instructions, Self::Avx512];

    /// The kernels this CPU can run, slowest first; never empty.
    pub fn available() -> Vec<Self> {
        Self::ALL.into_iter().filter(|kernel| kernel.is_available()).collect()
    }

    /// The fastest kernel this CPU can run. Costs a few loads: the CPU is asked once in the life of the process.
    pub fn best() -> Self {
        Self::ALL
            .into_iter()
            .rev()
            .find(|kernel| kernel.is_available())
            .unwrap_or(Self::Library)
    }

    /// The SHA-512/256 ids of `plains`, in order. A kernel that this CPU lacks falls back to the library.
    pub fn ids(self, plains: &[&[u8]]) -> Vec<ChunkId> {
        #[cfg(target_arch = "x86_64")]
        match self {
            Self::Library => {}
            Self::Avx2 => {
                if let Some(kernel) = avx2::Avx2::detect() {
                    return lanes::ids(&kernel, plains);
                }
            }
            Self::Sha512Instructions => {
                if let Some(kernel) = sha512_instructions::Sha512Instructions::detect() {
                    return lanes::ids(&kernel, plains);
                }
            }
            Self::Avx512 => {
                if let Some(kernel) = avx512::Avx512::detect() {
                    return lanes::ids(&kernel, plains);
                }
            }
        }
        plains
            .iter()
            .map(|plain| DigestAlgorithm::Sha512_256.id(plain))
            .collect()
    }

    fn is_available(self) -> bool {
        #[cfg(target_arch = "x86_64")]
        match self {
            Self::Library => true,
            Self::Avx2 => avx2::Avx2::detect().is_some(),
            Self::Sha512Instructions => sha512_instructions::Sha512Instructions::detect().is_some(),
            Self::Avx512 => avx512::Avx512::detect().is_some(),
        }
        #[cfg(not(target_arch = "x86_64"))]
        {
            self == Self::Library
        }
    }
}
