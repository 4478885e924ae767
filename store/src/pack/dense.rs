//! Locations in about 18 bytes of memory a chunk: a tag of its name and where its record lies; the rest is in the record's head.
//!
//! A tag is 80 bits of a keyed hash of domain and id, and a table has a 64th of all chunks, so an absent chunk is taken for
//! another one in a store of 2^24 chunks (a TiB) with a chance of 2^-62, and nobody without the key can look for such. Who wants
//! more of a chunk than its place has the record's head read and its whole name compared.
//!
//! A table is a sorted array with gaps: a tag's top bits say where it belongs, and it lies there or right behind. So a search for
//! what is not there ends at the first greater tag, tables grow by an eighth in one pass, and nothing is ever marked deleted.
//! Hot path: has-many of thousands of ids; keep out everything but two cache misses a chunk.

use std::collections::{HashMap, HashSet};
use std::hash::{BuildHasher as _, RandomState};
use std::sync::{OnceLock, PoisonError, RwLock};

use siphasher::sip128::SipHasher13;

use super::heads::PackHeads;
use super::{Change, ChunkKey, ChunkPlace, Locations, LogPosition, Watermark};
use crate::{Error, Result, StoreName};

/// Locks, and tables; a power of two.
const TABLES: usize = 64;

/// A table grows when more than 15 of 16 places are taken, by an eighth.
const FULL: (usize, usize) = (15, 16);
const GROWTH: usize = 8;
/// Places behind the last one that a tag may belong to.
const TAIL: usize = 64;

/// A slot is a tag above where the record lies: pinned, window, offset in it in eighths.
const TAG_SHIFT: u32 = 48;
const PINNED: u64 = 1 << 47;
const OFFSET_BITS: u32 = 25;
const OFFSET: u64 = (1 << OFFSET_BITS) - 1;
const WINDOWS_MAX: usize = 1 << (47 - OFFSET_BITS);

/// Times that a chunk is looked up anew because its pack went away meanwhile.
const LOOKUPS_MAX: usize = 4;

/// Locations in memory, about 18 bytes a chunk, made from the packs' footers when the store is opened.
#[derive(Debug)]
pub struct DenseLocations {
    tables: Vec<RwLock<Table>>,
    windows: RwLock<Windows>,
    key: (u64, u64),
    heads: OnceLock<PackHeads>,
}

impl Default for DenseLocations {
    fn default() -> Self {
        let random = RandomState::new();
        Self {
            tables: (0..TABLES).map(|_| RwLock::default()).collect(),
            windows: RwLock::default(),
            key: (random.hash_one(0), random.hash_one(1)),
            heads: OnceLock::new(),
        }
    }
}

/// A keyed hash of a chunk's name.
#[derive(Clone, Copy)]
struct Tag {
    table: usize,
    /// 80 bits, never 0.
    tag: u128,
}

/// Where a record lies, without what its head says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Spot {
    pack: u32,
    offset: u64,
    pinned: bool,
}

impl DenseLocations {
    fn tag(&self, key: &ChunkKey) -> Tag {
        let mut name = [0; 36];
        name[..4].copy_from_slice(&key.domain.0.to_le_bytes());
        name[4..].copy_from_slice(key.id.as_bytes());
        let hash = SipHasher13::new_with_keys(self.key.0, self.key.1).hash(&name);
        Tag {
            table: hash.h1 as usize % TABLES,
            tag: u128::from(hash.h2) << 16 | u128::from(hash.h1 >> 48) | 1,
        }
    }

    fn spots(&self, keys: &[ChunkKey]) -> Vec<Option<Spot>> {
        let windows = self.windows.read().unwrap_or_else(PoisonError::into_inner);
        let spot = |key| {
            let Tag { table, tag } = self.tag(key);
            let table = self.tables[table].read().unwrap_or_else(PoisonError::into_inner);
            table.get(tag).map(|word| windows.spot(word))
        };
        keys.iter().map(spot).collect()
    }

    fn heads(&self) -> Result<&PackHeads> {
        self.heads.get().ok_or_else(|| Error::Unavailable {
            store: StoreName::new("locations of no store"),
            action: "look chunks up",
            source: "they are given to a store when it is opened".into(),
        })
    }

    /// Records that lie in packs without a footer: the one that is being written.
    fn for_each_unsealed(
        &self,
        sealed: &HashSet<u32>,
        visit: &mut dyn FnMut(ChunkKey, ChunkPlace) -> Result<()>,
    ) -> Result<()> {
        let heads = self.heads()?;
        for table in &self.tables {
            let mut spots: Vec<Spot> = {
                let windows = self.windows.read().unwrap_or_else(PoisonError::into_inner);
                let table = table.read().unwrap_or_else(PoisonError::into_inner);
                let words = table.slots.iter().filter(|&&slot| slot != 0).map(|&slot| word_of(slot));
                words
                    .map(|word| windows.spot(word))
                    .filter(|spot| !sealed.contains(&spot.pack))
                    .collect()
            };
            spots.sort_unstable_by_key(|spot| (spot.pack, spot.offset));
            for spot in spots {
                if let Some((key, place)) = heads.head(spot.pack, spot.offset)? {
                    visit(key, place)?;
                }
            }
        }
        Ok(())
    }
}

impl Locations for DenseLocations {
    fn get_many(&self, keys: &[ChunkKey]) -> Result<Vec<Option<ChunkPlace>>> {
        let heads = self.heads()?;
        let spots = self.spots(keys);
        let place = |(key, spot): (&ChunkKey, Option<Spot>)| {
            let mut spot = spot;
            for _ in 0..LOOKUPS_MAX {
                let Some(Spot { pack, offset, .. }) = spot else {
                    return Ok(None);
                };
                if let Some((found, place)) = heads.head_of(*key, pack, offset)? {
                    return Ok((found == *key).then_some(place));
                }
                // Its pack is gone, and it is elsewhere.
                spot = self.spots(&[*key])[0];
            }
            Ok(None)
        };
        keys.iter().zip(spots).map(place).collect()
    }

    fn find_many(&self, keys: &[ChunkKey]) -> Result<Vec<Option<ChunkPlace>>> {
        let place = |spot: Spot| ChunkPlace {
            pack: spot.pack,
            offset: spot.offset,
            pinned: spot.pinned,
            len: 0,
            plain_len: 0,
            crc: 0,
        };
        Ok(self.spots(keys).into_iter().map(|spot| spot.map(place)).collect())
    }

    fn get_resident(&self, key: ChunkKey) -> Option<ChunkPlace> {
        let spot = self.spots(&[key])[0]?;
        let (found, place) = self.heads.get()?.resident(spot.pack, spot.offset)?;
        (found == key).then_some(place)
    }

    fn attach(&self, heads: PackHeads) {
        // One store has them; a second one is found out by its chunks being elsewhere.
        let _ = self.heads.set(heads);
    }

    fn apply(&self, changes: &[Change], _watermark: LogPosition) -> Result<()> {
        for change in changes {
            let (key, spot) = match change {
                Change::Put(key, place) => (key, Some(place)),
                Change::Remove(key) => (key, None),
                Change::Commit(..) => continue,
            };
            let word = spot.map(|place| {
                let mut windows = self.windows.write().unwrap_or_else(PoisonError::into_inner);
                windows.word(place).ok_or_else(|| Error::Unavailable {
                    store: StoreName::new("locations in memory"),
                    action: "remember where a chunk lies",
                    source: "more than a pebibyte was written since the store was opened: open it again".into(),
                })
            });
            let word = word.transpose()?;
            let Tag { table, tag } = self.tag(key);
            let mut table = self.tables[table].write().unwrap_or_else(PoisonError::into_inner);
            match word {
                Some(word) => table.insert(tag, word),
                None => table.remove(tag),
            }
        }
        Ok(())
    }

    fn watermark(&self) -> Result<Watermark> {
        Ok(Watermark::default())
    }

    fn persist(&self) -> Result<()> {
        Ok(())
    }

    fn for_each(&self, visit: &mut dyn FnMut(ChunkKey, ChunkPlace) -> Result<()>) -> Result<()> {
        let heads = self.heads()?;
        let mut sealed = HashSet::new();
        let mut done = None;
        // Asked anew each time: what is moved meanwhile goes to later packs, and is not missed.
        while let Some(pack) = heads.numbers().into_iter().find(|&number| Some(number) > done) {
            done = Some(pack);
            let Some(entries) = heads.sealed(pack)? else {
                continue;
            };
            sealed.insert(pack);
            let keys: Vec<ChunkKey> = entries.iter().map(|(key, _)| *key).collect();
            for ((key, place), spot) in entries.into_iter().zip(self.spots(&keys)) {
                if spot.is_some_and(|spot| place.is_at(spot.pack, spot.offset)) {
                    visit(key, place)?;
                }
            }
        }
        self.for_each_unsealed(&sealed, visit)
    }
}

/// Stretches of packs that places are in: 256 MiB each, which is most often the whole pack.
#[derive(Debug, Default)]
struct Windows {
    numbers: HashMap<(u32, u32), u32>,
    windows: Vec<(u32, u32)>,
}

impl Windows {
    fn word(&mut self, place: &ChunkPlace) -> Option<u64> {
        let eighths = place.offset / 8;
        let window = (place.pack, (eighths >> OFFSET_BITS) as u32);
        let number = match self.numbers.get(&window) {
            Some(&number) => number,
            None if self.windows.len() == WINDOWS_MAX => return None,
            None => {
                let number = self.windows.len() as u32;
                self.windows.push(window);
                self.numbers.insert(window, number);
                number
            }
        };
        let pinned = if place.pinned { PINNED } else { 0 };
        Some(pinned | u64::from(number) << OFFSET_BITS | eighths & OFFSET)
    }

    fn spot(&self, word: u64) -> Spot {
        let (pack, high) = self.windows[((word & !PINNED) >> OFFSET_BITS) as usize];
        Spot {
            pack,
            offset: (u64::from(high) << OFFSET_BITS | word & OFFSET) * 8,
            pinned: word & PINNED != 0,
        }
    }
}

/// A sorted array of slots with gaps, which are 0. The last slot is always one.
#[derive(Debug, Default)]
struct Table {
    slots: Vec<u128>,
    /// Slots that a tag may belong to; others follow.
    homes: usize,
    len: usize,
}

fn tag_of(slot: u128) -> u128 {
    slot >> TAG_SHIFT
}

fn word_of(slot: u128) -> u64 {
    slot as u64 & ((1 << TAG_SHIFT) - 1)
}

impl Table {
    /// Where a tag belongs: grows with the tag.
    fn home(&self, tag: u128) -> usize {
        (((tag >> 16) * self.homes as u128) >> 64) as usize
    }

    /// Where a tag is, or else would be put: at a gap, or before a greater one.
    fn find(&self, tag: u128) -> usize {
        let mut at = self.home(tag);
        while self.slots[at] != 0 && tag_of(self.slots[at]) < tag {
            at += 1;
        }
        at
    }

    fn get(&self, tag: u128) -> Option<u64> {
        let slot = *self.slots.get(self.find_in_any(tag)?)?;
        (slot != 0 && tag_of(slot) == tag).then(|| word_of(slot))
    }

    fn find_in_any(&self, tag: u128) -> Option<usize> {
        (self.homes > 0).then(|| self.find(tag))
    }

    fn insert(&mut self, tag: u128, word: u64) {
        if (self.len + 1) * FULL.1 > self.homes * FULL.0 {
            self.grow();
        }
        let slot = tag << TAG_SHIFT | u128::from(word);
        loop {
            let at = self.find(tag);
            let taken = self.slots[at..].iter().take_while(|&&slot| slot != 0).count();
            if taken > 0 && tag_of(self.slots[at]) == tag {
                self.slots[at] = slot;
                return;
            }
            if at + taken + 1 < self.slots.len() {
                self.slots.copy_within(at..at + taken, at + 1);
                self.slots[at] = slot;
                self.len += 1;
                return;
            }
            // The last gap is needed to end searches.
            self.grow();
        }
    }

    fn remove(&mut self, tag: u128) {
        let Some(mut at) = self.find_in_any(tag) else {
            return;
        };
        if self.slots[at] == 0 || tag_of(self.slots[at]) != tag {
            return;
        }
        // What is not where it belongs moves up.
        while self.slots[at + 1] != 0 && self.home(tag_of(self.slots[at + 1])) <= at {
            self.slots[at] = self.slots[at + 1];
            at += 1;
        }
        self.slots[at] = 0;
        self.len -= 1;
    }

    fn grow(&mut self) {
        let homes = self.homes + self.homes / GROWTH + TAIL;
        let grown = vec![0; homes + TAIL];
        let old = std::mem::replace(&mut self.slots, grown);
        self.homes = homes;
        let mut next = 0;
        for slot in old.into_iter().filter(|&slot| slot != 0) {
            let at = self.home(tag_of(slot)).max(next);
            next = at + 1;
            if next >= self.slots.len() {
                self.slots.resize(next + TAIL, 0);
            }
            self.slots[at] = slot;
        }
    }
}

/// Memory of the tables, for benches.
impl DenseLocations {
    /// Bytes that the tables take.
    pub fn memory_len(&self) -> usize {
        let table_len = |table: &RwLock<Table>| {
            let table = table.read().unwrap_or_else(PoisonError::into_inner);
            table.slots.capacity() * size_of::<u128>()
        };
        self.tables.iter().map(table_len).sum()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use cairn_formats::DomainId;
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Tags from few values, so that they are often found, in runs, and at both ends.
        #[test]
        fn a_table_is_a_map(steps in prop::collection::vec((any::<bool>(), 0..200_u32, 0..=u64::from(u32::MAX)), 0..2000)) {
            let (mut table, mut model) = (Table::default(), BTreeMap::new());
            for (put, n, word) in steps {
                let top = match n % 4 {
                    0 => u128::from(n),
                    1 => u128::from(u64::MAX) - u128::from(n),
                    2 => 1 << 63,
                    _ => u128::from(n) << 56,
                };
                let tag = top << 16 | u128::from(n) | 1;
                if put {
                    table.insert(tag, word);
                    model.insert(tag, word);
                } else {
                    table.remove(tag);
                    model.remove(&tag);
                }
            }
            prop_assert_eq!(table.len, model.len());
            let listed: Vec<(u128, u64)> =
                table.slots.iter().filter(|&&slot| slot != 0).map(|&slot| (tag_of(slot), word_of(slot))).collect();
            prop_assert!(listed.iter().copied().eq(model.iter().map(|(&tag, &word)| (tag, word))));
            for (&tag, &word) in &model {
                prop_assert_eq!(table.get(tag), Some(word));
            }
            prop_assert_eq!(table.get(u128::from(u64::MAX) << 16 | 0xfffe), None);
        }
    }

    fn key(n: u64) -> ChunkKey {
        ChunkKey {
            domain: DomainId((n % 3) as u32),
            id: cairn_formats::DigestAlgorithm::Sha256.id(&n.to_le_bytes()),
        }
    }

    fn place(n: u64) -> ChunkPlace {
        ChunkPlace {
            pack: (n / 1000) as u32,
            offset: 64 + n * 8 + ((n % 5) << 28),
            len: 0,
            plain_len: 0,
            crc: 0,
            pinned: n.is_multiple_of(7),
        }
    }

    /// Goal: what was put is found where it was put last, what was removed is not, in at most 20 bytes a chunk.
    #[test]
    fn many_chunks_in_little_memory() {
        const CHUNKS: u64 = 400_000;
        let locations = DenseLocations::default();
        let puts: Vec<Change> = (0..CHUNKS).map(|n| Change::Put(key(n), place(n))).collect();
        locations.apply(&puts, LogPosition::default()).unwrap();
        let memory = locations.memory_len() as f64 / CHUNKS as f64;
        assert!(memory < 20.0, "{memory} bytes a chunk");
        let again: Vec<Change> = (0..CHUNKS)
            .step_by(3)
            .map(|n| Change::Put(key(n), place(n + 1)))
            .chain((1..CHUNKS).step_by(3).map(|n| Change::Remove(key(n))))
            .collect();
        locations.apply(&again, LogPosition::default()).unwrap();
        let keys: Vec<ChunkKey> = (0..CHUNKS + 1000).map(key).collect();
        for (n, found) in (0..).zip(locations.find_many(&keys).unwrap()) {
            let expected = match n % 3 {
                _ if n >= CHUNKS => None,
                0 => Some(place(n + 1)),
                1 => None,
                _ => Some(place(n)),
            };
            assert_eq!(found, expected, "{n}");
        }
    }
}
