//! Getting space back: what is left of a pack is written anew, then the pack goes.
//!
//! Order: records written anew and durable, places published, the locations made to outlive a crash (once for some packs, since it
//! costs more than all else), the packs unlinked, each name durably gone before the next. A crash between any two leaves a chunk twice, of which the later counts. So the removal of a chunk is written
//! anew with the rest of its pack for as long as any pack holds an older copy, which would come back without it.

use std::collections::{BTreeSet, HashMap};
use std::io;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};

use bytes::Bytes;
use cairn_formats::{PackFooter, RecordKind, Removal, payload_crc};

use super::bug::{Bug, is_planted};
use super::log::pack_name;
use super::queue::{Item, key_of};
use super::{ChunkKey, ChunkPlace, LogPosition, Pack, PackEngine, REMOVALS_MAX};
use crate::{Error, Result};

/// Packs that are written anew before any of them goes, at most.
const UNLINKED_TOGETHER: usize = 64;

/// Which packs are written anew.
#[derive(Clone, Copy, Debug)]
pub struct CompactOptions {
    /// Packs of whose bytes less than this share is still named, 0 to 1.
    pub live_share_min: f64,
    /// Batches of the index at or behind this are still needed to make it again; packs with such are kept, unless a whole
    /// snapshot has them.
    pub commits_kept_from: LogPosition,
}

/// What was done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CompactReport {
    /// Packs that are gone.
    pub packs_removed: usize,
    /// Bytes of the files that are gone.
    pub bytes_removed: u64,
    /// Bytes of chunks that were written anew.
    pub bytes_moved: u64,
}

impl PackEngine {
    /// Bytes of frames per pack that the locations name.
    pub fn live_bytes(&self) -> Result<HashMap<u32, u64>> {
        let mut live = HashMap::new();
        self.locations.for_each(&mut |_, place| {
            *live.entry(place.pack).or_default() += u64::from(place.len);
            Ok(())
        })?;
        Ok(live)
    }

    /// Writes what is left of mostly dead packs anew and removes them. May run beside readers and writers; can be run again
    /// after any error.
    pub fn compact(&self, options: &CompactOptions) -> Result<CompactReport> {
        self.compact_paced(options, &mut |_| Ok(()))
    }

    /// [`PackEngine::compact`], at a pace.
    ///
    /// - `pace`: called before each chunk is written anew, with its bytes, and with 0 before each pack. It may wait; an error ends
    ///   the work and is returned.
    pub fn compact_paced(
        &self,
        options: &CompactOptions,
        pace: &mut dyn FnMut(u64) -> Result<()>,
    ) -> Result<CompactReport> {
        self.writable()?;
        self.settle_all()?;
        let (victims, removed) = self.victims(options)?;
        let mut emptied = Emptied {
            copies: self.copies(&removed)?,
            packs: Vec::new(),
            moved: 0,
            report: CompactReport::default(),
        };
        let outcome = victims.iter().try_for_each(|pack| self.empty(pack, pace, &mut emptied));
        // Whatever ended the work, what is written anew already may go.
        outcome.and(self.unlink_emptied(&mut emptied))?;
        Ok(emptied.report)
    }

    /// Writes a pack anew; it goes with others, which costs the locations one write for all.
    fn empty(&self, pack: &Arc<Pack>, pace: &mut dyn FnMut(u64) -> Result<()>, emptied: &mut Emptied) -> Result<()> {
        let Some(footer) = self.footer(pack)? else {
            return Ok(());
        };
        pace(0)?;
        if is_planted(Bug::UnlinkFirst) {
            self.unlink(pack)?;
        }
        let moved = loop {
            match self.move_out(pack, &footer, &emptied.copies, pace, &mut Item::moved) {
                // There is room in those that wait to go.
                Err(error) if error.is_full() && !emptied.packs.is_empty() => self.unlink_emptied(emptied)?,
                moved => break moved?,
            }
        };
        emptied.moved += moved;
        emptied.report.bytes_moved += moved;
        emptied.copies.leaving.insert(pack.number);
        emptied.packs.push(Arc::clone(pack));
        if emptied.packs.len() >= UNLINKED_TOGETHER || emptied.moved >= self.options.pack_len / 4 {
            self.unlink_emptied(emptied)?;
        }
        Ok(())
    }

    fn unlink_emptied(&self, emptied: &mut Emptied) -> Result<()> {
        emptied.moved = 0;
        if !emptied.packs.is_empty() {
            self.locations.persist()?;
        }
        // In this order: a pack may rely on those before it being gone.
        for pack in std::mem::take(&mut emptied.packs) {
            let len = self.pack_len(&pack)?;
            if self.pack(pack.number).is_some() {
                self.unlink_name(&pack)?;
            }
            emptied.report.packs_removed += 1;
            emptied.report.bytes_removed += len;
        }
        Ok(())
    }

    /// The packs to be written anew, and all removals that are in them.
    fn victims(&self, options: &CompactOptions) -> Result<(Vec<Arc<Pack>>, Vec<Removal>)> {
        let live = self.live_bytes()?;
        let pieces = self.snapshots().needed_bytes();
        let open_number = self.open_number();
        let mut victims = Vec::new();
        let mut removed = Vec::new();
        for number in self.pack_numbers() {
            let Some(pack) = self
                .pack(number)
                .filter(|pack| number < open_number && !self.is_kept(pack.uuid))
            else {
                continue;
            };
            let len = self.pack_len(&pack)?;
            let live = [&live, &pieces].map(|map| map.get(&number).copied().unwrap_or(0));
            let live: u64 = live.iter().sum();
            if live as f64 >= options.live_share_min * len as f64 {
                continue;
            }
            let Some((_, removals)) = self.movable(&pack, options.commits_kept_from)? else {
                continue;
            };
            removed.extend(removals);
            victims.push((live, number, pack));
        }
        // Those that give most room for least come first: there may be little of it.
        victims.sort_unstable_by_key(|(live, number, _)| (*live, *number));
        Ok((victims.into_iter().map(|(_, _, pack)| pack).collect(), removed))
    }

    /// The footer of a pack, and all removals in it, if it may be written anew at all.
    pub(super) fn movable(
        &self,
        pack: &Pack,
        commits_kept_from: LogPosition,
    ) -> Result<Option<(PackFooter, Vec<Removal>)>> {
        // One without a footer waits for the next opening.
        let Some(footer) = self.footer(pack)?.filter(|_| !self.is_kept(pack.uuid)) else {
            return Ok(None);
        };
        let commits_kept_from = commits_kept_from.max(self.snapshots().rest());
        let commits = footer.entries.iter().filter(|entry| entry.kind == RecordKind::Commit);
        let last_commit = commits.map(|entry| entry.offset).max();
        let pack_number = pack.number;
        let is_needed = |offset| {
            LogPosition {
                pack: pack_number,
                offset,
            } >= commits_kept_from
        };
        if last_commit.is_some_and(is_needed) {
            return Ok(None);
        }
        // One whose removals are damaged stays: it may be mended. So does one with damaged pieces of the snapshot that counts.
        if self.pieces_to_move(pack, &mut |_| Ok(()))?.is_none() {
            return Ok(None);
        }
        let removals = self.removals_in(pack, &footer)?;
        Ok(removals.map(|removals| (footer, removals)))
    }

    /// All removals in a sealed pack; `None` if some are damaged.
    fn removals_in(&self, pack: &Pack, footer: &PackFooter) -> Result<Option<Vec<Removal>>> {
        let mut removals = Vec::new();
        for entry in footer.entries.iter().filter(|entry| entry.kind == RecordKind::Removals) {
            let payload = self.read_range(pack, entry.offset, entry.offset + u64::from(entry.len))?;
            match Removal::decode_all(&payload) {
                Ok(some) if payload_crc(&payload) == entry.crc => removals.extend(some),
                _ => return Ok(None),
            }
        }
        Ok(Some(removals))
    }

    /// Where the packs hold copies of removed chunks. One reading of all footers, unless nothing was removed.
    pub(super) fn copies(&self, removed: &[Removal]) -> Result<Copies> {
        let mut copies = Copies::default();
        let Some(last) = removed.iter().map(|removal| removal.pack).max() else {
            return Ok(copies);
        };
        for removal in removed {
            copies.places.insert(key_of(removal), Vec::new());
        }
        for number in self.pack_numbers().into_iter().filter(|&number| number <= last) {
            let Some(pack) = self.pack(number) else {
                continue;
            };
            let Some(footer) = self.footer(&pack)? else {
                copies.unknown.push(number);
                continue;
            };
            for entry in footer.entries.iter().filter(|entry| entry.kind == RecordKind::Chunk) {
                let key = ChunkKey {
                    domain: entry.domain,
                    id: entry.id,
                };
                if let Some(places) = copies.places.get_mut(&key) {
                    places.push((number, entry.offset));
                }
            }
        }
        Ok(copies)
    }

    /// Writes anew what a pack holds that counts. Returns the bytes of chunks.
    ///
    /// - `record`: makes the record of a chunk from its frame.
    pub(super) fn move_out(
        &self,
        pack: &Arc<Pack>,
        footer: &PackFooter,
        copies: &Copies,
        pace: &mut dyn FnMut(u64) -> Result<()>,
        record: &mut dyn FnMut(ChunkKey, ChunkPlace, Bytes) -> Item,
    ) -> Result<u64> {
        let moved = self.try_to_move_out(pack, footer, copies, pace, record);
        // What waits for room would hold up everybody; it is still where it was.
        moved.inspect_err(|_| self.withdraw(Item::is_moved))
    }

    fn try_to_move_out(
        &self,
        pack: &Arc<Pack>,
        footer: &PackFooter,
        copies: &Copies,
        pace: &mut dyn FnMut(u64) -> Result<()>,
        record: &mut dyn FnMut(ChunkKey, ChunkPlace, Bytes) -> Item,
    ) -> Result<u64> {
        let mut entries = footer.entries.clone();
        entries.sort_unstable_by_key(|entry| entry.offset);
        let mut moved = 0;
        let mut moving = Vec::new();
        let mut ticket = 0;
        for entry in entries.iter().filter(|entry| entry.kind == RecordKind::Chunk) {
            let place = ChunkPlace::of(pack.number, entry);
            let key = ChunkKey {
                domain: entry.domain,
                id: entry.id,
            };
            if !self.is_at(key, place)? {
                continue;
            }
            let frame = match self.read_place(pack, key, place) {
                Ok(frame) => frame,
                // What is damaged is out of the store by now.
                Err(Error::Corrupt { .. }) if !self.is_at(key, place)? => continue,
                Err(error) => return Err(error),
            };
            pace(frame.len() as u64)?;
            moved += frame.len() as u64;
            let item = record(key, place, frame);
            ticket = self.enqueue_moved(key, place, item)?.unwrap_or(ticket);
            moving.push((key, place));
        }
        self.pieces_to_move(pack, &mut |piece| {
            ticket = self.enqueue(vec![piece])?;
            Ok(())
        })?
        .ok_or_else(|| {
            let damaged = io::Error::other("a piece of the index's snapshot was damaged since it was looked at");
            self.unavailable("move a snapshot of the index", damaged)
        })?;
        let mut removals = self.removals_in(pack, footer)?.unwrap_or_default();
        removals.retain(|removal| {
            let is_there = |&number: &u32| {
                number != pack.number && !copies.leaving.contains(&number) && self.pack(number).is_some()
            };
            let before = |&&(number, offset): &&(u32, u64)| (number, offset) <= (removal.pack, removal.offset);
            let known = copies.places.get(&key_of(removal)).into_iter().flatten();
            let mut holders = known.filter(before).map(|(number, _)| number);
            let mut unknown = copies.unknown.iter().filter(|&&number| number <= removal.pack);
            !is_planted(Bug::ForgottenRemovals) && (holders.any(is_there) || unknown.any(is_there))
        });
        for removals in removals.chunks(REMOVALS_MAX) {
            ticket = self.enqueue(vec![Item::removals(removals.to_vec())])?;
        }
        self.settle(ticket)?;
        self.sync()?;
        let keys: Vec<ChunkKey> = moving.iter().map(|(key, _)| *key).collect();
        let mut now = moving.iter().zip(self.locations.find_many(&keys)?);
        let stays = now.any(|((_, place), now)| now.is_some_and(|now| now.is_at(place.pack, place.offset)));
        if stays || (self.has_needed_pieces(pack) && !is_planted(Bug::ForgottenPieces)) {
            let withdrawn = io::Error::other("another compaction has failed and has taken it back: try again");
            return Err(self.unavailable("write a pack anew", withdrawn));
        }
        Ok(moved)
    }

    pub(super) fn is_at(&self, key: ChunkKey, place: ChunkPlace) -> Result<bool> {
        let now = self.locations.find_many(&[key])?[0];
        Ok(now.is_some_and(|now| now.is_at(place.pack, place.offset)))
    }

    /// Takes a pack away for good: until its name is durably gone it counts as there, since a crash may bring it back.
    pub(super) fn unlink(&self, pack: &Arc<Pack>) -> Result<()> {
        self.locations.persist()?;
        self.unlink_name(pack)
    }

    /// [`PackEngine::unlink`], once the locations will outlive a crash.
    fn unlink_name(&self, pack: &Arc<Pack>) -> Result<()> {
        match self.host.remove(&pack_name(pack.number, pack.uuid)) {
            // Gone already, by a call that could not sync it.
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(self.unavailable("remove a pack", error));
            }
            _ => {}
        }
        let synced = self.host.sync_names();
        synced.map_err(|error| self.unavailable("sync the folder", error))?;
        self.packs
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(&pack.number);
        self.locations.pack_is_gone(pack.number);
        self.generation.fetch_add(1, Ordering::Release);
        self.snapshots().forget_pack(pack.number);
        Ok(())
    }
}

/// Where packs hold copies of chunks that were removed, named or not.
#[derive(Default)]
pub(super) struct Copies {
    /// Number and offset, per chunk.
    places: HashMap<ChunkKey, Vec<(u32, u64)>>,
    /// Packs without a footer, which may hold anything.
    unknown: Vec<u32>,
    /// Packs that are written anew and will be gone, durably, before the next one goes.
    leaving: BTreeSet<u32>,
}

/// Packs that are written anew and wait to go, and what has been done so far.
struct Emptied {
    copies: Copies,
    packs: Vec<Arc<Pack>>,
    /// Bytes of chunks written anew for them.
    moved: u64,
    report: CompactReport,
}
