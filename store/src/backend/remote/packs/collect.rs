//! Deleting chunks, and getting their space back.
//!
//! A chunk is taken away by a list that names its places; it is durable before the call returns. `compact` writes what counts of
//! mostly dead packs anew, and small packs together; the new pack is there and published before the old ones are deleted, and a
//! list goes once the packs that it names are gone. A stop between any two leaves chunks twice, or space to be had. Readers of a
//! pack that has gone look at the listing again.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::{Arc, PoisonError};

use bytes::Bytes;
use cairn_formats::{ChunkId, GONE_MAX, GoneChunk};

use super::RemotePackStore;
use super::files::PackFiles;
use super::known::{PackObject, Place};
use super::names::gone_name;
use super::write::{Building, random_uuid};
use crate::backend::remote::Fault;
use crate::pack::{CompactReport, RecompressOptions, RecompressReport, SAMPLE_CHUNKS, smaller_frame};
use crate::{Error, Result};

/// Bytes of frames read together while packs are written anew, about.
const READ_LEN: u64 = 16 << 20;
/// A pack shorter than this part of a full one is small.
const SMALL_PART: u64 = 2;

const ACTION: &str = "write packs anew";

/// Packs to be written anew, and what counts in them, in the order in which it lies.
#[derive(Default)]
struct Victims {
    packs: Vec<Arc<PackObject>>,
    frames: Vec<(Place, ChunkId)>,
}

impl<F: PackFiles> RemotePackStore<F> {
    /// Takes chunks away, wherever they lie. Those that are not there are passed over.
    pub(super) fn take_away(&self, ids: &[ChunkId]) -> Result<()> {
        self.writable()?;
        let wanted: HashSet<ChunkId> = ids.iter().copied().collect();
        if !wanted.iter().any(|&id| self.shared.known().place(id).is_some()) {
            return Ok(());
        }
        let _one = self.deleting.lock().unwrap_or_else(PoisonError::into_inner);
        let _owner = self.take_lease(false)?;
        let mut gone = Vec::new();
        {
            let known = self.shared.known();
            for &id in &wanted {
                gone.extend(known.all_places(id).into_iter().map(|(pack, place)| GoneChunk {
                    pack: pack.uuid,
                    offset: place.offset(),
                    id,
                }));
            }
        }
        self.take_places_away(gone)
    }

    /// Takes chunks away where they lie. The caller is the one who deletes.
    pub(super) fn take_places_away(&self, mut gone: Vec<GoneChunk>) -> Result<()> {
        gone.sort_unstable();
        for gone in gone.chunks(GONE_MAX) {
            let name = self.put_list(gone)?;
            let mut known = self.shared.known_mut();
            known.take_away(gone);
            known.lists.insert(name, gone.to_vec());
        }
        Ok(())
    }

    /// Puts a list of removals. Returns its name.
    fn put_list(&self, gone: &[GoneChunk]) -> Result<String> {
        let action = "delete chunks";
        let unavailable = |error: std::io::Error| Error::Unavailable {
            store: self.shared.name.clone(),
            action,
            source: error.into(),
        };
        let bytes = GoneChunk::encode_all(gone);
        let root = blake3::hash(&bytes);
        let name = gone_name(random_uuid().map_err(unavailable)?, root.as_bytes());
        let (shared, listed) = (self.shared.clone(), name.clone());
        let body = Bytes::from(bytes);
        let create = async move {
            let create = || shared.files.create(&listed, body.clone());
            shared.patience.insist(create).await.map_err(Fault::from)
        };
        // Whether it was this try or one before does not matter: nobody else has the name.
        self.ask(create, action)?;
        Ok(name)
    }

    pub(super) fn compact_packs(&self, live_share_min: f64) -> Result<CompactReport> {
        let _one = self.deleting.lock().unwrap_or_else(PoisonError::into_inner);
        let _owner = self.take_lease(false)?;
        self.refresh(ACTION)?;
        let victims = self.victims(live_share_min);
        self.write_anew(victims, &mut |_, _, frame| Ok(frame))
    }

    /// Writes packs anew of which a sample gets smaller at a level.
    pub(super) fn recompress_packs(
        &self,
        options: &RecompressOptions,
        pace: &mut dyn FnMut(u64) -> Result<()>,
    ) -> Result<RecompressReport> {
        let _one = self.deleting.lock().unwrap_or_else(PoisonError::into_inner);
        let _owner = self.take_lease(false)?;
        self.refresh(ACTION)?;
        let smaller = |id, place: &Place, frame: Bytes| {
            let smaller = smaller_frame(id, &frame, place.plain_len, options.level, self.algorithm);
            smaller.unwrap_or(frame)
        };
        let mut report = RecompressReport::default();
        let mut victims = Victims::default();
        for pack in self.all_packs() {
            pace(0)?;
            let sample = pack
                .frames
                .iter()
                .step_by(pack.frames.len().div_ceil(SAMPLE_CHUNKS).max(1));
            let sample: Vec<_> = sample.copied().collect();
            let ids: Vec<ChunkId> = sample.iter().map(|(_, id)| *id).collect();
            let (mut before, mut after) = (0, 0);
            for ((place, id), read) in sample.iter().zip(self.read_many(&ids)) {
                // What cannot be read is for who moves it to find.
                let Ok(chunk) = read else { continue };
                pace(chunk.bytes.len() as u64)?;
                before += chunk.bytes.len();
                after += smaller(*id, place, chunk.bytes).len();
            }
            if (after as f64) < before as f64 * (1.0 - options.gain_min) {
                victims.packs.extend(pack.packs);
                victims.frames.extend(pack.frames);
            } else {
                report.packs_left += 1;
            }
        }
        let mut bytes = (0, 0);
        let done = self.write_anew(victims, &mut |id, place, frame| {
            pace(frame.len() as u64)?;
            let len = frame.len() as u64;
            let frame = smaller(id, place, frame);
            bytes = (bytes.0 + len, bytes.1 + frame.len() as u64);
            Ok(frame)
        })?;
        report.packs_removed = done.packs_removed;
        (report.bytes_before, report.bytes_after) = bytes;
        Ok(report)
    }

    /// Writes what counts in packs anew, then deletes them. The caller is the one who deletes.
    ///
    /// - `change`: the frame of a chunk as it is to be, from what it is.
    fn write_anew(
        &self,
        victims: Victims,
        change: &mut dyn FnMut(ChunkId, &Place, Bytes) -> Result<Bytes>,
    ) -> Result<CompactReport> {
        let mut report = CompactReport::default();
        let mut kept = HashSet::new();
        let mut building: Option<Building> = None;
        // Packs whose chunks are all in `building` or before, in order; those before `safe` are there in new packs.
        let mut emptied: Vec<Arc<PackObject>> = Vec::new();
        let mut frames = victims.frames.into_iter().peekable();
        for pack in victims.packs {
            let mut mine = Vec::new();
            while let Some(frame) = frames.next_if(|(place, _)| place.slot == pack.slot) {
                mine.push(frame);
            }
            let mut rest = &mine[..];
            while !rest.is_empty() && !kept.contains(&pack.slot) {
                let mut len = 0;
                let count = rest.iter().take_while(|(place, _)| {
                    let more = len == 0 || len + u64::from(place.len) <= READ_LEN;
                    len += u64::from(place.len);
                    more
                });
                let (these, others) = rest.split_at(count.count());
                rest = others;
                let ids: Vec<ChunkId> = these.iter().map(|(_, id)| *id).collect();
                for ((place, id), read) in these.iter().zip(self.read_many(&ids)) {
                    let frame = match read {
                        Ok(chunk) => change(*id, place, chunk.bytes)?,
                        // Its bytes stay for whoever wants to know what happened to them.
                        Err(Error::Corrupt { .. }) => {
                            kept.insert(pack.slot);
                            break;
                        }
                        Err(error) => return Err(error),
                    };
                    if building
                        .as_ref()
                        .is_some_and(|new| new.is_full_for(frame.len(), self.options.pack_len))
                    {
                        self.finish(&mut building, &mut emptied, &mut report)?;
                    }
                    let new = match &mut building {
                        Some(new) => new,
                        none => none.insert(Building::new(self.algorithm).map_err(|error| Error::Unavailable {
                            store: self.shared.name.clone(),
                            action: ACTION,
                            source: error.into(),
                        })?),
                    };
                    new.push(*id, &frame, place.plain_len);
                    report.bytes_moved += frame.len() as u64;
                }
            }
            if !kept.contains(&pack.slot) {
                emptied.push(pack);
            }
        }
        self.finish(&mut building, &mut emptied, &mut report)?;
        self.shared.known_mut().sweep();
        self.merge_lists()?;
        Ok(report)
    }

    /// Sends the new pack, then deletes the packs whose chunks are all in new ones.
    fn finish(
        &self,
        building: &mut Option<Building>,
        emptied: &mut Vec<Arc<PackObject>>,
        report: &mut CompactReport,
    ) -> Result<()> {
        if let Some(new) = building.take() {
            self.upload(&new.seal(), ACTION, true)?;
        }
        if emptied.is_empty() {
            return Ok(());
        }
        self.still_owner()?;
        let names = emptied.iter().map(|pack| pack.name.to_string()).collect();
        self.remove_files(names, "delete packs")?;
        let mut known = self.shared.known_mut();
        for pack in emptied.drain(..) {
            known.forget(pack.slot);
            report.packs_removed += 1;
            report.bytes_removed += pack.len;
        }
        Ok(())
    }

    /// Each pack that may be written anew, with what counts in it.
    fn all_packs(&self) -> Vec<Victims> {
        let known = self.shared.known();
        let mut by_slot: BTreeMap<u32, Victims> = BTreeMap::new();
        for pack in known.packs().filter(|pack| !pack.kept) {
            by_slot.entry(pack.slot).or_default().packs.push(pack.clone());
        }
        for (place, id) in known.in_order() {
            if let Some(pack) = by_slot.get_mut(&place.slot) {
                pack.frames.push((place, id));
            }
        }
        by_slot.into_values().collect()
    }

    fn victims(&self, live_share_min: f64) -> Victims {
        let known = self.shared.known();
        let all = known.in_order();
        let mut live: HashMap<u32, u64> = HashMap::new();
        for (place, _) in &all {
            *live.entry(place.slot).or_default() += u64::from(place.len);
        }
        let (mut dead, mut small) = (Vec::new(), Vec::new());
        for pack in known.packs().filter(|pack| !pack.kept) {
            let live = live.get(&pack.slot).copied().unwrap_or(0);
            if live == 0 || (live as f64) < live_share_min * pack.len as f64 {
                dead.push(pack.clone());
            } else if pack.len < self.options.pack_len / SMALL_PART {
                small.push(pack.clone());
            }
        }
        // One alone would only be copied.
        let left = |pack: &Arc<PackObject>| live.contains_key(&pack.slot);
        if small.len() + dead.iter().filter(|pack| left(pack)).count() >= 2 {
            dead.append(&mut small);
        }
        dead.sort_unstable_by_key(|pack| pack.slot);
        let slots: HashSet<u32> = dead.iter().map(|pack| pack.slot).collect();
        let mut frames = all;
        frames.retain(|(place, _)| slots.contains(&place.slot));
        Victims { packs: dead, frames }
    }

    /// Makes one list of many, without what no longer matters.
    fn merge_lists(&self) -> Result<()> {
        let (lists, live) = {
            let known = self.shared.known();
            let lists: Vec<String> = known.lists.keys().cloned().collect();
            let entries = known.lists.values().flatten();
            let mut live: Vec<GoneChunk> = entries
                .filter(|gone| known.by_uuid(gone.pack).is_some())
                .copied()
                .collect();
            live.sort_unstable();
            live.dedup();
            let all: usize = known.lists.values().map(Vec::len).sum();
            if all == live.len() && lists.len() <= live.len().div_ceil(GONE_MAX) {
                return Ok(());
            }
            (lists, live)
        };
        let mut new = Vec::new();
        for gone in live.chunks(GONE_MAX) {
            new.push((self.put_list(gone)?, gone.to_vec()));
        }
        self.still_owner()?;
        self.remove_files(lists.clone(), "delete lists of removals")?;
        let mut known = self.shared.known_mut();
        for name in lists {
            known.lists.remove(&name);
        }
        known.lists.extend(new);
        Ok(())
    }
}
