//! Verbs that mount.

use std::path::PathBuf;

use clap::builder::BoolishValueParser;
use clap::{ArgAction, Args};

use super::groups::ReloadableSources;
use crate::sizes;

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
    /// Empty folder to mount on; made if it is not there
    pub(crate) folder: PathBuf,
    /// Make the folder if it is not there
    #[arg(long, require_equals = true, default_value_t = true, action = ArgAction::Set, num_args = 0..=1, default_missing_value = "true", value_parser = BoolishValueParser::new(), value_name = "BOOL")]
    pub(crate) mkdir: bool,
    #[command(flatten)]
    pub(crate) sources: ReloadableSources,
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
    pub(crate) sources: ReloadableSources,
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
