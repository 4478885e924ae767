//! Where chunks lie, as RocksDB keeps it, and the log as it is applied: the pack store's [`Locations`].
//!
//! A chunk has a key of 36 bytes, the dedup domain (u32, big-endian) and its id, and a place of 20, five u32, little-endian: pack;
//! offset / 8; length of the frame, 28 bits; flags above the plain length, 28 bits (bit 28: pinned); CRC-32C of the frame. There
//! is no version: places are a cache. Hot path: has-many of thousands of ids, where an id that is not there costs a look at a
//! filter; keep out everything else.

use std::collections::BTreeSet;
use std::sync::atomic::Ordering;

use cairn_formats::{ChunkId, DomainId};
use cairn_store::{Change, ChunkKey, ChunkPlace, Locations, LogPosition, Restore, StoreName, Watermark};
use rocksdb::{DBIterator, Direction, IteratorMode, ReadOptions, ReadTier, WriteBatch};

use super::{CHUNKS, Changes, ENGINE, PACK, RocksEngine, malformed};
use crate::record::CommitRecord;
use crate::{Error, Result};

const KEY_LEN: usize = 4 + 32;
const PLACE_LEN: usize = 20;

/// Rows taken away in one write.
const BATCH_ROWS: usize = 10_000;

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

    fn apply_changes(&self, changes: &[Change], position: LogPosition, ahead: bool) -> Result<()> {
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
        applied.write_up_to(Watermark { position, commit }, ahead)
    }

    /// Packs that places may name, as the files say.
    pub(super) fn packs_named(&self) -> Result<BTreeSet<u32>> {
        let mut packs = BTreeSet::new();
        let rows = self
            .db
            .iterator_cf(self.family(ENGINE), IteratorMode::From(PACK, Direction::Forward));
        for row in rows {
            let (key, _) = row.map_err(|source| self.failed("read", source))?;
            let Some(number) = key.strip_prefix(PACK) else { break };
            let number = number
                .try_into()
                .map_err(|_| malformed("the number of a pack has another length"))?;
            packs.insert(u32::from_be_bytes(number));
        }
        Ok(packs)
    }

    /// Forgets places in packs that are not there. Returns how many; a walk over all places only if such a pack was known.
    ///
    /// To be called when the store has been opened: packs may have been taken away, or an older copy of them put back, while
    /// this was not told of it.
    pub fn retain_packs(&self, there: &[u32]) -> Result<u64> {
        let gone: BTreeSet<u32> = self
            .packs()
            .iter()
            .filter(|number| !there.contains(number))
            .copied()
            .collect();
        if gone.is_empty() {
            return Ok(0);
        }
        let mut forgotten = 0;
        let mut batch = WriteBatch::default();
        for row in self.rows_of_chunks() {
            let (key, place) = row.map_err(|source| self.failed("list chunks", source))?;
            if gone.contains(&decode_place(&place)?.pack) {
                batch.delete_cf(self.family(CHUNKS), key);
                forgotten += 1;
            }
            if batch.len() == BATCH_ROWS {
                self.write_alone(std::mem::take(&mut batch))?;
            }
        }
        for number in &gone {
            batch.delete_cf(self.family(ENGINE), pack_key(*number));
        }
        self.write_alone(batch)?;
        self.flush()?;
        self.packs().retain(|number| !gone.contains(number));
        Ok(forgotten)
    }

    /// How many chunks there are, about: RocksDB counts rows as they were written, and what was written twice or taken away
    /// only when it merges files.
    pub fn chunk_count(&self) -> Result<u64> {
        let count = self
            .db
            .property_int_value_cf(self.family(CHUNKS), rocksdb::properties::ESTIMATE_NUM_KEYS);
        let count = count.map_err(|source| self.failed("count chunks", source))?;
        Ok(count.unwrap_or(0))
    }

    /// All rows of chunks; blocks that are read for it are not kept.
    fn rows_of_chunks(&self) -> DBIterator<'_> {
        let mut options = ReadOptions::default();
        options.fill_cache(false);
        self.db
            .iterator_cf_opt(self.family(CHUNKS), options, IteratorMode::Start)
    }

    fn write_alone(&self, batch: WriteBatch) -> Result<()> {
        let _lane = self.applied();
        let written = self.db.write_opt(batch, &self.log.write_options());
        written.map_err(|source| self.failed("write", source))
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
        let encoded = encode_place(place).ok_or(malformed("a chunk's place is out of range"))?;
        self.batch.put_cf(self.engine.family(CHUNKS), encode_key(key), encoded);
        // Nearly always that of the change before, or known for long.
        if !self.packs.contains(&place.pack) && !self.engine.packs().contains(&place.pack) {
            self.batch.put_cf(self.engine.family(ENGINE), pack_key(place.pack), []);
            self.packs.insert(place.pack);
        }
        Ok(())
    }
}

impl Locations for RocksEngine {
    fn get_many(&self, keys: &[ChunkKey]) -> cairn_store::Result<Vec<Option<ChunkPlace>>> {
        self.places(keys).map_err(|error| self.store_error(error))
    }

    fn get_resident(&self, key: ChunkKey) -> Option<ChunkPlace> {
        let mut options = ReadOptions::default();
        options.set_read_tier(ReadTier::BlockCache);
        let found = self
            .db
            .get_pinned_cf_opt(self.family(CHUNKS), encode_key(&key), &options);
        // That it is not in memory is an error to RocksDB; other errors are for whoever asks in earnest.
        decode_place(&found.ok()??).ok()
    }

    fn is_kept(&self) -> bool {
        true
    }

    fn pack_is_gone(&self, number: u32) {
        let mut batch = WriteBatch::default();
        batch.delete_cf(self.family(ENGINE), pack_key(number));
        // If this is lost, the next opening walks over all places and finds none.
        if self.write_alone(batch).is_ok() {
            self.packs().remove(&number);
        }
    }

    fn apply(&self, changes: &[Change], watermark: LogPosition) -> cairn_store::Result<()> {
        self.apply_changes(changes, watermark, false)
            .map_err(|error| self.store_error(error))
    }

    fn apply_ahead(&self, changes: &[Change], watermark: LogPosition) -> cairn_store::Result<()> {
        self.apply_changes(changes, watermark, true)
            .map_err(|error| self.store_error(error))
    }

    fn fell_back(&self) -> cairn_store::Result<()> {
        if !self.ahead.load(Ordering::Acquire) {
            return Ok(());
        }
        Err(self.store_error(Error::Damaged {
            place: self.place.clone(),
            source: "it has commits that were acknowledged before they were durable, and a power cut took them".into(),
        }))
    }

    fn watermark(&self) -> cairn_store::Result<Watermark> {
        Ok(*self.persisted())
    }

    fn persist(&self) -> cairn_store::Result<()> {
        self.flush().map_err(|error| self.store_error(error))
    }

    fn keeps_rows(&self) -> bool {
        true
    }

    fn restore(&self, step: Restore) -> cairn_store::Result<()> {
        self.restore_step(step).map_err(|error| self.store_error(error))
    }

    fn for_each(
        &self,
        visit: &mut dyn FnMut(ChunkKey, ChunkPlace) -> cairn_store::Result<()>,
    ) -> cairn_store::Result<()> {
        for row in self.rows_of_chunks() {
            let row = row.map_err(|source| self.failed("list chunks", source));
            let row = row.and_then(|(key, place)| Ok((decode_key(&key)?, decode_place(&place)?)));
            let (key, place) = row.map_err(|error| self.store_error(error))?;
            visit(key, place)?;
        }
        Ok(())
    }
}

fn pack_key(number: u32) -> Vec<u8> {
    [PACK, &number.to_be_bytes()].concat()
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
