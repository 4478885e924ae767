//! Trees on disk and their archives: reading a folder as an archive, and putting an archive back on disk.
//!
//! Everything happens below open folder handles, no link is ever followed inside a tree, and what a file system cannot take or
//! give is a note that names the entry.

mod acl;
mod apply;
mod archive_reader;
mod contents;
mod exclude;
mod features;
mod from_mtree;
mod from_tar;
mod links;
mod metadata;
mod note;
mod owner_shift;
mod random;
mod remove;
mod restore;
mod seed;
mod shown;
mod system;
mod to_tar;
mod unpack;
mod walk;

pub(crate) use archive_reader::TreeSource;
pub(crate) use from_mtree::MtreeTree;
pub(crate) use from_tar::TarReader;
pub(crate) use note::Notes;
pub(crate) use owner_shift::OwnerShift;
pub(crate) use random::{ArchiveSource, Lookup, find, lookup};
pub(crate) use restore::{RestoreOptions, Restorer};
pub(crate) use seed::{SeedPlan, SeedStore};
pub(crate) use shown::Shown;
pub(crate) use to_tar::TarWriter;
pub(crate) use unpack::{TreeSink, Unpacker};
pub(crate) use walk::{TreeReader, WalkOptions};

/// Lets this process have as many files open as it may: trees keep one handle for each folder that is open, and the usual limit is
/// half of the depth that archives may have.
pub(crate) fn raise_handle_limit() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    // Where it may not, deep trees end in an error that names the folder.
    let _ = setrlimit(
        Resource::Nofile,
        Rlimit {
            current: limit.maximum,
            ..limit
        },
    );
}
