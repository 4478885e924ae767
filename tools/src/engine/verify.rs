//! Checking what is there: a blob against its index, a store against its names.

use std::fs::File;
use std::ops::Range;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use cairn_formats::{CHUNK_LEN_MAX, ChunkError, ChunkId, ChunkIndex, DigestAlgorithm, EncodedChunk, StorableChunk};
use cairn_store::{ChunkStore, Prune};

use super::batch::{Batch, lock, read_full_at};
use super::buffer::BufferPool;
use super::error::file;
use super::{Error, Progress, Result, fetch};

/// A chunk of a blob that is not what its index says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct BadSpan {
    /// Where it lies in the blob.
    pub(crate) range: Range<u64>,
    /// The chunk that the index names.
    pub(crate) id: ChunkId,
    /// What is there; `None` past the end of the file.
    pub(crate) found: Option<ChunkId>,
}

/// Compares a blob with its index.
///
/// - `keep_going`: gather every bad chunk rather than stop at the first.
/// - Returns the bad chunks in order, at most [`BAD_SPANS_MAX`].
/// - Errors: [`Error::File`] when the blob cannot be read, [`Error::Length`] when it is longer or, without `keep_going`, shorter.
pub(crate) fn verify_blob(
    index: &ChunkIndex,
    path: &Path,
    keep_going: bool,
    workers: usize,
    progress: &Progress,
) -> Result<Vec<BadSpan>> {
    let blob = File::open(path).map_err(file(path, "open"))?;
    let found = std::io::Seek::seek(&mut &blob, std::io::SeekFrom::End(0)).map_err(file(path, "measure"))?;
    let device = !blob.metadata().map_err(file(path, "look at"))?.is_file();
    let expected = index.blob_len();
    if found < expected && !keep_going || found > expected && !device {
        return Err(Error::Length {
            path: path.to_owned(),
            expected,
            found,
        });
    }
    progress.set_total(expected);
    let next = AtomicUsize::new(0);
    let bad = Mutex::new(Vec::new());
    let failure = Mutex::new(None);
    let pool = BufferPool::default();
    let work = || -> Result<()> {
        loop {
            progress.check()?;
            let mut items = None;
            let _ = next.try_update(Ordering::Relaxed, Ordering::Relaxed, |first| {
                items = fetch::batch_at(index, first, index.len());
                items.as_ref().map(|items| items.end)
            });
            let Some(items) = items else { return Ok(()) };
            let batch = Batch::new(index, items);
            let len = (batch.end - batch.start) as usize;
            let mut buffer = pool.take(len);
            let bytes = &mut buffer.bytes_mut()[..len];
            let read = read_full_at(&blob, bytes, batch.start).map_err(file(path, "read"))?;
            let whole = (0..batch.spans.len())
                .take_while(|&at| batch.slice(at).end <= read)
                .count();
            let slices: Vec<&[u8]> = (0..whole).map(|at| &bytes[batch.slice(at)]).collect();
            let mut names = index.digest_algorithm().id_many(&slices).into_iter();
            for span in &batch.spans {
                let found = names.next();
                if found != Some(span.id) {
                    let mut bad = lock(&bad);
                    if bad.len() < BAD_SPANS_MAX {
                        bad.push(BadSpan {
                            range: span.range.clone(),
                            id: span.id,
                            found,
                        });
                    }
                    if !keep_going {
                        next.store(index.len(), Ordering::Relaxed);
                    }
                }
            }
            progress.advance(len as u64);
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..workers.max(1) {
            scope.spawn(|| {
                if let Err(error) = work() {
                    next.store(index.len(), Ordering::Relaxed);
                    lock(&failure).get_or_insert(error);
                }
            });
        }
    });
    if let Some(error) = failure.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner) {
        return Err(error);
    }
    let mut bad = bad.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
    bad.sort_by_key(|span| span.range.start);
    Ok(bad)
}

/// Bad chunks that a report lists at most; a file that is another one altogether has millions.
pub(crate) const BAD_SPANS_MAX: usize = 10_000;

/// What checking a store found.
#[derive(Clone, Debug, Default)]
pub(crate) struct StoreCheck {
    /// Chunks looked at.
    pub(crate) chunks: u64,
    /// Their stored bytes.
    pub(crate) bytes: u64,
    /// Their plain bytes, bad ones left out.
    pub(crate) bytes_plain: u64,
    /// Bad chunks.
    pub(crate) bad: u64,
    /// Bad chunks that were removed and could not be had elsewhere.
    pub(crate) removed: u64,
    /// Bad chunks that were had elsewhere and are sound again.
    pub(crate) healed: u64,
}

/// What is done about a bad chunk.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Repair<'a> {
    /// Nothing.
    Leave,
    /// It is removed, so that it is fetched or stored anew.
    Remove,
    /// It is fetched from here; if it cannot be had, removed.
    From(&'a dyn ChunkStore),
}

/// Checks every chunk of a store against its name.
///
/// - `digest`: what names this store's chunks.
/// - `on_bad`: hears of each bad chunk, in no order.
/// - Errors: the store could not be listed or read; a bad chunk is no error.
pub(crate) fn verify_store(
    store: &dyn Prune,
    digest: DigestAlgorithm,
    repair: Repair<'_>,
    workers: usize,
    progress: &Progress,
    on_bad: &(dyn Fn(&ChunkError) + Sync),
) -> Result<StoreCheck> {
    let (sender, receiver) = crossbeam_channel::bounded::<Vec<ChunkId>>(workers.max(1));
    let total = Mutex::new(StoreCheck::default());
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..workers.max(1))
            .map(|_| {
                let (receiver, total) = (receiver.clone(), &total);
                scope.spawn(move || -> Result<()> {
                    for ids in receiver {
                        progress.check()?;
                        let check = verify_chunks(store, digest, &ids, repair, on_bad)?;
                        lock(total).add(&check);
                        progress.advance(ids.len() as u64);
                    }
                    Ok(())
                })
            })
            .collect();
        drop(receiver);
        let mut batch = Vec::with_capacity(VERIFY_CHUNKS);
        let mut receivers_left = true;
        let listed = store.for_each_id(&mut |id| {
            batch.push(id);
            if batch.len() == VERIFY_CHUNKS && receivers_left {
                // Nobody receives once every worker has met an error, which is then the one to report.
                receivers_left = sender
                    .send(std::mem::replace(&mut batch, Vec::with_capacity(VERIFY_CHUNKS)))
                    .is_ok();
            }
            Ok(())
        });
        let _ = sender.send(batch);
        drop(sender);
        for thread in threads {
            match thread.join() {
                Ok(result) => result?,
                Err(panic) => std::panic::resume_unwind(panic),
            }
        }
        Ok::<(), Error>(listed?)
    })?;
    Ok(total.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner))
}

/// Chunks read and hashed together.
const VERIFY_CHUNKS: usize = 32;

fn verify_chunks(
    store: &dyn Prune,
    digest: DigestAlgorithm,
    ids: &[ChunkId],
    repair: Repair<'_>,
    on_bad: &(dyn Fn(&ChunkError) + Sync),
) -> Result<StoreCheck> {
    let mut check = StoreCheck::default();
    let mut encoded = Vec::with_capacity(ids.len());
    let mut bad = Vec::new();
    for chunk in store.get_many(ids) {
        match chunk {
            Ok(chunk) => encoded.push(chunk),
            // Pruned by somebody else since it was listed.
            Err(cairn_store::Error::Missing { .. }) => {}
            // Packs have check sums of their own.
            Err(cairn_store::Error::Corrupt { source, .. }) => {
                check.chunks += 1;
                on_bad(&source);
                bad.push(source.id());
            }
            Err(error) => return Err(error.into()),
        }
    }
    for (chunk, opened) in encoded
        .iter()
        .zip(EncodedChunk::open_many(&encoded, digest, CHUNK_LEN_MAX))
    {
        check.chunks += 1;
        check.bytes += chunk.bytes.len() as u64;
        match opened {
            Ok(opened) => check.bytes_plain += opened.plain().len() as u64,
            Err(error) => {
                on_bad(&error);
                bad.push(chunk.id);
            }
        }
    }
    check.bad = bad.len() as u64;
    if !bad.is_empty() && !matches!(repair, Repair::Leave) {
        // First what there is: nothing is removed because another store could not answer.
        let sound = match repair {
            Repair::From(source) => sound_ones(source, digest, &bad)?,
            _ => Vec::new(),
        };
        store.remove_many(&bad)?;
        check.healed = heal(store, digest, &sound)?;
        check.removed = check.bad - check.healed;
    }
    Ok(check)
}

/// Those of the chunks that a store has, proven. Errors: it could not be asked.
fn sound_ones(source: &dyn ChunkStore, digest: DigestAlgorithm, ids: &[ChunkId]) -> Result<Vec<StorableChunk>> {
    let mut sound = Vec::new();
    for chunk in source.get_many(ids) {
        match chunk {
            Ok(chunk) => sound.extend(chunk.verify(digest, CHUNK_LEN_MAX).ok()),
            Err(cairn_store::Error::Missing { .. } | cairn_store::Error::Corrupt { .. }) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(sound)
}

/// Stores chunks and reads them again; how many are sound.
fn heal(store: &dyn ChunkStore, digest: DigestAlgorithm, chunks: &[StorableChunk]) -> Result<u64> {
    if chunks.is_empty() {
        return Ok(0);
    }
    store.put_many(chunks)?;
    store.flush()?;
    let ids: Vec<ChunkId> = chunks.iter().map(StorableChunk::id).collect();
    let stored: Vec<EncodedChunk> = store.get_many(&ids).into_iter().flatten().collect();
    let opened = EncodedChunk::open_many(&stored, digest, CHUNK_LEN_MAX);
    Ok(opened.iter().filter(|opened| opened.is_ok()).count() as u64)
}

impl StoreCheck {
    fn add(&mut self, other: &Self) {
        self.chunks += other.chunks;
        self.bytes += other.bytes;
        self.bytes_plain += other.bytes_plain;
        self.bad += other.bad;
        self.removed += other.removed;
        self.healed += other.healed;
    }
}
