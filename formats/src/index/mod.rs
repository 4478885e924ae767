//! Chunk indexes: `.caibx` of a blob, `.caidx` of an archive; one format.
//!
//! A [`ChunkIndex`] is a checked view of the file's bytes (which may be a mapped file: nothing is copied), an
//! [`IndexEncoder`] writes one item by item. Checked is all that casync or desync check, so nothing else here can fail;
//! that takes one pass over the file, without memory. Byte table: `formats/FORMATS.md`, "Index files".

mod null;
#[cfg(test)]
mod tests;

use std::ops::Range;

use bytes::Bytes;

pub use null::NullChunk;

use crate::archive::ENTRY_TYPE;
use crate::words::{push_words, word};
use crate::{CHUNK_LEN_MAX, ChunkId, ChunkSizes, DigestAlgorithm, FeatureFlags};

const INDEX_TYPE: u64 = 0x9682_4d9c_7b12_9ff9;
const TABLE_TYPE: u64 = 0xe75b_9e11_2f17_417d;
const TABLE_TAIL: u64 = 0x4b4f_050e_5549_ecd1;
const HEADER_LEN: usize = 48;
const FILE_LEN_MIN: usize = 104;
const ITEMS_AT: usize = 64;
const ITEM_LEN: usize = 40;

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
    /// Whether a file that begins with these 16 bytes means to be an index.
    pub fn starts_one(head: &[u8; 16]) -> bool {
        word(head, 8) == INDEX_TYPE
    }

    /// Checks a whole index file (memory or mapped).
    ///
    /// Errors: [`IndexError`] with the first rule broken; everything that casync or desync refuses is refused, trailing bytes too.
    pub fn parse(file: Bytes) -> Result<Self, IndexError> {
        check_head(&file)?;
        check_tail(&file).map_err(|error| trailing_bytes(&file).unwrap_or(error))?;
        let (min, avg, max) = (word(&file, 24), word(&file, 32), word(&file, 40));
        let sizes = ChunkSizes::new(min, avg, max).map_err(|_| {
            let bounded = |size| (1..=CHUNK_LEN_MAX as u64).contains(&size);
            if !bounded(min) {
                broken(24, "the smallest chunk size is not in 1..=134217728")
            } else if !bounded(avg) {
                broken(32, "the average chunk size is not in 1..=134217728")
            } else if !bounded(max) {
                broken(40, "the largest chunk size is not in 1..=134217728")
            } else {
                broken(24, "the chunk sizes are not smallest <= average <= largest")
            }
        })?;
        let items = &file[ITEMS_AT..file.len() - ITEM_LEN];
        let (mut start, max) = (0, sizes.max() as u64);
        for (at, item) in items.chunks_exact(ITEM_LEN).enumerate() {
            let end = word(item, 0);
            // A chunk that ends before it starts wraps round to a length that no chunk has.
            if end.wrapping_sub(start).wrapping_sub(1) >= max {
                let rule = if end == 0 {
                    "the table's tail starts before the end of the file"
                } else if end <= start {
                    "a chunk does not end behind the one before it"
                } else {
                    "a chunk is longer than the index's largest chunk size"
                };
                return Err(broken(ITEMS_AT + at * ITEM_LEN, rule));
            }
            start = end;
        }
        Ok(Self {
            flags: FeatureFlags(word(&file, 16)),
            sizes,
            file,
        })
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
        push_words(out, &[HEADER_LEN as u64, INDEX_TYPE, flags.0]);
        push_words(out, &sizes);
        push_words(out, &[u64::MAX, TABLE_TYPE]);
        Self { end: 0, items: 0 }
    }

    /// Appends the next chunk. Panics when `len` is 0 or above [`CHUNK_LEN_MAX`]: no chunker makes such a chunk.
    pub fn push(&mut self, id: ChunkId, len: usize, out: &mut Vec<u8>) {
        assert!((1..=CHUNK_LEN_MAX).contains(&len), "a chunk of {len} bytes");
        self.end += len as u64;
        self.items += 1;
        push_words(out, &[self.end]);
        out.extend_from_slice(id.as_bytes());
    }

    /// Appends the tail.
    pub fn finish(self, out: &mut Vec<u8>) {
        push_words(
            out,
            &[0, 0, HEADER_LEN as u64, 56 + ITEM_LEN as u64 * self.items, TABLE_TAIL],
        );
    }
}

fn broken(offset: usize, rule: &'static str) -> IndexError {
    IndexError {
        offset: offset as u64,
        rule,
    }
}

/// INDEX, but for the chunk sizes, and the TABLE's header.
fn check_head(file: &[u8]) -> Result<(), IndexError> {
    match file.get(8..16) {
        Some(bytes) if word(bytes, 0) == ENTRY_TYPE => {
            return Err(broken(
                8,
                "it is an archive (.catar), whose index is another file (.caidx)",
            ));
        }
        Some(bytes) if word(bytes, 0) != INDEX_TYPE => {
            return Err(broken(8, "it does not start with an INDEX record"));
        }
        Some(_) if file.len() >= FILE_LEN_MIN => {}
        _ => return Err(broken(file.len(), "it is cut short: an index has at least 104 bytes")),
    }
    if word(file, 0) != HEADER_LEN as u64 {
        return Err(broken(0, "the INDEX record's size is not 48"));
    }
    if let Some(rule) = FeatureFlags(word(file, 16)).broken_rule() {
        return Err(broken(16, rule));
    }
    if word(file, 48) != u64::MAX {
        return Err(broken(48, "the TABLE record's size is not open (all ones)"));
    }
    if word(file, 56) != TABLE_TYPE {
        return Err(broken(56, "no TABLE record follows INDEX"));
    }
    Ok(())
}

/// The tail, which has to be the last 40 bytes of a file whose length is right.
fn check_tail(file: &[u8]) -> Result<(), IndexError> {
    if !(file.len() - ITEMS_AT).is_multiple_of(ITEM_LEN) {
        return Err(broken(
            file.len(),
            "the table is not a whole number of 40-byte items: it is cut short, or bytes follow it",
        ));
    }
    let tail = file.len() - ITEM_LEN;
    if word(file, tail + 32) != TABLE_TAIL {
        return Err(broken(
            tail + 32,
            "no table tail ends the file: it is cut short, or bytes follow it",
        ));
    }
    if word(file, tail) != 0 {
        return Err(broken(tail, "the table tail's first word is not 0"));
    }
    if word(file, tail + 8) != 0 {
        return Err(broken(tail + 8, "the table tail's second word is not 0"));
    }
    if word(file, tail + 16) != HEADER_LEN as u64 {
        return Err(broken(
            tail + 16,
            "the table tail does not give 48 as the table's offset",
        ));
    }
    if word(file, tail + 24) != (file.len() - HEADER_LEN) as u64 {
        return Err(broken(tail + 24, "the table tail's size is not the table's"));
    }
    Ok(())
}

/// The error of a file that goes on behind a right tail, which says more than what is wrong with its last 40 bytes.
fn trailing_bytes(file: &[u8]) -> Option<IndexError> {
    let items = file[ITEMS_AT..].chunks_exact(ITEM_LEN);
    // No chunk ends at byte 0: the first such item has to be the tail.
    let end = ITEMS_AT + (items.take_while(|item| word(item, 0) != 0).count() + 1) * ITEM_LEN;
    (end < file.len() && check_tail(&file[..end]).is_ok())
        .then(|| broken(end, "trailing bytes follow the end of its table"))
}
