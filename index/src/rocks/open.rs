//! Opening a folder of RocksDB: what it is told, and what may be wrong with the folder.

use std::io;
use std::path::Path;

use rocksdb::{
    BlockBasedIndexType, BlockBasedOptions, Cache, ColumnFamilyDescriptor, DB, DBCompressionType, LogLevel, Options,
    WriteOptions, statistics::StatsLevel,
};

use super::{CHUNKS, ENGINE, ROWS, failed};
use crate::{Error, Result};

/// What makes a commit durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RocksLog {
    /// RocksDB's own log, synced with each write: for an engine that has no other log behind it.
    Own,
    /// Nothing until a flush: a log of ours has it, and applies what was lost again.
    None,
}

impl RocksLog {
    pub(super) fn write_options(self) -> WriteOptions {
        let mut options = WriteOptions::default();
        match self {
            Self::Own => options.set_sync(true),
            Self::None => options.disable_wal(true),
        }
        options
    }
}

/// How a folder of RocksDB is opened.
#[derive(Clone, Debug)]
pub struct RocksOptions {
    /// What makes a commit durable.
    pub log: RocksLog,
    /// Bytes of blocks kept in memory, indexes and filters included.
    pub cache_len: usize,
    /// Bytes written before they go to files, all families together.
    pub buffer_len: usize,
    /// Files open at a time.
    pub files: u16,
    /// Threads that flush and compact.
    pub threads: u8,
}

impl Default for RocksOptions {
    fn default() -> Self {
        Self {
            log: RocksLog::None,
            cache_len: 128 << 20,
            buffer_len: 64 << 20,
            files: 1000,
            threads: 2,
        }
    }
}

/// Bits a key that a Bloom filter as good as ours would have; the ribbon filter takes about seven.
const FILTER_BITS: f64 = 10.0;

/// Rows are read in ranges and compress; places are read alone and do not.
const ROWS_BLOCK_LEN: usize = 16 << 10;
const CHUNKS_BLOCK_LEN: usize = 4 << 10;
const METADATA_BLOCK_LEN: usize = 4 << 10;

/// RocksDB's own diary, a file `LOG` in the folder.
const DIARY_LEN: usize = 1 << 20;
const DIARIES: usize = 4;

/// The database, and what it was opened with.
pub(super) fn open(place: &Path, options: &RocksOptions) -> Result<(DB, Options)> {
    let unavailable = |source: io::Error| Error::Unavailable {
        place: place.display().to_string(),
        action: "open",
        source: source.into(),
    };
    std::fs::create_dir_all(place).map_err(unavailable)?;
    let database = database_options(options);
    if place.join("CURRENT").try_exists().map_err(unavailable)? {
        let families = DB::list_cf(&database, place).map_err(|source| open_failed(place, source))?;
        if let Some(unknown) = families
            .iter()
            .find(|name| ![ROWS, CHUNKS, ENGINE].contains(&name.as_str()))
        {
            return Err(Error::Unknown {
                place: place.to_owned(),
                what: format!("a family of rows named {unknown:?}"),
            });
        }
    } else {
        // RocksDB would begin anew over what is left of another one.
        for entry in std::fs::read_dir(place).map_err(unavailable)? {
            let name = entry.map_err(unavailable)?.file_name();
            let name = name.to_string_lossy();
            // What opening leaves when it is killed before anything is there.
            if !["LOCK", "LOG", "IDENTITY"].contains(&name.as_ref()) && !name.starts_with("LOG.old") {
                return Err(Error::Damaged {
                    place: place.to_owned(),
                    source: format!("there is no file CURRENT, but {name:?}").into(),
                });
            }
        }
    }
    let cache = Cache::new_lru_cache(options.cache_len);
    let families = [
        ColumnFamilyDescriptor::new(ROWS, rows_options(options, &cache)),
        ColumnFamilyDescriptor::new(CHUNKS, chunks_options(options, &cache)),
        ColumnFamilyDescriptor::new(ENGINE, Options::default()),
    ];
    let db = DB::open_cf_descriptors(&database, place, families).map_err(|source| open_failed(place, source))?;
    Ok((db, database))
}

fn database_options(options: &RocksOptions) -> Options {
    let mut database = Options::default();
    database.create_if_missing(true);
    database.create_missing_column_families(true);
    // Without a log the families have to be of one moment in the files too.
    database.set_atomic_flush(options.log == RocksLog::None);
    database.set_db_write_buffer_size(options.buffer_len);
    database.set_max_open_files(i32::from(options.files));
    database.set_max_background_jobs(i32::from(options.threads).max(2));
    // Events and bytes; no clock is read for a row.
    database.enable_statistics();
    database.set_statistics_level(StatsLevel::ExceptHistogramOrTimers);
    database.set_log_level(LogLevel::Warn);
    database.set_max_log_file_size(DIARY_LEN);
    database.set_keep_log_file_num(DIARIES);
    database
}

fn rows_options(options: &RocksOptions, cache: &Cache) -> Options {
    let mut family = Options::default();
    let mut table = table_options(cache, ROWS_BLOCK_LEN);
    table.set_ribbon_filter(FILTER_BITS);
    family.set_block_based_table_factory(&table);
    family.set_write_buffer_size(options.buffer_len / 2);
    family.set_compression_type(DBCompressionType::Lz4);
    family.set_bottommost_compression_type(DBCompressionType::Zstd);
    family
}

fn chunks_options(options: &RocksOptions, cache: &Cache) -> Options {
    let mut family = Options::default();
    let mut table = table_options(cache, CHUNKS_BLOCK_LEN);
    table.set_ribbon_filter(FILTER_BITS);
    family.set_block_based_table_factory(&table);
    family.set_write_buffer_size(options.buffer_len / 2);
    // Ids are digests, and so are more than half of the bytes of a block.
    family.set_compression_type(DBCompressionType::None);
    family
}

/// Only the top of indexes and filters has to stay (of places two bytes a chunk, at most), their parts come and go as blocks do. In
/// one piece those of a million objects are longer than what the cache takes, and read again for every row.
fn table_options(cache: &Cache, block_len: usize) -> BlockBasedOptions {
    let mut table = BlockBasedOptions::default();
    table.set_block_cache(cache);
    table.set_block_size(block_len);
    table.set_index_type(BlockBasedIndexType::TwoLevelIndexSearch);
    table.set_partition_filters(true);
    table.set_metadata_block_size(METADATA_BLOCK_LEN);
    table.set_cache_index_and_filter_blocks(true);
    table.set_pin_top_level_index_and_filter(true);
    table.set_optimize_filters_for_memory(true);
    table
}

fn open_failed(place: &Path, source: rocksdb::Error) -> Error {
    let text = source.to_string();
    if text.contains("lock") && (text.contains("LOCK: ") || text.contains("lock hold by current process")) {
        return Error::Locked {
            place: place.to_owned(),
        };
    }
    // A file that another one names is not there.
    if text.contains("No such file or directory")
        || text.contains("does not match")
        || text.contains("Invalid argument")
    {
        return Error::Damaged {
            place: place.to_owned(),
            source: source.into(),
        };
    }
    failed(place, "open", source)
}
