//! The work behind the verbs: cutting, storing, rebuilding and checking blobs.
//!
//! Threads and bounded channels, no async; knows nothing of arguments, terminals or JSON. A caller hands in stores and options,
//! watches a [`Progress`] and gets a report or an [`Error`].

mod batch;
mod blob;
mod buffer;
mod copy;
mod deferred;
mod error;
mod extract;
mod fetch;
mod id_set;
mod make;
pub(crate) mod mount;
mod new_file;
mod plan;
mod position;
mod progress;
mod reflink;
pub(crate) mod remote;
mod reserve;
pub(crate) mod tree;
mod verify;

pub(crate) use blob::{BlobOptions, IndexedBlob};
pub(crate) use buffer::BufferPool;
pub(crate) use copy::{CopyOptions, CopyReport, copy};
pub(crate) use error::{Error, Result, file};
pub(crate) use extract::{ExtractOptions, ExtractReport, Seed, extract};
pub(crate) use fetch::{cat, for_each};
pub(crate) use id_set::{IdSet, IndexSpool};
pub(crate) use make::{MakeOptions, MakeReport, chop, make};
pub(crate) use new_file::{folder_of, name_file, new_file};
pub(crate) use plan::plan;
pub(crate) use progress::{Cancelled, Progress};
pub(crate) use reserve::Reserving;
pub(crate) use verify::{Repair, verify_blob, verify_store};

/// Worker threads when nobody says otherwise: one per core.
pub(crate) fn default_workers() -> usize {
    std::thread::available_parallelism().map_or(2, std::num::NonZero::get)
}

#[cfg(test)]
mod tests;
