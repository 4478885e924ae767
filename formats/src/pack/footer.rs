//! The end of a sealed pack: all its records, in order of their names, and a digest of everything before.

use super::{
    PACK_LEN_MAX, PackEntry, PackError, RECORD_LEN_MAX, RecordKind, SKIPPABLE_HEAD_LEN, crc32c, id_at,
    push_skippable_head,
};
use super::{u32_at, u64_at};
use crate::pack::DomainId;

/// Bytes of the last part of a footer, which tells how long the rest is.
pub const PACK_TAIL_LEN: usize = 64;

/// Bytes of an entry.
const ENTRY_LEN: usize = 52;

const MAGIC: &[u8; 8] = b"CairnEnd";

const LEN_BITS: u32 = 28;

const PINNED: u32 = 1;

// Lengths share 32 bits with a kind or with flags.
const _: () = assert!(RECORD_LEN_MAX < 1 << LEN_BITS);

/// A sealed pack's own index.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PackFooter {
    /// Its records: chunks first, by domain and id, then the others by offset.
    pub entries: Vec<PackEntry>,
    /// BLAKE3 of all bytes before the footer.
    pub root: [u8; 32],
    /// Where the footer begins.
    pub start: u64,
}

/// The last bytes of a footer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PackTail {
    /// BLAKE3 of all bytes before the footer.
    pub root: [u8; 32],
    /// Where the footer begins.
    pub start: u64,
    entries: u32,
    crc: u32,
}

impl PackFooter {
    /// A footer for these records, in any order.
    pub fn new(mut entries: Vec<PackEntry>, root: [u8; 32], start: u64) -> Self {
        entries.sort_unstable_by_key(|entry| {
            (
                entry.kind,
                (entry.kind == RecordKind::Chunk).then_some((entry.domain, entry.id)),
                entry.offset,
            )
        });
        Self { entries, root, start }
    }

    /// The bytes: one skippable frame that ends the file.
    pub fn encode(&self) -> Vec<u8> {
        let content = self.entries.len() * ENTRY_LEN + PACK_TAIL_LEN;
        let mut out = Vec::with_capacity(SKIPPABLE_HEAD_LEN + content);
        push_skippable_head(content, &mut out);
        for entry in &self.entries {
            out.extend_from_slice(entry.id.as_bytes());
            let kind = u32::from(entry.kind.to_byte()) << LEN_BITS | entry.len;
            let flags = (if entry.pinned { PINNED } else { 0 }) << LEN_BITS | entry.plain_len;
            for word in [entry.domain.0, (entry.offset / 8) as u32, kind, flags, entry.crc] {
                out.extend_from_slice(&word.to_le_bytes());
            }
        }
        let tail = out.len();
        out.extend_from_slice(&self.root);
        out.extend_from_slice(&self.start.to_le_bytes());
        out.extend_from_slice(&(self.entries.len() as u32).to_le_bytes());
        // Room for parity.
        out.extend_from_slice(&[0; 8]);
        let crc = crc32c(&[&out[SKIPPABLE_HEAD_LEN..tail], &out[tail..]]);
        out.extend_from_slice(&crc.to_le_bytes());
        out.extend_from_slice(MAGIC);
        out
    }

    /// Reads a footer.
    ///
    /// - `bytes`: the pack from [`PackTail::start`] to its end. Cannot panic.
    /// - Errors: [`PackError::Damaged`].
    pub fn decode(tail: &PackTail, bytes: &[u8]) -> Result<Self, PackError> {
        let damaged = |what| PackError::Damaged { at: tail.start, what };
        let content = tail.entries as usize * ENTRY_LEN + PACK_TAIL_LEN;
        if bytes.len() != SKIPPABLE_HEAD_LEN + content {
            return Err(damaged("the footer has another length than it says"));
        }
        let checked = bytes.len() - 12;
        if crc32c(&[&bytes[SKIPPABLE_HEAD_LEN..checked]]) != tail.crc {
            return Err(damaged("the footer's check sum does not fit"));
        }
        let entries = bytes[SKIPPABLE_HEAD_LEN..SKIPPABLE_HEAD_LEN + content - PACK_TAIL_LEN]
            .chunks_exact(ENTRY_LEN)
            .map(|entry| decode_entry(entry, tail.start).ok_or_else(|| damaged("an entry points outside of the pack")))
            .collect::<Result<_, _>>()?;
        Ok(Self {
            entries,
            root: tail.root,
            start: tail.start,
        })
    }
}

impl PackTail {
    /// Reads the last [`PACK_TAIL_LEN`] bytes of a pack.
    ///
    /// - `len`: length of the pack. Cannot panic.
    /// - Returns `None` when these are not the last bytes of a footer: the pack is not sealed.
    pub fn decode(len: u64, bytes: &[u8]) -> Option<Self> {
        if bytes.len() != PACK_TAIL_LEN || bytes[56..] != *MAGIC {
            return None;
        }
        let entries = u32_at(bytes, 40);
        let start = u64_at(bytes, 32);
        let footer = SKIPPABLE_HEAD_LEN as u64 + u64::from(entries) * ENTRY_LEN as u64 + PACK_TAIL_LEN as u64;
        if start.checked_add(footer)? != len || len > PACK_LEN_MAX {
            return None;
        }
        Some(Self {
            root: bytes[..32].try_into().expect("32 bytes"),
            start,
            entries,
            crc: u32_at(bytes, 52),
        })
    }
}

fn decode_entry(bytes: &[u8], end: u64) -> Option<PackEntry> {
    let (kind, flags) = (u32_at(bytes, 40), u32_at(bytes, 44));
    let entry = PackEntry {
        id: id_at(bytes, 0),
        domain: DomainId(u32_at(bytes, 32)),
        offset: u64::from(u32_at(bytes, 36)) * 8,
        kind: RecordKind::from_byte((kind >> LEN_BITS) as u8)?,
        len: kind & ((1 << LEN_BITS) - 1),
        pinned: (flags >> LEN_BITS) & PINNED != 0,
        plain_len: flags & ((1 << LEN_BITS) - 1),
        crc: u32_at(bytes, 48),
    };
    (entry.offset + u64::from(entry.len) <= end && entry.len as usize <= RECORD_LEN_MAX).then_some(entry)
}
