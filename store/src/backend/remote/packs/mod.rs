//! Packs in a bucket or behind SFTP: many chunks a file, so that a store costs few requests.
//!
//! `<place>/FORMAT` says what it is, `<place>/packs/` holds sealed packs of the same bytes as local ones (`pack/`) under names
//! that are never used twice, and lists of chunks that no longer count. Opening lists and reads the packs' ends (`open.rs`,
//! `footers.rs`), and keeps in memory where each chunk lies (`known.rs`). Chunks gather in memory until a pack is full or
//! flushed (`write.rs`); they are read through pieces of packs (`read.rs`, `slabs.rs`). Several may write at once; one alone
//! deletes (`lease.rs`, `collect.rs`, `scrub.rs`).
//!
//! Invariants: nothing has a pack's name before it is whole; a pack is never changed; what is damaged, foreign or newer is told
//! of, left where it is, and never served. Not here: proving chunks beyond their check sums (the reader's), which may go.

mod collect;
mod contents;
mod files;
mod footers;
mod kind;
mod known;
mod lease;
mod names;
mod open;
mod read;
mod scrub;
#[cfg(test)]
mod scrub_tests;
mod slabs;
#[cfg(test)]
mod tests;
mod write;

use std::fmt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::{Duration, Instant};

use cairn_formats::{ChunkForm, ChunkId, DigestAlgorithm, EncodedChunk, StorableChunk};

use super::patience::Patience;
use super::workers::Workers;
use crate::pack::{
    ChunkKey, ChunkPlace, CompactReport, PackStat, RecompressOptions, RecompressReport, ScrubOptions, ScrubReport,
    ScrubState, Suspect,
};
use crate::{ChunkStat, ChunkStore, Error, Prune, Result, StoreName};
use footers::Footers;
use known::Known;
use lease::Lease;
use slabs::Slabs;
use write::Writing;

pub(crate) use files::{FOLDER, PackFiles};
pub(crate) use kind::AsItIs;
pub use lease::Ownership;

/// How remote packs are written and kept at hand.
#[derive(Clone, Debug)]
pub struct RemotePackOptions {
    /// A pack grows to at most so many bytes; one longer chunk has a pack of its own. Up to three are in memory.
    pub pack_len: u64,
    /// Longer packs are sent in parts of at most so many bytes, where the server has a way to; less than 10 MiB counts as that.
    pub part_len: usize,
    /// Bytes of packs kept in memory for reading.
    pub memory_len: usize,
    /// A folder of this machine for the packs' footers, and for pieces of packs.
    pub cache: Option<PathBuf>,
    /// Bytes of pieces of packs kept in that folder; 0: none.
    pub cache_len: u64,
}

impl Default for RemotePackOptions {
    fn default() -> Self {
        Self {
            pack_len: 64 << 20,
            part_len: 32 << 20,
            memory_len: 128 << 20,
            cache: None,
            cache_len: 0,
        }
    }
}

/// A listing of this age is made anew before a chunk is said to be missing.
const LISTING_AGE: Duration = Duration::from_secs(5);

/// A store of packs behind a network, beyond its chunks.
pub trait RemotePacks: Prune {
    /// The packs in figures; they have no order, and are numbered as they were found.
    fn pack_stats(&self) -> Result<Vec<PackStat>>;

    /// Visits every chunk in the order in which they lie, until an error, which is returned.
    fn for_each_in_order(&self, visit: &mut dyn FnMut(ChunkKey, ChunkPlace) -> Result<()>) -> Result<()>;

    /// What is not whole and was not opened.
    fn suspects(&self) -> Vec<Suspect>;

    /// Reads all packs whose time has come, the one longest unread first, and settles what is damaged, as
    /// [`PackEngine::scrub`](crate::PackEngine::scrub) does; passes note whole packs alone. May run beside readers and writers.
    ///
    /// - Errors: [`Error::Unavailable`] when the far end does not answer, [`Error::Refused`] when there is something to mend while
    ///   somebody else owns the store. Damage is no error.
    fn scrub(
        &self,
        options: &ScrubOptions,
        sources: &[Arc<dyn ChunkStore>],
        state: &dyn ScrubState,
        go_on: &mut dyn FnMut(u64) -> bool,
    ) -> Result<ScrubReport>;

    /// Writes what counts of mostly dead packs anew, small packs together, then deletes those packs. May run beside readers and
    /// writers; can be run again after any error.
    ///
    /// - `live_share_min`: packs of which less than this share counts, 0 to 1.
    /// - Errors: [`Error::Refused`] while somebody else owns the store.
    fn compact(&self, live_share_min: f64) -> Result<CompactReport>;

    /// Writes packs anew with smaller frames, as [`PackEngine::recompress`](crate::PackEngine::recompress) does; there are no newest
    /// packs, and none is kept for an index.
    ///
    /// - Errors: [`Error::Refused`] while somebody else owns the store.
    fn recompress(
        &self,
        options: &RecompressOptions,
        pace: &mut dyn FnMut(u64) -> Result<()>,
    ) -> Result<RecompressReport>;

    /// Makes this the only one who may delete, until the value is dropped.
    ///
    /// - `take_over`: from somebody who is known to be dead.
    /// - Errors: [`Error::Refused`] while somebody else is.
    fn own(&self, take_over: bool) -> Result<Ownership<'_>>;
}

/// Packs on named files.
pub(crate) struct RemotePackStore<F> {
    shared: Arc<Shared<F>>,
    workers: Arc<Workers>,
    options: RemotePackOptions,
    algorithm: DigestAlgorithm,
    read_only: bool,
    writing: Writing,
    lease: Mutex<Lease>,
    /// Held by who deletes or moves chunks.
    deleting: Mutex<()>,
    /// Held while a listing is made; when the last one was.
    listed: Mutex<Option<Instant>>,
}

/// What requests under way need.
struct Shared<F> {
    name: StoreName,
    files: Arc<F>,
    patience: Patience,
    known: RwLock<Known>,
    slabs: Slabs,
    footers: Option<Footers>,
}

impl<F> Shared<F> {
    fn known(&self) -> RwLockReadGuard<'_, Known> {
        self.known.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn known_mut(&self) -> RwLockWriteGuard<'_, Known> {
        self.known.write().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<F: PackFiles> RemotePackStore<F> {
    fn writable(&self) -> Result<()> {
        if self.read_only {
            return Err(Error::ReadOnly {
                store: self.shared.name.clone(),
            });
        }
        Ok(())
    }
}

impl<F: PackFiles> ChunkStore for RemotePackStore<F> {
    fn name(&self) -> &StoreName {
        &self.shared.name
    }

    fn has_many(&self, ids: &[ChunkId]) -> Result<Vec<bool>> {
        let look = || -> (Vec<bool>, u64) {
            let known = self.shared.known();
            (ids.iter().map(|&id| known.place(id).is_some()).collect(), known.losses)
        };
        let (mut has, mut losses) = look();
        // Who writes would ask for what is new all the time; to whom others' packs are unknown sends a chunk once more.
        if self.read_only && has.contains(&false) && self.refresh_if_older("look for a chunk", LISTING_AGE)? {
            (has, losses) = look();
        }
        if has.contains(&true) {
            self.rely(losses);
        }
        Ok(has)
    }

    fn get_many(&self, ids: &[ChunkId]) -> Vec<Result<EncodedChunk>> {
        self.read_many(ids)
    }

    fn put_many(&self, chunks: &[StorableChunk]) -> Result<()> {
        self.put(chunks)
    }

    fn flush(&self) -> Result<()> {
        self.settle()
    }

    fn stat(&self, id: ChunkId, _form: ChunkForm) -> Result<Option<ChunkStat>> {
        let mut place = self.shared.known().place(id);
        if place.is_none() && self.refresh_if_older("look for a chunk", LISTING_AGE)? {
            place = self.shared.known().place(id);
        }
        Ok(place.map(|place| ChunkStat {
            stored: Some((ChunkForm::Compressed, u64::from(place.len))),
        }))
    }

    fn get_resident(&self, id: ChunkId, form: ChunkForm) -> Option<EncodedChunk> {
        if form != ChunkForm::Compressed {
            return None;
        }
        let bytes = self.read_resident(id)?;
        Some(EncodedChunk { id, form, bytes })
    }

    fn set_aside(&self, damaged: &EncodedChunk) -> Result<bool> {
        if self.read_only {
            return Ok(false);
        }
        match self.read_many(&[damaged.id]).pop() {
            Some(Ok(there)) if there.bytes == damaged.bytes => self.take_away(&[damaged.id]).map(|()| true),
            _ => Ok(false),
        }
    }
}

impl<F> fmt::Debug for RemotePackStore<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RemotePackStore")
            .field("name", &self.shared.name)
            .field("options", &self.options)
            .finish_non_exhaustive()
    }
}

/// The same failure, told to somebody else.
fn again(error: &Error) -> Error {
    let words = |source: &crate::BoxError| {
        let mut words = source.to_string();
        let mut cause = source.source();
        while let Some(error) = cause {
            words = format!("{words}: {error}");
            cause = error.source();
        }
        words
    };
    match error {
        Error::Refused { store, action, source } => Error::Refused {
            store: store.clone(),
            action,
            source: words(source).into(),
        },
        Error::Unavailable { store, action, source } => Error::Unavailable {
            store: store.clone(),
            action,
            source: words(source).into(),
        },
        Error::ReadOnly { store } => Error::ReadOnly { store: store.clone() },
        Error::Missing { store, .. } | Error::NoIndex { store } | Error::Corrupt { store, .. } => Error::Unavailable {
            store: store.clone(),
            action: "read a chunk",
            source: error.to_string().into(),
        },
    }
}
