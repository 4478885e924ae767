//! Chunks taken away from packs that have no order among them: a list that names packs by their ids.

use super::{PackError, PackUuid, crc32c, id_at, u32_at};
use crate::ChunkId;

/// A chunk that no longer counts where it lies in a pack. Other copies of it are not meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct GoneChunk {
    /// The pack.
    pub pack: PackUuid,
    /// Offset of the frame in it, a multiple of 8.
    pub offset: u64,
    /// The chunk's name.
    pub id: ChunkId,
}

const MAGIC: &[u8; 8] = b"CairnGon";
/// The format that this release writes, and the newest that it reads.
const VERSION: u32 = 1;
/// Magic, version, count.
const HEAD_LEN: usize = 16;
const ENTRY_LEN: usize = 52;
const CRC_LEN: usize = 4;

/// Most chunks in one list.
pub const GONE_MAX: usize = 1 << 20;
/// Longest list, in bytes.
pub const GONE_LEN_MAX: usize = HEAD_LEN + GONE_MAX * ENTRY_LEN + CRC_LEN;

impl GoneChunk {
    /// The bytes of a list, whose last four are the CRC-32C of all before.
    ///
    /// Panics with more than [`GONE_MAX`] entries.
    pub fn encode_all(gone: &[Self]) -> Vec<u8> {
        assert!(gone.len() <= GONE_MAX, "callers divide longer lists");
        let mut out = Vec::with_capacity(HEAD_LEN + gone.len() * ENTRY_LEN + CRC_LEN);
        out.extend_from_slice(MAGIC);
        out.extend_from_slice(&VERSION.to_le_bytes());
        out.extend_from_slice(&(gone.len() as u32).to_le_bytes());
        for entry in gone {
            out.extend_from_slice(&entry.pack.0);
            out.extend_from_slice(&((entry.offset / 8) as u32).to_le_bytes());
            out.extend_from_slice(entry.id.as_bytes());
        }
        let crc = crc32c(&[&out]);
        out.extend_from_slice(&crc.to_le_bytes());
        out
    }

    /// Reads a list. Cannot panic.
    ///
    /// Errors: [`PackError::NotAPack`], [`PackError::Newer`], [`PackError::Damaged`].
    pub fn decode_all(bytes: &[u8]) -> Result<Vec<Self>, PackError> {
        let damaged = |what| PackError::Damaged { at: 0, what };
        if bytes.get(..MAGIC.len()) != Some(MAGIC) {
            return Err(PackError::NotAPack);
        }
        let Some(entries) = bytes
            .len()
            .checked_sub(HEAD_LEN + CRC_LEN)
            .map(|len| &bytes[HEAD_LEN..HEAD_LEN + len])
        else {
            return Err(damaged("a list of chunks that are gone ends in its head"));
        };
        let body = bytes.len() - CRC_LEN;
        if crc32c(&[&bytes[..body]]) != u32_at(bytes, body) {
            return Err(damaged("a list of chunks that are gone does not fit its check sum"));
        }
        let version = u32_at(bytes, 8);
        if version > VERSION {
            return Err(PackError::Newer { version, features: 0 });
        }
        if entries.len() != u32_at(bytes, 12) as usize * ENTRY_LEN {
            return Err(damaged(
                "a list of chunks that are gone has another length than it says",
            ));
        }
        let entry = |bytes: &[u8]| Self {
            pack: PackUuid(bytes[..16].try_into().expect("16 bytes")),
            offset: u64::from(u32_at(bytes, 16)) * 8,
            id: id_at(bytes, 20),
        };
        Ok(entries.chunks_exact(ENTRY_LEN).map(entry).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_is_read_as_written_and_any_flipped_bit_is_seen() {
        let gone = [1, 2, 3].map(|n| GoneChunk {
            pack: PackUuid([n; 16]),
            offset: 8 * u64::from(u32::MAX - u32::from(n)),
            id: ChunkId::from_bytes([n; 32]),
        });
        let bytes = GoneChunk::encode_all(&gone);
        assert_eq!(GoneChunk::decode_all(&bytes), Ok(gone.to_vec()));
        assert_eq!(GoneChunk::decode_all(&GoneChunk::encode_all(&[])), Ok(Vec::new()));
        for bit in 0..bytes.len() * 8 {
            let mut bad = bytes.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert!(GoneChunk::decode_all(&bad).is_err(), "bit {bit}");
        }
        for len in 0..bytes.len() {
            assert!(GoneChunk::decode_all(&bytes[..len]).is_err(), "{len} bytes");
        }
    }

    #[test]
    fn a_newer_list_is_refused_in_words() {
        let mut bytes = GoneChunk::encode_all(&[]);
        bytes[8] = 2;
        let body = bytes.len() - CRC_LEN;
        let crc = crc32c(&[&bytes[..body]]);
        bytes[body..].copy_from_slice(&crc.to_le_bytes());
        let error = GoneChunk::decode_all(&bytes).unwrap_err();
        assert!(error.to_string().contains("format 2"), "{error}");
    }
}
