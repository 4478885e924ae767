//! Chunk indexes: `.caibx` of a blob, `.caidx` of an archive; one format.
//!
//! A [`ChunkIndex`] is a checked view of the file's bytes (which may be a mapped file: nothing is copied), an
//! [`IndexEncoder`] writes one item by item. Byte table: `formats/FORMATS.md`, "Index files".

use std::ops::Range;

use bytes::Bytes;

use crate::{CHUNK_LEN_MAX, ChunkId, ChunkSizes, DigestAlgorithm};

const INDEX_TYPE: u64 = 0x9682_4d9c_7b12_9ff9;
const TABLE_TYPE: u64 = 0xe75b_9e11_2f17_417d;
const TABLE_TAIL: u64 = 0x4b4f_050e_5549_ecd1;
const HEADER_LEN: usize = 48;
const ITEMS_AT: usize = 64;
const ITEM_LEN: usize = 40;

/// The 64-bit word that tells what a file's writer kept. Only the bits that matter to indexes have names here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FeatureFlags(pub u64);

impl FeatureFlags {
    const EXCLUDE_FILE: u64 = 1 << 60;
    const SHA512_256: u64 = 1 << 61;
    const EXCLUDE_NODUMP: u64 = 1 << 63;

    /// What casync 2 writes in the index of a blob.
    pub fn blob(algorithm: DigestAlgorithm) -> Self {
        let digest = match algorithm {
            DigestAlgorithm::Sha512_256 => Self::SHA512_256,
            DigestAlgorithm::Sha256 => 0,
        };
        Self(Self::EXCLUDE_FILE | Self::EXCLUDE_NODUMP | digest)
    }

    /// The digest that names the chunks (bit 61).
    pub fn digest_algorithm(self) -> DigestAlgorithm {
        if self.0 & Self::SHA512_256 != 0 {
            DigestAlgorithm::Sha512_256
        } else {
            DigestAlgorithm::Sha256
        }
    }
}

/// One item of an index: a chunk and the bytes of the blob that it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChunkSpan {
    /// The chunk's name.
    pub id: ChunkId,
    /// Where it lies in the blob, in bytes. Never empty.
    pub range: Range<u64>,
}

/// A checked index file.
#[derive(Clone, Debug)]
pub struct ChunkIndex {
    file: Bytes,
    flags: FeatureFlags,
    sizes: ChunkSizes,
}

/// Which rule an index file breaks, and where.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a chunk index: {rule} (at byte {offset})")]
pub struct IndexError {
    /// Offset in the file.
    pub offset: u64,
    /// The rule.
    pub rule: &'static str,
}

/// Writes an index item by item; the caller gathers the bytes.
#[derive(Clone, Debug)]
pub struct IndexEncoder {
    end: u64,
    items: u64,
}

impl ChunkIndex {
    /// Checks a whole index file (memory or mapped).
    ///
    /// Errors: [`IndexError`] with the first rule broken; everything that casync or desync refuses is refused, trailing bytes too.
    pub fn parse(file: Bytes) -> Result<Self, IndexError> {
        let broken = |offset: usize, rule| {
            Err(IndexError {
                offset: offset as u64,
                rule,
            })
        };
        if file.len() < ITEMS_AT + ITEM_LEN {
            return broken(file.len(), "shorter than the 104 bytes of an empty one");
        }
        if word(&file, 0) != HEADER_LEN as u64 || word(&file, 8) != INDEX_TYPE {
            return broken(0, "it does not start with an INDEX record");
        }
        let flags = FeatureFlags(word(&file, 16));
        let Ok(sizes) = ChunkSizes::new(word(&file, 24), word(&file, 32), word(&file, 40)) else {
            return broken(24, "chunk sizes must be 1 <= min <= avg <= max <= 134217728");
        };
        if word(&file, 48) != u64::MAX || word(&file, 56) != TABLE_TYPE {
            return broken(48, "no TABLE record after INDEX");
        }
        if !(file.len() - ITEMS_AT).is_multiple_of(ITEM_LEN) {
            return broken(file.len(), "the table is not a whole number of 40-byte items");
        }
        let tail = file.len() - ITEM_LEN;
        if word(&file, tail) != 0 || word(&file, tail + 8) != 0 {
            return broken(tail, "the table's tail does not start with zeros");
        }
        if word(&file, tail + 16) != HEADER_LEN as u64
            || word(&file, tail + 24) != (file.len() - HEADER_LEN) as u64
            || word(&file, tail + 32) != TABLE_TAIL
        {
            return broken(tail + 16, "the table's tail does not fit the file");
        }
        let mut start = 0;
        for at in (ITEMS_AT..tail).step_by(ITEM_LEN) {
            let end = word(&file, at);
            if end <= start {
                return broken(at, "chunk ends must rise");
            }
            if end - start > sizes.max() as u64 {
                return broken(at, "a chunk is longer than the index's own max");
            }
            start = end;
        }
        Ok(Self { file, flags, sizes })
    }

    /// Number of chunks, repeats counted.
    pub fn len(&self) -> usize {
        (self.file.len() - ITEMS_AT) / ITEM_LEN - 1
    }

    /// Whether the blob is empty.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Item `at`. Panics when `at >= len()`.
    pub fn span(&self, at: usize) -> ChunkSpan {
        assert!(at < self.len(), "item {at} of an index of {}", self.len());
        let offset = ITEMS_AT + at * ITEM_LEN;
        let start = if at == 0 {
            0
        } else {
            word(&self.file, offset - ITEM_LEN)
        };
        let id = self.file[offset + 8..offset + ITEM_LEN].try_into().expect("32 bytes");
        ChunkSpan {
            id: ChunkId::from_bytes(id),
            range: start..word(&self.file, offset),
        }
    }

    /// All items in order.
    pub fn spans(&self) -> impl ExactSizeIterator<Item = ChunkSpan> + '_ {
        (0..self.len()).map(|at| self.span(at))
    }

    /// Length of the blob in bytes.
    pub fn blob_len(&self) -> u64 {
        if self.is_empty() {
            0
        } else {
            word(&self.file, self.file.len() - 2 * ITEM_LEN)
        }
    }

    /// Index of the item that holds byte `offset` of the blob, or `None` past its end.
    pub fn find(&self, offset: u64) -> Option<usize> {
        let (mut low, mut high) = (0, self.len());
        while low < high {
            let middle = low + (high - low) / 2;
            if self.span(middle).range.end <= offset {
                low = middle + 1
            } else {
                high = middle
            }
        }
        (low < self.len()).then_some(low)
    }

    /// The feature flags.
    pub fn flags(&self) -> FeatureFlags {
        self.flags
    }

    /// The chunk sizes that the writer used.
    pub fn sizes(&self) -> ChunkSizes {
        self.sizes
    }

    /// The digest that names the chunks.
    pub fn digest_algorithm(&self) -> DigestAlgorithm {
        self.flags.digest_algorithm()
    }

    /// The file's bytes.
    pub fn as_bytes(&self) -> &Bytes {
        &self.file
    }
}

impl IndexEncoder {
    /// Starts an index: appends the INDEX record and the TABLE's header to `out`.
    pub fn start(flags: FeatureFlags, sizes: ChunkSizes, out: &mut Vec<u8>) -> Self {
        let sizes = [sizes.min() as u64, sizes.avg() as u64, sizes.max() as u64];
        push(out, &[HEADER_LEN as u64, INDEX_TYPE, flags.0]);
        push(out, &sizes);
        push(out, &[u64::MAX, TABLE_TYPE]);
        Self { end: 0, items: 0 }
    }

    /// Appends the next chunk. Panics when `len` is 0 or above [`CHUNK_LEN_MAX`]: no chunker makes such a chunk.
    pub fn push(&mut self, id: ChunkId, len: usize, out: &mut Vec<u8>) {
        assert!((1..=CHUNK_LEN_MAX).contains(&len), "a chunk of {len} bytes");
        self.end += len as u64;
        self.items += 1;
        push(out, &[self.end]);
        out.extend_from_slice(id.as_bytes());
    }

    /// Appends the tail.
    pub fn finish(self, out: &mut Vec<u8>) {
        push(
            out,
            &[0, 0, HEADER_LEN as u64, 56 + ITEM_LEN as u64 * self.items, TABLE_TAIL],
        );
    }
}

fn push(out: &mut Vec<u8>, words: &[u64]) {
    for word in words {
        out.extend_from_slice(&word.to_le_bytes());
    }
}

fn word(file: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(file[at..at + 8].try_into().expect("eight bytes"))
}
