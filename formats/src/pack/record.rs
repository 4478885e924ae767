//! One record: a chunk, a batch of the index, chunks taken away, a piece of a snapshot of the index.

use super::{
    PACK_LEN_MAX, PackError, PackUuid, SKIPPABLE, SKIPPABLE_HEAD_LEN, crc32c, id_at, push_skippable_head, u32_at,
};
use crate::{CHUNK_LEN_MAX, ChunkId};

/// Bytes of a record's head, which ends where the payload begins.
pub const RECORD_HEAD_LEN: usize = 64;

const MAGIC: u32 = u32::from_le_bytes(*b"CaRc");

/// Most bytes in front of a record's payload: the skippable frame's own head, padding, the record's head.
pub const RECORD_PREFIX_LEN_MAX: usize = SKIPPABLE_HEAD_LEN + 7 + RECORD_HEAD_LEN;

/// Longest payload: the longest chunk in a frame of any writer. Entries have 28 bits for it.
pub const RECORD_LEN_MAX: usize = CHUNK_LEN_MAX + (CHUNK_LEN_MAX >> 7) + 4096;

/// Who may find a chunk: chunks of one domain are stored once, and are not there for another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct DomainId(pub u32);

/// What a record holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum RecordKind {
    /// A chunk: the payload is its zstd frame, exactly as a `.cacnk` file holds it.
    Chunk,
    /// A batch of changes to the index, in the index's own encoding. It relies on all records before it.
    Commit,
    /// Chunks that are no longer where they were: a list of [`super::Removal`].
    Removals,
    /// A piece of a snapshot of the index ([`super::SnapshotHead`]). Only in packs with [`super::PACK_HAS_SNAPSHOTS`].
    Snapshot,
}

impl RecordKind {
    pub(super) fn to_byte(self) -> u8 {
        match self {
            Self::Chunk => 1,
            Self::Commit => 2,
            Self::Removals => 3,
            Self::Snapshot => 4,
        }
    }

    pub(super) fn from_byte(byte: u8) -> Option<Self> {
        Some(match byte {
            1 => Self::Chunk,
            2 => Self::Commit,
            3 => Self::Removals,
            4 => Self::Snapshot,
            _ => return None,
        })
    }
}

/// A record as an index of the pack names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PackEntry {
    /// What it holds.
    pub kind: RecordKind,
    /// Kept even if no index names it.
    pub pinned: bool,
    /// Whose chunk it is.
    pub domain: DomainId,
    /// The chunk's name; of other records the BLAKE3 of the payload.
    pub id: ChunkId,
    /// Offset of the payload in the pack, a multiple of 8.
    pub offset: u64,
    /// Bytes of the payload.
    pub len: u32,
    /// Bytes of the plain chunk; 0 for other records.
    pub plain_len: u32,
    /// CRC-32C of the payload.
    pub crc: u32,
}

/// Where the parts of a record lie, as offsets in the pack.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RecordSpan {
    /// First byte of the skippable frame.
    pub start: u64,
    /// First byte of the payload.
    pub payload: u64,
    /// First byte behind the payload.
    pub end: u64,
}

impl RecordSpan {
    /// The parts of a record that begins at `start`.
    pub fn at(start: u64, payload_len: usize) -> Self {
        let payload = (start + SKIPPABLE_HEAD_LEN as u64).next_multiple_of(8) + RECORD_HEAD_LEN as u64;
        Self {
            start,
            payload,
            end: payload + payload_len as u64,
        }
    }
}

/// A record without its place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RecordHead {
    /// What it holds.
    pub kind: RecordKind,
    /// Kept even if no index names it.
    pub pinned: bool,
    /// Whose chunk it is.
    pub domain: DomainId,
    /// The pack was on the disk up to here, at least, when this record was written. A multiple of 8.
    pub synced: u64,
    /// The chunk's name; of other records the BLAKE3 of the payload.
    pub id: ChunkId,
    /// Bytes of the payload.
    pub len: u32,
    /// Bytes of the plain chunk; 0 for other records.
    pub plain_len: u32,
    /// CRC-32C of the payload.
    pub crc: u32,
}

const PINNED: u8 = 1;

impl RecordHead {
    /// Writes what stands in front of the payload of a record that begins at `start`.
    pub fn push(&self, pack: &PackUuid, start: u64, out: &mut Vec<u8>) -> RecordSpan {
        let span = RecordSpan::at(start, self.len as usize);
        assert!(span.end <= PACK_LEN_MAX, "packs end far below their longest length");
        let skipped_to = match self.kind {
            RecordKind::Chunk => span.payload,
            RecordKind::Commit | RecordKind::Removals | RecordKind::Snapshot => span.end,
        };
        push_skippable_head((skipped_to - start) as usize - SKIPPABLE_HEAD_LEN, out);
        let padding = (span.payload - start) as usize - SKIPPABLE_HEAD_LEN - RECORD_HEAD_LEN;
        out.extend_from_slice(&[0; 8][..padding]);
        let head = out.len();
        out.extend_from_slice(&MAGIC.to_le_bytes());
        out.extend_from_slice(&[self.kind.to_byte(), if self.pinned { PINNED } else { 0 }, 0, 0]);
        for word in [self.domain.0, (self.synced / 8) as u32, self.plain_len, self.len] {
            out.extend_from_slice(&word.to_le_bytes());
        }
        out.extend_from_slice(self.id.as_bytes());
        out.extend_from_slice(&self.crc.to_le_bytes());
        let crc = head_crc(pack, span.payload, &out[head..]);
        out.extend_from_slice(&crc.to_le_bytes());
        span
    }

    /// Reads what stands in front of a payload.
    ///
    /// - `bytes`: the pack from `start` on, at least [`RECORD_PREFIX_LEN_MAX`] bytes or up to its end. Cannot panic.
    /// - Errors: [`PackError::Cut`], [`PackError::Damaged`]. The payload is not looked at.
    pub fn decode(pack: &PackUuid, start: u64, bytes: &[u8]) -> Result<(Self, RecordSpan), PackError> {
        let damaged = |what| PackError::Damaged { at: start, what };
        let head = (RecordSpan::at(start, 0).payload - start) as usize - RECORD_HEAD_LEN;
        let Some(head_bytes) = bytes.get(head..head + RECORD_HEAD_LEN) else {
            return Err(PackError::Cut {
                at: start + bytes.len() as u64,
                part: "a record",
            });
        };
        if u32_at(bytes, 0) != SKIPPABLE {
            return Err(damaged("no record begins here"));
        }
        let (record, span) = decode_head(pack, start + (head + RECORD_HEAD_LEN) as u64, head_bytes)
            .ok_or_else(|| damaged("the head of a record does not fit its check sum"))?;
        let span = RecordSpan { start, ..span };
        Ok((record, span))
    }

    /// Reads the head of the record whose payload begins at `payload`; `None` if it is not whole.
    ///
    /// - `head`: the [`RECORD_HEAD_LEN`] bytes in front of the payload. Cannot panic.
    pub fn decode_before(pack: &PackUuid, payload: u64, head: &[u8]) -> Option<(Self, RecordSpan)> {
        (head.len() == RECORD_HEAD_LEN)
            .then(|| decode_head(pack, payload, head))
            .flatten()
    }

    /// As an index of the pack names it.
    pub fn entry(&self, span: RecordSpan) -> PackEntry {
        PackEntry {
            kind: self.kind,
            pinned: self.pinned,
            domain: self.domain,
            id: self.id,
            offset: span.payload,
            len: self.len,
            plain_len: self.plain_len,
            crc: self.crc,
        }
    }
}

/// Finds the next record in a damaged pack: the first head that is whole. Of the span, `start` is only the latest that it can be.
///
/// - `offset`: where `bytes` lie in the pack; nothing is found that does not begin in them.
pub fn find_record(pack: &PackUuid, offset: u64, bytes: &[u8]) -> Option<(RecordHead, RecordSpan)> {
    let first = (offset.next_multiple_of(8) - offset) as usize;
    (first..bytes.len().saturating_sub(RECORD_HEAD_LEN - 1))
        .step_by(8)
        .find_map(|at| {
            decode_head(
                pack,
                offset + (at + RECORD_HEAD_LEN) as u64,
                &bytes[at..at + RECORD_HEAD_LEN],
            )
        })
}

/// A head of exactly [`RECORD_HEAD_LEN`] bytes whose payload would begin at `payload`.
fn decode_head(pack: &PackUuid, payload: u64, head: &[u8]) -> Option<(RecordHead, RecordSpan)> {
    if u32_at(head, 0) != MAGIC || head_crc(pack, payload, &head[..60]) != u32_at(head, 60) {
        return None;
    }
    let len = u32_at(head, 20);
    if len as usize > RECORD_LEN_MAX {
        return None;
    }
    let record = RecordHead {
        kind: RecordKind::from_byte(head[4])?,
        pinned: head[5] & PINNED != 0,
        domain: DomainId(u32_at(head, 8)),
        synced: u64::from(u32_at(head, 12)) * 8,
        plain_len: u32_at(head, 16),
        len,
        id: id_at(head, 24),
        crc: u32_at(head, 56),
    };
    let span = RecordSpan {
        start: payload.checked_sub((RECORD_HEAD_LEN + SKIPPABLE_HEAD_LEN) as u64)?,
        payload,
        end: payload + u64::from(len),
    };
    Some((record, span))
}

fn head_crc(pack: &PackUuid, payload: u64, head: &[u8]) -> u32 {
    crc32c(&[&pack.0, &payload.to_le_bytes(), head])
}
