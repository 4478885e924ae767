//! Looking for damage before somebody needs the bytes: every pack read from end to end, the one longest unread first.
//!
//! A record's head and frame are checked against their sums, each chunk that counts against its name, a sealed pack against the
//! digest in its footer. A damaged chunk is taken out of the locations (a record says so; its bytes stay where they are) and
//! fetched from another store, or is left missing, so that the next upload of it heals the store. A chunk whose frame is whole
//! and whose head is not is written anew from what is there. A pack in which damage was found is kept from compaction.
//!
//! A pass may be stopped at any moment and goes on where it was. Not here: what to do about damaged batches of the index and
//! footers, which are named; opening the store again makes a new footer.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use cairn_formats::{
    CHUNK_LEN_MAX, ChunkForm, ChunkId, DigestAlgorithm, EncodedChunk, PACK_HEADER_LEN, PackEntry, PackFooter,
    PackHeader, PackUuid, RECORD_HEAD_LEN, RecordKind, RecordSpan, StorableChunk, find_record, payload_crc,
    skippable_head,
};

use super::log::pack_name;
use super::queue::Item;
use super::scrub_notes::{PackScrub, ScrubState};
use super::{ChunkKey, ChunkPlace, Pack, PackEngine};
use crate::{ChunkStore, Error, RateLimit, Result, StoreName};

/// Bytes read and checked together, unless one record is longer.
const WINDOW_LEN: u64 = 4 << 20;

/// Bytes of chunks that are decoded together, unless one is longer: a window of what compresses well holds many.
const PLAIN_LEN: u64 = 64 << 20;

/// Frames that are worth a thread of their own.
const FRAMES_MIN: usize = 8;

/// Bytes read between two notes of how far a pass has come.
const SAVE_LEN: u64 = 64 << 20;

/// Longest wait for the rate limit between two questions whether to go on.
const PAUSE_MAX: Duration = Duration::from_millis(100);

/// Damages that a report names; all are counted.
const DAMAGES_MAX: usize = 100_000;

/// How packs are scrubbed.
#[derive(Clone, Debug)]
pub struct ScrubOptions {
    /// Bytes read a second, at most.
    pub rate: Option<Arc<RateLimit>>,
    /// Packs that were verified at or after this are passed by, in seconds since 1970 UTC.
    pub verified_before: u64,
    /// Only look: nothing is taken out or written.
    pub dry_run: bool,
    /// Threads that decode and hash; reading is one thread's.
    pub workers: usize,
}

impl Default for ScrubOptions {
    fn default() -> Self {
        Self {
            rate: None,
            verified_before: u64::MAX,
            dry_run: false,
            workers: 1,
        }
    }
}

/// What is wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum DamageKind {
    /// The frame of a chunk does not have its check sum, or is not the chunk of its name.
    Chunk,
    /// The frame of a chunk cannot be read.
    Unreadable,
    /// What stands in front of a chunk whose frame is whole.
    Head,
    /// A batch of the index, or a list of removed chunks.
    Record,
    /// The pack's first bytes.
    Header,
    /// The pack has no whole footer.
    Footer,
    /// Bytes that belong to no record.
    Digest,
}

impl DamageKind {
    /// In a word, as the label of a metric.
    pub fn word(self) -> &'static str {
        match self {
            Self::Chunk => "chunk",
            Self::Unreadable => "unreadable",
            Self::Head => "head",
            Self::Record => "record",
            Self::Header => "header",
            Self::Footer => "footer",
            Self::Digest => "digest",
        }
    }
}

/// What became of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It was only named.
    Named,
    /// The chunk was fetched from this store and written anew.
    Repaired(StoreName),
    /// The chunk was whole, and was written anew.
    Rewritten,
    /// The chunk is missing now: the next upload of it heals the store.
    Missing,
}

/// One damaged place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Damage {
    /// File name of the pack.
    pub pack: String,
    /// Where in it the damaged part begins (of a record: its payload).
    pub offset: u64,
    /// The chunk, or of other records the digest that names them.
    pub id: Option<ChunkId>,
    /// What is wrong.
    pub what: DamageKind,
    /// What became of it.
    pub fate: Fate,
}

/// What a pass did.
#[derive(Debug, Default)]
pub struct ScrubReport {
    /// Packs that were read to their end.
    pub packs: usize,
    /// Bytes that were read.
    pub bytes: u64,
    /// Chunks that are the chunks of their names.
    pub chunks: u64,
    /// New damage, the first 100 000 places.
    pub damages: Vec<Damage>,
    /// All new damage.
    pub damaged: u64,
    /// Damaged records of chunks that nothing names: deleted ones, and what was quarantined before.
    pub unused: u64,
    /// Chunks that were damaged and are whole again.
    pub healed: u64,
    /// What kept chunks from being repaired, and notes from being taken.
    pub errors: Vec<Error>,
    /// Somebody wanted no more: the next pass goes on here.
    pub stopped: bool,
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (pack, what, offset) = (&self.pack, self.what.word(), self.offset);
        write!(f, "{pack}: the {what}")?;
        if let Some(id) = self.id {
            write!(f, " of {id}")?;
        }
        write!(f, " at byte {offset} is damaged: ")?;
        match &self.fate {
            Fate::Named => f.write_str("left"),
            Fate::Repaired(store) => write!(f, "repaired from {store}"),
            Fate::Rewritten => f.write_str("written anew"),
            Fate::Missing => f.write_str("taken out"),
        }
    }
}

impl ScrubReport {
    /// Counts a damage, and names it while there are not too many.
    pub(crate) fn damage(&mut self, damage: Damage) {
        metrics::counter!("store_scrub_damaged_total", "what" => damage.what.word()).increment(1);
        if matches!(damage.fate, Fate::Repaired(_) | Fate::Rewritten) {
            metrics::counter!("store_scrub_healed_total").increment(1);
            self.healed += 1;
        }
        self.damaged += 1;
        if self.damages.len() < DAMAGES_MAX {
            self.damages.push(damage);
        }
    }
}

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

impl ScrubReport {
    /// Counts bytes that were read, and waits until more may be. Returns whether to go on.
    pub(crate) fn read(&mut self, bytes: u64, options: &ScrubOptions, go_on: &mut dyn FnMut(u64) -> bool) -> bool {
        metrics::counter!("store_scrub_bytes_total").increment(bytes);
        self.bytes += bytes;
        let mut wait = match &options.rate {
            Some(rate) => rate.take(bytes as usize),
            None => Duration::ZERO,
        };
        let mut heard = bytes;
        loop {
            if !go_on(std::mem::take(&mut heard)) {
                self.stopped = true;
                return false;
            }
            if wait.is_zero() {
                return true;
            }
            let step = wait.min(PAUSE_MAX);
            std::thread::sleep(step);
            wait -= step;
        }
    }
}

/// Good copies of chunks, with the store that each came from.
///
/// - `errors`: takes what kept a store from answering, one a store.
pub(crate) fn fetch(
    sources: &[Arc<dyn ChunkStore>],
    algorithm: DigestAlgorithm,
    ids: &[ChunkId],
    errors: &mut Vec<Error>,
) -> HashMap<ChunkId, (StorableChunk, StoreName)> {
    let mut good = HashMap::new();
    for source in sources {
        let mut failure = None;
        for &id in ids {
            if good.contains_key(&id) {
                continue;
            }
            // One by one: damage is rare, and chunks may be long.
            for answer in source.get_many(&[id]) {
                let name = source.name().clone();
                let verified = answer.and_then(|chunk| {
                    let store = name.clone();
                    let verified = chunk.verify(algorithm, CHUNK_LEN_MAX);
                    verified.map_err(|source| Error::Corrupt { store, source })
                });
                match verified {
                    Ok(chunk) => drop(good.insert(id, (chunk, name))),
                    Err(Error::Missing { .. }) => {}
                    Err(error) => drop(failure.get_or_insert(error)),
                }
            }
        }
        errors.extend(failure);
    }
    good
}

/// Which frames are those of the chunks of their names, of so many plain bytes each.
///
/// - `workers`: threads that decode and hash.
pub(crate) fn proven(frames: &[(EncodedChunk, u32)], algorithm: DigestAlgorithm, workers: usize) -> Vec<bool> {
    let workers = workers.min(frames.len() / FRAMES_MIN).max(1);
    let prove = |frames: &[(EncodedChunk, u32)]| {
        let mut proven = Vec::with_capacity(frames.len());
        let mut rest = frames;
        while !rest.is_empty() {
            let mut len = 0;
            let fits = rest.iter().take_while(|(_, plain_len)| {
                len += u64::from(*plain_len);
                len <= PLAIN_LEN / workers as u64
            });
            let (these, others) = rest.split_at(fits.count().max(1));
            let encoded: Vec<EncodedChunk> = these.iter().map(|(chunk, _)| chunk.clone()).collect();
            let opened = EncodedChunk::open_many(&encoded, algorithm, CHUNK_LEN_MAX);
            proven.extend(opened.into_iter().map(|chunk| chunk.is_ok()));
            rest = others;
        }
        proven
    };
    if workers == 1 {
        return prove(frames);
    }
    let prove = &prove;
    std::thread::scope(|scope| {
        let shares = frames.chunks(frames.len().div_ceil(workers));
        let threads: Vec<_> = shares
            .map(|share| (share.len(), scope.spawn(move || prove(share))))
            .collect();
        let proven = threads.into_iter();
        // A thread that panicked has proven nothing: each of its chunks is looked at once more.
        proven
            .flat_map(|(len, thread)| thread.join().unwrap_or_else(|_| vec![false; len]))
            .collect()
    })
}

fn key_of(entry: &PackEntry) -> ChunkKey {
    ChunkKey {
        domain: entry.domain,
        id: entry.id,
    }
}

pub(crate) fn end_of(entry: &PackEntry) -> u64 {
    entry.offset + u64::from(entry.len)
}

/// Up to which entry a window of `len` bytes goes that begins with entry `from`, at least one.
pub(crate) fn window(entries: &[PackEntry], from: usize, at: u64, len: u64) -> usize {
    let fits = entries[from..].iter().take_while(|entry| end_of(entry) <= at + len);
    from + fits.count().max(1)
}

/// Whether what stands in front of a payload is as it was written.
///
/// - `bytes`: the pack from `at` on.
/// - `start`: where the record before ends, if known.
pub(crate) fn head_is_right(pack: &PackUuid, at: u64, start: Option<u64>, entry: &PackEntry, bytes: &Bytes) -> bool {
    let Some(head_at) = entry
        .offset
        .checked_sub(RECORD_HEAD_LEN as u64)
        .filter(|&head_at| head_at >= at)
    else {
        // The window begins in the middle of it, which only records that lie inside each other would make.
        return false;
    };
    let range = (head_at - at) as usize..(entry.offset - at) as usize;
    let Some(head) = bytes.get(range) else { return false };
    let found = find_record(pack, head_at, head);
    if !found.is_some_and(|(head, span)| head.entry(span) == *entry) {
        return false;
    }
    // Where a crash left bytes of no record in between, they are one frame with the head.
    let Some(start) = start.filter(|&start| RecordSpan::at(start, 0).payload == entry.offset) else {
        return true;
    };
    let skipped_to = match entry.kind {
        RecordKind::Chunk => entry.offset,
        RecordKind::Commit | RecordKind::Removals | RecordKind::Snapshot => end_of(entry),
    };
    let Some(frame) = skippable_head(skipped_to - start) else {
        return false;
    };
    let (frame_at, head_at) = ((start - at) as usize, (head_at - at) as usize);
    bytes[frame_at..].starts_with(&frame) && bytes[frame_at + frame.len()..head_at].iter().all(|&byte| byte == 0)
}
