//! RocksDB: the engine of the server. Rows, and beside them where chunks lie (`chunks.rs`, which also applies the log).
//!
//! Where a log of our own makes commits durable, RocksDB keeps none: it is a cache of the log. What is not yet in its files is
//! lost in a crash and applied again from the watermark, a row that is written in one batch with what it stands for; all
//! families are flushed together, so that a crash finds a state that was. The index comes back from the log if it is lost.
//!
//! Invariants: a row is its version (u64, big-endian) and its value; versions and the watermark move with the rows, in one
//! batch; one writer at a time. Not here: checks and their order (`database.rs`), when to flush.

mod chunks;
mod open;
mod reads;
mod restore;
mod state;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::fmt;
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use cairn_store::{LogPosition, Watermark};
use rocksdb::checkpoint::Checkpoint;
use rocksdb::{
    ColumnFamily, DB, DBAccess, DBRawIteratorWithThreadMode, ErrorKind, Options, ReadOptions, Snapshot, WriteBatch,
};

use crate::database::{Engine, Frozen};
use crate::kv::{Order, Page, Row, SCAN_LEN, SCAN_ROWS_MAX, Version, View};
use crate::memory::rest;
use crate::record::CommitRecord;
use crate::{Error, KeyRange, Result};

pub use open::{RocksLog, RocksOptions};
pub use reads::{BlockReads, PlacesMemory};
pub use state::RocksState;

/// Column families. The names are on disk.
const ROWS: &str = "default";
const CHUNKS: &str = "chunks";
const ENGINE: &str = "engine";

/// Rows of the family `engine`.
const VERSION: &[u8] = b"version";
const WATERMARK: &[u8] = b"watermark";
/// There while what was applied last is not durable in the log.
const AHEAD: &[u8] = b"ahead";

/// Key of the packs that places may name: this, and the pack's number (u32, big-endian).
const PACK: &[u8] = b"pack ";

/// What RocksDB says when there is no room: the words of the system.
const NO_ROOM: [&str; 2] = ["No space left on device", "Disk quota exceeded"];

const VERSION_LEN: usize = size_of::<u64>();

/// Bytes of the watermark: pack (u32), offset and commit (u64), little-endian.
const WATERMARK_LEN: usize = 20;

/// A folder of RocksDB.
pub struct RocksEngine {
    db: DB,
    /// What the database was opened with: they hold its counters.
    options: Options,
    place: PathBuf,
    log: RocksLog,
    version: AtomicU64,
    /// How much of the log has been applied. Held while something is written, so that this and versions only go up.
    applied: Mutex<Watermark>,
    /// How much of that is known to be in RocksDB's files.
    persisted: Mutex<Watermark>,
    /// Packs that places may name.
    packs: Mutex<BTreeSet<u32>>,
    /// Whether [`AHEAD`] is there.
    ahead: AtomicBool,
}

impl fmt::Debug for RocksEngine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RocksEngine")
            .field("place", &self.place)
            .finish_non_exhaustive()
    }
}

impl RocksEngine {
    /// Opens a folder, and makes an empty or missing one an index.
    ///
    /// Errors: [`Error::Locked`], [`Error::Damaged`], [`Error::Unknown`], [`Error::Unavailable`]; the folder is as it was.
    pub fn open(place: &Path, options: &RocksOptions) -> Result<Self> {
        let (db, opened_with) = open::open(place, options)?;
        let engine = Self {
            db,
            options: opened_with,
            place: place.to_owned(),
            log: options.log,
            version: AtomicU64::new(0),
            applied: Mutex::default(),
            persisted: Mutex::default(),
            packs: Mutex::default(),
            ahead: AtomicBool::new(false),
        };
        engine
            .ahead
            .store(engine.engine_row(AHEAD)?.is_some(), Ordering::Release);
        if let Some(version) = engine.engine_row(VERSION)? {
            let version = version
                .as_ref()
                .try_into()
                .map_err(|_| malformed("its version has another length"))?;
            engine.version.store(u64::from_be_bytes(version), Ordering::Release);
        }
        if let Some(watermark) = engine.engine_row(WATERMARK)? {
            *engine.applied() = decode_watermark(&watermark)?;
            *engine.persisted() = *engine.applied();
        }
        *engine.packs() = engine.packs_named()?;
        Ok(engine)
    }

    /// Writes what is only in memory into RocksDB's files, durably.
    pub fn flush(&self) -> Result<()> {
        let applied = *self.applied();
        let families = [ROWS, CHUNKS, ENGINE].map(|name| self.family(name));
        let done = self.db.flush_cfs_opt(&families, &rocksdb::FlushOptions::default());
        done.map_err(|source| self.failed("flush", source))?;
        *self.persisted() = applied;
        Ok(())
    }

    /// A copy of everything as it is now, in a folder that must not be there yet; its files are links where they can be.
    pub fn checkpoint(&self, to: &Path) -> Result<()> {
        let checkpoint = Checkpoint::new(&self.db).and_then(|checkpoint| checkpoint.create_checkpoint(to));
        checkpoint.map_err(|source| self.failed("copy itself", source))
    }

    fn changes(&self) -> Changes<'_> {
        Changes {
            applied: self.applied(),
            batch: WriteBatch::default(),
            version: self.version(),
            packs: BTreeSet::new(),
            engine: self,
        }
    }

    fn applied(&self) -> MutexGuard<'_, Watermark> {
        self.applied.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn persisted(&self) -> MutexGuard<'_, Watermark> {
        self.persisted.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn packs(&self) -> MutexGuard<'_, BTreeSet<u32>> {
        self.packs.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn family(&self, name: &str) -> &ColumnFamily {
        self.db
            .cf_handle(name)
            .expect("the folder was opened with its families")
    }

    fn engine_row(&self, key: &[u8]) -> Result<Option<Bytes>> {
        let row = self.db.get_cf(self.family(ENGINE), key);
        row.map(|row| row.map(Bytes::from))
            .map_err(|source| self.failed("read", source))
    }

    fn failed(&self, action: &'static str, source: rocksdb::Error) -> Error {
        failed(&self.place, action, source)
    }
}

impl View for RocksEngine {
    fn get_many(&self, keys: &[&[u8]]) -> Result<Vec<Option<Row>>> {
        let (order, sorted) = sorted(keys);
        let found = self
            .db
            .batched_multi_get_cf(self.family(ROWS), sorted.iter().copied(), true);
        let mut rows = vec![None; keys.len()];
        for (at, row) in order.into_iter().zip(found) {
            if let Some(row) = row.map_err(|source| self.failed("read", source))? {
                rows[at] = Some(decode_row(&row)?);
            }
        }
        Ok(rows)
    }

    fn scan(&self, range: &KeyRange, order: Order, limit: usize) -> Result<Page> {
        let rows = self.db.raw_iterator_cf_opt(self.family(ROWS), within(range));
        page(rows, range, order, limit).map_err(|error| self.scan_failed(error))
    }
}

impl Engine for RocksEngine {
    fn version(&self) -> Version {
        Version(self.version.load(Ordering::Acquire))
    }

    fn apply(&self, record: &CommitRecord) -> Result<()> {
        let mut changes = self.changes();
        changes.record(record);
        changes.write()
    }

    fn snapshot(&self) -> Result<Box<dyn View + '_>> {
        Ok(Box::new(RocksSnapshot {
            engine: self,
            snapshot: self.db.snapshot(),
        }))
    }

    fn freeze(&self) -> Result<Option<Frozen<'_>>> {
        Ok(self.frozen())
    }
}

/// What goes into one batch of RocksDB. Nobody else writes meanwhile.
struct Changes<'a> {
    engine: &'a RocksEngine,
    batch: WriteBatch,
    version: Version,
    applied: MutexGuard<'a, Watermark>,
    /// Packs that places did not name before.
    packs: BTreeSet<u32>,
}

impl Changes<'_> {
    fn record(&mut self, record: &CommitRecord) {
        if record.last() <= self.version {
            return;
        }
        let rows = self.engine.family(ROWS);
        for (version, (key, value)) in record.changes() {
            match value {
                Some(value) => {
                    let row = [&version.0.to_be_bytes()[..], value].concat();
                    self.batch.put_cf(rows, key, row);
                }
                None => self.batch.delete_cf(rows, key),
            }
        }
        self.version = record.last();
        self.batch
            .put_cf(self.engine.family(ENGINE), VERSION, self.version.0.to_be_bytes());
    }

    /// Everything before `watermark` has been applied when this is.
    ///
    /// - `ahead`: and is not durable in the log.
    fn write_up_to(mut self, watermark: Watermark, ahead: bool) -> Result<()> {
        let (row, family) = (encode_watermark(watermark), self.engine.family(ENGINE));
        self.batch.put_cf(family, WATERMARK, row);
        match (self.engine.ahead.load(Ordering::Acquire), ahead) {
            (false, true) => self.batch.put_cf(family, AHEAD, []),
            (true, false) => self.batch.delete_cf(family, AHEAD),
            (false, false) | (true, true) => {}
        }
        let before = std::mem::replace(&mut *self.applied, watermark);
        self.write_batch().inspect_err(|_| *self.applied = before)?;
        self.engine.ahead.store(ahead, Ordering::Release);
        Ok(())
    }

    fn write(mut self) -> Result<()> {
        self.write_batch()
    }

    fn write_batch(&mut self) -> Result<()> {
        let (engine, batch) = (self.engine, std::mem::take(&mut self.batch));
        let written = engine.db.write_opt(batch, &engine.log.write_options());
        written.map_err(|source| engine.failed("write", source))?;
        engine.version.store(self.version.0, Ordering::Release);
        engine.packs().append(&mut self.packs);
        Ok(())
    }
}

/// Rows as they were at one moment.
struct RocksSnapshot<'a> {
    engine: &'a RocksEngine,
    snapshot: Snapshot<'a>,
}

impl View for RocksSnapshot<'_> {
    fn get_many(&self, keys: &[&[u8]]) -> Result<Vec<Option<Row>>> {
        let family = self.engine.family(ROWS);
        let rows = self.snapshot.multi_get_cf(keys.iter().map(|key| (family, *key)));
        let row = |row: std::result::Result<Option<Vec<u8>>, _>| -> Result<Option<Row>> {
            let row = row.map_err(|source| self.engine.failed("read", source))?;
            row.map(|row| decode_row(&row)).transpose()
        };
        rows.into_iter().map(row).collect()
    }

    fn scan(&self, range: &KeyRange, order: Order, limit: usize) -> Result<Page> {
        let rows = self
            .snapshot
            .raw_iterator_cf_opt(self.engine.family(ROWS), within(range));
        page(rows, range, order, limit).map_err(|error| self.engine.scan_failed(error))
    }
}

/// Keys in their order, and where each of them was: RocksDB then walks each file once. It would sort them itself, at several times the cost.
fn sorted<'a>(keys: &[&'a [u8]]) -> (Vec<usize>, Vec<&'a [u8]>) {
    let Some(first) = keys.first() else {
        return Default::default();
    };
    // Behind what they all begin with a number says nearly everything.
    let common = |key: &&[u8]| first.iter().zip(*key).take_while(|(a, b)| a == b).count();
    let common = keys.iter().map(common).min().unwrap_or(0);
    let number = |key: &[u8]| {
        let mut bytes = [0; 8];
        let rest = &key[common..key.len().min(common + 8)];
        bytes[..rest.len()].copy_from_slice(rest);
        u64::from_be_bytes(bytes)
    };
    let mut order: Vec<(u64, usize)> = keys.iter().map(|key| number(key)).zip(0..).collect();
    order.sort_unstable_by(|a, b| a.0.cmp(&b.0).then_with(|| keys[a.1].cmp(keys[b.1])));
    let order: Vec<usize> = order.into_iter().map(|(_, at)| at).collect();
    let sorted = order.iter().map(|&at| keys[at]).collect();
    (order, sorted)
}

enum ScanError {
    Row(Error),
    Engine(rocksdb::Error),
}

impl RocksEngine {
    fn scan_failed(&self, error: ScanError) -> Error {
        match error {
            ScanError::Row(error) => error,
            ScanError::Engine(source) => self.failed("scan", source),
        }
    }
}

fn within(range: &KeyRange) -> ReadOptions {
    let mut options = ReadOptions::default();
    options.set_iterate_lower_bound(range.start.clone());
    if let Some(end) = &range.end {
        options.set_iterate_upper_bound(end.clone());
    }
    options
}

fn page<D: DBAccess>(
    mut rows: DBRawIteratorWithThreadMode<'_, D>,
    range: &KeyRange,
    order: Order,
    limit: usize,
) -> std::result::Result<Page, ScanError> {
    let mut page = Page::default();
    if range.is_empty() {
        return Ok(page);
    }
    match order {
        Order::Forward => rows.seek_to_first(),
        Order::Reverse => rows.seek_to_last(),
    }
    // In one piece of memory: two for each row are a good part of what a listing takes.
    let mut bytes = Vec::new();
    let mut found: Vec<(Range<usize>, Version, Range<usize>)> = Vec::new();
    while let Some((key, row)) = rows.item() {
        if found.len() >= limit.min(SCAN_ROWS_MAX) || bytes.len() >= SCAN_LEN {
            let last = found.last().map(|(key, ..)| &bytes[key.clone()]);
            page.rest = Some(rest(range, order, last));
            break;
        }
        let (version, value) = split_row(row).map_err(ScanError::Row)?;
        let start = bytes.len();
        bytes.extend_from_slice(key);
        bytes.extend_from_slice(value);
        found.push((start..start + key.len(), version, start + key.len()..bytes.len()));
        match order {
            Order::Forward => rows.next(),
            Order::Reverse => rows.prev(),
        }
    }
    let bytes = Bytes::from(bytes);
    let row = |(key, version, value): (Range<usize>, Version, Range<usize>)| {
        let value = bytes.slice(value);
        (bytes.slice(key), Row { version, value })
    };
    page.rows = found.into_iter().map(row).collect();
    rows.status().map_err(ScanError::Engine)?;
    Ok(page)
}

fn decode_row(row: &[u8]) -> Result<Row> {
    let (version, value) = split_row(row)?;
    Ok(Row {
        version,
        value: Bytes::copy_from_slice(value),
    })
}

fn split_row(row: &[u8]) -> Result<(Version, &[u8])> {
    let (version, value) = row
        .split_first_chunk::<VERSION_LEN>()
        .ok_or(malformed("it is too short"))?;
    Ok((Version(u64::from_be_bytes(*version)), value))
}

fn encode_watermark(watermark: Watermark) -> [u8; WATERMARK_LEN] {
    let mut row = [0; WATERMARK_LEN];
    row[..4].copy_from_slice(&watermark.position.pack.to_le_bytes());
    row[4..12].copy_from_slice(&watermark.position.offset.to_le_bytes());
    row[12..].copy_from_slice(&watermark.commit.to_le_bytes());
    row
}

fn decode_watermark(row: &[u8]) -> Result<Watermark> {
    let row: &[u8; WATERMARK_LEN] = row
        .try_into()
        .map_err(|_| malformed("its watermark has another length"))?;
    let number = |at: usize| u64::from_le_bytes(row[at..at + 8].try_into().expect("eight bytes"));
    Ok(Watermark {
        position: LogPosition {
            pack: u32::from_le_bytes(row[..4].try_into().expect("four bytes")),
            offset: number(4),
        },
        commit: number(12),
    })
}

fn malformed(reason: &'static str) -> Error {
    Error::Malformed {
        what: "row of the index",
        reason,
    }
}

/// RocksDB tells its errors apart by the first word of their text, which its binding reads.
fn failed(place: &Path, action: &'static str, source: rocksdb::Error) -> Error {
    match source.kind() {
        ErrorKind::Corruption => Error::Damaged {
            place: place.to_owned(),
            source: source.into(),
        },
        _ => {
            let text = source.to_string();
            let is_full = NO_ROOM.iter().any(|words| text.contains(words));
            let source = if is_full {
                io::Error::new(io::ErrorKind::StorageFull, source).into()
            } else {
                source.into()
            };
            Error::Unavailable {
                place: place.display().to_string(),
                action,
                source,
            }
        }
    }
}
