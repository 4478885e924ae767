//! RocksDB: the engine of the server. Rows, and beside them where chunks lie (`chunks.rs`).
//!
//! Where a log of our own makes commits durable, RocksDB keeps none: it is a cache of the log. What is not yet in its files is
//! lost in a crash and applied again from the watermark, a row that is written in one batch with what it stands for; all
//! families are flushed together, so that a crash finds a state that was. The index comes back from the log if it is lost.
//!
//! Invariants: a row is its version (u64, big-endian) and its value; versions and the watermark move with the rows, in one
//! batch; one writer at a time. Not here: checks and their order (`database.rs`), when to flush.

mod chunks;
mod open;
#[cfg(test)]
mod tests;

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use rocksdb::checkpoint::Checkpoint;
use rocksdb::{ColumnFamily, DB, DBAccess, DBRawIteratorWithThreadMode, ErrorKind, ReadOptions, Snapshot, WriteBatch};

use crate::database::Engine;
use crate::kv::{Order, Page, Row, SCAN_LEN, SCAN_ROWS_MAX, Version, View};
use crate::memory::rest;
use crate::record::CommitRecord;
use crate::{Error, KeyRange, Result};

pub use chunks::{CHUNK_KEY_LEN, CHUNK_PLACE_LEN, ChunkKeyBytes, ChunkPlaceBytes};
pub use open::{RocksLog, RocksOptions};

/// Column families. The names are on disk.
const ROWS: &str = "default";
const CHUNKS: &str = "chunks";
const ENGINE: &str = "engine";

/// Rows of the family `engine`.
const VERSION: &[u8] = b"version";
const WATERMARK: &[u8] = b"watermark";

const VERSION_LEN: usize = size_of::<u64>();

/// A folder of RocksDB.
pub struct RocksEngine {
    db: DB,
    place: PathBuf,
    log: RocksLog,
    version: AtomicU64,
    /// Held while something is written, so that versions and watermarks only go up.
    writing: Mutex<()>,
    /// The watermark that is known to be in RocksDB's files.
    persisted: Mutex<Option<Bytes>>,
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
        let db = open::open(place, options)?;
        let engine = Self {
            db,
            place: place.to_owned(),
            log: options.log,
            version: AtomicU64::new(0),
            writing: Mutex::default(),
            persisted: Mutex::default(),
        };
        if let Some(version) = engine.engine_row(VERSION)? {
            let version = version
                .as_ref()
                .try_into()
                .map_err(|_| malformed("its version has another length"))?;
            engine.version.store(u64::from_be_bytes(version), Ordering::Release);
        }
        *engine.persisted() = engine.engine_row(WATERMARK)?;
        Ok(engine)
    }

    /// Begins to apply what the log says. Waits until whoever else does is done.
    pub fn changes(&self) -> RocksChanges<'_> {
        RocksChanges {
            _writing: self.writing.lock().unwrap_or_else(PoisonError::into_inner),
            batch: WriteBatch::default(),
            version: self.version(),
            engine: self,
        }
    }

    /// The newest watermark that a crash would leave, as [`RocksChanges::finish`] was given it. `None`: begin at the log's start.
    pub fn watermark(&self) -> Option<Bytes> {
        self.persisted().clone()
    }

    /// Writes what is only in memory into RocksDB's files, durably.
    pub fn flush(&self) -> Result<()> {
        let watermark = self.engine_row(WATERMARK)?;
        let families = [ROWS, CHUNKS, ENGINE].map(|name| self.family(name));
        let done = self.db.flush_cfs_opt(&families, &rocksdb::FlushOptions::default());
        done.map_err(|source| self.failed("flush", source))?;
        *self.persisted() = watermark;
        Ok(())
    }

    /// A copy of everything as it is now, in a folder that must not be there yet; its files are links where they can be.
    pub fn checkpoint(&self, to: &Path) -> Result<()> {
        let checkpoint = Checkpoint::new(&self.db).and_then(|checkpoint| checkpoint.create_checkpoint(to));
        checkpoint.map_err(|source| self.failed("copy itself", source))
    }

    fn persisted(&self) -> MutexGuard<'_, Option<Bytes>> {
        self.persisted.lock().unwrap_or_else(PoisonError::into_inner)
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
        let rows = self
            .db
            .batched_multi_get_cf(self.family(ROWS), keys.iter().copied(), false);
        let row = |row: std::result::Result<Option<_>, _>| -> Result<Option<Row>> {
            let row: Option<rocksdb::DBPinnableSlice<'_>> = row.map_err(|source| self.failed("read", source))?;
            row.map(|row| decode(&row)).transpose()
        };
        rows.into_iter().map(row).collect()
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
}

/// Changes that are applied together.
pub struct RocksChanges<'a> {
    engine: &'a RocksEngine,
    batch: WriteBatch,
    version: Version,
    _writing: MutexGuard<'a, ()>,
}

impl RocksChanges<'_> {
    /// A chunk is here now, wherever it was before.
    pub fn put_chunk(&mut self, key: &ChunkKeyBytes, place: &ChunkPlaceBytes) {
        self.batch.put_cf(self.engine.family(CHUNKS), key, place);
    }

    /// A chunk is gone.
    pub fn remove_chunk(&mut self, key: &ChunkKeyBytes) {
        self.batch.delete_cf(self.engine.family(CHUNKS), key);
    }

    /// A commit record of the log. One that was applied before is passed over.
    ///
    /// Errors: [`Error::Malformed`].
    pub fn commit(&mut self, record: &Bytes) -> Result<()> {
        self.record(&CommitRecord::decode(record)?);
        Ok(())
    }

    /// Applies all of it. After a crash it is found applied up to `watermark` or up to an earlier one, never further.
    ///
    /// - `watermark`: where the log goes on, in the log's own words.
    pub fn finish(mut self, watermark: &[u8]) -> Result<()> {
        self.batch.put_cf(self.engine.family(ENGINE), WATERMARK, watermark);
        self.write()
    }

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

    fn write(self) -> Result<()> {
        let engine = self.engine;
        let written = engine.db.write_opt(self.batch, &engine.log.write_options());
        written.map_err(|source| engine.failed("write", source))?;
        engine.version.store(self.version.0, Ordering::Release);
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
            row.map(|row| decode(&row)).transpose()
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
    let mut len = 0;
    while let Some((key, row)) = rows.item() {
        if page.rows.len() >= limit.min(SCAN_ROWS_MAX) || len >= SCAN_LEN {
            page.rest = Some(rest(range, order, page.rows.last().map(|(key, _)| key)));
            break;
        }
        len += key.len() + row.len();
        let row = decode(row).map_err(ScanError::Row)?;
        page.rows.push((Bytes::copy_from_slice(key), row));
        match order {
            Order::Forward => rows.next(),
            Order::Reverse => rows.prev(),
        }
    }
    rows.status().map_err(ScanError::Engine)?;
    Ok(page)
}

fn decode(row: &[u8]) -> Result<Row> {
    let (version, value) = row
        .split_first_chunk::<VERSION_LEN>()
        .ok_or(malformed("it is too short"))?;
    Ok(Row {
        version: Version(u64::from_be_bytes(*version)),
        value: Bytes::copy_from_slice(value),
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
        _ => Error::Unavailable {
            place: place.display().to_string(),
            action,
            source: source.into(),
        },
    }
}
