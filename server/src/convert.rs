//! Taking over the flat folder of an older release: both are served, and a thread copies chunks into the packs.
//!
//! A chunk's file goes when the packs have it durably, and not before: a stop or a crash at any moment leaves each chunk in at
//! least one of the two, and the next start goes on. Chunks are checked on the way and kept as they are; a damaged one is set
//! aside as `.damaged`, where it stays with whatever else is in the folder and is no chunk. One thread, at most
//! `limits.convert_rate` bytes a second, [`BATCH_BYTES`] in memory.

use std::num::NonZeroU64;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use cairn_formats::{CHUNK_LEN_MAX, ChunkForm, ChunkId, DigestAlgorithm, EncodedChunk, StorableChunk};
use cairn_store::{
    ChunkStat, ChunkStore, ChunkStoreExt as _, Error, FlatStore, PackStore, Prune as _, RateLimit, Result, StoreName,
};

use crate::routes::chain;

/// Chunks that are made durable together.
const BATCH_CHUNKS: usize = 256;
/// Bytes of chunks in memory, but for one that is longer.
const BATCH_BYTES: usize = 8 << 20;
/// Pause after something failed, or was left because it changed a moment ago; doubles up to [`PAUSE_MAX`].
const PAUSE: Duration = Duration::from_secs(60);
const PAUSE_MAX: Duration = Duration::from_secs(60 * 60);
/// Time between lines in the log.
const LOG_EVERY: Duration = Duration::from_secs(30);
/// Temporary files of this age belong to nobody.
const STALE_AFTER: Duration = Duration::from_secs(24 * 60 * 60);

/// Packs in front of the flat folder that they take over. Writes go to the packs.
#[derive(Debug)]
pub(crate) struct OverFlat {
    packs: Arc<dyn ChunkStore>,
    flat: Arc<dyn ChunkStore>,
    done: Arc<AtomicBool>,
}

impl OverFlat {
    /// - `done`: nothing is left in `flat`.
    pub(crate) fn new(packs: Arc<dyn ChunkStore>, flat: Arc<dyn ChunkStore>, done: Arc<AtomicBool>) -> Self {
        Self { packs, flat, done }
    }

    fn is_done(&self) -> bool {
        self.done.load(Ordering::Acquire)
    }
}

impl ChunkStore for OverFlat {
    fn name(&self) -> &StoreName {
        self.packs.name()
    }

    fn has_many(&self, ids: &[ChunkId]) -> Result<Vec<bool>> {
        // The packs once more at the end: a chunk may have gone over between the two looks.
        let mut has = vec![false; ids.len()];
        for store in [&self.packs, &self.flat, &self.packs] {
            let open: Vec<usize> = (0..ids.len()).filter(|&n| !has[n]).collect();
            if open.is_empty() {
                break;
            }
            let asked: Vec<ChunkId> = open.iter().map(|&n| ids[n]).collect();
            for (n, answer) in open.into_iter().zip(store.has_many(&asked)?) {
                has[n] = answer;
            }
            if self.is_done() && Arc::ptr_eq(store, &self.packs) {
                break;
            }
        }
        Ok(has)
    }

    fn get_many(&self, ids: &[ChunkId]) -> Vec<Result<EncodedChunk>> {
        let done = self.is_done();
        let mut answers = self.packs.get_many(ids);
        for store in [&self.flat, &self.packs] {
            // A damaged copy in one is no reason not to give a good one.
            let open: Vec<usize> = (0..ids.len())
                .filter(|&n| matches!(answers[n], Err(Error::Missing { .. } | Error::Corrupt { .. })))
                .collect();
            if done || open.is_empty() {
                break;
            }
            let asked: Vec<ChunkId> = open.iter().map(|&n| ids[n]).collect();
            for (n, answer) in open.into_iter().zip(store.get_many(&asked)) {
                if !matches!(answer, Err(Error::Missing { .. })) {
                    answers[n] = answer;
                }
            }
        }
        answers
    }

    fn put_many(&self, chunks: &[StorableChunk]) -> Result<()> {
        self.packs.put_many(chunks)
    }

    fn flush(&self) -> Result<()> {
        if !self.is_done() {
            // What it was said to hold is relied on by whoever was told; it was durable before this server began.
            self.flat.flush()?;
        }
        self.packs.flush()
    }

    fn stat(&self, id: ChunkId, form: ChunkForm) -> Result<Option<ChunkStat>> {
        for store in [&self.packs, &self.flat, &self.packs] {
            if let Some(stat) = store.stat(id, form)? {
                return Ok(Some(stat));
            }
            if self.is_done() {
                break;
            }
        }
        Ok(None)
    }

    fn get_resident(&self, id: ChunkId, form: ChunkForm) -> Option<EncodedChunk> {
        let resident = self.packs.get_resident(id, form);
        resident.or_else(|| (!self.is_done()).then(|| self.flat.get_resident(id, form)).flatten())
    }

    fn set_aside(&self, damaged: &EncodedChunk) -> Result<bool> {
        Ok(self.packs.set_aside(damaged)? || (!self.is_done() && self.flat.set_aside(damaged)?))
    }
}

/// What is taken over, and into what.
pub(crate) struct Job {
    /// The store's.
    pub(crate) name: String,
    pub(crate) folder: PathBuf,
    pub(crate) flat: FlatStore,
    pub(crate) packs: PackStore,
    pub(crate) digest: DigestAlgorithm,
    /// Bytes a second, 0 without a limit.
    pub(crate) rate: u64,
}

/// The thread that takes a folder over. It ends when this is dropped, after the batch that it is at.
#[derive(Debug)]
pub(crate) struct Conversion {
    stop: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
    done: Arc<AtomicBool>,
}

impl Conversion {
    /// Begins.
    pub(crate) fn start(job: Job) -> std::result::Result<Self, String> {
        let (stop, stopped) = channel();
        let done = Arc::new(AtomicBool::new(false));
        let thread_done = Arc::clone(&done);
        let thread = std::thread::Builder::new()
            .name("convert".to_owned())
            .spawn(move || job.run(&stopped, &thread_done))
            .map_err(|error| format!("cannot start a thread: {error}"))?;
        Ok(Self {
            stop: Some(stop),
            thread: Some(thread),
            done,
        })
    }

    /// Set when nothing is left to take over.
    pub(crate) fn done(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.done)
    }
}

impl Drop for Conversion {
    fn drop(&mut self) {
        self.stop = None;
        if let Some(thread) = self.thread.take() {
            // A thread that panicked has said so.
            let _ = thread.join();
        }
    }
}

/// What one walk through the folder did.
#[derive(Clone, Copy, Debug, Default)]
struct Walk {
    copied: u64,
    bytes: u64,
    damaged: u64,
    left: u64,
}

impl Job {
    fn run(self, stopped: &Receiver<()>, done: &AtomicBool) {
        let running = metrics::gauge!("store_conversion_running", "store" => self.name.clone());
        running.set(1.0);
        let folder = self.folder.display().to_string();
        tracing::info!(store = self.name, folder, "a flat folder is taken over into packs");
        let begun = Instant::now();
        let mut pause = PAUSE;
        let (mut copied, mut damaged) = (0, 0);
        loop {
            let walk = self.walk(stopped);
            match walk {
                Ok(None) => return,
                Ok(Some(walk)) => {
                    copied += walk.copied;
                    damaged += walk.damaged;
                    if walk.left == 0 {
                        break;
                    }
                    tracing::warn!(
                        store = self.name,
                        folder,
                        left = walk.left,
                        "chunks could not be taken over yet"
                    );
                }
                Err(error) => {
                    let error = chain(&error);
                    tracing::error!(
                        store = self.name,
                        folder,
                        error,
                        "taking over stopped, and will be tried again"
                    );
                }
            }
            if stopped.recv_timeout(pause) == Err(RecvTimeoutError::Disconnected) {
                return;
            }
            pause = (pause * 2).min(PAUSE_MAX);
        }
        let seconds = begun.elapsed().as_secs();
        done.store(true, Ordering::Release);
        running.set(0.0);
        let removed = remove_empty(&self.folder, &self.flat);
        tracing::info!(
            store = self.name,
            folder,
            copied,
            damaged,
            seconds,
            "a flat folder was taken over into packs"
        );
        if let Err(error) = removed {
            tracing::warn!(store = self.name, folder, error, "what is not a chunk is left there");
        }
    }

    /// Takes over what is there; `None` when it was told to stop.
    fn walk(&self, stopped: &Receiver<()>) -> Result<Option<Walk>> {
        let limit = NonZeroU64::new(self.rate).map(RateLimit::new);
        let mut walk = Walk::default();
        let mut batch = Vec::with_capacity(BATCH_CHUNKS);
        let mut logged = Instant::now();
        let mut is_stopped = false;
        let mut last = None;
        self.flat.for_each_file(&mut |file| {
            if is_stopped || last.replace(file.id) == Some(file.id) {
                return Ok(());
            }
            batch.push(file.id);
            if batch.len() == BATCH_CHUNKS {
                let bytes = self.take(&std::mem::take(&mut batch), &mut walk)?;
                let pause = limit.as_ref().map_or(Duration::ZERO, |limit| limit.take(bytes));
                is_stopped = stopped.recv_timeout(pause) == Err(RecvTimeoutError::Disconnected);
                if logged.elapsed() >= LOG_EVERY {
                    logged = Instant::now();
                    let (copied, bytes) = (walk.copied, walk.bytes);
                    tracing::info!(store = self.name, copied, bytes, "a flat folder is being taken over");
                }
            }
            Ok(())
        })?;
        if is_stopped {
            return Ok(None);
        }
        self.take(&batch, &mut walk)?;
        Ok(Some(walk))
    }

    /// Copies chunks, makes them durable, and takes their files away. Returns how many bytes went over.
    fn take(&self, ids: &[ChunkId], walk: &mut Walk) -> Result<usize> {
        let mut taken = Vec::with_capacity(ids.len());
        let (mut pending, mut pending_bytes, mut bytes) = (Vec::new(), 0, 0);
        for (&id, there) in ids.iter().zip(self.packs.has_many(ids)?) {
            if there {
                taken.push(id);
                continue;
            }
            match self.proven(id)? {
                Proven::Chunk(chunk) => {
                    pending_bytes += chunk.bytes().len();
                    pending.push(chunk);
                    taken.push(id);
                }
                Proven::Gone => {}
                Proven::Damaged => walk.damaged += 1,
                Proven::Left => walk.left += 1,
            }
            if pending_bytes >= BATCH_BYTES {
                self.packs.put_many(&std::mem::take(&mut pending))?;
                bytes += std::mem::take(&mut pending_bytes);
            }
        }
        self.packs.put_many(&pending)?;
        bytes += pending_bytes;
        // Whatever the store's policy is: the files are about to go.
        self.packs.engine().sync()?;
        self.flat.remove_many(&taken)?;
        walk.copied += taken.len() as u64;
        walk.bytes += bytes as u64;
        let count = |result, n| {
            metrics::counter!("store_converted_chunks_total", "store" => self.name.clone(), "result" => result)
                .increment(n);
        };
        count("copied", taken.len() as u64);
        metrics::counter!("store_converted_bytes_total", "store" => self.name.clone()).increment(bytes as u64);
        Ok(bytes)
    }

    /// The chunk in whichever form is sound.
    fn proven(&self, id: ChunkId) -> Result<Proven> {
        // A damaged one that is set aside makes room for its other form.
        let mut damaged = false;
        for _form in 0..2 {
            let encoded = match self.flat.get(id) {
                Ok(encoded) => encoded,
                Err(Error::Missing { .. }) if damaged => return Ok(Proven::Damaged),
                Err(Error::Missing { .. }) => return Ok(Proven::Gone),
                Err(error) => return Err(error),
            };
            match encoded.clone().verify(self.digest, CHUNK_LEN_MAX) {
                Ok(chunk) => return Ok(Proven::Chunk(chunk)),
                Err(error) => {
                    tracing::warn!(
                        store = self.name,
                        error = chain(&error),
                        "a damaged chunk is not taken over"
                    );
                    if !self.flat.set_aside(&encoded)? {
                        return Ok(Proven::Left);
                    }
                    damaged = true;
                }
            }
        }
        Ok(Proven::Damaged)
    }
}

enum Proven {
    Chunk(StorableChunk),
    /// Somebody has removed it.
    Gone,
    /// Set aside.
    Damaged,
    /// Damaged, and changed a moment ago: somebody may be copying it.
    Left,
}

/// Removes the folders of chunks that are there no more.
fn remove_empty(folder: &Path, flat: &FlatStore) -> std::result::Result<(), String> {
    flat.remove_stale_temporaries(STALE_AFTER)
        .map_err(|error| chain(&error))?;
    let remove = || {
        for entry in std::fs::read_dir(folder)? {
            let entry = entry?;
            if entry.file_type()?.is_dir() {
                // One that is not empty stays.
                let _ = std::fs::remove_dir(entry.path());
            }
        }
        std::fs::remove_dir(folder)
    };
    remove().map_err(|error| error.to_string())
}
