//! Where chunks lie, as RocksDB keeps it, and the log as it is applied: the pack store's [`Locations`].
//!
//! A chunk has a key of 36 bytes, the dedup domain (u32, big-endian) and its id, and a place of 20, five u32, little-endian: pack;
//! offset / 8; length of the frame, 28 bits; flags above the plain length, 28 bits (bit 28: pinned); CRC-32C of the frame. There
//! is no version: places are a cache. Hot path: has-many of thousands of ids, where an id that is not there costs a look at a
//! filter; keep out everything else.

use cairn_formats::{ChunkId, DomainId};
use cairn_store::{Change, ChunkKey, ChunkPlace, Locations, LogPosition, StoreName, Watermark};
use rocksdb::{IteratorMode, ReadOptions};

use super::{CHUNKS, Changes, RocksEngine, malformed};
use crate::record::CommitRecord;
use crate::{Error, Result};

const KEY_LEN: usize = 4 + 32;
const PLACE_LEN: usize = 20;

const LEN_BITS: u32 = 28;
const LEN_MAX: u32 = (1 << LEN_BITS) - 1;
const PINNED: u32 = 1 << LEN_BITS;

impl RocksEngine {
    pub(super) fn places(&self, keys: &[ChunkKey]) -> Result<Vec<Option<ChunkPlace>>> {
        // Sorted here, where it is cheap: RocksDB then walks each file once.
        let mut sorted: Vec<_> = keys.iter().map(encode_key).zip(0..).collect();
        sorted.sort_unstable();
        let wanted = sorted.iter().map(|(key, _): &([u8; KEY_LEN], usize)| key);
        let found = self.db.batched_multi_get_cf(self.family(CHUNKS), wanted, true);
        let mut places = vec![None; keys.len()];
        for ((_, n), place) in sorted.iter().zip(found) {
            if let Some(place) = place.map_err(|source| self.failed("look chunks up", source))? {
                places[*n] = Some(decode_place(&place)?);
            }
        }
        Ok(places)
    }

    fn apply_changes(&self, changes: &[Change], position: LogPosition) -> Result<()> {
        let mut applied = self.changes();
        let mut commit = applied.applied.commit;
        for change in changes {
            match change {
                Change::Put(key, place) => applied.put(key, place)?,
                Change::Remove(key) => applied.batch.delete_cf(self.family(CHUNKS), encode_key(key)),
                Change::Commit(number, record) if *number > commit => {
                    applied.record(&CommitRecord::decode(record)?);
                    commit = *number;
                }
                Change::Commit(..) => {}
            }
        }
        applied.write_up_to(Watermark { position, commit })
    }

    pub(super) fn store_error(&self, error: Error) -> cairn_store::Error {
        cairn_store::Error::Unavailable {
            store: StoreName::new(self.place.display().to_string()),
            action: "look into its index",
            source: error.into(),
        }
    }
}

impl Changes<'_> {
    fn put(&mut self, key: &ChunkKey, place: &ChunkPlace) -> Result<()> {
        let place = encode_place(place).ok_or(malformed("a chunk's place is out of range"))?;
        self.batch.put_cf(self.engine.family(CHUNKS), encode_key(key), place);
        Ok(())
    }
}

impl Locations for RocksEngine {
    fn get_many(&self, keys: &[ChunkKey]) -> cairn_store::Result<Vec<Option<ChunkPlace>>> {
        self.places(keys).map_err(|error| self.store_error(error))
    }

    fn apply(&self, changes: &[Change], watermark: LogPosition) -> cairn_store::Result<()> {
        self.apply_changes(changes, watermark)
            .map_err(|error| self.store_error(error))
    }

    fn watermark(&self) -> cairn_store::Result<Watermark> {
        Ok(*self.persisted())
    }

    fn persist(&self) -> cairn_store::Result<()> {
        self.flush().map_err(|error| self.store_error(error))
    }

    fn for_each(
        &self,
        visit: &mut dyn FnMut(ChunkKey, ChunkPlace) -> cairn_store::Result<()>,
    ) -> cairn_store::Result<()> {
        let mut options = ReadOptions::default();
        options.fill_cache(false);
        for row in self
            .db
            .iterator_cf_opt(self.family(CHUNKS), options, IteratorMode::Start)
        {
            let row = row.map_err(|source| self.failed("list chunks", source));
            let row = row.and_then(|(key, place)| Ok((decode_key(&key)?, decode_place(&place)?)));
            let (key, place) = row.map_err(|error| self.store_error(error))?;
            visit(key, place)?;
        }
        Ok(())
    }
}

fn encode_key(key: &ChunkKey) -> [u8; KEY_LEN] {
    let mut bytes = [0; KEY_LEN];
    bytes[..4].copy_from_slice(&key.domain.0.to_be_bytes());
    bytes[4..].copy_from_slice(key.id.as_bytes());
    bytes
}

fn decode_key(bytes: &[u8]) -> Result<ChunkKey> {
    let (domain, id) = bytes
        .split_first_chunk()
        .ok_or(malformed("a chunk's key is too short"))?;
    Ok(ChunkKey {
        domain: DomainId(u32::from_be_bytes(*domain)),
        id: ChunkId::from_bytes(
            id.try_into()
                .map_err(|_| malformed("a chunk's key has another length"))?,
        ),
    })
}

fn encode_place(place: &ChunkPlace) -> Option<[u8; PLACE_LEN]> {
    let offset = place
        .offset
        .is_multiple_of(8)
        .then(|| u32::try_from(place.offset / 8).ok())
        .flatten()?;
    if place.len > LEN_MAX || place.plain_len > LEN_MAX {
        return None;
    }
    let flags = if place.pinned { PINNED } else { 0 };
    let mut bytes = [0; PLACE_LEN];
    let words = [place.pack, offset, place.len, place.plain_len | flags, place.crc];
    for (bytes, word) in bytes.chunks_exact_mut(4).zip(words) {
        bytes.copy_from_slice(&word.to_le_bytes());
    }
    Some(bytes)
}

fn decode_place(bytes: &[u8]) -> Result<ChunkPlace> {
    let bytes: &[u8; PLACE_LEN] = bytes
        .try_into()
        .map_err(|_| malformed("a chunk's place has another length"))?;
    let word = |n: usize| u32::from_le_bytes(bytes[4 * n..4 * n + 4].try_into().expect("four bytes"));
    if word(2) > LEN_MAX || word(3) > LEN_MAX | PINNED {
        return Err(malformed("a chunk's place has flags of a later release"));
    }
    Ok(ChunkPlace {
        pack: word(0),
        offset: u64::from(word(1)) * 8,
        len: word(2),
        plain_len: word(3) & LEN_MAX,
        crc: word(4),
        pinned: word(3) & PINNED != 0,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_read_as_they_were_written() {
        let place = ChunkPlace {
            pack: u32::MAX,
            offset: u64::from(u32::MAX) * 8,
            len: LEN_MAX,
            plain_len: LEN_MAX,
            crc: 0xdead_beef,
            pinned: true,
        };
        for pinned in [true, false] {
            let place = ChunkPlace { pinned, ..place };
            assert_eq!(decode_place(&encode_place(&place).unwrap()).unwrap(), place);
        }
        for wrong in [
            ChunkPlace { offset: 4, ..place },
            ChunkPlace {
                offset: 1 << 35,
                ..place
            },
            ChunkPlace {
                len: LEN_MAX + 1,
                ..place
            },
            ChunkPlace {
                plain_len: LEN_MAX + 1,
                ..place
            },
        ] {
            assert_eq!(encode_place(&wrong), None, "{wrong:?}");
        }
        assert!(decode_place(&[0xff; PLACE_LEN]).is_err() && decode_place(&[]).is_err());
        assert!(decode_key(&[0; 3]).is_err() && decode_key(&[0; 37]).is_err());
    }
}
