//! Looking for damage before somebody needs the bytes: every pack read from end to end, the one longest unread first.
//!
//! A record's head and frame are checked against their sums, each chunk that counts against its name, a sealed pack against the
//! digest in its footer. A damaged chunk is taken out of the locations (a record says so; its bytes stay where they are) and
//! fetched from another store, or is left missing, so that the next upload of it heals the store. A chunk whose frame is whole
//! and whose head is not is written anew from what is there. A pack in which damage was found is kept from compaction.
//!
//! A pass may be stopped at any moment and goes on where it was. Not here: what to do about damaged batches of the index and
//! footers, which are named; opening the store again makes a new footer.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError};

use bytes::Bytes;
use cairn_formats::{
    CHUNK_LEN_MAX, ChunkForm, ChunkId, DigestAlgorithm, EncodedChunk, PACK_HEADER_LEN, PackEntry, PackFooter,
    PackHeader, PackUuid, RecordKind, payload_crc,
};

use super::log::pack_name;
use super::queue::Item;
use super::scrub_checks::{end_of, fetch, head_is_right, proven, window};
use super::scrub_notes::{PackScrub, ScrubState};
use super::scrub_report::{Damage, DamageKind, Fate, ScrubOptions, ScrubReport};
use super::{ChunkKey, ChunkPlace, Pack, PackEngine};
use crate::{ChunkStore, Error, Result};

/// Bytes read and checked together, unless one record is longer.
const WINDOW_LEN: u64 = 4 << 20;
/// Bytes read between two notes of how far a pass has come.
const SAVE_LEN: u64 = 64 << 20;

/// One pass.
struct Pass<'a> {
    engine: &'a PackEngine,
    options: &'a ScrubOptions,
    sources: &'a [Arc<dyn ChunkStore>],
    go_on: &'a mut dyn FnMut(u64) -> bool,
    report: ScrubReport,
}

/// A pack being read.
struct Reading {
    pack: Arc<Pack>,
    algorithm: DigestAlgorithm,
    /// Its header is damaged, so that the next opening has only the name of its file to go by.
    is_lost: bool,
    /// Damaged records in it.
    damaged: u64,
}

/// A chunk's record with what is wrong with it.
struct Found {
    key: ChunkKey,
    place: ChunkPlace,
    what: DamageKind,
    frame: Bytes,
}

impl PackEngine {
    /// Reads all packs whose time has come, the one longest unread first. May run beside readers, writers and compaction.
    ///
    /// - `sources`: where damaged chunks are fetched from, the first that has a good one.
    /// - `go_on`: hears of bytes that were read; `false` stops the pass. It is asked every 100 ms or 4 MiB.
    /// - Errors: [`Error::Unavailable`] when the notes or the locations cannot be read. Damage is no error.
    pub fn scrub(
        &self,
        options: &ScrubOptions,
        sources: &[Arc<dyn ChunkStore>],
        state: &dyn ScrubState,
        go_on: &mut dyn FnMut(u64) -> bool,
    ) -> Result<ScrubReport> {
        self.settle_all()?;
        let mut notes = state
            .load()
            .map_err(|error| self.unavailable("read how far the last scrub came", error))?;
        let packs: Vec<Arc<Pack>> = self
            .pack_numbers()
            .iter()
            .filter_map(|&number| self.pack(number))
            .collect();
        notes.retain(|uuid, _| packs.iter().any(|pack| pack.uuid == *uuid));
        let note = |pack: &Arc<Pack>| notes.get(&pack.uuid).copied().unwrap_or_default();
        let mut due: Vec<Arc<Pack>> = packs
            .iter()
            .filter(|pack| note(pack).verified_at.is_none_or(|at| at < options.verified_before))
            .cloned()
            .collect();
        due.sort_by_key(|pack| (note(pack).cursor == 0, note(pack).verified_at, pack.number));
        let mut pass = Pass {
            engine: self,
            options,
            sources,
            go_on,
            report: ScrubReport::default(),
        };
        for pack in due {
            // Gone by compaction.
            if self.pack(pack.number).is_none() {
                continue;
            }
            let done = pass.pack(&pack, &mut notes, state);
            if let Err(error) = state.save(&notes) {
                pass.report
                    .errors
                    .push(self.unavailable("note how far the scrub came", error));
            }
            done?;
            if pass.report.stopped {
                break;
            }
        }
        Ok(pass.report)
    }

    /// Keeps packs from compaction in which earlier passes found damage, for whoever wants to know what happened to them.
    pub fn keep_damaged(&self, state: &dyn ScrubState) -> Result<()> {
        let notes = state
            .load()
            .map_err(|error| self.unavailable("read what the last scrub found", error))?;
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let damaged = notes.into_iter().filter(|(_, note)| note.damaged > 0);
        kept.extend(damaged.map(|(uuid, _)| uuid));
        Ok(())
    }

    /// Lets compaction have the packs again that are kept because of their damage.
    pub fn release_damaged(&self) {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    /// Whether a pack is kept because of its damage.
    pub(super) fn is_kept(&self, uuid: PackUuid) -> bool {
        let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.contains(&uuid)
    }
}

impl Pass<'_> {
    /// Reads one pack from its cursor on.
    fn pack(
        &mut self,
        pack: &Arc<Pack>,
        notes: &mut BTreeMap<PackUuid, PackScrub>,
        state: &dyn ScrubState,
    ) -> Result<()> {
        let engine = self.engine;
        let mut note = notes.get(&pack.uuid).copied().unwrap_or_default();
        let (mut reading, mut hasher) = self.begin(pack)?;
        let footer = match engine.footer(pack) {
            Err(Error::Unavailable { .. }) => None,
            footer => footer?,
        };
        // Read before the footer was looked for, so a pack that was open then may be sealed by now, not the reverse.
        // Who only reads does not know whether somebody still writes to the last one.
        let open_number = engine.open_number() - u32::from(engine.options.read_only);
        if footer.is_none() && pack.number < open_number && note.cursor == 0 && !reading.is_lost {
            let offset = pack.file.len().unwrap_or(0);
            self.name(&mut reading, offset, None, DamageKind::Footer);
        }
        let (entries, root) = match footer {
            Some(PackFooter {
                mut entries,
                root,
                start,
            }) => {
                entries.sort_unstable_by_key(|entry| entry.offset);
                (entries, Some((root, start)))
            }
            None => (self.entries_in(pack.number)?, None),
        };
        let begun_at = note.cursor;
        let mut saved_at = begun_at;
        let mut at = PACK_HEADER_LEN as u64;
        let mut from = 0;
        while from < entries.len() {
            let until = window(&entries, from, at, WINDOW_LEN);
            let end = end_of(&entries[until - 1]).max(at);
            // What was checked before counts for the digest of the whole only.
            let is_new = end > begun_at;
            if is_new || root.is_some() {
                let bytes = engine.read_range(pack, at, end);
                if let Ok(bytes) = &bytes {
                    hasher.update(bytes);
                }
                if is_new {
                    self.check(
                        &mut reading,
                        at,
                        &entries[from..until],
                        bytes.unwrap_or_default(),
                        root.is_some(),
                    )?;
                }
                if !self.pause(end - at) {
                    break;
                }
            }
            (from, at) = (until, end);
            if at - saved_at.min(at) >= SAVE_LEN {
                saved_at = at;
                note.cursor = at;
                notes.insert(
                    pack.uuid,
                    PackScrub {
                        damaged: note.damaged + reading.damaged,
                        ..note
                    },
                );
                if let Err(error) = state.save(notes) {
                    self.report
                        .errors
                        .push(engine.unavailable("note how far the scrub came", error));
                }
            }
        }
        if self.report.stopped {
            note.cursor = at.max(begun_at);
            note.damaged += reading.damaged;
        } else {
            if let Some((root, start)) = root {
                let rest = engine.read_range(pack, at, start).unwrap_or_default();
                hasher.update(&rest);
                self.report.bytes += rest.len() as u64;
                let is_known = reading.damaged > 0 || note.damaged > 0;
                if *hasher.finalize().as_bytes() != root && !is_known {
                    self.name(&mut reading, 0, None, DamageKind::Digest);
                }
            }
            self.report.packs += 1;
            note = PackScrub {
                verified_at: Some(engine.host.unix_seconds()),
                cursor: 0,
                // A pass from the start to the end has seen all that is damaged, but without a footer not what was taken out.
                damaged: match root {
                    Some(_) if begun_at == 0 => reading.damaged,
                    _ => reading.damaged + note.damaged,
                },
            };
        }
        if note.damaged > 0 {
            engine
                .kept
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .insert(pack.uuid);
        }
        notes.insert(pack.uuid, note);
        Ok(())
    }

    /// Reads a pack's header.
    fn begin(&mut self, pack: &Arc<Pack>) -> Result<(Reading, blake3::Hasher)> {
        let bytes = self
            .engine
            .read_range(pack, 0, PACK_HEADER_LEN as u64)
            .unwrap_or_default();
        let header = PackHeader::decode(&bytes).ok();
        let header = header.filter(|header| (header.number, header.uuid) == (pack.number, pack.uuid));
        let mut hasher = blake3::Hasher::new();
        hasher.update(&bytes);
        let mut reading = Reading {
            pack: pack.clone(),
            algorithm: header.map_or(self.engine.options.algorithm, |header| header.algorithm),
            is_lost: header.is_none(),
            damaged: 0,
        };
        if header.is_none() {
            self.name(&mut reading, 0, None, DamageKind::Header);
        }
        Ok((reading, hasher))
    }

    /// Chunks in a pack that has no footer, in order.
    fn entries_in(&self, number: u32) -> Result<Vec<PackEntry>> {
        let mut entries = Vec::new();
        self.engine.locations.for_each(&mut |key, place| {
            if place.pack == number {
                entries.push(PackEntry {
                    kind: RecordKind::Chunk,
                    pinned: place.pinned,
                    domain: key.domain,
                    id: key.id,
                    offset: place.offset,
                    len: place.len,
                    plain_len: place.plain_len,
                    crc: place.crc,
                });
            }
            Ok(())
        })?;
        entries.sort_unstable_by_key(|entry| entry.offset);
        Ok(entries)
    }

    /// Checks the records of a window, and settles what is wrong with them.
    ///
    /// - `bytes`: the pack from `at` on; fewer if they cannot be read.
    /// - `is_whole`: the entries are all records there are.
    fn check(
        &mut self,
        reading: &mut Reading,
        at: u64,
        entries: &[PackEntry],
        bytes: Bytes,
        is_whole: bool,
    ) -> Result<()> {
        let keys: Vec<ChunkKey> = entries.iter().map(key_of).collect();
        let places = self.engine.locations.get_many(&keys)?;
        let mut sound = Vec::new();
        let mut found = Vec::new();
        let mut end = at;
        for ((entry, key), now) in entries.iter().zip(keys).zip(places) {
            let place = ChunkPlace::of(reading.pack.number, entry);
            let is_used = entry.kind == RecordKind::Chunk && now.is_some_and(|now| now.is_at(place.pack, place.offset));
            let frame = self.frame(&reading.pack, at, entry, &bytes);
            let is_head_right = head_is_right(&reading.pack.uuid, at, is_whole.then_some(end), entry, &bytes);
            end = end_of(entry);
            let what = match &frame {
                Err(_) => Some(DamageKind::Unreadable),
                Ok(None) => Some(DamageKind::Chunk),
                Ok(Some(_)) if !is_head_right => Some(DamageKind::Head),
                Ok(Some(_)) => None,
            };
            match what {
                Some(_) if entry.kind != RecordKind::Chunk => {
                    self.name(reading, entry.offset, Some(entry.id), DamageKind::Record);
                }
                Some(_) if !is_used => {
                    reading.damaged += 1;
                    self.report.unused += 1;
                }
                Some(what @ (DamageKind::Chunk | DamageKind::Unreadable)) => {
                    let frame = Bytes::new();
                    found.push(Found {
                        key,
                        place,
                        what,
                        frame,
                    });
                }
                _ if !is_used => {}
                what => {
                    let frame = frame.ok().flatten().unwrap_or_default();
                    sound.push((key, place, what, frame));
                }
            }
        }
        let encode = |(key, place, _, frame): &(ChunkKey, ChunkPlace, Option<DamageKind>, Bytes)| {
            let (id, form, bytes) = (key.id, ChunkForm::Compressed, frame.clone());
            (EncodedChunk { id, form, bytes }, place.plain_len)
        };
        let encoded: Vec<(EncodedChunk, u32)> = sound.iter().map(encode).collect();
        let proven = proven(&encoded, reading.algorithm, self.options.workers);
        let mut rewritten = Vec::new();
        for ((key, place, what, frame), is_proven) in sound.into_iter().zip(proven) {
            // Once more if it is not: what went wrong may have gone wrong in memory.
            let is_right = is_proven || self.opens(reading, key, place);
            if !is_right {
                let what = DamageKind::Chunk;
                found.push(Found {
                    key,
                    place,
                    what,
                    frame,
                });
            } else if what.is_some() || reading.is_lost {
                let what = what.unwrap_or(DamageKind::Header);
                rewritten.push(Found {
                    key,
                    place,
                    what,
                    frame,
                });
            } else {
                self.report.chunks += 1;
                metrics::counter!("store_scrub_chunks_total").increment(1);
            }
        }
        self.rewrite(reading, rewritten);
        self.replace(reading, found);
        Ok(())
    }

    /// The frame of a record: `None` if it does not have its check sum, an error if it cannot be read.
    fn frame(&self, pack: &Pack, at: u64, entry: &PackEntry, bytes: &Bytes) -> Result<Option<Bytes>> {
        let is_right = |frame: &Bytes| payload_crc(frame) == entry.crc;
        let from = (entry.offset - at) as usize;
        let to = from + entry.len as usize;
        if to <= bytes.len() {
            let frame = bytes.slice(from..to);
            if is_right(&frame) {
                return Ok(Some(frame));
            }
        }
        let again = self.engine.read_range(pack, entry.offset, end_of(entry))?;
        Ok((again.len() == entry.len as usize && is_right(&again)).then_some(again))
    }

    fn opens(&self, reading: &Reading, key: ChunkKey, place: ChunkPlace) -> bool {
        let end = place.offset + u64::from(place.len);
        let Ok(bytes) = self.engine.read_range(&reading.pack, place.offset, end) else {
            return false;
        };
        let chunk = EncodedChunk {
            id: key.id,
            form: ChunkForm::Compressed,
            bytes,
        };
        chunk.open(reading.algorithm, CHUNK_LEN_MAX).is_ok()
    }

    /// Writes chunks anew that are whole in a place that is not.
    fn rewrite(&mut self, reading: &mut Reading, found: Vec<Found>) {
        if found.is_empty() {
            return;
        }
        let engine = self.engine;
        let written = if self.only_looks() {
            Ok(Fate::Named)
        } else {
            let mut moved = found.iter();
            moved
                .try_for_each(|one| {
                    let item = Item::moved(one.key, one.place, one.frame.clone());
                    engine.enqueue_moved(one.key, one.place, item).map(drop)
                })
                .and_then(|()| engine.sync())
                .map(|()| Fate::Rewritten)
        };
        let fate = written.unwrap_or_else(|error| {
            self.report.errors.push(error);
            Fate::Named
        });
        for one in found {
            match (one.what, &fate) {
                // The header has been named; that its chunks are elsewhere now is no further damage.
                (DamageKind::Header, _) => self.report.chunks += 1,
                _ => self.settle(reading, &one, fate.clone()),
            }
        }
    }

    /// Takes damaged chunks out of the store, and puts good ones in where somebody has them.
    fn replace(&mut self, reading: &mut Reading, found: Vec<Found>) {
        if found.is_empty() {
            return;
        }
        if self.only_looks() {
            found.iter().for_each(|one| self.settle(reading, one, Fate::Named));
            return;
        }
        let ids: Vec<ChunkId> = found.iter().map(|one| one.key.id).collect();
        let good = fetch(self.sources, reading.algorithm, &ids, &mut self.report.errors);
        // What cannot be read today may be read tomorrow: it goes only for something better.
        let goes = |one: &&Found| one.what != DamageKind::Unreadable || good.contains_key(&one.key.id);
        let gone: Vec<_> = found.iter().filter(goes).map(|one| (one.key, one.place)).collect();
        let engine = self.engine;
        if let Err(error) = engine.remove_at(&gone) {
            self.report.errors.push(error);
            found.iter().for_each(|one| self.settle(reading, one, Fate::Named));
            return;
        }
        let put = found
            .iter()
            .filter_map(|one| Some((one, good.get(&one.key.id)?)))
            .try_for_each(|(one, (chunk, _))| {
                engine.put_many(
                    one.key.domain,
                    one.place.pinned,
                    engine.options.sync,
                    std::slice::from_ref(chunk),
                )
            });
        let put = put.and_then(|()| engine.sync());
        let is_put = put.is_ok();
        self.report.errors.extend(put.err());
        for one in &found {
            let fate = match good.get(&one.key.id) {
                Some((_, store)) if is_put => Fate::Repaired(store.clone()),
                _ if goes(&one) => Fate::Missing,
                _ => Fate::Named,
            };
            self.settle(reading, one, fate);
        }
    }

    fn only_looks(&self) -> bool {
        self.options.dry_run || self.engine.options.read_only
    }

    fn name(&mut self, reading: &mut Reading, offset: u64, id: Option<ChunkId>, what: DamageKind) {
        reading.damaged += 1;
        self.report.damage(Damage {
            pack: pack_name(reading.pack.number, reading.pack.uuid),
            offset,
            id,
            what,
            fate: Fate::Named,
        });
    }

    fn settle(&mut self, reading: &mut Reading, one: &Found, fate: Fate) {
        reading.damaged += 1;
        self.report.damage(Damage {
            pack: pack_name(reading.pack.number, reading.pack.uuid),
            offset: one.place.offset,
            id: Some(one.key.id),
            what: one.what,
            fate,
        });
    }

    /// Counts bytes that were read, and waits until more may be. Returns whether to go on.
    fn pause(&mut self, bytes: u64) -> bool {
        self.report.read(bytes, self.options, self.go_on)
    }
}

fn key_of(entry: &PackEntry) -> ChunkKey {
    ChunkKey {
        domain: entry.domain,
        id: entry.id,
    }
}
