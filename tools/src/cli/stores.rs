//! Verbs of a store's chunks: check, copy, delete, write anew.

use std::path::PathBuf;

use clap::Args;

use super::groups::{Access, Effort, Ignoring, Storing, Writing};

/// `verify`
#[derive(Clone, Debug, Args)]
pub(crate) struct Verify {
    /// Store to check: a folder, s3+http(s)://, gs:// or sftp://, or a mirror of such
    #[arg(short = 's', long, value_name = "STORE")]
    pub(crate) store: String,
    #[command(flatten)]
    pub(crate) mending: Mending,
    /// Let this desync check the store too, and say where the two disagree
    #[arg(long, value_name = "PROGRAM", conflicts_with = "repair")]
    pub(crate) with_desync: Option<PathBuf>,
    /// Taken for desync's sake: see --workers
    #[arg(short = 'n', long, value_name = "N")]
    pub(crate) concurrency: Option<usize>,
    #[command(flatten)]
    pub(crate) effort: Effort,
}

impl Verify {
    /// Threads, by either flag.
    pub(crate) fn workers(&self) -> usize {
        let mut effort = self.effort.clone();
        effort.workers = effort.workers.or(self.concurrency);
        effort.workers()
    }
}

/// What is done about bad chunks.
#[derive(Clone, Debug, Args)]
pub(crate) struct Mending {
    /// Remove bad chunks, or with --from put sound ones in their place
    #[arg(short = 'r', long)]
    pub(crate) repair: bool,
    /// Store that has sound chunks; may be repeated. A mirror's stores help each other without
    #[arg(long, value_name = "STORE", requires = "repair")]
    pub(crate) from: Vec<String>,
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
    pub(crate) storing: Storing,
}

/// `prune`
#[derive(Debug, Args)]
pub(crate) struct Prune {
    /// Indexes whose chunks are kept
    #[arg(required = true)]
    pub(crate) indexes: Vec<String>,
    /// Store to prune: a folder, s3+http(s)://, gs:// or sftp://
    #[arg(short = 's', long, value_name = "STORE")]
    pub(crate) store: String,
    /// Do not ask
    #[arg(short = 'y', long)]
    pub(crate) yes: bool,
    /// Tell what would be deleted, delete nothing
    #[arg(long)]
    pub(crate) dry_run: bool,
    #[command(flatten)]
    pub(crate) access: Access,
}

/// `convert`
#[derive(Debug, Args)]
pub(crate) struct Convert {
    /// Store to read: a folder, s3+http(s)://, gs:// or sftp://
    #[arg(short = 's', long, value_name = "STORE")]
    pub(crate) store: String,
    /// Store to write; in a folder, a chunk that is there already is left
    pub(crate) target: String,
    /// Leave out bad chunks, list them, end with code 3
    #[arg(long)]
    pub(crate) keep_going: bool,
    #[command(flatten)]
    pub(crate) writing: Writing,
    #[command(flatten)]
    pub(crate) effort: Effort,
}
