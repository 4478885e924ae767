//! Verbs of trees and archives.

use std::path::PathBuf;

use clap::builder::BoolishValueParser;
use clap::{ArgAction, Args, ValueEnum};

use super::groups::{Cutting, Effort, Sources, Storing};
use crate::sizes::{self, OwnerNumber};

/// Which of two encodings of trees.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum TreeFormat {
    /// A folder
    Disk,
    /// A tar file
    #[value(alias = "gnu-tar")]
    Tar,
}

/// What a tree is read from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum SourceFormat {
    /// A folder
    Disk,
    /// A tar file
    #[value(alias = "gnu-tar")]
    Tar,
    /// Lines of mtree(5); files' bytes are where `contents=` says, or at their paths beside the lines
    Mtree,
}

/// Whose archives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum ArchiveStyle {
    /// casync's: all that archives can keep
    Casync,
    /// desync's: mode, numeric owner, time, every extended attribute as it is
    Desync,
}

/// Owners that have other numbers on disk than in the archive.
#[derive(Clone, Debug, Args)]
pub(crate) struct Shifting {
    /// Owners' numbers begin here on disk and at 0 in the archive (yes: at 0 in both); names stay as they are
    #[arg(long, value_parser = sizes::owner_shift, value_name = "NUMBER|yes|no")]
    pub(crate) uid_shift: Option<OwnerNumber>,
    /// So many numbers are there, up to 4294967296; those above begin again at 0 [default with --uid-shift: 65536]
    #[arg(long, value_parser = sizes::owner_range, value_name = "COUNT|yes|no")]
    pub(crate) uid_range: Option<OwnerNumber>,
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
    #[arg(long, default_value_t = true, action = ArgAction::Set, num_args = 0..=1, default_missing_value = "true", value_parser = BoolishValueParser::new(), value_name = "BOOL")]
    pub(crate) exclude_file: bool,
    /// Leave out what has the attribute nodump
    #[arg(long, default_value_t = true, action = ArgAction::Set, num_args = 0..=1, default_missing_value = "true", value_parser = BoolishValueParser::new(), value_name = "BOOL")]
    pub(crate) exclude_nodump: bool,
}

/// `tar`
#[derive(Debug, Args)]
pub(crate) struct Tar {
    /// Archive (.catar) to write, with -i its index (.caidx); - for standard output
    pub(crate) output: String,
    /// Folder; with --input-format a tar file or lines of mtree(5), - for standard input
    pub(crate) source: PathBuf,
    /// Cut the archive into chunks, store them, write the index
    #[arg(short = 'i', long)]
    pub(crate) index: bool,
    /// Store for the chunks; without one only the index is made
    #[arg(short = 's', long, value_name = "STORE", requires = "index")]
    pub(crate) store: Option<String>,
    /// What the source is
    #[arg(long, value_enum, default_value_t = SourceFormat::Disk)]
    pub(crate) input_format: SourceFormat,
    /// Taken for desync's sake: a tar file without an entry for its root gets one anyway
    #[arg(long)]
    pub(crate) tar_add_root: bool,
    #[command(flatten)]
    pub(crate) keeping: Keeping,
    #[command(flatten)]
    pub(crate) shifting: Shifting,
    /// End with code 3 when something could not be kept as it is
    #[arg(long)]
    pub(crate) strict: bool,
    /// Print what was done, to standard error
    #[arg(long)]
    pub(crate) print_stats: bool,
    #[command(flatten)]
    pub(crate) cutting: Cutting,
    #[command(flatten)]
    pub(crate) storing: Storing,
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
    #[command(flatten)]
    pub(crate) shifting: Shifting,
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
    /// With no: as --flat
    #[arg(long, require_equals = true, default_value_t = true, action = ArgAction::Set, num_args = 0..=1, default_missing_value = "true", value_parser = BoolishValueParser::new(), value_name = "BOOL")]
    pub(crate) recursive: bool,
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
