//! Chunks at rest: one trait, one file a backend (`backend/`), one file a wrapper (`wrapper/`).
//!
//! The trait is blocking and batch-first: concurrency inside a store is the store's own business, callers hand over batches.
//! Not here: serving HTTP, buckets, users (other crates); deciding what may be deleted (`index`, later).

mod backend;
mod buffers;
#[cfg(test)]
mod contract;
mod error;
mod file;
mod index_store;
mod local;
mod location;
mod object;
mod open;
mod pack;
mod rate;
mod remote;
mod sealing;
#[cfg(any(test, feature = "sim"))]
pub mod sim;
mod verified;
mod wrapper;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use cairn_formats::{ChunkForm, ChunkId, EncodedChunk, StorableChunk};

pub use backend::bucket::gs::{GsConfigured, GsCredentials, GsOptions, GsToken};
pub use backend::bucket::input::ObjectInput;
pub use backend::bucket::s3::{S3Configured, S3Credentials, S3Keys, S3Options, S3Role, S3RoleSource};
pub use backend::flat::{FlatOptions, FlatStore, StoredChunk, SyncPolicy};
pub use backend::http::{Authorization, Cookie, HttpOptions, HttpStore, Proxy, PullOffers};
pub use backend::remote::packs::{Ownership, RemotePackOptions, RemotePacks};
pub use backend::remote::store::RemoteChunks;
pub use backend::sftp::SftpOptions;
pub use backend::ssh::{SshOptions, SshPush, SshPushed, SshStore};
pub use buffers::{Buffer, Buffers};
pub use error::{BoxError, Error, error_chain};

pub use index_store::IndexStore;
pub use local::LocalStore;
pub use location::{
    GsLocation, HttpLocation, LaterLocation, Location, LocationError, S3Location, S3Lookup, SshLocation,
};
pub use object::{IndexedObject, ObjectChunks, PAGE_LEN, PlainCache, RangeOptions, RangeReads, RangeStream};
pub use open::{
    MemberSpec, StoreOptions, StoreSpec, Together, open_chain, open_prunable, open_prunable_spec, open_store,
};
pub use pack::{
    Change, ChunkKey, ChunkPlace, CompactOptions, CompactReport, Damage, DamageKind, DenseLocations, Fate, Host,
    HostFile, Liveness, Locations, LogPosition, MemoryLocations, NewSnapshot, OpenReport, PLACES_FOLDER, PackEngine,
    PackHeads, PackOptions, PackScrub, PackStat, PackStore, RecompressOptions, RecompressReport, Restore,
    SNAPSHOT_PIECE_LEN, ScrubFile, ScrubMemory, ScrubOptions, ScrubReport, ScrubState, SnapshotStat, Suspect,
    Watermark,
};
pub use rate::RateLimit;
pub use remote::{RemoteKind, init_remote_packs, open_remote};
pub use sealing::Sealing;
pub use verified::VerifiedChunks;
pub use wrapper::cache::{CacheOptions, CacheStore};
pub use wrapper::chain::StoreChain;
pub use wrapper::group::FailoverGroup;
pub use wrapper::limit::LimitStore;
pub use wrapper::memory::MemoryCacheStore;
pub use wrapper::metrics::MetricsStore;
pub use wrapper::mirror::{Behind, MirrorOptions, MirrorStore};
pub use wrapper::verify::VerifyStore;

/// Result of a store operation.
pub type Result<T> = std::result::Result<T, Error>;

/// What people call a store: its location without secrets.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct StoreName(Arc<str>);

impl StoreName {
    /// A name for messages and metrics. The caller leaves passwords and tokens out.
    pub fn new(name: impl Into<Arc<str>>) -> Self {
        Self(name.into())
    }
}

impl fmt::Display for StoreName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A place that holds chunks by id. Every call may block; every operation is idempotent.
///
/// "Missing" is only ever a definite answer: a store that could not look answers with an error.
pub trait ChunkStore: Send + Sync + fmt::Debug {
    /// What people call it.
    fn name(&self) -> &StoreName;

    /// Which of these chunks are there, durable and visible; one answer per id, in order.
    fn has_many(&self, ids: &[ChunkId]) -> Result<Vec<bool>>;

    /// The stored bytes of these chunks, unverified; one answer per id, in order. The caller bounds the batch.
    fn get_many(&self, ids: &[ChunkId]) -> Vec<Result<EncodedChunk>>;

    /// Takes chunks. They are durable and visible once a later [`ChunkStore::flush`] has returned (a store may do it sooner).
    /// A chunk that is already there is left as it is.
    fn put_many(&self, chunks: &[StorableChunk]) -> Result<()>;

    /// Makes everything that was put before this call durable and visible. An error means: none of it may be relied on.
    fn flush(&self) -> Result<()>;

    /// Whether a chunk is there and, where the store can tell without reading it, how it is stored.
    ///
    /// - `form`: the form looked for first.
    fn stat(&self, id: ChunkId, _form: ChunkForm) -> Result<Option<ChunkStat>> {
        Ok(self.has_many(&[id])?[0].then_some(ChunkStat { stored: None }))
    }

    /// The stored bytes of a chunk in exactly this form, unverified, if they can be had without waiting for a disk or a
    /// network. `None` says nothing about the chunk: ask [`ChunkStore::get_many`].
    fn get_resident(&self, _id: ChunkId, _form: ChunkForm) -> Option<EncodedChunk> {
        None
    }

    /// Whether each call waits for a round trip, so that chunks are better asked for many at a time than soon.
    fn is_far(&self) -> bool {
        false
    }

    /// Moves a chunk aside that was found damaged, so that it is missing and can be put again. Its bytes are kept for whoever
    /// wants to know what happened to them.
    ///
    /// - `damaged`: what [`ChunkStore::get_many`] answered. The caller has made sure that it is not the chunk of its name.
    /// - Returns whether it was moved. A store may leave it: it holds other bytes by now, or is not its own to change.
    fn set_aside(&self, _damaged: &EncodedChunk) -> Result<bool> {
        Ok(false)
    }
}

/// What a store can tell of a chunk that it holds, without reading it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChunkStat {
    /// Form and length in bytes of the chunk as [`ChunkStore::get_many`] gives it (decrypted), where known.
    pub stored: Option<(ChunkForm, u64)>,
}

/// One-chunk conveniences.
pub trait ChunkStoreExt: ChunkStore {
    /// [`ChunkStore::has_many`] of one.
    fn has(&self, id: ChunkId) -> Result<bool> {
        Ok(self.has_many(&[id])?[0])
    }

    /// [`ChunkStore::get_many`] of one.
    fn get(&self, id: ChunkId) -> Result<EncodedChunk> {
        self.get_many(&[id]).pop().expect("one answer per id")
    }

    /// Those of the chunks that the store does not have, as [`ChunkStore::has_many`] answers; in their order.
    fn absent(&self, ids: &[ChunkId]) -> Result<Vec<ChunkId>> {
        let there = self.has_many(ids)?;
        Ok(ids
            .iter()
            .zip(there)
            .filter_map(|(&id, there)| (!there).then_some(id))
            .collect())
    }
}

impl<S: ChunkStore + ?Sized> ChunkStoreExt for S {}

/// Stores whose chunks can be counted and deleted.
pub trait Prune: ChunkStore {
    /// Calls `visit` for each chunk that is there, in no order, until it answers an error, which is returned.
    fn for_each_id(&self, visit: &mut dyn FnMut(ChunkId) -> Result<()>) -> Result<()>;

    /// Deletes chunks; those that are not there are passed over.
    fn remove_many(&self, ids: &[ChunkId]) -> Result<()>;

    /// Deletes temporary files that nobody has touched for `age`: what killed writers left, of this tool and of desync.
    ///
    /// Returns how many there were; none where writers leave nothing.
    fn remove_stale_temporaries(&self, _age: Duration) -> Result<u64> {
        Ok(0)
    }
}
