//! The pack store: chunks in a few append-only files, which are also the store's only log.
//!
//! Writers queue records; whoever flushes first writes and syncs what all have queued (group commit, `log.rs`), publishes the
//! places and lets the others go. A chunk is found once its record is durable. Opening reads the packs' footers, and records
//! one by one only in the pack that a crash left open (`recover.rs`). Deleting a chunk is a record too; space comes back when
//! `compact.rs` writes what is left of a pack anew and unlinks it.
//!
//! Invariants: a published place holds exactly the record that was acknowledged; a pack is never written again once it is
//! sealed; a file that is no pack of ours, or damaged, is left alone and told of. `store/DURABILITY.md` has the promises.
//! Not here: which chunks may be deleted (`index`), whether bytes are the chunk of their name beyond the check sum that their
//! place carries (`wrapper/verify.rs`).

pub(crate) mod bug;
mod compact;
mod contents;
mod dense;
mod heads;
mod host;
mod liveness;
mod locations;
mod log;
mod queue;
mod read;
mod recompress;
mod recover;
mod reserve;
mod scrub;
mod scrub_checks;
mod scrub_notes;
mod scrub_report;
#[cfg(test)]
mod scrub_tests;
mod snapshot;
#[cfg(test)]
mod tests;
mod usage;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, OnceLock, PoisonError, RwLock};
use std::time::Duration;

use bytes::Bytes;
use cairn_formats::{
    ChunkError, ChunkForm, ChunkId, DigestAlgorithm, DomainId, EncodedChunk, Level, PackUuid, Removal, StorableChunk,
};

use crate::{ChunkStat, ChunkStore, Error, Prune, Result, StoreName, SyncPolicy};
use log::Writer;
use queue::{Item, Queue};

pub use compact::{CompactOptions, CompactReport};
pub use contents::PackStat;
pub use dense::DenseLocations;
pub use heads::PackHeads;
pub use host::{Host, HostFile};
pub use liveness::Liveness;
pub use locations::{Change, ChunkKey, ChunkPlace, Locations, LogPosition, MemoryLocations, Watermark};
pub use recompress::{RecompressOptions, RecompressReport};
pub(crate) use recompress::{SAMPLE_CHUNKS, smaller_frame};
pub use recover::{OpenReport, PLACES_FOLDER, Suspect};
pub(crate) use scrub_checks::{end_of, fetch, head_is_right, proven, window};
pub use scrub_notes::{PackScrub, ScrubFile, ScrubMemory, ScrubState};
pub use scrub_report::{Damage, DamageKind, Fate, ScrubOptions, ScrubReport};
pub use snapshot::{NewSnapshot, Restore, SNAPSHOT_PIECE_LEN, SnapshotStat};

/// How a pack store is opened.
#[derive(Clone, Debug)]
pub struct PackOptions {
    /// The digest that names the chunks of new packs.
    pub algorithm: DigestAlgorithm,
    /// When what was put is acknowledged. Commits are always durable first.
    pub sync: SyncPolicy,
    /// A pack that has grown to this many bytes is sealed; one longer chunk has a pack of its own.
    pub pack_len: u64,
    /// Bytes of records that wait to be written before who puts more has to wait.
    pub queue_len: usize,
    /// Bytes between two wanted chunks that are read rather than beginning another read.
    pub read_gap: u64,
    /// Bytes read at once, unless one chunk is longer.
    pub read_len: u64,
    /// Only read: nothing is locked, sealed or mended.
    pub read_only: bool,
    /// Long writes go past the page cache: cheaper where much is written that is not read soon.
    pub direct: bool,
}

impl Default for PackOptions {
    fn default() -> Self {
        Self {
            algorithm: DigestAlgorithm::default(),
            sync: SyncPolicy::default(),
            pack_len: 256 << 20,
            queue_len: 16 << 20,
            read_gap: 64 << 10,
            read_len: 8 << 20,
            read_only: false,
            direct: false,
        }
    }
}

/// Time between syncs of a store whose puts are acknowledged before them ([`SyncPolicy::Batch`]).
const BATCH_TIME: Duration = Duration::from_millis(50);

/// Time after which a batch of the index that was acknowledged early ([`SyncPolicy::Batch`]) is synced by whoever writes.
const EARLY_TIME: Duration = Duration::from_secs(1);

/// Removals in one record.
const REMOVALS_MAX: usize = 1 << 16;

/// A pack store: one engine, shared by the domains whose chunks lie in it.
#[derive(Debug)]
pub struct PackEngine {
    name: StoreName,
    host: Arc<dyn Host>,
    options: PackOptions,
    locations: Arc<dyn Locations>,
    liveness: OnceLock<Arc<dyn Liveness>>,
    packs: Arc<Packs>,
    /// Grows when places that were found before may be wrong now.
    generation: AtomicU64,
    queue: Mutex<Queue>,
    settled: Condvar,
    /// Told when as many wait as are expected.
    gathered: Condvar,
    /// Nanoseconds that a sync of records took, at the least; 0: there was none yet.
    sync_least_ns: AtomicU64,
    writer: Mutex<Writer>,
    /// Where the log ended when something was written last.
    ended: Mutex<Option<LogPosition>>,
    /// Packs that are not compacted because damage was found in them.
    kept: Mutex<BTreeSet<PackUuid>>,
    snapshots: Mutex<snapshot::Snapshots>,
    /// Packs, by number, that hardly shrink at this level.
    tried: Mutex<HashMap<u32, Level>>,
}

/// The packs that are there, by number.
type Packs = RwLock<BTreeMap<u32, Arc<Pack>>>;

/// One file.
#[derive(Debug)]
struct Pack {
    number: u32,
    uuid: PackUuid,
    file: Arc<dyn HostFile>,
}

impl PackEngine {
    /// Makes batches of the index durable, in the order of the calls, after every chunk put before.
    ///
    /// Errors: as [`ChunkStore::flush`]. The batch may or may not be applied later.
    pub fn commit(&self, batch: Bytes) -> Result<()> {
        self.commit_as(batch, SyncPolicy::Sync)
    }

    /// [`PackEngine::commit`] of a batch that may be acknowledged before it is durable. It is applied when this returns, and after a
    /// power cut it is there only if all before it is.
    ///
    /// - `sync`: [`SyncPolicy::Batch`] is made durable by the next [`PackEngine::sync_early`], by what is written a second later, or
    ///   with whatever is synced before; [`SyncPolicy::None`] by the last alone.
    pub fn commit_as(&self, batch: Bytes, sync: SyncPolicy) -> Result<()> {
        let ticket = self.enqueue(vec![Item::commit(batch, sync)])?;
        self.settle(ticket)?;
        match sync {
            SyncPolicy::Sync => self.sync(),
            SyncPolicy::Batch | SyncPolicy::None => Ok(()),
        }
    }

    /// Makes all that was put durable, whatever the store's policy is.
    pub fn sync(&self) -> Result<()> {
        self.settle_all()?;
        self.sync_writer()
    }

    /// Takes chunks away from where they are; those that are elsewhere by now are left. Durable when this returns.
    pub fn remove_at(&self, chunks: &[(ChunkKey, ChunkPlace)]) -> Result<()> {
        self.writable()?;
        let mut ticket = 0;
        for chunks in chunks.chunks(REMOVALS_MAX) {
            let removals = chunks.iter().map(|(key, place)| removal(*key, place)).collect();
            ticket = self.enqueue(vec![Item::removals(removals)])?;
        }
        self.settle(ticket)?;
        self.generation.fetch_add(1, Ordering::Release);
        self.sync()
    }

    /// Changes when places that were found before may be wrong now: chunks were removed, or their packs.
    pub(crate) fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    /// Where this store keeps its places.
    pub fn locations(&self) -> &Arc<dyn Locations> {
        &self.locations
    }

    /// What people call it.
    pub fn name(&self) -> &StoreName {
        &self.name
    }

    fn writable(&self) -> Result<()> {
        if self.options.read_only {
            return Err(Error::ReadOnly {
                store: self.name.clone(),
            });
        }
        Ok(())
    }

    fn unavailable(&self, action: &'static str, source: io::Error) -> Error {
        Error::Unavailable {
            store: self.name.clone(),
            action,
            source: source.into(),
        }
    }

    fn pack(&self, number: u32) -> Option<Arc<Pack>> {
        let packs = self.packs.read().unwrap_or_else(PoisonError::into_inner);
        packs.get(&number).cloned()
    }
}

impl Drop for PackEngine {
    fn drop(&mut self) {
        self.close();
    }
}

fn removal(key: ChunkKey, place: &ChunkPlace) -> Removal {
    Removal {
        domain: key.domain,
        id: key.id,
        pack: place.pack,
        offset: place.offset,
    }
}

/// The chunks of one domain in a pack store.
#[derive(Clone, Debug)]
pub struct PackStore {
    engine: Arc<PackEngine>,
    domain: DomainId,
    pinned: bool,
    sync: SyncPolicy,
}

impl PackStore {
    /// Opens a folder of packs with its locations in memory, and makes it one if it is empty.
    ///
    /// Errors: [`Error::Refused`] when it holds something else, is of a later release, or is open elsewhere for writing;
    /// [`Error::Unavailable`] when it cannot be read.
    pub fn open(path: &Path, options: PackOptions) -> Result<(Self, OpenReport)> {
        let (engine, report) = PackEngine::open_folder(path, options, Arc::new(DenseLocations::default()))?;
        Ok((Self::new(Arc::new(engine), DomainId::default()), report))
    }

    /// Whether a folder holds a pack store.
    pub fn is_at(path: &Path) -> bool {
        path.join(recover::FORMAT_NAME).is_file()
    }

    /// The chunks of a domain.
    pub fn new(engine: Arc<PackEngine>, domain: DomainId) -> Self {
        Self {
            sync: engine.options.sync,
            engine,
            domain,
            pinned: false,
        }
    }

    /// The same, but what is put through it need not be durable before what names it is ([`PackEngine::commit_as`]): flushes of
    /// others and commits make it so.
    pub fn relaxed(self) -> Self {
        Self {
            sync: SyncPolicy::None,
            ..self
        }
    }

    /// The same, but what is put through it is kept even if no index names it.
    pub fn pinning(self) -> Self {
        Self { pinned: true, ..self }
    }

    /// The engine underneath.
    pub fn engine(&self) -> &Arc<PackEngine> {
        &self.engine
    }

    /// Whose chunks these are.
    pub fn domain(&self) -> DomainId {
        self.domain
    }

    fn key(&self, id: ChunkId) -> ChunkKey {
        ChunkKey {
            domain: self.domain,
            id,
        }
    }

    /// Where chunks are now.
    pub(crate) fn places(&self, ids: &[ChunkId]) -> Result<Vec<Option<ChunkPlace>>> {
        self.engine.places(&self.keys(ids))
    }

    /// Bytes of these chunks when they are plain, without reading them; `None`: it is not there. One answer per id, in order.
    pub fn plain_lens(&self, ids: &[ChunkId]) -> Result<Vec<Option<u32>>> {
        let places = self.places(ids)?;
        Ok(places.iter().map(|place| place.map(|place| place.plain_len)).collect())
    }

    /// Where chunks are whose being there may be told: what is condemned, or is not yet pinned as it should be, is to be sent
    /// again.
    fn relied_on(&self, keys: &[ChunkKey]) -> Result<Vec<Option<ChunkPlace>>> {
        let places = self.engine.find(keys)?;
        self.engine.relied_on(keys, places, self.pinned)
    }

    fn keys(&self, ids: &[ChunkId]) -> Vec<ChunkKey> {
        ids.iter().map(|&id| self.key(id)).collect()
    }
}

impl ChunkStore for PackStore {
    fn name(&self) -> &StoreName {
        &self.engine.name
    }

    fn has_many(&self, ids: &[ChunkId]) -> Result<Vec<bool>> {
        let places = self.relied_on(&self.keys(ids))?;
        Ok(places.iter().map(Option::is_some).collect())
    }

    fn get_many(&self, ids: &[ChunkId]) -> Vec<Result<EncodedChunk>> {
        let answers = self.engine.read_many(&self.keys(ids));
        let encoded = |(answer, &id): (Result<Bytes>, &ChunkId)| {
            let form = ChunkForm::Compressed;
            answer.map(|bytes| EncodedChunk { id, form, bytes })
        };
        answers.into_iter().zip(ids).map(encoded).collect()
    }

    fn put_many(&self, chunks: &[StorableChunk]) -> Result<()> {
        self.engine.put_many(self.domain, self.pinned, self.sync, chunks)
    }

    fn flush(&self) -> Result<()> {
        self.engine.settle_all()?;
        match self.sync {
            // Others may have put the same chunks, and not have waited for a sync.
            SyncPolicy::Sync => self.engine.sync_writer(),
            SyncPolicy::Batch | SyncPolicy::None => Ok(()),
        }
    }

    fn stat(&self, id: ChunkId, _form: ChunkForm) -> Result<Option<ChunkStat>> {
        if self.relied_on(&[self.key(id)])?[0].is_none() {
            return Ok(None);
        }
        let place = self.engine.places(&[self.key(id)])?[0];
        Ok(place.map(|place| ChunkStat {
            stored: Some((ChunkForm::Compressed, u64::from(place.len))),
        }))
    }

    fn get_resident(&self, id: ChunkId, form: ChunkForm) -> Option<EncodedChunk> {
        if form != ChunkForm::Compressed {
            return None;
        }
        let bytes = self.engine.read_resident(self.key(id))?;
        Some(EncodedChunk { id, form, bytes })
    }

    fn set_aside(&self, damaged: &EncodedChunk) -> Result<bool> {
        let key = self.key(damaged.id);
        // What is being moved is removed from where it arrives.
        self.engine.settle_all()?;
        let Some(place) = self.engine.places(&[key])?[0] else {
            return Ok(false);
        };
        let stored = self.engine.read_many(&[key]).pop().expect("one answer per key");
        match stored {
            Ok(bytes) if bytes == damaged.bytes => self.engine.remove_at(&[(key, place)]).map(|()| true),
            _ => Ok(false),
        }
    }
}

impl Prune for PackStore {
    fn for_each_id(&self, visit: &mut dyn FnMut(ChunkId) -> Result<()>) -> Result<()> {
        self.engine.for_each_in_order(&mut |key, _| {
            if key.domain == self.domain {
                visit(key.id)?;
            }
            Ok(())
        })
    }

    fn remove_many(&self, ids: &[ChunkId]) -> Result<()> {
        let keys = self.keys(ids);
        // As in `set_aside`.
        self.engine.settle_all()?;
        let places = self.engine.places(&keys)?;
        let there: Vec<_> = keys
            .into_iter()
            .zip(places)
            .filter_map(|(key, place)| Some((key, place?)))
            .collect();
        self.engine.remove_at(&there)
    }
}

/// A frame that is not what its place says.
fn checksum_error(name: &StoreName, id: ChunkId) -> Error {
    Error::Corrupt {
        store: name.clone(),
        source: ChunkError::Checksum { id },
    }
}
