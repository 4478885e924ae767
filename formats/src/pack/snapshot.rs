//! The payload of a record that is a piece of a snapshot: the rows of the index as one commit left them, in pieces.
//!
//! A piece has a head of 32 bytes, which says of which snapshot it is and its number in it; what follows is in the index's own
//! encoding. The last piece closes it: without it, or when any piece is missing, the snapshot counts for nothing.

use std::fmt;

use super::{PackError, u32_at, u64_at};

/// Bytes in front of a piece's rows.
pub const SNAPSHOT_HEAD_LEN: usize = 32;

/// Bytes of an end in front of what the index says.
const END_LEN: usize = 32 + 8 + 8;

/// A snapshot's own name: 16 random bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SnapshotUuid(pub [u8; 16]);

impl fmt::Display for SnapshotUuid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// What a piece says of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SnapshotHead {
    /// Its snapshot.
    pub uuid: SnapshotUuid,
    /// Number of the last commit that is in it.
    pub commit: u64,
    /// Counted from 0; of the end, how many came before it.
    pub piece: u32,
    /// It is the end.
    pub is_end: bool,
}

impl SnapshotHead {
    /// The bytes.
    pub fn encode(&self) -> [u8; SNAPSHOT_HEAD_LEN] {
        let mut bytes = [0; SNAPSHOT_HEAD_LEN];
        bytes[..16].copy_from_slice(&self.uuid.0);
        bytes[16..24].copy_from_slice(&self.commit.to_le_bytes());
        bytes[24..28].copy_from_slice(&self.piece.to_le_bytes());
        bytes[28..].copy_from_slice(&u32::from(self.is_end).to_le_bytes());
        bytes
    }

    /// Reads the first bytes of a payload.
    ///
    /// Errors: [`PackError::Damaged`] when there are too few, or it is neither a piece nor an end.
    pub fn decode(payload: &[u8]) -> Result<Self, PackError> {
        let damaged = |what| PackError::Damaged { at: 0, what };
        let head = payload
            .get(..SNAPSHOT_HEAD_LEN)
            .ok_or(damaged("a piece of a snapshot ends in its head"))?;
        Ok(Self {
            uuid: SnapshotUuid(head[..16].try_into().expect("16 bytes")),
            commit: u64_at(head, 16),
            piece: u32_at(head, 24),
            is_end: match u32_at(head, 28) {
                0 => false,
                1 => true,
                _ => return Err(damaged("a piece of a snapshot is of no known kind")),
            },
        })
    }
}

/// What an end says behind its head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SnapshotEnd<'a> {
    /// BLAKE3 of the ids of all pieces' records, in order.
    pub root: [u8; 32],
    /// Number of a pack, and offset in it: commits that are not in the snapshot lie there or behind.
    pub rest: (u32, u64),
    /// What the index says of it.
    pub words: &'a [u8],
}

impl<'a> SnapshotEnd<'a> {
    /// The payload of an end.
    pub fn encode(&self, head: &SnapshotHead) -> Vec<u8> {
        let mut bytes = head.encode().to_vec();
        bytes.extend_from_slice(&self.root);
        bytes.extend_from_slice(&u64::from(self.rest.0).to_le_bytes());
        bytes.extend_from_slice(&self.rest.1.to_le_bytes());
        bytes.extend_from_slice(self.words);
        bytes
    }

    /// Reads the payload of an end.
    ///
    /// Errors: [`PackError::Damaged`].
    pub fn decode(payload: &'a [u8]) -> Result<Self, PackError> {
        let damaged = || PackError::Damaged {
            at: 0,
            what: "the end of a snapshot is no such thing",
        };
        let bytes = payload.get(SNAPSHOT_HEAD_LEN..).ok_or_else(damaged)?;
        let (end, words) = bytes.split_at_checked(END_LEN).ok_or_else(damaged)?;
        let pack = u32::try_from(u64_at(end, 32)).map_err(|_| damaged())?;
        Ok(Self {
            root: end[..32].try_into().expect("32 bytes"),
            rest: (pack, u64_at(end, 40)),
            words,
        })
    }
}
