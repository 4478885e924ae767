//! Looking for damage in packs behind a network: each is read once, from end to end, in pieces of bounded length.
//!
//! As in a folder (`pack/scrub.rs`): a record's head and frame against their sums, each chunk that counts against its name, the
//! whole against the digest in the pack's name; the footer is the far end's, whatever is kept here. A damaged chunk is fetched from
//! another store or is left missing, so that the next upload of it heals the store; one whose frame is whole in a place that is not
//! is put anew from what is there. What is put goes into a new pack, which is there before a list takes the old places out: packs
//! themselves never change. A pass that is stopped goes on with the packs that it has not read to their ends.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError};
use std::time::SystemTime;

use bytes::Bytes;
use cairn_formats::{
    ChunkForm, ChunkId, DomainId, EncodedChunk, GoneChunk, PACK_HEADER_LEN, PackEntry, PackHeader, RecordKind,
    payload_crc,
};

use super::RemotePackStore;
use super::files::PackFiles;
use super::footers::decode_footer;
use super::known::PackObject;
use super::names::{Named, parse_name};
use super::read::ReadFault;
use super::write::{Building, frame_of};
use crate::backend::remote::lost;
use crate::pack::{
    Damage, DamageKind, Fate, PackScrub, ScrubOptions, ScrubReport, ScrubState, end_of, fetch, head_is_right, proven,
    window,
};
use crate::{ChunkStore, Error, Result, StoreName};

/// Bytes of one request, unless one record is longer.
const WINDOW_LEN: u64 = 16 << 20;
const ACTION: &str = "read its packs for damage";

/// One pass.
struct Pass<'a> {
    options: &'a ScrubOptions,
    sources: &'a [Arc<dyn ChunkStore>],
    go_on: &'a mut dyn FnMut(u64) -> bool,
    report: ScrubReport,
}

/// A chunk in a damaged place.
struct Bad {
    entry: PackEntry,
    what: DamageKind,
    /// Its own frame, where that is whole.
    frame: Option<Bytes>,
}

impl<F: PackFiles> RemotePackStore<F> {
    pub(super) fn scrub_packs(
        &self,
        options: &ScrubOptions,
        sources: &[Arc<dyn ChunkStore>],
        state: &dyn ScrubState,
        go_on: &mut dyn FnMut(u64) -> bool,
    ) -> Result<ScrubReport> {
        self.settle()?;
        self.refresh(ACTION)?;
        let unavailable = |action, error: std::io::Error| Error::Unavailable {
            store: self.shared.name.clone(),
            action,
            source: error.into(),
        };
        let mut notes = state
            .load()
            .map_err(|error| unavailable("read how far the last scrub came", error))?;
        let packs: Vec<Arc<PackObject>> = self.shared.known().packs().cloned().collect();
        let known: BTreeMap<_, _> = packs.iter().map(|pack| (pack.uuid, pack.slot)).collect();
        notes.retain(|uuid, _| known.contains_key(uuid));
        let verified_at = |pack: &Arc<PackObject>| notes.get(&pack.uuid).and_then(|note: &PackScrub| note.verified_at);
        let mut due: Vec<Arc<PackObject>> = packs
            .into_iter()
            .filter(|pack| verified_at(pack).is_none_or(|at| at < options.verified_before))
            .collect();
        due.sort_by_key(|pack| (verified_at(pack), pack.slot));
        let mut pass = Pass {
            options,
            sources,
            go_on,
            report: ScrubReport::default(),
        };
        for pack in due {
            let damaged = self.scrub_pack(&mut pass, &pack)?;
            if pass.report.stopped {
                break;
            }
            let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
            let note = PackScrub {
                verified_at: Some(since.map_or(0, |since| since.as_secs())),
                cursor: 0,
                damaged,
            };
            notes.insert(pack.uuid, note);
            if let Err(error) = state.save(&notes) {
                pass.report
                    .errors
                    .push(unavailable("note how far the scrub came", error));
            }
        }
        Ok(pass.report)
    }

    /// Reads one pack, and settles what is wrong with it. Returns how many damaged places were found.
    fn scrub_pack(&self, pass: &mut Pass<'_>, pack: &Arc<PackObject>) -> Result<u64> {
        let mut damaged = 0;
        let Some((entries, end)) = self.entries(pass, pack, &mut damaged)? else {
            return Ok(damaged);
        };
        let mut bad = Vec::new();
        let mut hasher = blake3::Hasher::new();
        let (mut at, mut from) = (0, 0);
        let mut is_lost = false;
        loop {
            let until = match from < entries.len() {
                true => window(&entries, from, at, WINDOW_LEN),
                false => from,
            };
            // What is behind the last record counts for the digest alone.
            let to = match until < entries.len() {
                true => end_of(&entries[until - 1]).max(at),
                false => end,
            };
            let Some(bytes) = self.window(pack, at, to)? else {
                // Somebody collects; its chunks are elsewhere.
                return Ok(damaged);
            };
            hasher.update(&bytes);
            if at == 0 {
                let header = PackHeader::decode(bytes.get(..PACK_HEADER_LEN).unwrap_or_default());
                is_lost = !header.is_ok_and(|header| header.uuid == pack.uuid);
                if is_lost {
                    pass.name(pack, 0, None, DamageKind::Header, &mut damaged);
                }
            }
            self.check(
                pass,
                pack,
                at,
                &entries[from..until],
                &bytes,
                is_lost,
                &mut bad,
                &mut damaged,
            )?;
            if !pass.report.read(to - at, pass.options, pass.go_on) {
                break;
            }
            (from, at) = (until, to);
            if at >= end {
                break;
            }
        }
        if !pass.report.stopped {
            pass.report.packs += 1;
            let is_whole = pack.name.contains(&*hasher.finalize().to_hex());
            if !is_whole && damaged == 0 && bad.is_empty() {
                pass.name(pack, 0, None, DamageKind::Digest, &mut damaged);
            }
        }
        damaged += bad.len() as u64;
        self.settle_bad(pass, pack, bad)?;
        Ok(damaged)
    }

    /// The records of a pack in order, and where its footer begins; `None` when it is gone.
    fn entries(
        &self,
        pass: &mut Pass<'_>,
        pack: &Arc<PackObject>,
        damaged: &mut u64,
    ) -> Result<Option<(Vec<PackEntry>, u64)>> {
        let Some(bytes) = self.window(pack, pack.end, pack.len)? else {
            return Ok(None);
        };
        let footer = match parse_name(&pack.name) {
            Named::Pack(_, root) => decode_footer(&bytes, pack.len, &root).ok(),
            _ => None,
        };
        let mut entries = match footer {
            Some(footer) => footer.entries,
            // Known from what is kept here.
            None => {
                pass.name(pack, pack.end, None, DamageKind::Footer, damaged);
                self.known_entries(pack.slot)
            }
        };
        entries.sort_unstable_by_key(|entry| entry.offset);
        Ok(Some((entries, pack.end)))
    }

    /// Chunks that count in a pack.
    fn known_entries(&self, slot: u32) -> Vec<PackEntry> {
        let all = self.shared.known().in_order();
        let mine = all.into_iter().filter(|(place, _)| place.slot == slot);
        mine.map(|(place, id)| PackEntry {
            kind: RecordKind::Chunk,
            pinned: false,
            domain: DomainId::default(),
            id,
            offset: place.offset(),
            len: place.len,
            plain_len: place.plain_len,
            crc: place.crc,
        })
        .collect()
    }

    /// Bytes of a pack; `None` when it is gone.
    fn window(&self, pack: &Arc<PackObject>, start: u64, end: u64) -> Result<Option<Bytes>> {
        let (shared, pack) = (self.shared.clone(), pack.clone());
        match self.workers.run(async move { shared.range(&pack, start, end).await }) {
            Some(Ok(bytes)) => Ok(Some(bytes)),
            Some(Err(ReadFault::Gone)) => Ok(None),
            Some(Err(ReadFault::Failed(fault))) => Err(fault.into_error(&self.shared.name, ACTION)),
            None => Err(lost(&self.shared.name, ACTION)),
        }
    }

    /// Checks the records of a window.
    ///
    /// - `bytes`: the pack from `at` to the end of the last of them.
    /// - `is_lost`: the pack's header is damaged, so that nothing of it is served.
    #[expect(clippy::too_many_arguments, reason = "one step of one loop")]
    fn check(
        &self,
        pass: &mut Pass<'_>,
        pack: &Arc<PackObject>,
        at: u64,
        entries: &[PackEntry],
        bytes: &Bytes,
        is_lost: bool,
        bad: &mut Vec<Bad>,
        damaged: &mut u64,
    ) -> Result<()> {
        let mut sound = Vec::new();
        let mut end = at.max(PACK_HEADER_LEN as u64);
        for entry in entries {
            let is_used = entry.kind == RecordKind::Chunk && self.counts(pack, entry);
            let is_head_right = head_is_right(&pack.uuid, at, Some(end), entry, bytes);
            end = end_of(entry);
            let is_right = |frame: &Bytes| payload_crc(frame) == entry.crc;
            let range = (entry.offset - at) as usize..(end - at) as usize;
            let is_there = range.start <= range.end && range.end <= bytes.len();
            let mut frame = is_there.then(|| bytes.slice(range)).filter(is_right);
            if frame.is_none() {
                // Once more: it may have gone wrong on the way.
                frame = self.window(pack, entry.offset, end)?.filter(is_right);
            }
            let what = match &frame {
                None => Some(DamageKind::Chunk),
                Some(_) if !is_head_right => Some(DamageKind::Head),
                Some(_) if is_lost => Some(DamageKind::Header),
                Some(_) => None,
            };
            match (what, frame) {
                (Some(DamageKind::Header) | None, _) if !is_used => {}
                (Some(_), _) if entry.kind != RecordKind::Chunk => {
                    pass.name(pack, entry.offset, Some(entry.id), DamageKind::Record, damaged);
                }
                (Some(_), _) if !is_used => {
                    *damaged += 1;
                    pass.report.unused += 1;
                }
                (what, Some(bytes)) => {
                    let (id, form) = (entry.id, ChunkForm::Compressed);
                    sound.push(((EncodedChunk { id, form, bytes }, entry.plain_len), (*entry, what)));
                }
                (_, None) => bad.push(Bad {
                    entry: *entry,
                    what: DamageKind::Chunk,
                    frame: None,
                }),
            }
        }
        let (frames, places): (Vec<_>, Vec<_>) = sound.into_iter().unzip();
        let proven = proven(&frames, self.algorithm, pass.options.workers);
        for (((frame, _), (entry, what)), is_proven) in frames.into_iter().zip(places).zip(proven) {
            match what {
                None if is_proven => {
                    pass.report.chunks += 1;
                    metrics::counter!("store_scrub_chunks_total").increment(1);
                }
                what => bad.push(Bad {
                    entry,
                    what: what.filter(|_| is_proven).unwrap_or(DamageKind::Chunk),
                    frame: is_proven.then_some(frame.bytes),
                }),
            }
        }
        Ok(())
    }

    /// Whether a record is that of a chunk that counts, or of another copy of one.
    fn counts(&self, pack: &PackObject, entry: &PackEntry) -> bool {
        let places = self.shared.known().all_places(entry.id);
        places
            .iter()
            .any(|(_, place)| (place.slot, place.offset()) == (pack.slot, entry.offset))
    }

    /// Takes damaged places out of the store, and puts good chunks in where somebody has them.
    fn settle_bad(&self, pass: &mut Pass<'_>, pack: &PackObject, bad: Vec<Bad>) -> Result<()> {
        if bad.is_empty() {
            return Ok(());
        }
        if pass.options.dry_run || self.read_only {
            for one in &bad {
                pass.settle(pack, one, Fate::Named);
            }
            return Ok(());
        }
        let _one = self.deleting.lock().unwrap_or_else(PoisonError::into_inner);
        let _owner = self.take_lease(false)?;
        let lacking: Vec<ChunkId> = bad
            .iter()
            .filter(|one| one.frame.is_none())
            .map(|one| one.entry.id)
            .collect();
        let good = fetch(pass.sources, self.algorithm, &lacking, &mut pass.report.errors);
        let mut building: Option<Building> = None;
        for one in &bad {
            let entry = &one.entry;
            let frame = match (&one.frame, good.get(&entry.id)) {
                (Some(frame), _) => frame.clone(),
                (None, Some((chunk, _))) => frame_of(chunk),
                (None, None) => continue,
            };
            if building
                .as_ref()
                .is_some_and(|new| new.is_full_for(frame.len(), self.options.pack_len))
                && let Some(new) = building.take()
            {
                self.upload(&new.seal(), "mend a pack", true)?;
            }
            let new = match &mut building {
                Some(new) => new,
                none => none.insert(Building::new(self.algorithm).map_err(|error| Error::Unavailable {
                    store: self.shared.name.clone(),
                    action: "mend a pack",
                    source: error.into(),
                })?),
            };
            new.push(entry.id, &frame, entry.plain_len);
        }
        if let Some(new) = building {
            self.upload(&new.seal(), "mend a pack", true)?;
        }
        let gone = bad.iter().map(|one| GoneChunk {
            pack: pack.uuid,
            offset: one.entry.offset,
            id: one.entry.id,
        });
        self.take_places_away(gone.collect())?;
        for one in &bad {
            let fate = match (&one.frame, good.get(&one.entry.id)) {
                (Some(_), _) => Fate::Rewritten,
                (None, Some((_, store))) => Fate::Repaired(StoreName::clone(store)),
                (None, None) => Fate::Missing,
            };
            pass.settle(pack, one, fate);
        }
        Ok(())
    }
}

impl Pass<'_> {
    fn name(&mut self, pack: &PackObject, offset: u64, id: Option<ChunkId>, what: DamageKind, damaged: &mut u64) {
        *damaged += 1;
        self.report.damage(Damage {
            pack: pack.name.to_string(),
            offset,
            id,
            what,
            fate: Fate::Named,
        });
    }

    fn settle(&mut self, pack: &PackObject, one: &Bad, fate: Fate) {
        if one.what == DamageKind::Header {
            // It has been named; that its chunks are elsewhere now is no further damage.
            self.report.chunks += 1;
            return;
        }
        self.report.damage(Damage {
            pack: pack.name.to_string(),
            offset: one.entry.offset,
            id: Some(one.entry.id),
            what: one.what,
            fate,
        });
    }
}
