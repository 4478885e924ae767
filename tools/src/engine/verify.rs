//! Checking what is there: a blob against its index, a store against its names.

use std::fs::File;
use std::ops::Range;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use cairn_formats::{ChunkId, ChunkIndex};

use super::buffer::BufferPool;
use super::error::file;
use super::extract::{Batch, lock, read_full_at};
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
