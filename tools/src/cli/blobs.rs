//! Verbs of one blob and its index: cut it, rebuild it, check it, tell about it.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

use super::groups::{Access, Cutting, Effort, Ignoring, Seeding, Sources, Storing};

/// `make`
#[derive(Debug, Args)]
pub(crate) struct Make {
    /// Index to write; - for standard output
    pub(crate) index: String,
    /// File or device to cut; - for standard input; s3+http(s):// or gs:// for an object of a bucket
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
    pub(crate) storing: Storing,
}

/// `chop`
#[derive(Debug, Args)]
pub(crate) struct Chop {
    /// Index that names the chunks
    pub(crate) index: String,
    /// Blob that holds them; - for standard input; s3+http(s):// or gs:// for an object of a bucket
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
    pub(crate) storing: Storing,
}

/// `chunk`
#[derive(Debug, Args)]
pub(crate) struct Chunk {
    /// File or device; - for standard input; s3+http(s):// or gs:// for an object of a bucket
    pub(crate) input: PathBuf,
    /// Byte to start at
    #[arg(short = 'S', long, default_value_t = 0, value_name = "OFFSET")]
    pub(crate) start: u64,
    #[command(flatten)]
    pub(crate) cutting: Cutting,
    #[command(flatten)]
    pub(crate) effort: Effort,
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
