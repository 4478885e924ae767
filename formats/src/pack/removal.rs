//! The payload of a record that takes chunks away.

use super::{DomainId, PackError, id_at, u32_at};
use crate::ChunkId;

/// A chunk that is no longer at a place. Another record of the same chunk elsewhere is not meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Removal {
    /// Whose chunk it was.
    pub domain: DomainId,
    /// Its name.
    pub id: ChunkId,
    /// Number of the pack.
    pub pack: u32,
    /// Offset of the payload in the pack.
    pub offset: u64,
}

/// Bytes of a removal.
const LEN: usize = 44;

impl Removal {
    /// The payload of a record.
    pub fn encode_all(removals: &[Self]) -> Vec<u8> {
        let mut out = Vec::with_capacity(removals.len() * LEN);
        for removal in removals {
            out.extend_from_slice(removal.id.as_bytes());
            for word in [removal.domain.0, removal.pack, (removal.offset / 8) as u32] {
                out.extend_from_slice(&word.to_le_bytes());
            }
        }
        out
    }

    /// Reads a record's payload.
    ///
    /// Errors: [`PackError::Damaged`] when it is no list of removals.
    pub fn decode_all(payload: &[u8]) -> Result<Vec<Self>, PackError> {
        if !payload.len().is_multiple_of(LEN) {
            return Err(PackError::Damaged {
                at: 0,
                what: "a list of removals ends in the middle of one",
            });
        }
        let removal = |bytes: &[u8]| Self {
            id: id_at(bytes, 0),
            domain: DomainId(u32_at(bytes, 32)),
            pack: u32_at(bytes, 36),
            offset: u64::from(u32_at(bytes, 40)) * 8,
        };
        Ok(payload.chunks_exact(LEN).map(removal).collect())
    }
}
