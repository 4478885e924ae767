//! What indexes keep alive: the manifests of a rooted store are its index files.
//!
//! An index that is put has its manifest committed, with the collector's fence, before its file gets its name; one that is
//! taken away loses its manifest after its file. A manifest's name is the store's, the index's, and the digest of the file, so
//! that between two moments at which a name changes both its files are kept. [`Keeper::reconcile`] puts right what a crash, or
//! somebody who copied or removed files by hand, has left: it runs before each collection. Not here: when that is (`care.rs`).

use std::collections::HashMap;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use cairn_formats::{ChunkId, ChunkIndex, DigestAlgorithm, DomainId};
use cairn_index::{
    Database, Fence, Manifest, ManifestChunk, NewManifest, Published, RocksEngine, Settled, Tenant, drop_manifest,
    manifest, manifests_named,
};
use cairn_roots::{IndexKeeper, KeepError};
use cairn_store::{ChunkStore, ChunkStoreExt as _};

use crate::routes::chain;

/// Chunks looked up, and written to a manifest, together.
const BATCH_CHUNKS: usize = 4096;
/// Names that are worked on at once never wait for each other if they fall on different ones of these.
const TURNS: usize = 64;
/// Seconds after which a manifest that was begun and not committed is taken for left behind.
const PENDING_SECONDS: u64 = 24 * 60 * 60;
const TAG_LEN: usize = 32;

/// The rows of a folder of packs.
pub(crate) type Rows = Database<RocksEngine>;

/// Keeps what the indexes of one store name.
#[derive(Debug)]
pub(crate) struct Keeper {
    /// Begins the names of its manifests.
    store: String,
    folder: PathBuf,
    rows: Arc<Rows>,
    /// Where a chunk that is condemned counts as missing.
    chunks: Arc<dyn ChunkStore>,
    tenant: Tenant,
    /// One at a time changes the index of a name.
    turns: Vec<Mutex<()>>,
    /// Files that were found to have their manifests.
    settled: Mutex<HashMap<Vec<u8>, FileKey>>,
}

/// Tells a file's content apart from outside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct FileKey([i64; 7]);

/// What a reconciliation changed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Reconciled {
    /// Index files that are there.
    pub(crate) indexes: u64,
    /// Files that had no manifest.
    pub(crate) added: u64,
    /// Manifests whose file is gone.
    pub(crate) dropped: u64,
}

impl Keeper {
    /// - `folder`: of the store's index files.
    pub(crate) fn new(store: &str, folder: &Path, rows: Arc<Rows>, chunks: Arc<dyn ChunkStore>) -> Self {
        Self {
            store: store.to_owned(),
            folder: folder.to_owned(),
            rows,
            chunks,
            tenant: Tenant::default(),
            turns: (0..TURNS).map(|_| Mutex::default()).collect(),
            settled: Mutex::default(),
        }
    }

    /// Whether it is for this folder.
    pub(crate) fn is_of(&self, folder: &Path) -> bool {
        self.folder == folder
    }

    /// Makes manifests and index files agree. Whoever collects calls it first.
    ///
    /// Errors, in words: an index file that cannot be read. Nothing may be collected on the word of the others.
    pub(crate) fn reconcile(&self) -> Result<Reconciled, String> {
        let mut done = Reconciled::default();
        for path in index_files(&self.folder)? {
            let name = path.strip_prefix(&self.folder).unwrap_or(&path).as_os_str().as_bytes();
            let _turn = self.turn(name);
            self.settle_file(name, &path, &mut done)
                .map_err(|error| format!("index {}: {error}", path.display()))?;
        }
        let start = [self.store.as_bytes(), b"\0"].concat();
        let manifests = manifests_named(&*self.rows, &self.tenant, &start).map_err(|error| chain(&error))?;
        for (key, _) in manifests {
            let Some(name) = key[start.len()..].len().checked_sub(TAG_LEN + 1) else {
                continue;
            };
            let name = &key[start.len()..start.len() + name];
            let _turn = self.turn(name);
            let path = self.folder.join(std::ffi::OsStr::from_bytes(name));
            if !is_there(&path)? {
                self.settled().remove(name);
                done.dropped += self.drop_all(name, None).map_err(|error| chain(&error))?;
            }
        }
        Ok(done)
    }

    /// Sees to the manifest of one file, whose name is the caller's meanwhile.
    fn settle_file(&self, name: &[u8], path: &Path, done: &mut Reconciled) -> Result<(), String> {
        let key = match FileKey::of(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            key => key.map_err(|error| error.to_string())?,
        };
        done.indexes += 1;
        if self.settled().get(name) == Some(&key) {
            return Ok(());
        }
        let bytes = Bytes::from(fs::read(path).map_err(|error| error.to_string())?);
        let tag = tag_of(&bytes);
        let row = self.key(name, &tag);
        let known = manifest(&*self.rows, &self.tenant, &row).map_err(|error| chain(&error))?;
        if known.is_none() {
            let index = ChunkIndex::parse(bytes).map_err(|error| error.to_string())?;
            self.register(&row, &index).map_err(|error| chain(&error))?;
            done.added += 1;
        }
        done.dropped += self.drop_all(name, Some(&tag)).map_err(|error| chain(&error))?;
        // It may have been replaced by hand while it was read; then the next time sees to it.
        if FileKey::of(path).is_ok_and(|now| now == key) {
            self.settled().insert(name.to_owned(), key);
        }
        Ok(())
    }

    /// Writes a manifest of what an index names, there or not: of what is there nothing may go.
    fn register(&self, row: &[u8], index: &ChunkIndex) -> cairn_index::Result<()> {
        let manifest = self.begin(index)?;
        loop {
            let fence = Fence::now(&*self.rows)?;
            match manifest.publish(row, &fence, None)? {
                // A name that has got one meanwhile has got this one: its tag is in the name.
                Published::Done(_) | Published::NameTaken => return Ok(()),
                Published::FenceMoved => {}
            }
        }
    }

    /// A manifest whose pages are written.
    fn begin(&self, index: &ChunkIndex) -> cairn_index::Result<NewManifest<'_, Rows>> {
        let id = fastrand::u128(..).to_be_bytes();
        let until = unix_seconds() + PENDING_SECONDS;
        let mut new = NewManifest::begin(&*self.rows, &self.tenant, id, DomainId::default(), until)?;
        let mut chunks = Vec::with_capacity(BATCH_CHUNKS);
        for span in index.spans() {
            chunks.push(ManifestChunk {
                id: span.id,
                len: u32::try_from(span.range.end - span.range.start).unwrap_or(u32::MAX),
            });
            if chunks.len() == BATCH_CHUNKS {
                new.push(&chunks)?;
                chunks.clear();
            }
        }
        new.push(&chunks)?;
        new.finish()?;
        Ok(new)
    }

    /// Chunks of an index that the store does not have, each once.
    fn missing(&self, index: &ChunkIndex) -> cairn_store::Result<Vec<ChunkId>> {
        let mut missing = Vec::new();
        let mut spans = index.spans();
        loop {
            let ids: Vec<ChunkId> = spans.by_ref().take(BATCH_CHUNKS).map(|span| span.id).collect();
            if ids.is_empty() {
                break;
            }
            missing.extend(self.chunks.absent(&ids)?);
        }
        missing.sort_unstable();
        missing.dedup();
        Ok(missing)
    }

    /// Drops the manifests of a name but for that of one file. Returns how many.
    fn drop_all(&self, name: &[u8], but: Option<&ChunkId>) -> cairn_index::Result<u64> {
        let start = [self.store.as_bytes(), b"\0", name, b"\0"].concat();
        let mut dropped = 0;
        for (row, manifest) in manifests_named(&*self.rows, &self.tenant, &start)? {
            let tag = &row[start.len()..];
            if but.is_none_or(|but| but.as_bytes() != tag) {
                dropped += u64::from(drop_manifest(&*self.rows, &self.tenant, &row, &manifest)?);
            }
        }
        Ok(dropped)
    }

    fn key(&self, name: &[u8], tag: &ChunkId) -> Vec<u8> {
        [self.store.as_bytes(), b"\0", name, b"\0", tag.as_bytes()].concat()
    }

    fn turn(&self, name: &[u8]) -> MutexGuard<'_, ()> {
        let hash = tag_of(name).as_bytes()[0];
        let turn = &self.turns[usize::from(hash) % TURNS];
        turn.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn settled(&self) -> MutexGuard<'_, HashMap<Vec<u8>, FileKey>> {
        self.settled.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn take(&self, name: &[u8], index: &ChunkIndex, publish: &mut dyn FnMut() -> bool) -> Result<(), KeepError> {
        let tag = tag_of(index.as_bytes());
        let row = self.key(name, &tag);
        let _turn = self.turn(name);
        let fence = Fence::now(&*self.rows).map_err(|error| failed(&error))?;
        let ids = self.missing(index).map_err(|error| failed(&error))?;
        if !ids.is_empty() {
            return Err(KeepError::Missing { ids });
        }
        let before: Option<Manifest> = manifest(&*self.rows, &self.tenant, &row).map_err(|error| failed(&error))?;
        let new = self.begin(index).map_err(|error| failed(&error))?;
        match new.settle(&*self.chunks, &row, &fence, before.as_ref()) {
            Ok(Settled::Done(_)) => {}
            Ok(Settled::Missing { ids, .. }) => return Err(KeepError::Missing { ids }),
            Ok(Settled::NameTaken) => return Err(KeepError::Failed("its manifest changed meanwhile".to_owned())),
            Err(error) => return Err(failed(&error)),
        }
        if publish() {
            // What fails here is put right before the next collection; until then more is kept.
            let _ = self.drop_all(name, Some(&tag));
        } else if before.is_none()
            && let Ok(Some(now)) = manifest(&*self.rows, &self.tenant, &row)
        {
            let _ = drop_manifest(&*self.rows, &self.tenant, &row, &now);
        }
        Ok(())
    }
}

impl IndexKeeper for Keeper {
    fn put(&self, name: &[u8], index: &ChunkIndex, publish: &mut dyn FnMut() -> bool) -> Result<(), KeepError> {
        self.take(name, index, publish)
    }

    fn remove(&self, name: &[u8], remove: &mut dyn FnMut() -> bool) -> Result<(), KeepError> {
        let _turn = self.turn(name);
        if remove() {
            self.settled().remove(name);
            self.drop_all(name, None).map_err(|error| failed(&error))?;
        }
        Ok(())
    }
}

impl FileKey {
    fn of(path: &Path) -> io::Result<Self> {
        let of = fs::metadata(path)?;
        Ok(Self([
            of.dev() as i64,
            of.ino() as i64,
            of.size() as i64,
            of.mtime(),
            of.mtime_nsec(),
            of.ctime(),
            of.ctime_nsec(),
        ]))
    }
}

/// The index files in a folder and those below. Links to files count, of folders they are not followed.
///
/// Errors, in words: a folder that cannot be listed. One that is not there has none.
pub(crate) fn index_files(folder: &Path) -> Result<Vec<PathBuf>, String> {
    let mut files = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        let mut list = || -> io::Result<()> {
            for entry in fs::read_dir(&folder)? {
                let entry = entry?;
                let name = entry.file_name();
                let ending = Path::new(&name).extension().and_then(|ending| ending.to_str());
                let kind = entry.file_type()?;
                if kind.is_dir() {
                    folders.push(entry.path());
                } else if (kind.is_file() || kind.is_symlink()) && matches!(ending, Some("caibx" | "caidx")) {
                    files.push(entry.path());
                }
            }
            Ok(())
        };
        match list() {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(format!("cannot list {}: {error}", folder.display()));
            }
            _ => {}
        }
    }
    Ok(files)
}

fn is_there(path: &Path) -> Result<bool, String> {
    match fs::metadata(path) {
        Ok(of) => Ok(of.is_file()),
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => Ok(false),
        Err(error) => Err(format!("cannot look at {}: {error}", path.display())),
    }
}

fn tag_of(bytes: &[u8]) -> ChunkId {
    DigestAlgorithm::Sha256.id(bytes)
}

/// Seconds since 1970 UTC.
pub(crate) fn unix_seconds() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    now.map_or(0, |now| now.as_secs())
}

fn failed(error: &dyn std::error::Error) -> KeepError {
    KeepError::Failed(chain(error))
}
