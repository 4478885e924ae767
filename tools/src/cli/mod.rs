//! What can be written on the command line. Flags have desync's names and meanings; the table in `docs/cli.md` tells where
//! they differ, and a test keeps it in step.
//!
//! A verb's arguments are one struct, in the file of its topic. What several verbs take is a group in `groups.rs`, flattened
//! where its flags stand in the help. Not here: what the flags do (`verbs/`).

mod about;
mod admin;
mod blobs;
mod groups;
mod mounts;
mod remote;
mod servers;
mod sign;
mod store;
mod stores;
mod trees;

use std::path::PathBuf;

use cairn_formats::DigestAlgorithm;
use clap::{Args, Parser, Subcommand, ValueEnum};

pub(crate) use about::{Completion, ConfigArgs, Manpage};
pub(crate) use admin::{
    BucketArgs, BucketVerb, KeyArgs, KeyVerb, ObjectArgs, ObjectVerb, Reaching, Search, TenantArgs, TenantVerb,
};
pub(crate) use blobs::{
    Cat, Chop, Chunk, Diff, Extract, Info, InfoFormat, InspectChunks, ListChunks, Make, VerifyIndex,
};
pub(crate) use groups::{
    Access, Cached, Cutting, Effort, Ignoring, ReloadableSources, Seeding, Sources, Storing, SyncName, Writing,
};
pub(crate) use mounts::{Mount, MountIndex, Mounting};
pub(crate) use remote::{Pull, Push};
pub(crate) use servers::{ChunkServer, IndexServer, Listening};
pub(crate) use sign::Sign;
pub(crate) use store::{
    StoreArgs, StoreCopy, StoreExport, StoreGc, StoreInit, StoreKind, StoreLs, StoreStat, StoreVerb, StoreVerify,
};
pub(crate) use stores::{CacheArgs, Convert, Prune, Verify};
pub(crate) use trees::{ArchiveStyle, Keeping, List, Mtree, Shifting, SourceFormat, Tar, TreeFormat, Untar};

const AFTER_HELP: &str = "\
Stores: a folder, http(s)://host/path/, s3+http(s)://host/bucket/prefix, gs://bucket/prefix, sftp://user@host/path, ssh://user@host/path, or \
several joined by `|` (the next is asked when one fails). With several -s the next is asked for chunks that the ones before \
do not have. An index is a file, such a URL, or - for standard input or output.

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
    /// Bytes a second that `pull` sends and `push` takes at most, as casync passes it on
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
    /// Look into, check, copy and collect a store as a whole
    Store(StoreArgs),
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
    /// Make, set, list and delete buckets of a running cairnd
    Bucket(BucketArgs),
    /// Compare and restore versions of a running cairnd's objects, find objects
    Object(ObjectArgs),
    /// Make, list and revoke access keys of a running cairnd
    Key(KeyArgs),
    /// List tenants of a running cairnd
    Tenant(TenantArgs),
    /// Sign a link to objects at the CDN's door of a cairnd
    Sign(Sign),
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
