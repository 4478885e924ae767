//! Getting space back: what is left of a pack is written anew, then the pack goes.
//!
//! Order: records written anew and durable, places published, the locations made to outlive a crash, the pack unlinked. A crash
//! between any two leaves a chunk twice, of which the later counts, and the earlier is no longer named by anything.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError};

use cairn_formats::{PackFooter, RecordKind, Removal};

use super::log::{Item, pack_name};
use super::{ChunkKey, ChunkPlace, LogPosition, Pack, PackEngine, REMOVALS_MAX};
use crate::Result;

/// Which packs are written anew.
#[derive(Clone, Copy, Debug)]
pub struct CompactOptions {
    /// Packs of whose bytes less than this share is still named, 0 to 1.
    pub live_share_min: f64,
    /// Batches of the index at or behind this are still needed to make it again; packs with such are kept.
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
        let mut report = CompactReport::default();
        let live = self.live_bytes()?;
        let open_number = self.open_number();
        for number in self.pack_numbers() {
            let Some(pack) = self.pack(number).filter(|_| number < open_number) else {
                continue;
            };
            let len = pack
                .file
                .len()
                .map_err(|error| self.unavailable("read a pack", error))?;
            let live = live.get(&number).copied().unwrap_or(0);
            if live as f64 >= options.live_share_min * len as f64 {
                continue;
            }
            // One without a footer waits for the next opening.
            let Some(footer) = self.footer(&pack)? else {
                continue;
            };
            let commits = footer.entries.iter().filter(|entry| entry.kind == RecordKind::Commit);
            let last_commit = commits.map(|entry| entry.offset).max();
            if last_commit.is_some_and(|offset| LogPosition { pack: number, offset } >= options.commits_kept_from) {
                continue;
            }
            pace(0)?;
            report.bytes_moved += self.move_out(&pack, &footer, pace)?;
            self.unlink(&pack)?;
            report.packs_removed += 1;
            report.bytes_removed += len;
        }
        if report.packs_removed > 0 {
            let synced = self.host.sync_names();
            synced.map_err(|error| self.unavailable("sync the folder", error))?;
        }
        Ok(report)
    }

    /// Writes anew what a pack holds that counts. Returns the bytes of chunks.
    fn move_out(&self, pack: &Arc<Pack>, footer: &PackFooter, pace: &mut dyn FnMut(u64) -> Result<()>) -> Result<u64> {
        let mut entries = footer.entries.clone();
        entries.sort_unstable_by_key(|entry| entry.offset);
        let mut moved = 0;
        let mut ticket = 0;
        let mut removals = Vec::new();
        for entry in &entries {
            let place = ChunkPlace::of(pack.number, entry);
            match entry.kind {
                RecordKind::Chunk => {
                    let key = ChunkKey {
                        domain: entry.domain,
                        id: entry.id,
                    };
                    let now = self.locations.get_many(&[key])?[0];
                    if !now.is_some_and(|now| now.is_at(place.pack, place.offset)) {
                        continue;
                    }
                    // What is damaged is out of the store by now, and reported by whoever asks for it.
                    let Ok(frame) = self.read_place(pack, key, place) else {
                        continue;
                    };
                    pace(frame.len() as u64)?;
                    moved += frame.len() as u64;
                    ticket = self.enqueue(vec![Item::moved(key, place, frame)])?;
                }
                RecordKind::Removals => {
                    let payload = self.read_range(pack, entry.offset, entry.offset + u64::from(entry.len))?;
                    removals.extend(Removal::decode_all(&payload).unwrap_or_default());
                }
                RecordKind::Commit => {}
            }
        }
        // Chunks that were taken away from packs that are still there must not come back with them.
        removals.retain(|removal| removal.pack != pack.number && self.pack(removal.pack).is_some());
        for removals in removals.chunks(REMOVALS_MAX) {
            ticket = self.enqueue(vec![Item::removals(removals.to_vec())])?;
        }
        self.settle(ticket)?;
        self.sync()?;
        Ok(moved)
    }

    fn unlink(&self, pack: &Arc<Pack>) -> Result<()> {
        self.locations.persist()?;
        self.packs
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(&pack.number);
        let removed = self.host.remove(&pack_name(pack.number, pack.uuid));
        removed.map_err(|error| self.unavailable("remove a pack", error))
    }
}
