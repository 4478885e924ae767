//! Opening: the packs of a folder, what a crash left of the last ones, and the log from the watermark on.
//!
//! A sealed pack is taken at its footer's word. Any other is read record by record: what is whole counts, wherever it lies. A
//! batch of the index counts only if everything before it does, except where a later record proves that the bytes before had
//! been durable: then a bad record is damage, not the end (`formats/FORMATS.md`, "Packs"). A pack read so is sealed, so that
//! the next opening finds what this one found.

use std::collections::HashSet;
use std::fs;
use std::io;
use std::path::Path;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Condvar, Mutex, OnceLock};

use bytes::Bytes;
use cairn_formats::{
    PACK_HEADER_LEN, PACK_TAIL_LEN, PackEntry, PackError, PackFooter, PackHeader, PackTail, PackUuid, RECORD_HEAD_LEN,
    RECORD_PREFIX_LEN_MAX, RecordHead, RecordKind, RecordSpan, Removal, find_record, skippable_head,
};

use super::ScrubFile;
use super::bug::{Bug, is_planted};
use super::host::Folder;
use super::log::{Writer, is_full, pack_name};
use super::queue::Queue;
use super::{
    Change, ChunkKey, ChunkPlace, Host, HostFile, Locations, LogPosition, Pack, PackEngine, PackHeads, PackOptions,
};
use crate::file::replace_file;
use crate::{Error, Result, StoreName};

/// The file that makes a folder a pack store.
pub(super) const FORMAT_NAME: &str = "FORMAT";

/// First line of it, with the version that a reader must know.
const FORMAT_LINE: &str = "cairn pack store 1";

/// Where locations that outlive the process are kept, in the folder of the packs.
pub const PLACES_FOLDER: &str = "places";

/// Bytes read at once while a pack is read record by record.
const SCAN_LEN: usize = 1 << 20;

/// Entries of footers that are kept between the two looks at a pack, which are read twice beyond that.
const ENTRIES_MAX: usize = 1 << 20;

/// Changes that are applied together.
const CHANGES_MAX: usize = 1 << 14;

/// What was found when a store was opened.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OpenReport {
    /// Packs that are there.
    pub packs: usize,
    /// Packs that had no footer and were read record by record.
    pub unsealed: usize,
    /// Files and parts of files that were left alone.
    pub suspects: Vec<Suspect>,
}

/// Something that looks like a pack or a record, and is not whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Suspect {
    /// Its file.
    pub file: String,
    /// What is wrong, with the offset.
    pub what: String,
}

impl PackEngine {
    /// Opens a folder of packs, and makes it one if it is empty.
    ///
    /// Errors: as [`super::PackStore::open`].
    pub fn open_folder(path: &Path, options: PackOptions, locations: Arc<dyn Locations>) -> Result<(Self, OpenReport)> {
        Self::open_folder_with(path, options, |_| Ok(locations))
    }

    /// [`PackEngine::open_folder`] with locations that are opened once the folder is known to be ours, and locked.
    ///
    /// - `locations`: is given the folder for what it keeps, which may not be there. Where others kept some and these are not
    ///   kept, theirs are removed: they would miss what is written now. They can be made again from the packs.
    pub fn open_folder_with(
        path: &Path,
        options: PackOptions,
        locations: impl FnOnce(&Path) -> Result<Arc<dyn Locations>>,
    ) -> Result<(Self, OpenReport)> {
        let name = StoreName::new(path.display().to_string());
        let refused = |action, source: io::Error| Error::Refused {
            store: name.clone(),
            action,
            source: source.into(),
        };
        if !options.read_only {
            begin_folder(path).map_err(|error| refused("make a pack store", error))?;
        }
        check_format(path).map_err(|error| refused("open as a pack store", error))?;
        let host =
            Folder::open(path, FORMAT_NAME, options.read_only, options.direct).map_err(|error| match error.kind() {
                io::ErrorKind::WouldBlock => refused("open: another program has it open for writing", error),
                _ => refused("open", error),
            })?;
        let places = path.join(PLACES_FOLDER);
        let locations = locations(&places)?;
        if !options.read_only && !locations.is_kept() {
            match fs::remove_dir_all(&places) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    return Err(refused("remove the index of places, which would be out of step", error));
                }
                _ => {}
            }
        }
        let (engine, report) = Self::open_on(name, Arc::new(host), options, locations)?;
        engine.keep_damaged(&ScrubFile::in_folder(path))?;
        Ok((engine, report))
    }

    /// Opens the packs on any host.
    ///
    /// Errors: [`Error::Refused`] for a pack of a later release, [`Error::Unavailable`].
    pub fn open_on(
        name: StoreName,
        host: Arc<dyn Host>,
        options: PackOptions,
        locations: Arc<dyn Locations>,
    ) -> Result<(Self, OpenReport)> {
        let engine = Self {
            name,
            host,
            options,
            locations,
            liveness: OnceLock::new(),
            packs: Arc::default(),
            generation: AtomicU64::new(0),
            queue: Mutex::new(Queue::default()),
            settled: Condvar::new(),
            gathered: Condvar::new(),
            sync_least_ns: AtomicU64::new(0),
            writer: Mutex::new(Writer::default()),
            ended: Mutex::new(None),
            kept: Mutex::default(),
            snapshots: Mutex::default(),
            tried: Mutex::default(),
        };
        let heads = PackHeads::new(engine.name.clone(), Arc::clone(&engine.packs));
        engine.locations.attach(heads);
        let report = engine.recover()?;
        Ok((engine, report))
    }

    fn recover(&self) -> Result<OpenReport> {
        let mut report = OpenReport::default();
        if !self.options.read_only {
            // A name that was taken away, and not durably, must not come back with what is in it once its absence has been seen.
            let synced = self.host.sync_names();
            synced.map_err(|error| self.unavailable("sync the folder", error))?;
        }
        let mut names = self
            .host
            .list()
            .map_err(|error| self.unavailable("list the packs", error))?;
        names.retain(|name| name.ends_with(".pack"));
        names.sort_unstable();
        let watermark = self.locations.watermark()?;
        let mut last_number = watermark.position.pack;
        let mut opened = Vec::new();
        let mut held = 0;
        let mut left_out = false;
        let mut empty = Vec::new();
        for name in names {
            // Its number is taken whatever is in it.
            last_number = last_number.max(number_of(&name).unwrap_or(0));
            let file = self
                .host
                .open(&name)
                .map_err(|error| self.unavailable("open a pack", error))?;
            let header = match self.read_header(&file, &name) {
                Ok((header, damage)) => {
                    report.suspects.extend(damage.map(|what| Suspect {
                        file: name.clone(),
                        what,
                    }));
                    header
                }
                Err(HeaderError::Empty) => {
                    left_out = true;
                    if number_of(&name) == Some(watermark.position.pack) {
                        self.fell_back()?;
                    }
                    empty.push(name);
                    continue;
                }
                Err(HeaderError::Suspect(what)) => {
                    report.suspects.push(Suspect { file: name, what });
                    left_out = true;
                    continue;
                }
                Err(HeaderError::Fatal(error)) => return Err(error),
            };
            let pack = Arc::new(Pack {
                number: header.number,
                uuid: header.uuid,
                file,
            });
            let records = match self.footer(&pack)? {
                Some(footer) => {
                    self.note_entries(&pack, &footer.entries)?;
                    held += footer.entries.len();
                    if header.number < watermark.position.pack {
                        Some(Vec::new())
                    } else {
                        (held <= ENTRIES_MAX).then(|| in_order(footer.entries))
                    }
                }
                None => {
                    report.unsealed += 1;
                    let scan = self.scan(&pack)?;
                    let suspects = scan.suspects.iter().map(|what| Suspect {
                        file: name.clone(),
                        what: what.clone(),
                    });
                    report.suspects.extend(suspects);
                    // Before anything is mended.
                    if header.number == watermark.position.pack && scan.ends_before(watermark.position.offset) {
                        self.fell_back()?;
                    }
                    if scan.len == PACK_HEADER_LEN as u64 {
                        left_out |= watermark.position.pack >= header.number;
                        empty.push(name);
                        continue;
                    }
                    // In this order: of a sealed pack nobody looks for what is lost.
                    self.forget_lost(&pack, &scan, watermark.position)?;
                    if !self.options.read_only {
                        self.seal_scanned(&pack, &scan)?;
                    }
                    self.note_entries(&pack, &scan.records)?;
                    Some(scan.records)
                }
            };
            self.packs
                .write()
                .expect("nobody else has it yet")
                .insert(pack.number, pack.clone());
            opened.push((name, pack, records));
        }
        let mut last_commit = self.restore(watermark.commit, &mut report)?;
        for (name, pack, records) in opened {
            let records = match records {
                Some(records) => records,
                None => in_order(self.footer(&pack)?.map_or_else(Vec::new, |footer| footer.entries)),
            };
            let damaged = self.replay(&pack, &records, watermark.position, &mut last_commit)?;
            report.suspects.extend(damaged.into_iter().map(|what| Suspect {
                file: name.clone(),
                what,
            }));
            report.packs += 1;
        }
        if left_out {
            self.forget_left_out(watermark.position)?;
        }
        self.remove_empty(&empty)?;
        let mut writer = self.writer.lock().expect("nobody else has it yet");
        writer.last_number = last_number;
        writer.last_commit = last_commit;
        Ok(report)
    }

    /// Takes packs away that hold nothing, durably: what was cut off them may still be on the disk.
    fn remove_empty(&self, names: &[String]) -> Result<()> {
        if self.options.read_only || names.is_empty() {
            return Ok(());
        }
        let removed = names.iter().try_for_each(|name| self.host.remove(name));
        let removed = removed.and_then(|()| self.host.sync_names());
        removed.map_err(|error| self.unavailable("remove an empty pack", error))
    }

    /// The header and, if it had to be made up from the file's name, what is wrong with it.
    fn read_header(
        &self,
        file: &Arc<dyn HostFile>,
        name: &str,
    ) -> std::result::Result<(PackHeader, Option<String>), HeaderError> {
        let unreadable = |error| HeaderError::Fatal(self.unavailable("read a pack", error));
        let mut bytes = [0; PACK_HEADER_LEN];
        let len = file.read_at(0, &mut bytes).map_err(unreadable)?;
        // A crash came before the header was durable: nothing can be behind it that was acknowledged.
        if file.len().map_err(unreadable)? <= PACK_HEADER_LEN as u64 && PackHeader::decode(&bytes[..len]).is_err() {
            return Err(HeaderError::Empty);
        }
        let header = match PackHeader::decode(&bytes[..len]) {
            Ok(header) => header,
            Err(error @ PackError::Newer { .. }) => {
                return Err(HeaderError::Fatal(Error::Refused {
                    store: self.name.clone(),
                    action: "open: a later release has written to it",
                    source: format!("{name}: {error}").into(),
                }));
            }
            Err(error) => {
                // A record tells whether it is in the pack that the file's name says: one bad sector must not cost all of them.
                let mut bytes = vec![0; SCAN_LEN];
                let len = file.read_at(0, &mut bytes).map_err(unreadable)?;
                return match parse_name(name) {
                    Some((number, uuid)) if find_record(&uuid, 0, &bytes[..len]).is_some() => {
                        let header = PackHeader::new(uuid, number, self.options.algorithm, 0);
                        Ok((header, Some(error.to_string())))
                    }
                    _ => Err(HeaderError::Suspect(error.to_string())),
                };
            }
        };
        if pack_name(header.number, header.uuid) != name {
            let theirs = pack_name(header.number, header.uuid);
            return Err(HeaderError::Suspect(format!("its header says that it is {theirs}")));
        }
        Ok((header, None))
    }

    /// The footer of a sealed pack, if it is whole.
    pub(super) fn footer(&self, pack: &Pack) -> Result<Option<PackFooter>> {
        let len = pack
            .file
            .len()
            .map_err(|error| self.unavailable("read a pack", error))?;
        let Some(tail_start) = len.checked_sub(PACK_TAIL_LEN as u64) else {
            return Ok(None);
        };
        let Some(tail) = PackTail::decode(len, &self.read_range(pack, tail_start, len)?) else {
            return Ok(None);
        };
        let bytes = self.read_range(pack, tail.start, len)?;
        Ok(PackFooter::decode(&tail, &bytes).ok())
    }

    /// The log ends before what the locations have applied of it.
    fn fell_back(&self) -> Result<()> {
        if is_planted(Bug::AheadOfLog) {
            return Ok(());
        }
        self.locations.fell_back()
    }

    /// Reads a pack record by record, to the end of its file.
    fn scan(&self, pack: &Pack) -> Result<Scan> {
        let len = pack
            .file
            .len()
            .map_err(|error| self.unavailable("read a pack", error))?;
        let mut scan = Scan { len, ..Scan::default() };
        let mut at = PACK_HEADER_LEN as u64;
        while at < len {
            let bytes = self.read_range(pack, at, len.min(at + RECORD_PREFIX_LEN_MAX as u64))?;
            let next = match RecordHead::decode(&pack.uuid, at, &bytes) {
                Ok((head, span)) if self.payload_fits(pack, &head, span, len)? => Some((head, span)),
                _ => {
                    let found = self.find_whole(pack, at, len)?;
                    scan.gaps.push(Gap {
                        start: at,
                        next: found.map_or(len, |(_, span)| span.start),
                        end: match found {
                            Some((head, span)) if head.kind == RecordKind::Chunk => span.payload,
                            Some((_, span)) => span.end,
                            None => len,
                        },
                    });
                    found
                }
            };
            let Some((head, span)) = next else {
                break;
            };
            scan.synced = scan.synced.max(head.synced);
            scan.records.push(head.entry(span));
            at = span.end;
        }
        scan.judge();
        Ok(scan)
    }

    /// The next record behind `at` that is whole.
    fn find_whole(&self, pack: &Pack, at: u64, len: u64) -> Result<Option<(RecordHead, RecordSpan)>> {
        let mut from = at;
        while from < len {
            let bytes = self.read_range(pack, from, len.min(from + SCAN_LEN as u64))?;
            let Some((head, span)) = find_record(&pack.uuid, from, &bytes) else {
                // A head may lie across the end of what was read.
                let step = (bytes.len() as u64).saturating_sub(RECORD_PREFIX_LEN_MAX as u64);
                if bytes.is_empty() || from + bytes.len() as u64 == len || step == 0 {
                    return Ok(None);
                }
                from += step;
                continue;
            };
            if self.payload_fits(pack, &head, span, len)? {
                return Ok(Some((head, span)));
            }
            from = span.start + 16;
        }
        Ok(None)
    }

    fn payload_fits(&self, pack: &Pack, head: &RecordHead, span: RecordSpan, len: u64) -> Result<bool> {
        if span.end > len {
            return Ok(false);
        }
        let bytes = self.read_range(pack, span.payload, span.end)?;
        Ok(bytes.len() as u64 == span.end - span.payload && cairn_formats::payload_crc(&bytes) == head.crc)
    }

    /// Ends a pack that a crash left open: places that hold no record become skippable frames with all that is in them but
    /// their first eight bytes, batches that do not count are blotted out. What is not known to be durable is written once more:
    /// after a sync that failed, reads may show what no later sync writes.
    fn seal_scanned(&self, pack: &Pack, scan: &Scan) -> Result<()> {
        let ended = (|| {
            for &payload in &scan.dropped {
                pack.file
                    .write_at(payload - RECORD_HEAD_LEN as u64, &[&[0; RECORD_HEAD_LEN]])?;
            }
            let mut end = scan.len;
            for gap in &scan.gaps {
                match skippable_head(gap.end - gap.start) {
                    Some(head) => pack.file.write_at(gap.start, &[&head])?,
                    // Too short for anything, so at the very end.
                    None => {
                        pack.file.truncate(gap.start)?;
                        end = gap.start;
                    }
                }
            }
            let mut hasher = blake3::Hasher::new();
            let mut buffer = vec![0; SCAN_LEN];
            let mut at = 0;
            while at < end {
                let most = (end - at).min(SCAN_LEN as u64) as usize;
                let len = pack.file.read_at(at, &mut buffer[..most])?;
                if len == 0 {
                    return Err(io::ErrorKind::UnexpectedEof.into());
                }
                hasher.update(&buffer[..len]);
                let known = (scan.synced.saturating_sub(at) as usize).min(len);
                if known < len {
                    pack.file.write_at(at + known as u64, &[&buffer[known..len]])?;
                }
                at += len as u64;
            }
            // So is its length: a sync that failed may have taken what had been written behind it, and not that it was cut off.
            pack.file.truncate(end)?;
            // The records first: a footer must not outlive what it names, and nobody may rely on what is not durable.
            pack.file.sync()?;
            Ok(PackFooter::new(
                scan.records.clone(),
                *hasher.finalize().as_bytes(),
                end,
            ))
        })();
        let footer = ended.map_err(|error| self.unavailable("seal a pack", error))?;
        let written = pack.file.write_at(footer.start, &[&footer.encode()]);
        let sealed = written.and_then(|()| pack.file.sync());
        if sealed.is_err() {
            // As the writer does: reads may show what is not durable.
            let _ = pack.file.truncate(footer.start);
        }
        match sealed {
            // No room for a footer: the next opening reads it record by record again.
            Err(error) if is_full(&error) => Ok(()),
            sealed => sealed.map_err(|error| self.unavailable("seal a pack", error)),
        }
    }

    /// Forgets places in packs that are not there or not to be used: their chunks are missing, and can be put again.
    fn forget_left_out(&self, watermark: LogPosition) -> Result<()> {
        let mut changes = Vec::new();
        self.locations.for_each(&mut |key, place| {
            if self.pack(place.pack).is_none() {
                changes.push(Change::Remove(key));
            }
            Ok(())
        })?;
        self.forget(changes, watermark)
    }

    /// Takes places back that are wrong, for good: what told so may be gone after the next crash.
    fn forget(&self, mut changes: Vec<Change>, watermark: LogPosition) -> Result<()> {
        if changes.is_empty() {
            return Ok(());
        }
        self.apply(&mut changes, watermark)?;
        self.locations.persist()
    }

    /// Forgets places that a cache kept of records which the crash took (acknowledged before they were durable, by policy).
    fn forget_lost(&self, pack: &Pack, scan: &Scan, watermark: LogPosition) -> Result<()> {
        let end = scan
            .records
            .last()
            .map_or(0, |entry| entry.offset + u64::from(entry.len));
        if watermark.pack < pack.number
            || (watermark.pack == pack.number && watermark.offset <= end && scan.gaps.is_empty())
        {
            return Ok(());
        }
        let kept: HashSet<u64> = scan.records.iter().map(|entry| entry.offset).collect();
        let mut changes = Vec::new();
        self.locations.for_each(&mut |key, place| {
            if place.pack == pack.number && !kept.contains(&place.offset) {
                changes.push(Change::Remove(key));
            }
            Ok(())
        })?;
        self.forget(changes, watermark)
    }

    /// Applies the records of a pack that lie behind the watermark.
    ///
    /// - `last_commit`: number of the last batch so far; one that was written twice is applied once.
    /// - Returns which records are damaged and were passed over.
    fn replay(
        &self,
        pack: &Pack,
        records: &[PackEntry],
        watermark: LogPosition,
        last_commit: &mut u64,
    ) -> Result<Vec<String>> {
        let position = |offset| LogPosition {
            pack: pack.number,
            offset,
        };
        let mut changes = Vec::new();
        let mut damaged = Vec::new();
        for entry in records {
            let begin = position(entry.offset);
            if begin < watermark {
                continue;
            }
            match entry.kind {
                RecordKind::Chunk => {
                    let key = ChunkKey {
                        domain: entry.domain,
                        id: entry.id,
                    };
                    changes.push(Change::Put(key, ChunkPlace::of(pack.number, entry)));
                    if changes.len() >= CHANGES_MAX {
                        self.apply(&mut changes, begin)?;
                    }
                }
                RecordKind::Commit => {
                    let payload = self.checked_payload(pack, entry)?;
                    let Some((number, batch)) = payload.as_ref().and_then(|payload| payload.split_first_chunk::<8>())
                    else {
                        damaged.push(format!("the batch of the index at byte {} is damaged", entry.offset));
                        continue;
                    };
                    let number = u64::from_le_bytes(*number);
                    if number > *last_commit + 1 {
                        let first = *last_commit + 1;
                        damaged.push(format!(
                            "batches {first} to {} of the index are missing before byte {}",
                            number - 1,
                            entry.offset
                        ));
                    }
                    if number > *last_commit {
                        changes.push(Change::Commit(number, Bytes::copy_from_slice(batch)));
                        *last_commit = number;
                    }
                }
                RecordKind::Removals => {
                    let payload = self.checked_payload(pack, entry)?;
                    match payload.map(|payload| Removal::decode_all(&payload)) {
                        Some(Ok(removals)) => self.apply_removals(&removals, &mut changes, begin)?,
                        _ => damaged.push(format!("the removals at byte {} are damaged", entry.offset)),
                    }
                }
                // Taken before, if it was needed at all.
                RecordKind::Snapshot => {}
            }
        }
        if let Some(last) = records.last() {
            self.apply(&mut changes, position(last.offset + u64::from(last.len)))?;
        }
        Ok(damaged)
    }

    /// What a record holds, if it is what was written.
    fn checked_payload(&self, pack: &Pack, entry: &PackEntry) -> Result<Option<Bytes>> {
        let payload = self.read_range(pack, entry.offset, entry.offset + u64::from(entry.len))?;
        Ok((cairn_formats::payload_crc(&payload) == entry.crc).then_some(payload))
    }
}

enum HeaderError {
    /// Nothing is in it.
    Empty,
    /// Left alone.
    Suspect(String),
    Fatal(Error),
}

/// What a pack without a footer holds.
#[derive(Default)]
struct Scan {
    /// Whole records, in order of their offsets.
    records: Vec<PackEntry>,
    /// Places that hold no whole record, in order.
    gaps: Vec<Gap>,
    /// Up to where a record proves that the pack had been durable.
    synced: u64,
    /// What is wrong with it, in words.
    suspects: Vec<String>,
    /// Payload offsets of batches that do not count.
    dropped: Vec<u64>,
    /// Length of the file.
    len: u64,
}

/// A place that holds no whole record.
struct Gap {
    start: u64,
    /// Where the record behind begins, at the latest.
    next: u64,
    /// Up to where a skippable frame may go: the frame of the chunk behind, else the end of the record behind, else of the file.
    end: u64,
}

impl Scan {
    /// Whether something is missing before this offset that may not have been durable.
    fn ends_before(&self, offset: u64) -> bool {
        let end = self
            .records
            .last()
            .map_or(PACK_HEADER_LEN as u64, |last| last.offset + u64::from(last.len));
        let is_torn = |gap: &Gap| gap.start < offset && gap.next > self.synced + 8;
        end < offset || self.gaps.iter().any(is_torn)
    }

    /// Decides what bad places mean: damage, or the end of what had been durable.
    fn judge(&mut self) {
        let Self {
            records,
            gaps,
            synced,
            suspects,
            ..
        } = self;
        let damaged = gaps.iter().filter(|gap| gap.start < *synced);
        suspects.extend(damaged.map(|gap| format!("damaged between byte {} and byte {}", gap.start, gap.end)));
        // One that begins in what had been durable may go on behind it (a record is longer than what rounding takes off).
        let torn = gaps.iter().find(|gap| gap.next > *synced + 8);
        if let Some(torn) = torn.filter(|_| !is_planted(Bug::CommitBehindGap)) {
            let counts = |entry: &PackEntry| entry.kind != RecordKind::Commit || entry.offset < torn.start;
            self.dropped = records
                .iter()
                .filter(|entry| !counts(entry))
                .map(|entry| entry.offset)
                .collect();
            records.retain(counts);
        }
    }
}

pub(super) fn in_order(mut entries: Vec<PackEntry>) -> Vec<PackEntry> {
    entries.sort_unstable_by_key(|entry| entry.offset);
    entries
}

fn number_of(name: &str) -> Option<u32> {
    u32::from_str_radix(name.get(..8)?, 16).ok()
}

/// What [`pack_name`] was made of.
fn parse_name(name: &str) -> Option<(u32, PackUuid)> {
    let number = number_of(name)?;
    let uuid = PackUuid(u128::from_str_radix(name.get(9..41)?, 16).ok()?.to_be_bytes());
    (pack_name(number, uuid) == name).then_some((number, uuid))
}

/// Makes an empty folder a pack store.
fn begin_folder(path: &Path) -> io::Result<()> {
    fs::create_dir_all(path)?;
    if path.join(FORMAT_NAME).exists() {
        return Ok(());
    }
    if fs::read_dir(path)?.next().is_some() {
        let message = "it is not empty, and no pack store";
        return Err(io::Error::new(io::ErrorKind::AlreadyExists, message));
    }
    replace_file(&path.join(FORMAT_NAME), format!("{FORMAT_LINE}\n").as_bytes(), None)
}

fn check_format(path: &Path) -> io::Result<()> {
    let text = fs::read_to_string(path.join(FORMAT_NAME))?;
    let invalid = |message: String| Err(io::Error::new(io::ErrorKind::InvalidData, message));
    match text.lines().next() {
        Some(FORMAT_LINE) => Ok(()),
        Some(line) if line.starts_with("cairn pack store ") => invalid(format!(
            "a later release has made it: {line:?}; this one knows {FORMAT_LINE:?}"
        )),
        _ => invalid(format!("its file {FORMAT_NAME} is not that of a pack store")),
    }
}
