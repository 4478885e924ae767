//! Arguments that several verbs take: how stores are reached, what is read from and written to them, where to cut, how much of
//! the machine is used. A verb flattens the groups it takes.

use std::path::PathBuf;
use std::time::Duration;

use cairn_formats::{ChunkForm, ChunkSizes, Dialect, Level};
use cairn_store::SyncPolicy;
use clap::{ArgAction, Args, ValueEnum};

use crate::sizes;

/// How stores are reached.
#[derive(Clone, Debug, Args)]
pub(crate) struct Access {
    /// Requests in flight at most, per store
    #[arg(short = 'n', long, default_value_t = 10, value_name = "N")]
    pub(crate) concurrency: usize,
    /// PEM file with the certificate shown to servers
    #[arg(long, value_name = "FILE")]
    pub(crate) client_cert: Option<PathBuf>,
    /// PEM file with the key of --client-cert
    #[arg(long, value_name = "FILE")]
    pub(crate) client_key: Option<PathBuf>,
    /// PEM file with the authorities to trust instead of the system's
    #[arg(long, value_name = "FILE")]
    pub(crate) ca_cert: Option<PathBuf>,
    /// Take any server certificate
    #[arg(short = 't', long)]
    pub(crate) trust_insecure: bool,
    /// Tries of one request in all
    #[arg(short = 'e', long, default_value_t = 3, value_name = "N")]
    pub(crate) error_retry: u32,
    /// Longest first pause between tries; it doubles with every try
    #[arg(short = 'b', long, default_value = "500ms", value_parser = sizes::duration, value_name = "TIME")]
    pub(crate) error_retry_base_interval: Duration,
    /// Bytes a second over HTTP, all stores together (suffixes K, M, G)
    #[arg(long, value_parser = sizes::bytes, value_name = "BYTES")]
    pub(crate) bandwidth_limit: Option<u64>,
    /// Proxy for HTTP stores [default: as HTTP_PROXY, HTTPS_PROXY, ALL_PROXY, NO_PROXY say]
    #[arg(long, value_name = "URL")]
    pub(crate) proxy: Option<String>,
}

/// As without any flag; a test holds the two together.
impl Default for Access {
    fn default() -> Self {
        Self {
            concurrency: 10,
            client_cert: None,
            client_key: None,
            ca_cert: None,
            trust_insecure: false,
            error_retry: 3,
            error_retry_base_interval: Duration::from_millis(500),
            bandwidth_limit: None,
            proxy: None,
        }
    }
}

/// Stores to read from.
#[derive(Clone, Debug, Args)]
pub(crate) struct Sources {
    /// Store to read from; may be repeated
    #[arg(short = 's', long = "store", value_name = "STORE")]
    pub(crate) stores: Vec<String>,
    #[command(flatten)]
    pub(crate) cached: Cached,
    #[command(flatten)]
    pub(crate) access: Access,
}

/// Stores to read from for as long as a server or a mount lasts; a store file may change them meanwhile.
#[derive(Clone, Debug, Args)]
pub(crate) struct ReloadableSources {
    #[command(flatten)]
    pub(crate) flags: Sources,
    /// JSON file {"stores": [...], "cache": "..."} in place of -s and -c; read again on SIGHUP
    #[arg(long, value_name = "FILE", conflicts_with_all = ["stores", "cache"])]
    pub(crate) store_file: Option<PathBuf>,
}

/// A store in front of others.
#[derive(Clone, Debug, Args)]
pub(crate) struct Cached {
    /// Folder that keeps what was read
    #[arg(short = 'c', long, value_name = "DIR")]
    pub(crate) cache: Option<PathBuf>,
    /// Most bytes the cache may hold; the least recently used go first [default: no limit]
    #[arg(long, value_parser = sizes::bytes, value_name = "BYTES", requires = "cache")]
    pub(crate) cache_limit: Option<u64>,
    /// Fetch a damaged chunk of the cache again
    #[arg(short = 'r', long, default_value_t = true, action = ArgAction::Set, num_args = 0..=1, default_missing_value = "true", value_name = "BOOL")]
    pub(crate) cache_repair: bool,
}

/// How chunks are written.
#[derive(Clone, Debug, Args)]
pub(crate) struct Writing {
    /// zstd level of new chunks
    #[arg(long, default_value_t = 3, allow_negative_numbers = true, value_name = "LEVEL")]
    pub(crate) compression_level: i32,
    /// Store new chunks plain
    #[arg(short = 'u', long)]
    pub(crate) uncompressed: bool,
    /// When new chunks of a local store are durable: before this ends, soon, or when the system likes
    #[arg(long, value_enum, default_value_t = SyncName::Sync)]
    pub(crate) sync: SyncName,
}

impl Writing {
    pub(crate) fn form(&self) -> ChunkForm {
        if self.uncompressed {
            ChunkForm::Plain
        } else {
            ChunkForm::Compressed
        }
    }

    pub(crate) fn level(&self) -> Level {
        Level::new(self.compression_level)
    }
}

/// Names of the sync policies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum SyncName {
    /// Before the verb ends
    Sync,
    /// A batch at a time, not before the verb ends
    Batch,
    /// When the system likes
    None,
}

impl From<SyncName> for SyncPolicy {
    fn from(name: SyncName) -> Self {
        match name {
            SyncName::Sync => Self::Sync,
            SyncName::Batch => Self::Batch,
            SyncName::None => Self::None,
        }
    }
}

/// How chunks get into a store.
#[derive(Clone, Debug, Args)]
pub(crate) struct Storing {
    #[command(flatten)]
    pub(crate) writing: Writing,
    #[command(flatten)]
    pub(crate) effort: Effort,
    #[command(flatten)]
    pub(crate) access: Access,
}

/// Where to cut.
#[derive(Clone, Debug, Args)]
pub(crate) struct Cutting {
    /// Smallest, average and largest chunk: `MIN:AVG:MAX` in KiB as desync takes them, or with suffixes B, K, M, or AVG alone
    /// as casync takes it [default: 16:64:256]
    #[arg(short = 'm', long, value_parser = sizes::chunk_sizes, value_name = "SIZES")]
    pub(crate) chunk_size: Option<ChunkSizes>,
    /// Whose cuts: casync's (and desync's after v1.1.0), or desync's up to v1.1.0
    #[arg(long, value_enum, default_value_t = DialectName::Casync)]
    pub(crate) dialect: DialectName,
}

impl Cutting {
    pub(crate) fn sizes(&self) -> ChunkSizes {
        self.chunk_size.unwrap_or(ChunkSizes::DEFAULT)
    }
}

/// Names of the dialects.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum DialectName {
    /// casync 2, desync after v1.1.0
    Casync,
    /// desync up to v1.1.0
    Desync,
}

impl From<DialectName> for Dialect {
    fn from(name: DialectName) -> Self {
        match name {
            DialectName::Casync => Self::Casync,
            DialectName::Desync => Self::Desync,
        }
    }
}

/// How much of the machine is used.
#[derive(Clone, Debug, Args)]
pub(crate) struct Effort {
    /// Threads [default: one per core]
    #[arg(long, value_name = "N")]
    pub(crate) workers: Option<usize>,
    /// Memory to stay under, as far as fewer threads can (suffixes K, M, G)
    #[arg(long, value_parser = sizes::bytes, value_name = "BYTES")]
    pub(crate) memory_limit: Option<u64>,
}

impl Effort {
    /// Threads: as many as asked for, as few as the memory limit wants.
    pub(crate) fn workers(&self) -> usize {
        /// What a worker holds at default sizes: two blocks and what they become.
        const WORKER_BYTES: u64 = 10 << 20;
        let wanted = self.workers.unwrap_or_else(crate::engine::default_workers).max(1);
        self.memory_limit
            .map_or(wanted, |limit| wanted.min((limit / WORKER_BYTES).max(1) as usize))
    }
}

/// Chunks to leave out.
#[derive(Clone, Debug, Args)]
pub(crate) struct Ignoring {
    /// Leave out the chunks of this index; may be repeated
    #[arg(long, value_name = "INDEX")]
    pub(crate) ignore: Vec<String>,
    /// Leave out the chunks whose ids are in this file, one a line; may be repeated
    #[arg(long, value_name = "FILE")]
    pub(crate) ignore_chunks: Vec<PathBuf>,
}

/// Seeds.
#[derive(Clone, Debug, Args)]
pub(crate) struct Seeding {
    /// Blob that shares chunks, by its index: INDEX or INDEX:BLOB (without BLOB: the index's name without its ending); or a
    /// file or block device without an index, which is then read whole first
    #[arg(long, value_name = "INDEX[:BLOB]|FILE|DEVICE")]
    pub(crate) seed: Vec<String>,
    /// Folder whose .caibx files, with their blobs beside them, are seeds
    #[arg(long, value_name = "DIR")]
    pub(crate) seed_dir: Vec<PathBuf>,
}
