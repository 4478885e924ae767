//! Packs: many chunks in one append-only file, which is also the store's log.
//!
//! A pack is a header, records and, once it is sealed, a footer. Everything but the frames of chunks lies in zstd's skippable
//! frames, so the whole file is a legal zstd stream and `zstd -d` gives back the plain chunks without any tool of ours. A
//! record describes itself: footer and every index of a pack can be made again from its records, and a torn or damaged record
//! loses one chunk. The byte tables are in `formats/FORMATS.md`, "Packs".
//!
//! A record's check covers the pack's random id and the record's own place: a record that a disk wrote into the wrong place,
//! or that somebody uploaded as the bytes of a chunk, is none.

mod footer;
mod gone;
mod header;
mod record;
mod removal;
mod snapshot;
#[cfg(test)]
mod tests;

pub use footer::{PACK_TAIL_LEN, PackFooter, PackTail};
pub use gone::{GONE_LEN_MAX, GONE_MAX, GoneChunk};
pub use header::{PACK_HAS_SNAPSHOTS, PACK_HEADER_LEN, PackHeader, PackUuid};
pub use record::{
    DomainId, PackEntry, RECORD_HEAD_LEN, RECORD_LEN_MAX, RECORD_PREFIX_LEN_MAX, RecordHead, RecordKind, RecordSpan,
    find_record,
};
pub use removal::Removal;
pub use snapshot::{SNAPSHOT_HEAD_LEN, SnapshotEnd, SnapshotHead, SnapshotUuid};

/// First four bytes of a skippable frame of ours (zstd leaves 0x184D2A50..=0x184D2A5F to applications).
const SKIPPABLE: u32 = 0x184D_2A5C;

/// Bytes in front of a skippable frame's content: the magic number and the length.
const SKIPPABLE_HEAD_LEN: usize = 8;

/// Longest pack: places are kept as eighths of the offset, in 32 bits.
pub const PACK_LEN_MAX: u64 = 1 << 35;

/// Why bytes are not a part of a pack.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PackError {
    /// It does not begin as a pack does.
    #[error("not a pack: its first bytes are others")]
    NotAPack,
    /// A later release wrote it, with something that this one must know to read it.
    #[error("the pack is of format {version} with features {features:#x}, which this release cannot read")]
    Newer {
        /// Version in the header.
        version: u32,
        /// Features that a reader must know, of those it does not.
        features: u32,
    },
    /// The file ends before the part does.
    #[error("the pack ends at byte {at} in the middle of {part}")]
    Cut {
        /// Length that was there.
        at: u64,
        /// What was being read.
        part: &'static str,
    },
    /// A check sum or a field is wrong.
    #[error("the pack is damaged at byte {at}: {what}")]
    Damaged {
        /// Offset in the pack.
        at: u64,
        /// What is wrong.
        what: &'static str,
    },
}

/// CRC-32C (Castagnoli) of pieces that follow each other.
fn crc32c(pieces: &[&[u8]]) -> u32 {
    let mut digest = crc_fast::Digest::new(crc_fast::CrcAlgorithm::Crc32Iscsi);
    for piece in pieces {
        digest.update(piece);
    }
    // A 32-bit sum in the 64 bits that all widths share.
    digest.finalize() as u32
}

/// CRC-32C of a record's payload, as heads and entries hold it.
pub fn payload_crc(payload: &[u8]) -> u32 {
    crc_fast::checksum(crc_fast::CrcAlgorithm::Crc32Iscsi, payload) as u32
}

/// The little-endian number at a place that the caller has made sure of.
fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes"))
}

/// As [`u32_at`].
fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"))
}

/// As [`u32_at`].
fn id_at(bytes: &[u8], at: usize) -> crate::ChunkId {
    crate::ChunkId::from_bytes(bytes[at..at + 32].try_into().expect("32 bytes"))
}

/// What makes `len` bytes of a pack, itself among them, a skippable frame; `None` if they are too few.
pub fn skippable_head(len: u64) -> Option<[u8; SKIPPABLE_HEAD_LEN]> {
    let content = u32::try_from(len.checked_sub(SKIPPABLE_HEAD_LEN as u64)?).ok()?;
    let mut head = [0; SKIPPABLE_HEAD_LEN];
    head[..4].copy_from_slice(&SKIPPABLE.to_le_bytes());
    head[4..].copy_from_slice(&content.to_le_bytes());
    Some(head)
}

/// Begins a skippable frame of `len` bytes of content.
fn push_skippable_head(len: usize, out: &mut Vec<u8>) {
    let head = skippable_head((SKIPPABLE_HEAD_LEN + len) as u64);
    out.extend_from_slice(&head.expect("records and footers are bounded far below 4 GiB"));
}
