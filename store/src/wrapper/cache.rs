//! A local folder in front of other stores: what was read once is read from there.
//!
//! With a limit the least recently used chunks are deleted when it is passed, by at most one batch. How recent a chunk is
//! survives in its file's modification time, which a hit brings up to date at most once a day. The folder is an ordinary flat
//! store: other tools may read it. It is a cache, so nothing in it is synced; what a power cut tears is found by its digest.

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use cairn_formats::{CHUNK_LEN_MAX, ChunkForm, ChunkId, DigestAlgorithm, EncodedChunk, StorableChunk};

use crate::{ChunkStat, ChunkStore, Error, FlatOptions, FlatStore, Prune as _, Result, StoreName, SyncPolicy};

/// A hit on a chunk whose time is older than this renews it.
const RENEW_AFTER: Duration = Duration::from_secs(24 * 60 * 60);

/// How a cache behaves.
#[derive(Clone, Copy, Debug)]
pub struct CacheOptions {
    /// Most stored bytes it may hold; `None` for no limit.
    pub bytes_max: Option<u64>,
    /// Look at what the cache holds before it is used, and fetch what is damaged again. Otherwise the caller finds it.
    pub repair: bool,
    /// What names the chunks.
    pub digest: DigestAlgorithm,
}

/// Stores behind a local folder.
#[derive(Debug)]
pub struct CacheStore {
    name: StoreName,
    inner: Arc<dyn ChunkStore>,
    folder: PathBuf,
    flat: FlatStore,
    options: CacheOptions,
    used: Option<Mutex<Used>>,
}

/// What a limited cache holds, the least recently used first.
#[derive(Debug, Default)]
struct Used {
    bytes: u64,
    next: u64,
    by_age: BTreeMap<u64, ChunkId>,
    chunks: HashMap<ChunkId, Entry>,
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    age: u64,
    len: u64,
    renewed: SystemTime,
}

impl CacheStore {
    /// Opens the folder, which must exist. With a limit, what it holds is listed once.
    ///
    /// Errors: [`Error::Refused`] when it is not a folder that can be read.
    pub fn open(inner: Arc<dyn ChunkStore>, folder: &Path, options: CacheOptions) -> Result<Self> {
        let flat = FlatStore::open(
            folder,
            FlatOptions {
                sync: SyncPolicy::None,
                ..FlatOptions::default()
            },
        )?;
        let name = StoreName::new(format!("{} (cached in {})", inner.name(), flat.name()));
        let mut cache = Self {
            name,
            inner,
            folder: folder.to_owned(),
            flat,
            options,
            used: None,
        };
        if options.bytes_max.is_some() {
            cache.used = Some(Mutex::new(cache.list()?));
            cache.evict()?;
        }
        Ok(cache)
    }

    fn list(&self) -> Result<Used> {
        let mut found = Vec::new();
        self.flat.for_each_file(&mut |chunk| {
            // A file that went away meanwhile is not there.
            if let Ok(meta) = fs::metadata(self.path(chunk.id, chunk.form)) {
                let renewed = meta.modified().unwrap_or(SystemTime::UNIX_EPOCH);
                found.push((renewed, chunk.id, meta.size()));
            }
            Ok(())
        })?;
        found.sort_unstable();
        let mut used = Used::default();
        for (renewed, id, len) in found {
            used.add(id, len, renewed);
        }
        Ok(used)
    }

    fn path(&self, id: ChunkId, form: ChunkForm) -> PathBuf {
        let hex = id.to_string();
        let ending = if form == ChunkForm::Compressed { ".cacnk" } else { "" };
        self.folder.join(&hex[..4]).join(format!("{hex}{ending}"))
    }

    /// The sound chunks of the cache; the places of the others.
    fn look(&self, ids: &[ChunkId]) -> Result<(Vec<Option<EncodedChunk>>, Vec<usize>)> {
        let mut found = Vec::with_capacity(ids.len());
        for chunk in self.flat.get_many(ids) {
            found.push(match chunk {
                Ok(chunk) => Some(chunk),
                Err(Error::Missing { .. }) => None,
                Err(error) => return Err(error),
            });
        }
        if self.options.repair {
            let held: Vec<EncodedChunk> = found.iter().flatten().cloned().collect();
            let mut opened = EncodedChunk::open_many(&held, self.options.digest, CHUNK_LEN_MAX).into_iter();
            let mut bad = Vec::new();
            for chunk in &mut found {
                if chunk.is_some() && opened.next().is_some_and(|opened| opened.is_err()) {
                    bad.extend(chunk.take().map(|chunk| chunk.id));
                }
            }
            self.forget(&bad)?;
        }
        let missing = (0..ids.len()).filter(|&at| found[at].is_none()).collect();
        Ok((found, missing))
    }

    fn forget(&self, ids: &[ChunkId]) -> Result<()> {
        if let Some(mut used) = self.used() {
            ids.iter().for_each(|&id| used.remove(id));
        }
        self.flat.remove_many(ids)
    }

    /// Keeps what was fetched, once it is proven.
    fn keep(&self, fetched: &[EncodedChunk]) -> Result<()> {
        let mut storable: Vec<StorableChunk> = Vec::with_capacity(fetched.len());
        for chunk in fetched {
            // What does not prove right is the caller's to refuse; it is not kept.
            storable.extend(chunk.clone().verify(self.options.digest, CHUNK_LEN_MAX).ok());
        }
        self.flat.put_many(&storable)?;
        if let Some(mut used) = self.used() {
            let now = SystemTime::now();
            storable
                .iter()
                .for_each(|chunk| used.add(chunk.id(), chunk.bytes().len() as u64, now));
        }
        self.evict()
    }

    fn hit(&self, chunks: &[Option<EncodedChunk>]) {
        let Some(mut used) = self.used() else { return };
        let now = SystemTime::now();
        for chunk in chunks.iter().flatten() {
            let Some(entry) = used.chunks.get(&chunk.id).copied() else {
                continue;
            };
            let stale = now.duration_since(entry.renewed).is_ok_and(|age| age > RENEW_AFTER);
            used.add(chunk.id, entry.len, if stale { now } else { entry.renewed });
            if stale {
                // Only the order after a restart depends on it.
                let opened = fs::File::open(self.path(chunk.id, chunk.form));
                let _ = opened.and_then(|file| file.set_modified(now));
            }
        }
    }

    fn evict(&self) -> Result<()> {
        let (Some(mut used), Some(limit)) = (self.used(), self.options.bytes_max) else {
            return Ok(());
        };
        let mut evicted = Vec::new();
        while used.bytes > limit {
            let Some((_, &oldest)) = used.by_age.first_key_value() else {
                break;
            };
            used.remove(oldest);
            evicted.push(oldest);
        }
        drop(used);
        self.flat.remove_many(&evicted)
    }

    fn used(&self) -> Option<MutexGuard<'_, Used>> {
        self.used
            .as_ref()
            .map(|used| used.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Used {
    /// Makes a chunk the most recent one.
    fn add(&mut self, id: ChunkId, len: u64, renewed: SystemTime) {
        self.remove(id);
        self.next += 1;
        self.by_age.insert(self.next, id);
        self.chunks.insert(
            id,
            Entry {
                age: self.next,
                len,
                renewed,
            },
        );
        self.bytes += len;
    }

    fn remove(&mut self, id: ChunkId) {
        if let Some(entry) = self.chunks.remove(&id) {
            self.by_age.remove(&entry.age);
            self.bytes -= entry.len;
        }
    }
}

#[deny(clippy::missing_trait_methods)]
impl ChunkStore for CacheStore {
    fn name(&self) -> &StoreName {
        &self.name
    }

    fn has_many(&self, ids: &[ChunkId]) -> Result<Vec<bool>> {
        let mut present = self.flat.has_many(ids)?;
        let unknown: Vec<ChunkId> = ids
            .iter()
            .zip(&present)
            .filter(|(_, present)| !**present)
            .map(|(&id, _)| id)
            .collect();
        if !unknown.is_empty() {
            let mut answers = self.inner.has_many(&unknown)?.into_iter();
            present
                .iter_mut()
                .filter(|present| !**present)
                .for_each(|present| *present = answers.next() == Some(true));
        }
        Ok(present)
    }

    fn get_many(&self, ids: &[ChunkId]) -> Vec<Result<EncodedChunk>> {
        // A cache that fails is passed by: the stores behind it have the chunks.
        let (mut found, missing) = self
            .look(ids)
            .unwrap_or_else(|_| (vec![None; ids.len()], (0..ids.len()).collect()));
        self.hit(&found);
        metrics::counter!("cache_requests_total", "cache" => "chunks", "result" => "hit")
            .increment((ids.len() - missing.len()) as u64);
        let mut errors: HashMap<usize, Error> = HashMap::new();
        if !missing.is_empty() {
            metrics::counter!("cache_requests_total", "cache" => "chunks", "result" => "miss")
                .increment(missing.len() as u64);
            let wanted: Vec<ChunkId> = missing.iter().map(|&at| ids[at]).collect();
            let mut fetched = Vec::new();
            for (at, chunk) in missing.into_iter().zip(self.inner.get_many(&wanted)) {
                match chunk {
                    Ok(chunk) => {
                        fetched.push(chunk.clone());
                        found[at] = Some(chunk);
                    }
                    Err(error) => {
                        errors.insert(at, error);
                    }
                }
            }
            // Likewise a cache that cannot keep anything more (a full disk) does not stop the work.
            if let Err(error) = self.keep(&fetched) {
                metrics::counter!("store_errors_total", "backend" => "cache", "op" => "put", "class" => "unavailable")
                    .increment(1);
                drop(error);
            }
        }
        found
            .into_iter()
            .enumerate()
            .map(|(at, chunk)| match (chunk, errors.remove(&at)) {
                (Some(chunk), _) => Ok(chunk),
                (None, Some(error)) => Err(error),
                (None, None) => Err(Error::Missing {
                    id: ids[at],
                    store: self.name.clone(),
                }),
            })
            .collect()
    }

    fn put_many(&self, chunks: &[StorableChunk]) -> Result<()> {
        self.inner.put_many(chunks)
    }

    fn flush(&self) -> Result<()> {
        self.inner.flush()
    }

    fn stat(&self, id: ChunkId, form: ChunkForm) -> Result<Option<ChunkStat>> {
        match self.flat.stat(id, form)? {
            Some(stat) => Ok(Some(stat)),
            None => self.inner.stat(id, form),
        }
    }

    fn get_resident(&self, id: ChunkId, form: ChunkForm) -> Option<EncodedChunk> {
        // A limited cache has to see its hits, and one that repairs has to look: both may wait.
        if self.used.is_some() || self.options.repair {
            None
        } else {
            self.flat.get_resident(id, form)
        }
    }

    fn is_far(&self) -> bool {
        self.inner.is_far()
    }

    fn set_aside(&self, damaged: &EncodedChunk) -> Result<bool> {
        Ok(self.flat.set_aside(damaged)? || self.inner.set_aside(damaged)?)
    }
}
