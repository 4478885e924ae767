//! What can be written on the command line. Flags have desync's names and meanings; the table in `docs/cli.md` tells where
//! they differ, and a test keeps it in step.

use std::path::PathBuf;
use std::time::Duration;

use cairn_formats::{ChunkForm, ChunkSizes, Dialect, DigestAlgorithm, Level};
use cairn_store::SyncPolicy;
use clap::{ArgAction, Args, Parser, Subcommand, ValueEnum};

use crate::sizes;

const AFTER_HELP: &str = "\
Stores: a folder, http(s)://host/path/, or several joined by `|` (the next is asked when one fails). With several -s the next \
is asked for chunks that the ones before do not have. An index is a file, an http(s) URL, or - for standard input or output.

Exit codes: 0 done · 1 failed · 2 wrong command line · 3 done, but something is bad or missing (it is listed) · \
130 interrupted. docs/exit-codes.md has the details.";

/// Cuts, stores, serves, fetches and checks big data as content-addressed chunks, compatible with casync and desync.
#[derive(Debug, Parser)]
#[command(name = "cairn", version, after_help = AFTER_HELP, max_term_width = 110)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) global: Global,
    #[command(subcommand)]
    pub(crate) verb: Verb,
}

/// Flags of every verb.
#[derive(Debug, Args)]
pub(crate) struct Global {
    /// Configuration file (JSON) [default: ~/.config/cairn/config.json, else desync's]
    #[arg(long, global = true, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// Digest that names chunks; an index says itself which one it uses
    #[arg(long, global = true, value_enum, default_value_t = DigestName::Sha512_256)]
    pub(crate) digest: DigestName,
    /// Say what is being done, on standard error
    #[arg(long, global = true)]
    pub(crate) verbose: bool,
    /// Reports on standard output and errors on standard error as JSON objects
    #[arg(long, global = true)]
    pub(crate) json: bool,
    /// Taken for casync's sake, which passes it to the far end of a connection
    #[arg(long, global = true, hide = true, value_name = "LEVEL")]
    pub(crate) log_level: Option<String>,
    /// Bytes a second that `pull` sends at most, as casync passes it on
    #[arg(long, global = true, hide = true, value_name = "BYTES")]
    pub(crate) rate_limit_bps: Option<std::num::NonZeroU64>,
}

/// The verbs.
#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// Cut a file, device or standard input into chunks, store them, write the index
    Make(Make),
    /// Store the chunks that an existing index names, read from the blob
    Chop(Chop),
    /// Print where a file would be cut: start, length, chunk id
    Chunk(Chunk),
    /// Rebuild a blob from its index
    Extract(Extract),
    /// Write a blob, or a part of it, to standard output or a file
    Cat(Cat),
    /// Check every chunk of a local store against its name
    Verify(Verify),
    /// Check a file or device against its index
    VerifyIndex(VerifyIndex),
    /// Tell how big a blob is and how much of it is where
    Info(Info),
    /// Tell plain and stored size of each chunk of an index, as JSON
    InspectChunks(InspectChunks),
    /// Print the ids of an index's chunks
    ListChunks(ListChunks),
    /// Copy the chunks of indexes into another store
    Cache(CacheArgs),
    /// Delete every chunk of a store that no given index names
    Prune(Prune),
    /// Tell what a download of one index would cost to somebody who has another
    Diff(Diff),
    /// Write a store's chunks anew: other level, plain or compressed
    Convert(Convert),
    /// Make an archive of a folder or a tar file; with -i cut, store and index it
    Tar(Tar),
    /// Show an archive as a tree, read as it is looked at (FUSE)
    Mount(Mount),
    /// Show a blob as a file, read from its store as it is needed (FUSE)
    MountIndex(MountIndex),
    /// Put an archive, or with -i one that is stored in chunks, back on disk
    Untar(Untar),
    /// List an archive, or what is below one path of it
    List(List),
    /// Print an archive or a folder as mtree(5) lines, with digests
    Mtree(Mtree),
    /// Give chunks, an index or an archive over SSH: casync's far end
    Pull(Pull),
    /// Take an index with its chunks, or an archive, over SSH: casync's far end
    Push(Push),
    /// Serve a store over HTTP
    ChunkServer(ChunkServer),
    /// Serve a folder of indexes over HTTP
    IndexServer(IndexServer),
    /// Print the configuration in force, or write it
    Config(ConfigArgs),
    /// Print a completion script for a shell
    Completion(Completion),
    /// Write manual pages into a folder
    Manpage(Manpage),
}

/// Names of the digests.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum DigestName {
    /// SHA-512/256
    #[value(name = "sha512-256")]
    Sha512_256,
    /// SHA-256
    #[value(name = "sha256")]
    Sha256,
}

impl From<DigestName> for DigestAlgorithm {
    fn from(name: DigestName) -> Self {
        match name {
            DigestName::Sha512_256 => Self::Sha512_256,
            DigestName::Sha256 => Self::Sha256,
        }
    }
}

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

/// `make`
#[derive(Debug, Args)]
pub(crate) struct Make {
    /// Index to write; - for standard output
    pub(crate) index: String,
    /// File or device to cut; - for standard input
    pub(crate) input: PathBuf,
    /// Store for the chunks; without one only the index is made
    #[arg(short = 's', long, value_name = "STORE")]
    pub(crate) store: Option<String>,
    /// Print what was done, to standard error
    #[arg(long)]
    pub(crate) print_stats: bool,
    /// Tell what would be stored, store nothing and write no index
    #[arg(long)]
    pub(crate) dry_run: bool,
    #[command(flatten)]
    pub(crate) cutting: Cutting,
    #[command(flatten)]
    pub(crate) writing: Writing,
    #[command(flatten)]
    pub(crate) effort: Effort,
    #[command(flatten)]
    pub(crate) access: Access,
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

/// `chop`
#[derive(Debug, Args)]
pub(crate) struct Chop {
    /// Index that names the chunks
    pub(crate) index: String,
    /// Blob that holds them; - for standard input
    pub(crate) input: PathBuf,
    /// Store for the chunks
    #[arg(short = 's', long, value_name = "STORE")]
    pub(crate) store: String,
    #[command(flatten)]
    pub(crate) ignoring: Ignoring,
    /// Tell what would be stored, store nothing
    #[arg(long)]
    pub(crate) dry_run: bool,
    #[command(flatten)]
    pub(crate) writing: Writing,
    #[command(flatten)]
    pub(crate) effort: Effort,
    #[command(flatten)]
    pub(crate) access: Access,
}

/// `chunk`
#[derive(Debug, Args)]
pub(crate) struct Chunk {
    /// File or device; - for standard input
    pub(crate) input: PathBuf,
    /// Byte to start at
    #[arg(short = 'S', long, default_value_t = 0, value_name = "OFFSET")]
    pub(crate) start: u64,
    #[command(flatten)]
    pub(crate) cutting: Cutting,
    #[command(flatten)]
    pub(crate) effort: Effort,
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

/// `extract`
#[derive(Debug, Args)]
pub(crate) struct Extract {
    /// Index of the blob; - for standard input
    pub(crate) index: String,
    /// File or block device to write
    pub(crate) output: PathBuf,
    #[command(flatten)]
    pub(crate) sources: Sources,
    #[command(flatten)]
    pub(crate) seeding: Seeding,
    /// Taken for desync's sake: a seed's bad chunks are always passed over
    #[arg(long)]
    pub(crate) skip_invalid_seeds: bool,
    /// Taken for desync's sake: a seed's good chunks are always used
    #[arg(long)]
    pub(crate) regenerate_invalid_seeds: bool,
    /// Only tell how much would come from where
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// Mend the output in place; also resumes, and writes devices
    #[arg(short = 'k', long)]
    pub(crate) in_place: bool,
    /// Sync the output to disk before it gets its name (devices always are)
    #[arg(long)]
    pub(crate) fsync: bool,
    /// Write zeros rather than leave holes
    #[arg(long)]
    pub(crate) no_sparse: bool,
    /// Copy from seeds rather than share blocks
    #[arg(long)]
    pub(crate) no_reflink: bool,
    /// Print where the bytes came from, to standard error
    #[arg(long)]
    pub(crate) print_stats: bool,
    #[command(flatten)]
    pub(crate) effort: Effort,
}

/// `cat`
#[derive(Debug, Args)]
pub(crate) struct Cat {
    /// Index of the blob; - for standard input
    pub(crate) index: String,
    /// File to write [default: standard output]
    pub(crate) output: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) sources: Sources,
    /// First byte
    #[arg(short = 'o', long, default_value_t = 0, value_name = "BYTE")]
    pub(crate) offset: u64,
    /// Bytes to write; 0 for all that follow
    #[arg(short = 'l', long, default_value_t = 0, value_name = "BYTES")]
    pub(crate) length: u64,
    #[command(flatten)]
    pub(crate) effort: Effort,
}

/// `verify`
#[derive(Debug, Args)]
pub(crate) struct Verify {
    /// Local store
    #[arg(short = 's', long, value_name = "DIR")]
    pub(crate) store: PathBuf,
    /// Remove bad chunks
    #[arg(short = 'r', long)]
    pub(crate) repair: bool,
    /// Let this desync check the store too, and say where the two disagree
    #[arg(long, value_name = "PROGRAM", conflicts_with = "repair")]
    pub(crate) with_desync: Option<PathBuf>,
    /// Taken for desync's sake: see --workers
    #[arg(short = 'n', long, value_name = "N")]
    pub(crate) concurrency: Option<usize>,
    #[command(flatten)]
    pub(crate) effort: Effort,
}

/// `verify-index`
#[derive(Debug, Args)]
pub(crate) struct VerifyIndex {
    /// Index of the blob; - for standard input
    pub(crate) index: String,
    /// File or device that is to match
    pub(crate) blob: PathBuf,
    /// List every bad chunk, not only the first
    #[arg(long)]
    pub(crate) keep_going: bool,
    #[command(flatten)]
    pub(crate) effort: Effort,
    #[command(flatten)]
    pub(crate) access: Access,
}

/// `info`
#[derive(Debug, Args)]
pub(crate) struct Info {
    /// Index of the blob; - for standard input
    pub(crate) index: String,
    #[command(flatten)]
    pub(crate) sources: Sources,
    #[command(flatten)]
    pub(crate) seeding: Seeding,
    /// Form of the report
    #[arg(short = 'f', long, value_enum, default_value_t = InfoFormat::Json)]
    pub(crate) format: InfoFormat,
    /// Tell also how many stored bytes would be fetched (asks the store for each chunk)
    #[arg(long)]
    pub(crate) chunks_info: bool,
}

/// Forms of `info`'s report.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum InfoFormat {
    /// One object
    Json,
    /// Lines for people
    Plain,
}

/// `inspect-chunks`
#[derive(Debug, Args)]
pub(crate) struct InspectChunks {
    /// Index of the blob; - for standard input
    pub(crate) index: String,
    /// File to write [default: standard output]
    pub(crate) output: Option<PathBuf>,
    /// Store that holds the chunks
    #[arg(short = 's', long, value_name = "STORE")]
    pub(crate) store: Option<String>,
    #[command(flatten)]
    pub(crate) access: Access,
}

/// `list-chunks`
#[derive(Debug, Args)]
pub(crate) struct ListChunks {
    /// Index; - for standard input
    pub(crate) index: String,
    #[command(flatten)]
    pub(crate) access: Access,
}

/// `cache`
#[derive(Debug, Args)]
pub(crate) struct CacheArgs {
    /// Indexes whose chunks are copied
    #[arg(required = true)]
    pub(crate) indexes: Vec<String>,
    /// Store to read from; may be repeated
    #[arg(short = 's', long = "store", value_name = "STORE", required = true)]
    pub(crate) stores: Vec<String>,
    /// Store to copy into
    #[arg(short = 'c', long, value_name = "STORE")]
    pub(crate) cache: String,
    #[command(flatten)]
    pub(crate) ignoring: Ignoring,
    /// Copy what can be copied, list what cannot, end with code 3
    #[arg(long)]
    pub(crate) keep_going: bool,
    /// Tell what would be copied, copy nothing
    #[arg(long)]
    pub(crate) dry_run: bool,
    #[command(flatten)]
    pub(crate) writing: Writing,
    #[command(flatten)]
    pub(crate) effort: Effort,
    #[command(flatten)]
    pub(crate) access: Access,
}

/// `prune`
#[derive(Debug, Args)]
pub(crate) struct Prune {
    /// Indexes whose chunks are kept
    #[arg(required = true)]
    pub(crate) indexes: Vec<String>,
    /// Store to prune
    #[arg(short = 's', long, value_name = "DIR")]
    pub(crate) store: PathBuf,
    /// Do not ask
    #[arg(short = 'y', long)]
    pub(crate) yes: bool,
    /// Tell what would be deleted, delete nothing
    #[arg(long)]
    pub(crate) dry_run: bool,
    #[command(flatten)]
    pub(crate) access: Access,
}

/// `diff`
#[derive(Debug, Args)]
pub(crate) struct Diff {
    /// Index of what is there
    pub(crate) have: String,
    /// Index of what is wanted
    pub(crate) want: String,
    /// Store to ask for the stored size of what is missing
    #[arg(short = 's', long, value_name = "STORE")]
    pub(crate) store: Option<String>,
    #[command(flatten)]
    pub(crate) access: Access,
}

/// `convert`
#[derive(Debug, Args)]
pub(crate) struct Convert {
    /// Local store to read
    #[arg(short = 's', long, value_name = "DIR")]
    pub(crate) store: PathBuf,
    /// Local store to write; a chunk that is there already is left
    pub(crate) target: PathBuf,
    /// Leave out bad chunks, list them, end with code 3
    #[arg(long)]
    pub(crate) keep_going: bool,
    #[command(flatten)]
    pub(crate) writing: Writing,
    #[command(flatten)]
    pub(crate) effort: Effort,
}

/// Which of two encodings of trees.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum TreeFormat {
    /// A folder
    Disk,
    /// A tar file
    #[value(alias = "gnu-tar")]
    Tar,
}

/// Whose archives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum ArchiveStyle {
    /// casync's: all that archives can keep
    Casync,
    /// desync's: mode, numeric owner, time, every extended attribute as it is
    Desync,
}

/// What is kept of a tree and what is left out of it.
#[derive(Clone, Debug, Args)]
pub(crate) struct Keeping {
    /// Keep only these features; casync's names and sets (best, unix, fat, user-names, nsec-time, …); may be repeated
    #[arg(long, value_name = "FEATURE")]
    pub(crate) with: Vec<String>,
    /// Do not keep this feature; may be repeated
    #[arg(long, value_name = "FEATURE")]
    pub(crate) without: Vec<String>,
    /// Whose archives: what is kept, and how, unless --with and --without say otherwise
    #[arg(long, value_enum, default_value_t = ArchiveStyle::Casync)]
    pub(crate) style: ArchiveStyle,
    /// Keep no times
    #[arg(long)]
    pub(crate) no_time: bool,
    /// Leave out what is mounted inside the folder
    #[arg(short = 'x', long, alias = "exclude-submounts")]
    pub(crate) one_file_system: bool,
    /// Leave out what .caexclude files name
    #[arg(long, default_value_t = true, action = ArgAction::Set, num_args = 0..=1, default_missing_value = "true", value_name = "BOOL")]
    pub(crate) exclude_file: bool,
    /// Leave out what has the attribute nodump
    #[arg(long, default_value_t = true, action = ArgAction::Set, num_args = 0..=1, default_missing_value = "true", value_name = "BOOL")]
    pub(crate) exclude_nodump: bool,
}

/// `tar`
#[derive(Debug, Args)]
pub(crate) struct Tar {
    /// Archive (.catar) to write, with -i its index (.caidx); - for standard output
    pub(crate) output: String,
    /// Folder; with --input-format tar a tar file, - for standard input
    pub(crate) source: PathBuf,
    /// Cut the archive into chunks, store them, write the index
    #[arg(short = 'i', long)]
    pub(crate) index: bool,
    /// Store for the chunks; without one only the index is made
    #[arg(short = 's', long, value_name = "STORE", requires = "index")]
    pub(crate) store: Option<String>,
    /// What the source is
    #[arg(long, value_enum, default_value_t = TreeFormat::Disk)]
    pub(crate) input_format: TreeFormat,
    /// Taken for desync's sake: a tar file without an entry for its root gets one anyway
    #[arg(long)]
    pub(crate) tar_add_root: bool,
    #[command(flatten)]
    pub(crate) keeping: Keeping,
    /// End with code 3 when something could not be kept as it is
    #[arg(long)]
    pub(crate) strict: bool,
    /// Print what was done, to standard error
    #[arg(long)]
    pub(crate) print_stats: bool,
    #[command(flatten)]
    pub(crate) cutting: Cutting,
    #[command(flatten)]
    pub(crate) writing: Writing,
    #[command(flatten)]
    pub(crate) effort: Effort,
    #[command(flatten)]
    pub(crate) access: Access,
}

/// `untar`
#[derive(Debug, Args)]
pub(crate) struct Untar {
    /// Archive (.catar), with -i its index (.caidx); - for standard input
    pub(crate) input: String,
    /// Folder to restore into; what is there and right is not touched
    pub(crate) target: PathBuf,
    /// The input is an index; its chunks are in the stores
    #[arg(short = 'i', long)]
    pub(crate) index: bool,
    /// Restore this entry alone, with what is below it, as the target
    #[arg(long, value_name = "PATH")]
    pub(crate) path: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) sources: Sources,
    /// Only tell how much of an indexed archive the target and the seeds have, and how much would be fetched
    #[arg(long, requires = "index", conflicts_with = "path")]
    pub(crate) dry_run: bool,
    /// What the target is
    #[arg(long, value_enum, default_value_t = TreeFormat::Disk)]
    pub(crate) output_format: TreeFormat,
    /// Old tree, file or device whose chunks are used before the store's; it needs no index; may be repeated
    #[arg(long, value_name = "PATH", requires = "index")]
    pub(crate) seed: Vec<PathBuf>,
    /// Do not use what the target already holds as a seed
    #[arg(long)]
    pub(crate) no_target_seed: bool,
    /// Leave owners as they fall out
    #[arg(long)]
    pub(crate) no_same_owner: bool,
    /// Restrict modes by the umask, restore no setuid, setgid and sticky bits
    #[arg(long)]
    pub(crate) no_same_permissions: bool,
    /// Restore no extended attributes, ACLs, labels and capabilities
    #[arg(long)]
    pub(crate) no_same_xattrs: bool,
    /// Owners by number, although the archive has names
    #[arg(long)]
    pub(crate) numeric_owner: bool,
    /// Remove what the archive does not have
    #[arg(long)]
    pub(crate) delete: bool,
    /// Make equal files hard links to one
    #[arg(long)]
    pub(crate) hardlinks: bool,
    /// Take immutable and append-only away from files and folders that are there and in the way
    #[arg(long)]
    pub(crate) undo_immutable: bool,
    /// Write zeros rather than leave holes
    #[arg(long)]
    pub(crate) no_sparse: bool,
    /// End with code 3 when something could not be restored
    #[arg(long)]
    pub(crate) strict: bool,
    /// Print what was done, to standard error
    #[arg(long)]
    pub(crate) print_stats: bool,
    #[command(flatten)]
    pub(crate) effort: Effort,
}

/// `list`
#[derive(Debug, Args)]
pub(crate) struct List {
    /// Archive (.catar), with -i its index (.caidx)
    pub(crate) input: String,
    /// Entry to list, with what is below it [default: all]
    pub(crate) path: Option<PathBuf>,
    /// The input is an index; its chunks are in the stores
    #[arg(short = 'i', long)]
    pub(crate) index: bool,
    /// Of a folder only its own entries
    #[arg(long)]
    pub(crate) flat: bool,
    /// Paths alone, as they are, each with a NUL behind it
    #[arg(short = '0', long)]
    pub(crate) null: bool,
    #[command(flatten)]
    pub(crate) sources: Sources,
}

/// `mtree`
#[derive(Debug, Args)]
pub(crate) struct Mtree {
    /// Archive (.catar), with -i its index (.caidx), or a folder; - for an archive on standard input
    pub(crate) input: String,
    /// The input is an index; its chunks are in the stores
    #[arg(short = 'i', long)]
    pub(crate) index: bool,
    #[command(flatten)]
    pub(crate) sources: Sources,
    #[command(flatten)]
    pub(crate) effort: Effort,
}

/// `pull`
#[derive(Debug, Args)]
pub(crate) struct Pull {
    /// Taken for casync's sake: -
    pub(crate) base: String,
    /// Archive to give, or -
    pub(crate) archive: String,
    /// Index to give, or -
    pub(crate) index: String,
    /// Stores of the chunks to give, asked in order, or -
    #[arg(required = true)]
    pub(crate) stores: Vec<String>,
    #[command(flatten)]
    pub(crate) access: Access,
}

/// `push`
#[derive(Debug, Args)]
pub(crate) struct Push {
    /// Taken for casync's sake: -
    pub(crate) base: String,
    /// Archive to write, or -
    pub(crate) archive: String,
    /// Index to write, or -
    pub(crate) index: String,
    /// Store of the chunks, or -; further ones are not written
    #[arg(required = true)]
    pub(crate) stores: Vec<String>,
    #[command(flatten)]
    pub(crate) writing: Writing,
    #[command(flatten)]
    pub(crate) access: Access,
}

/// What both servers take.
#[derive(Clone, Debug, Args)]
pub(crate) struct Listening {
    /// Address to listen on, host:port or :port; may be repeated [default: 127.0.0.1:8000]
    #[arg(short = 'l', long, value_name = "ADDRESS")]
    pub(crate) listen: Vec<String>,
    /// Take PUT
    #[arg(short = 'w', long, alias = "writeable")]
    pub(crate) writable: bool,
    /// PEM file with the server's certificate
    #[arg(long, value_name = "FILE", requires = "key")]
    pub(crate) cert: Option<PathBuf>,
    /// PEM file with the key of --cert
    #[arg(long, value_name = "FILE", requires = "cert")]
    pub(crate) key: Option<PathBuf>,
    /// Demand a client certificate
    #[arg(long, requires = "client_ca")]
    pub(crate) mutual_tls: bool,
    /// PEM file with the authority of client certificates
    #[arg(long, value_name = "FILE")]
    pub(crate) client_ca: Option<PathBuf>,
    /// The Authorization value, or bearer token, that requests must show
    #[arg(long, env = "DESYNC_HTTP_AUTH", hide_env_values = true, value_name = "VALUE")]
    pub(crate) authorization: Option<String>,
    /// File for a line per request; - for standard output
    #[arg(long, value_name = "FILE")]
    pub(crate) log: Option<PathBuf>,
}

/// `chunk-server`
#[derive(Debug, Args)]
pub(crate) struct ChunkServer {
    #[command(flatten)]
    pub(crate) sources: Sources,
    /// JSON file {"stores": [...], "cache": "..."} in place of -s and -c; read again on SIGHUP
    #[arg(long, value_name = "FILE", conflicts_with_all = ["stores", "cache"])]
    pub(crate) store_file: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) listening: Listening,
    /// Taken for desync's sake: both forms are always served, by path
    #[arg(short = 'u', long)]
    pub(crate) uncompressed: bool,
    /// Send and take chunks encrypted, however the store holds them; the key is --encryption-key or DESYNC_ENCRYPTION_KEY
    #[arg(long)]
    pub(crate) encryption: bool,
    /// 64 hex digits; turns --encryption on
    #[arg(long, value_name = "KEY")]
    pub(crate) encryption_key: Option<String>,
    /// xchacha20-poly1305 (default) or aes-256-gcm; turns --encryption on
    #[arg(long, value_name = "NAME")]
    pub(crate) encryption_algorithm: Option<String>,
    /// Taken for desync's sake
    #[arg(long, default_value_t = true, action = ArgAction::Set, num_args = 0..=1, default_missing_value = "true", value_name = "BOOL")]
    pub(crate) skip_verify_read: bool,
    /// Taken for desync's sake: what is written is always verified
    #[arg(long, default_value_t = true, action = ArgAction::Set, num_args = 0..=1, default_missing_value = "true", value_name = "BOOL")]
    pub(crate) skip_verify_write: bool,
}

/// What both mounts take.
#[derive(Clone, Debug, Args)]
pub(crate) struct Mounting {
    /// Let other users than yourself see the mount (needs user_allow_other in /etc/fuse.conf unless you are root)
    #[arg(long)]
    pub(crate) allow_other: bool,
    /// Bytes of decoded chunks kept in memory (suffixes K, M, G)
    #[arg(long, default_value = "128M", value_parser = sizes::bytes, value_name = "BYTES")]
    pub(crate) memory_limit: u64,
}

/// `mount`
#[derive(Debug, Args)]
pub(crate) struct Mount {
    /// Archive (.catar), or index of one (.caidx); - for an index on standard input
    pub(crate) source: String,
    /// Empty folder to mount on
    pub(crate) folder: PathBuf,
    #[command(flatten)]
    pub(crate) sources: Sources,
    /// JSON file {"stores": [...], "cache": "..."} in place of -s and -c; read again on SIGHUP
    #[arg(long, value_name = "FILE", conflicts_with_all = ["stores", "cache"])]
    pub(crate) store_file: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) mounting: Mounting,
}

/// `mount-index`
#[derive(Debug, Args)]
pub(crate) struct MountIndex {
    /// Index of the blob; - for standard input
    pub(crate) index: String,
    /// Empty folder to mount on
    pub(crate) folder: PathBuf,
    #[command(flatten)]
    pub(crate) sources: Sources,
    /// JSON file {"stores": [...], "cache": "..."} in place of -s and -c; read again on SIGHUP
    #[arg(long, value_name = "FILE", conflicts_with_all = ["stores", "cache"])]
    pub(crate) store_file: Option<PathBuf>,
    /// Sparse file that keeps what was read (copy on read)
    #[arg(long, value_name = "FILE")]
    pub(crate) cor_file: Option<PathBuf>,
    /// File for what --cor-file holds, written at the end and on SIGHUP, read at the start
    #[arg(long, value_name = "FILE", requires = "cor_file")]
    pub(crate) cor_state_save: Option<PathBuf>,
    /// State file whose chunks are fetched at the start, where there is no saved one
    #[arg(long, value_name = "FILE", requires = "cor_file")]
    pub(crate) cor_state_init: Option<PathBuf>,
    /// Threads that do so
    #[arg(long, default_value_t = 10, value_name = "N", requires = "cor_file")]
    pub(crate) cor_init_n: usize,
    /// Sparse file for what is written; makes the blob writable (copy on write). FILE.map beside it says what it holds
    #[arg(long, value_name = "FILE")]
    pub(crate) cow: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) mounting: Mounting,
}

/// `index-server`
#[derive(Debug, Args)]
pub(crate) struct IndexServer {
    /// Folder of indexes
    #[arg(short = 's', long, value_name = "DIR")]
    pub(crate) store: PathBuf,
    #[command(flatten)]
    pub(crate) listening: Listening,
}

/// `config`
#[derive(Debug, Args)]
pub(crate) struct ConfigArgs {
    /// Write it to the configuration file
    #[arg(short = 'w', long)]
    pub(crate) write: bool,
}

/// `completion`
#[derive(Debug, Args)]
pub(crate) struct Completion {
    /// The shell
    #[arg(value_enum)]
    pub(crate) shell: clap_complete::Shell,
}

/// `manpage`
#[derive(Debug, Args)]
pub(crate) struct Manpage {
    /// Folder for the pages
    pub(crate) folder: PathBuf,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_definitions_are_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn default_access_is_what_no_flags_give() {
        let cli = Cli::try_parse_from(["cairn", "list-chunks", "x"]).unwrap();
        let Verb::ListChunks(arguments) = cli.verb else {
            panic!("another verb")
        };
        assert_eq!(format!("{:?}", arguments.access), format!("{:?}", Access::default()));
    }
}
