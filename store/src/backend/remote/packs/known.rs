//! What is known of a store's packs: which there are, and where each chunk lies. In memory, about 80 bytes a chunk.
//!
//! A chunk may lie in several packs (two writers, a stop in the middle of a collection): one place counts, the others are kept
//! for when its pack goes. Packs have slots, which are never used again; a place in an empty slot is none.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use cairn_formats::{ChunkId, DomainId, GoneChunk, PackFooter, PackUuid, RecordKind};

use crate::pack::{ChunkPlace, Suspect};

/// A sealed pack at the far end.
#[derive(Debug)]
pub(super) struct PackObject {
    pub(super) slot: u32,
    /// From the store's place on.
    pub(super) name: Arc<str>,
    pub(super) uuid: PackUuid,
    /// Bytes of the file.
    pub(super) len: u64,
    /// Where its footer begins.
    pub(super) end: u64,
    /// It holds more than chunks of this store's one domain: it is never written anew.
    pub(super) kept: bool,
    /// Its header has been read and is right.
    pub(super) header_seen: AtomicBool,
}

/// Where a frame lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) slot: u32,
    offset_eighths: u32,
    pub(super) len: u32,
    pub(super) plain_len: u32,
    pub(super) crc: u32,
}

impl Place {
    pub(super) fn offset(&self) -> u64 {
        u64::from(self.offset_eighths) * 8
    }

    pub(super) fn end(&self) -> u64 {
        self.offset() + u64::from(self.len)
    }

    /// For whoever lists chunks: the slot stands for the pack's number.
    pub(super) fn shown(&self) -> ChunkPlace {
        ChunkPlace {
            pack: self.slot,
            offset: self.offset(),
            len: self.len,
            plain_len: self.plain_len,
            crc: self.crc,
            pinned: false,
        }
    }
}

/// Packs, places, and what was taken away.
#[derive(Debug, Default)]
pub(super) struct Known {
    /// By slot.
    packs: Vec<Option<Arc<PackObject>>>,
    by_name: HashMap<Arc<str>, u32>,
    by_uuid: HashMap<PackUuid, u32>,
    places: HashMap<ChunkId, Place>,
    /// Other places of chunks that have one.
    doubles: HashMap<ChunkId, Vec<Place>>,
    /// Eighths of offsets that no longer count.
    gone: HashMap<PackUuid, HashSet<u32>>,
    /// The lists at the far end, by name.
    pub(super) lists: BTreeMap<String, Vec<GoneChunk>>,
    /// What is not whole, by name.
    pub(super) suspects: BTreeMap<String, String>,
    /// Grows when others took chunks away that were known here.
    pub(super) losses: u64,
}

impl Known {
    /// Where a chunk lies.
    pub(super) fn place(&self, id: ChunkId) -> Option<Place> {
        let place = self.places.get(&id)?;
        if self.pack(place.slot).is_some() {
            return Some(*place);
        }
        let doubles = self.doubles.get(&id)?;
        doubles.iter().find(|place| self.pack(place.slot).is_some()).copied()
    }

    pub(super) fn pack(&self, slot: u32) -> Option<&Arc<PackObject>> {
        self.packs.get(slot as usize)?.as_ref()
    }

    /// The packs, in the order in which they became known.
    pub(super) fn packs(&self) -> impl Iterator<Item = &Arc<PackObject>> {
        self.packs.iter().flatten()
    }

    pub(super) fn has_name(&self, name: &str) -> bool {
        self.by_name.contains_key(name)
    }

    /// Every chunk and its place, in the order in which they lie.
    pub(super) fn in_order(&self) -> Vec<(Place, ChunkId)> {
        let found = self.places.keys().filter_map(|&id| Some((self.place(id)?, id)));
        let mut all: Vec<_> = found.collect();
        all.sort_unstable_by_key(|(place, _)| (place.slot, place.offset_eighths));
        all
    }

    /// Takes a pack in.
    ///
    /// - `wins`: its chunks count rather than copies that are elsewhere; else the pack with the lesser id does.
    /// - Returns `None` when another of the same id is there.
    pub(super) fn add(
        &mut self,
        name: &str,
        uuid: PackUuid,
        len: u64,
        footer: &PackFooter,
        header_seen: bool,
        wins: bool,
    ) -> Option<Arc<PackObject>> {
        if self.by_uuid.contains_key(&uuid) {
            return None;
        }
        let ours = |kind, domain| kind == RecordKind::Chunk && domain == DomainId::default();
        let slot = u32::try_from(self.packs.len()).ok()?;
        let pack = Arc::new(PackObject {
            slot,
            name: name.into(),
            uuid,
            len,
            end: footer.start,
            kept: footer.entries.iter().any(|entry| !ours(entry.kind, entry.domain)),
            header_seen: AtomicBool::new(header_seen),
        });
        self.packs.push(Some(pack.clone()));
        self.by_name.insert(pack.name.clone(), slot);
        self.by_uuid.insert(uuid, slot);
        let gone = self.gone.get(&uuid).cloned().unwrap_or_default();
        for entry in footer.entries.iter().filter(|entry| ours(entry.kind, entry.domain)) {
            let place = Place {
                slot,
                offset_eighths: (entry.offset / 8) as u32,
                len: entry.len,
                plain_len: entry.plain_len,
                crc: entry.crc,
            };
            if !gone.contains(&place.offset_eighths) {
                self.insert(entry.id, place, wins);
            }
        }
        Some(pack)
    }

    fn insert(&mut self, id: ChunkId, place: Place, wins: bool) {
        let Some(old) = self.places.get(&id).copied() else {
            self.places.insert(id, place);
            return;
        };
        let uuid = |slot| self.pack(slot).map(|pack| pack.uuid);
        let better = match uuid(old.slot) {
            None => {
                self.places.insert(id, place);
                return;
            }
            Some(there) => wins || uuid(place.slot).is_some_and(|uuid| uuid < there),
        };
        let double = match better && old.slot != place.slot {
            true => {
                self.places.insert(id, place);
                old
            }
            false => place,
        };
        self.doubles.entry(id).or_default().push(double);
    }

    /// The copies of chunks in this pack count from now on.
    pub(super) fn prefer(&mut self, uuid: PackUuid, footer: &PackFooter) {
        let Some(&slot) = self.by_uuid.get(&uuid) else {
            return;
        };
        for entry in &footer.entries {
            let doubles = self.doubles.get_mut(&entry.id).into_iter().flatten();
            let mine = doubles.into_iter().find(|place| place.slot == slot);
            if let (Some(mine), Some(place)) = (mine, self.places.get_mut(&entry.id)) {
                std::mem::swap(mine, place);
            }
        }
    }

    /// Takes a list of removals in; those of packs that are not known yet wait for them.
    pub(super) fn take_away(&mut self, gone: &[GoneChunk]) {
        for entry in gone {
            let eighths = (entry.offset / 8) as u32;
            self.gone.entry(entry.pack).or_default().insert(eighths);
            let Some(&slot) = self.by_uuid.get(&entry.pack) else {
                continue;
            };
            let is_it = |place: &Place| (place.slot, place.offset_eighths) == (slot, eighths);
            let doubles = self.doubles.entry(entry.id).or_default();
            doubles.retain(|place| !is_it(place));
            if self.places.get(&entry.id).is_some_and(is_it) {
                match doubles.pop() {
                    Some(place) => self.places.insert(entry.id, place),
                    None => self.places.remove(&entry.id),
                };
            }
            if doubles.is_empty() {
                self.doubles.remove(&entry.id);
            }
        }
    }

    /// Every place of a chunk.
    pub(super) fn all_places(&self, id: ChunkId) -> Vec<(Arc<PackObject>, Place)> {
        let doubles = self.doubles.get(&id).into_iter().flatten();
        let places = self.places.get(&id).into_iter().chain(doubles);
        places
            .filter_map(|place| Some((self.pack(place.slot)?.clone(), *place)))
            .collect()
    }

    /// A pack is no longer there.
    pub(super) fn forget(&mut self, slot: u32) {
        if let Some(pack) = self.packs.get_mut(slot as usize).and_then(Option::take) {
            self.by_name.remove(&pack.name);
            self.by_uuid.remove(&pack.uuid);
            self.gone.remove(&pack.uuid);
        }
    }

    /// Drops places whose pack is gone. Returns how many chunks are nowhere now.
    pub(super) fn sweep(&mut self) -> u64 {
        let Self {
            packs, places, doubles, ..
        } = self;
        let is_there = |place: &Place| packs.get(place.slot as usize).is_some_and(Option::is_some);
        doubles.retain(|_, doubles| {
            doubles.retain(is_there);
            !doubles.is_empty()
        });
        let mut lost = 0;
        places.retain(|id, place| {
            if is_there(place) {
                return true;
            }
            match doubles.get_mut(id).and_then(Vec::pop) {
                Some(double) => *place = double,
                None => lost += 1,
            }
            is_there(place)
        });
        doubles.retain(|_, doubles| !doubles.is_empty());
        lost
    }

    /// What is not whole.
    pub(super) fn suspects(&self) -> Vec<Suspect> {
        let suspect = |(file, what): (&String, &String)| Suspect {
            file: file.clone(),
            what: what.clone(),
        };
        self.suspects.iter().map(suspect).collect()
    }

    /// Names of packs that a listing no longer has.
    pub(super) fn vanished(&self, listed: &HashSet<&str>) -> Vec<u32> {
        let gone = self.packs().filter(|pack| !listed.contains(&*pack.name));
        gone.map(|pack| pack.slot).collect()
    }

    /// How many slots there are, empty ones too.
    pub(super) fn slots(&self) -> u32 {
        self.packs.len() as u32
    }

    /// How many chunks there are, about: those of packs that are gone may be among them.
    pub(super) fn chunks(&self) -> u64 {
        self.places.len() as u64
    }

    /// The pack of an id.
    pub(super) fn by_uuid(&self, uuid: PackUuid) -> Option<&Arc<PackObject>> {
        self.pack(*self.by_uuid.get(&uuid)?)
    }
}
