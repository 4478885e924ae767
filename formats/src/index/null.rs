//! The chunk that a long run of zeros is cut into.

use sha2::{Digest, Sha256, Sha512_256};

use crate::{ChunkId, ChunkIndex, ChunkSpan, DigestAlgorithm};

/// The chunk of the largest size that holds nothing but zeros, which a reader makes without a store.
///
/// A span is this chunk by id **and** length: an index can pair the id with another length, and such a span must not be
/// taken for zeros, nor for this chunk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NullChunk {
    id: ChunkId,
    len: usize,
}

impl NullChunk {
    /// The null chunk of `len` bytes. Hashes them, 1 ms per MiB: make it once per index or process.
    pub fn new(algorithm: DigestAlgorithm, len: usize) -> Self {
        Self {
            id: match algorithm {
                DigestAlgorithm::Sha512_256 => zeros_id::<Sha512_256>(len),
                DigestAlgorithm::Sha256 => zeros_id::<Sha256>(len),
            },
            len,
        }
    }

    /// The null chunk of an index: its digest, its largest chunk size.
    pub fn of(index: &ChunkIndex) -> Self {
        Self::new(index.digest_algorithm(), index.sizes().max())
    }

    /// Its name.
    pub fn id(&self) -> ChunkId {
        self.id
    }

    /// How many zeros it has.
    pub fn plain_len(&self) -> usize {
        self.len
    }

    /// Whether this span of an index is the null chunk.
    pub fn is(&self, span: &ChunkSpan) -> bool {
        span.id == self.id && span.range.end - span.range.start == self.len as u64
    }
}

fn zeros_id<D: Digest<OutputSize = sha2::digest::consts::U32>>(mut len: usize) -> ChunkId {
    const ZEROS: [u8; 16 << 10] = [0; 16 << 10];
    let mut digest = D::new();
    while len > 0 {
        let piece = len.min(ZEROS.len());
        digest.update(&ZEROS[..piece]);
        len -= piece;
    }
    ChunkId::from_bytes(digest.finalize().into())
}
