//! What RocksDB is at, and what it has done since it was opened: for who watches a server.
//!
//! Counted are only events and bytes: reading the clock for each read and write would cost more than what is to be measured. Stalls
//! are rare, and their time is always taken. Not here: names of metrics (`server`).

use std::time::Duration;

use rocksdb::properties::PropName;
use rocksdb::properties::{
    ACTUAL_DELAYED_WRITE_RATE, BACKGROUND_ERRORS, BLOCK_CACHE_PINNED_USAGE, BLOCK_CACHE_USAGE, CUR_SIZE_ALL_MEM_TABLES,
    ESTIMATE_PENDING_COMPACTION_BYTES, IS_WRITE_STOPPED, NUM_RUNNING_COMPACTIONS, NUM_RUNNING_FLUSHES,
    num_files_at_level,
};
use rocksdb::statistics::Ticker;

use super::{CHUNKS, ENGINE, ROWS, RocksEngine};
use crate::Result;

/// The engine at one moment, all its families together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RocksState {
    /// Bytes a second that writes are slowed down to, so that compaction keeps up; 0: they are not.
    pub write_rate_max: u64,
    /// Writes wait until a flush or compaction has ended.
    pub writes_stopped: bool,
    /// How long writes have waited for these two reasons.
    pub stalled: Duration,
    /// Bytes that compactions are to rewrite, about, so that the levels have their shape.
    pub compaction_pending_len: u64,
    /// Compactions that run.
    pub compactions: u64,
    /// Flushes that run.
    pub flushes: u64,
    /// Files of level 0, of the family that has most: each is looked into by a read, and too many slow writes down.
    pub level_0_files: u64,
    /// Bytes that compactions have read, and written.
    pub compaction_read_len: u64,
    /// See there.
    pub compaction_written_len: u64,
    /// Bytes of files that flushes have written.
    pub flushed_len: u64,
    /// Bytes written and not in files yet.
    pub buffered_len: u64,
    /// Bytes of blocks in memory.
    pub cached_len: u64,
    /// Of these, bytes that may not be given up.
    pub pinned_len: u64,
    /// Flushes and compactions that failed.
    pub failures: u64,
}

impl RocksEngine {
    /// What it is at. Reads counters, no files.
    pub fn state(&self) -> Result<RocksState> {
        let families = [ROWS, CHUNKS, ENGINE];
        let each = |name: &PropName| -> Result<Vec<u64>> {
            let values = families.iter().map(|family| self.property(family, name));
            values.collect()
        };
        let sum = |name: &PropName| -> Result<u64> { Ok(each(name)?.iter().sum()) };
        // Of the engine as a whole, and of the cache that rows and places share.
        let whole = |name: &PropName| self.property(ROWS, name);
        let count = |ticker| self.options.get_ticker_count(ticker);
        Ok(RocksState {
            write_rate_max: whole(ACTUAL_DELAYED_WRITE_RATE)?,
            writes_stopped: whole(IS_WRITE_STOPPED)? > 0,
            stalled: Duration::from_micros(count(Ticker::StallMicros)),
            compaction_pending_len: sum(ESTIMATE_PENDING_COMPACTION_BYTES)?,
            compactions: whole(NUM_RUNNING_COMPACTIONS)?,
            flushes: whole(NUM_RUNNING_FLUSHES)?,
            failures: whole(BACKGROUND_ERRORS)?,
            cached_len: whole(BLOCK_CACHE_USAGE)?,
            pinned_len: whole(BLOCK_CACHE_PINNED_USAGE)?,
            level_0_files: each(&num_files_at_level(0))?.into_iter().max().unwrap_or(0),
            compaction_read_len: count(Ticker::CompactReadBytes),
            compaction_written_len: count(Ticker::CompactWriteBytes),
            flushed_len: count(Ticker::FlushWriteBytes),
            buffered_len: sum(CUR_SIZE_ALL_MEM_TABLES)?,
        })
    }

    fn property(&self, family: &str, name: &PropName) -> Result<u64> {
        let value = self.db.property_int_value_cf(self.family(family), name);
        let value = value.map_err(|source| self.failed("tell its state", source))?;
        Ok(value.unwrap_or(0))
    }
}
