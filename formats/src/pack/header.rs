//! The first 64 bytes of a pack.

use std::fmt;

use super::{PackError, SKIPPABLE_HEAD_LEN, crc32c, push_skippable_head, u32_at};
use crate::DigestAlgorithm;

/// Bytes of a pack's header.
pub const PACK_HEADER_LEN: usize = 64;

const MAGIC: &[u8; 8] = b"CairnPak";

/// The format that this release writes, and the newest that it reads.
const VERSION: u32 = 1;

/// Feature that a reader must know: records of [`super::RecordKind::Snapshot`] may lie in the pack.
pub const PACK_HAS_SNAPSHOTS: u32 = 1;

/// Features of a pack that a reader must know, of those that this release does.
const KNOWN_INCOMPAT: u32 = PACK_HAS_SNAPSHOTS;

/// A pack's own name: 16 random bytes, shown as 32 hex digits. No two packs have the same, not even of equal content.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PackUuid(pub [u8; 16]);

impl fmt::Display for PackUuid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// What a pack says of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PackHeader {
    /// Its name.
    pub uuid: PackUuid,
    /// Its place in the store's log: packs of a store are numbered in the order in which they were begun.
    pub number: u32,
    /// The digest that names its chunks.
    pub algorithm: DigestAlgorithm,
    /// When it was begun, in seconds since 1970 UTC.
    pub created: u32,
    /// Features that a reader may ignore, a writer too.
    pub compat: u32,
    /// Features that a reader may ignore and a writer must know.
    pub ro_compat: u32,
    /// Features that a reader must know.
    pub incompat: u32,
}

impl PackHeader {
    /// A new pack's header.
    pub fn new(uuid: PackUuid, number: u32, algorithm: DigestAlgorithm, created: u32) -> Self {
        Self {
            uuid,
            number,
            algorithm,
            created,
            compat: 0,
            ro_compat: 0,
            incompat: 0,
        }
    }

    /// The bytes.
    pub fn encode(&self) -> [u8; PACK_HEADER_LEN] {
        let mut out = Vec::with_capacity(PACK_HEADER_LEN);
        push_skippable_head(PACK_HEADER_LEN - SKIPPABLE_HEAD_LEN, &mut out);
        out.extend_from_slice(MAGIC);
        for word in [VERSION, self.compat, self.ro_compat, self.incompat] {
            out.extend_from_slice(&word.to_le_bytes());
        }
        out.extend_from_slice(&self.uuid.0);
        out.extend_from_slice(&self.number.to_le_bytes());
        let algorithm = match self.algorithm {
            DigestAlgorithm::Sha512_256 => 0u32,
            DigestAlgorithm::Sha256 => 1,
        };
        out.extend_from_slice(&algorithm.to_le_bytes());
        out.extend_from_slice(&self.created.to_le_bytes());
        let crc = crc32c(&[&out]);
        out.extend_from_slice(&crc.to_le_bytes());
        out.try_into().expect("the fields above are 64 bytes")
    }

    /// Reads the first bytes of a file.
    ///
    /// Errors: [`PackError::NotAPack`], [`PackError::Newer`], [`PackError::Cut`], [`PackError::Damaged`].
    pub fn decode(bytes: &[u8]) -> Result<Self, PackError> {
        let Some(bytes) = bytes.get(..PACK_HEADER_LEN) else {
            return Err(PackError::Cut {
                at: bytes.len() as u64,
                part: "its header",
            });
        };
        if bytes[8..16] != *MAGIC {
            return Err(PackError::NotAPack);
        }
        if crc32c(&[&bytes[..60]]) != u32_at(bytes, 60) {
            return Err(PackError::Damaged {
                at: 0,
                what: "the header's check sum does not fit",
            });
        }
        let (version, incompat) = (u32_at(bytes, 16), u32_at(bytes, 28));
        let features = incompat & !KNOWN_INCOMPAT;
        if version > VERSION || features != 0 {
            return Err(PackError::Newer { version, features });
        }
        let algorithm = match u32_at(bytes, 52) {
            0 => DigestAlgorithm::Sha512_256,
            1 => DigestAlgorithm::Sha256,
            _ => {
                return Err(PackError::Damaged {
                    at: 52,
                    what: "no digest has this number",
                });
            }
        };
        Ok(Self {
            uuid: PackUuid(bytes[32..48].try_into().expect("16 bytes")),
            number: u32_at(bytes, 48),
            algorithm,
            created: u32_at(bytes, 56),
            compat: u32_at(bytes, 20),
            ro_compat: u32_at(bytes, 24),
            incompat,
        })
    }
}
