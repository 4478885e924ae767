//! `store`: verbs of a store as a whole, be it packs or a file per chunk.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};

use super::groups::{Access, Effort, Storing};
use super::stores::Mending;
use crate::sizes;

const AFTER_HELP: &str = "\
A store in a folder is of one of two kinds. A flat one has a file per chunk, in casync's and desync's layout: every tool of that \
family reads and writes it. A pack store (`cairn store init`, and what cairnd keeps by default) has a few append-only files \
of up to 256 MiB: faster, smaller on disk, for cairn and cairnd alone. In a bucket or behind sftp:// it is a few objects of up \
to 64 MiB, at a two-hundredth of the requests. Every verb that takes a store takes either.

What only reads may run beside a server that has the packs open, and sees them as they are when it begins. What changes packs \
needs them for itself. Packs behind a network may be written by several at once, and have one who deletes.";

const COPY_HELP: &str = "\
Chunks that B has already are neither read nor sent, so that a copy that was stopped goes on where it was. Chunks are checked \
on the way and kept as they are; what was damaged in A does not get into B. Without --index A has to be a store that can be \
listed: a folder, s3+http(s)://, gs:// or sftp://.

Examples:
  cairn store copy /srv/castr /srv/packs --packs         a flat store into new packs
  cairn store copy /srv/packs /srv/castr                 and back
  cairn store copy --index usr.caibx https://chunks.example.org/store/ /srv/packs";

const GC_HELP: &str = "\
With indexes, every chunk that none of them names is deleted first, after a question (-y answers it). Then packs of which less \
than --live-share is still needed are written anew, and removed. May be run again after any stop. A pack store that a server \
has open is collected by `cairnd store gc`, with the server stopped.

Examples:
  cairn store gc /srv/packs --dry-run /srv/index/*.caibx   what would be deleted?
  cairn store gc /srv/packs -y /srv/index/*.caibx
  cairn store gc /srv/packs                                only give back what is deleted already";

/// `store`
#[derive(Debug, Args)]
#[command(after_long_help = AFTER_HELP)]
pub(crate) struct StoreArgs {
    #[command(subcommand)]
    pub(crate) verb: StoreVerb,
}

/// What is done with a store.
#[derive(Debug, Subcommand)]
pub(crate) enum StoreVerb {
    /// Make a folder, or a place behind a network, an empty pack store
    Init(StoreInit),
    /// Tell how much is in a store, and how much of its disk space is needed
    Stat(StoreStat),
    /// List the chunks of a store, or its packs
    Ls(StoreLs),
    /// Check every chunk against its name, and every pack against its footer
    Verify(StoreVerify),
    /// Copy chunks from any store into any other
    #[command(after_long_help = COPY_HELP)]
    Copy(StoreCopy),
    /// Give back the space of chunks that nothing needs
    #[command(after_long_help = GC_HELP)]
    Gc(StoreGc),
    /// Copy a store into a flat folder that every tool reads
    Export(StoreExport),
}

/// `store init`
#[derive(Debug, Args)]
pub(crate) struct StoreInit {
    /// Folder, place in a bucket (s3+http(s)://, gs://) or folder behind sftp://; made if it is not there, and has to be empty
    #[arg(value_name = "STORE")]
    pub(crate) store: String,
    /// What it becomes; a flat store needs no making
    #[arg(long, value_enum, default_value_t = StoreKind::Packs)]
    pub(crate) kind: StoreKind,
    #[command(flatten)]
    pub(crate) access: Access,
}

/// Kinds of stores that are made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum StoreKind {
    /// Many chunks a file
    Packs,
}

/// `store stat`
#[derive(Debug, Args)]
pub(crate) struct StoreStat {
    /// Store
    #[arg(value_name = "STORE")]
    pub(crate) store: String,
    /// Indexes: tell how much they are, repeats counted, and whether the store has all that they name
    #[arg(value_name = "INDEX")]
    pub(crate) indexes: Vec<String>,
    #[command(flatten)]
    pub(crate) access: Access,
}

/// `store ls`
#[derive(Debug, Args)]
pub(crate) struct StoreLs {
    /// Store
    #[arg(value_name = "STORE")]
    pub(crate) store: String,
    /// Packs instead of chunks: number, id, bytes, and what of them is needed
    #[arg(long)]
    pub(crate) packs: bool,
    #[command(flatten)]
    pub(crate) access: Access,
}

/// `store verify`
#[derive(Debug, Args)]
pub(crate) struct StoreVerify {
    /// Store: a folder, s3+http(s)://, gs:// or sftp://, or a mirror of such
    #[arg(value_name = "STORE")]
    pub(crate) store: String,
    #[command(flatten)]
    pub(crate) mending: Mending,
    #[command(flatten)]
    pub(crate) effort: Effort,
}

/// `store copy`
#[derive(Debug, Args)]
pub(crate) struct StoreCopy {
    /// Store to read
    #[arg(value_name = "A")]
    pub(crate) from: String,
    /// Store to write; a folder that is not there is made
    #[arg(value_name = "B")]
    pub(crate) to: String,
    /// Copy the chunks of this index, not all; may be repeated
    #[arg(long, value_name = "INDEX")]
    pub(crate) index: Vec<String>,
    /// Make B a pack store if it is not there, or empty
    #[arg(long)]
    pub(crate) packs: bool,
    /// Copy what can be copied, list what cannot, end with code 3
    #[arg(long)]
    pub(crate) keep_going: bool,
    /// Tell what would be copied, copy nothing
    #[arg(long)]
    pub(crate) dry_run: bool,
    #[command(flatten)]
    pub(crate) storing: Storing,
}

/// `store gc`
#[derive(Debug, Args)]
pub(crate) struct StoreGc {
    /// Store
    #[arg(value_name = "STORE")]
    pub(crate) store: String,
    /// Indexes whose chunks are kept; without any, nothing is deleted
    #[arg(value_name = "INDEX")]
    pub(crate) indexes: Vec<String>,
    /// Do not ask
    #[arg(short = 'y', long)]
    pub(crate) yes: bool,
    /// Tell what would be deleted, change nothing
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// Packs are written anew when less than this share of them is needed, 0 to 1
    #[arg(long, default_value = "0.5", value_parser = sizes::share, value_name = "SHARE")]
    pub(crate) live_share: f64,
    /// Compress packs anew at this zstd level, 1 to 22, where that makes them smaller; ids stay
    #[arg(long, value_name = "LEVEL", value_parser = clap::value_parser!(i32).range(1..=22))]
    pub(crate) recompress: Option<i32>,
    /// Bytes a second that are compressed anew; 0 for no limit
    #[arg(long, default_value = "0", value_parser = sizes::bytes, value_name = "BYTES", requires = "recompress")]
    pub(crate) recompress_rate: u64,
    /// Packs behind a network: take over from another collection, which is surely dead
    #[arg(long)]
    pub(crate) take_over: bool,
    #[command(flatten)]
    pub(crate) access: Access,
}

/// `store export`
#[derive(Debug, Args)]
pub(crate) struct StoreExport {
    /// Store to read
    #[arg(value_name = "STORE")]
    pub(crate) store: String,
    /// Flat folder to write, made if it is not there
    #[arg(value_name = "DIR")]
    pub(crate) folder: PathBuf,
    /// Leave out bad chunks, list them, end with code 3
    #[arg(long)]
    pub(crate) keep_going: bool,
    #[command(flatten)]
    pub(crate) effort: Effort,
    #[command(flatten)]
    pub(crate) access: Access,
}
