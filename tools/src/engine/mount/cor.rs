//! Copy on read: a sparse local file that keeps every chunk that was read, and a state that remembers which.
//!
//! Invariant: nothing is handed out of the file that was not proven by its id in this run, so a state file of another index,
//! or a file that somebody else wrote to, costs time and never gives wrong bytes. The state file has desync's form: a bit
//! per item of the index. Not here: syncing (a lost chunk is fetched again).

use std::fs::File;
use std::io::{ErrorKind, Read as _};
use std::ops::Range;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;

use bytes::Bytes;

use super::bitmap::Bitmap;
use super::{open_alone, replace_file};
use crate::engine::error::file;
use crate::engine::{Error, IndexedBlob, Result};

/// Items that a thread fetches at a time when a file is filled from a state.
const FILL_ITEMS: usize = 16;

/// What is kept where.
#[derive(Clone, Debug)]
pub(crate) struct CopyOnReadOptions {
    /// The sparse file.
    pub(crate) file: PathBuf,
    /// Where the state is saved, and taken from at the start.
    pub(crate) state_save: Option<PathBuf>,
    /// A state whose chunks are fetched at the start, where there is no saved one that fits.
    pub(crate) state_init: Option<PathBuf>,
    /// Threads that do so.
    pub(crate) init_threads: usize,
}

/// A blob whose chunks are kept in a local file once they were read.
#[derive(Debug)]
pub(crate) struct CopyOnRead {
    kept: Arc<Kept>,
    state_save: Option<PathBuf>,
    fill: Vec<JoinHandle<()>>,
}

#[derive(Debug)]
struct Kept {
    blob: IndexedBlob,
    path: PathBuf,
    file: File,
    /// Items that the file is said to hold.
    there: Bitmap,
    /// Items of which that was proven in this run.
    proven: Bitmap,
    /// The file took no more (a full disk, say): reading goes on without it.
    refused: AtomicBool,
    stopped: AtomicBool,
}

impl CopyOnRead {
    /// Opens or makes the file. A file of another length is begun anew; one of the right length without a state is looked at
    /// chunk by chunk as it is read.
    ///
    /// Errors: the file cannot be opened, or another mount has it; a state to start from is not there or not of this index.
    pub(crate) fn open(blob: IndexedBlob, options: &CopyOnReadOptions) -> Result<Self> {
        let path = &options.file;
        let (kept, found) = open_alone(path)?;
        let (items, len) = (blob.index().len() as u64, blob.len());
        let saved = match &options.state_save {
            Some(state) if found == len => read_state(state, items)?,
            _ => None,
        };
        let init = match (&options.state_init, &saved) {
            (Some(state), None) => Some(read_state(state, items)?.ok_or_else(|| Error::State {
                path: state.clone(),
                what: "no state of this index",
            })?),
            _ => None,
        };
        if found != len {
            kept.set_len(0)
                .and_then(|()| kept.set_len(len))
                .map_err(file(path, "make room in"))?;
        }
        let there = saved.unwrap_or_else(|| {
            let there = Bitmap::new(items);
            if found == len && options.state_save.is_none() {
                there.set_all();
            }
            there
        });
        let kept = Arc::new(Kept {
            blob,
            path: path.clone(),
            file: kept,
            there,
            proven: Bitmap::new(items),
            refused: AtomicBool::new(false),
            stopped: AtomicBool::new(false),
        });
        let mut fill = Vec::new();
        if let Some(wanted) = init {
            let work = Arc::new((wanted, AtomicUsize::new(0)));
            for _ in 0..options.init_threads.max(1) {
                let (kept, work) = (Arc::clone(&kept), Arc::clone(&work));
                fill.push(std::thread::spawn(move || kept.fill(&work.0, &work.1)));
            }
        }
        Ok(Self {
            kept,
            state_save: options.state_save.clone(),
            fill,
        })
    }

    /// The blob behind the file.
    pub(super) fn blob(&self) -> &IndexedBlob {
        &self.kept.blob
    }

    /// As [`IndexedBlob::read`].
    pub(super) fn read(&self, offset: u64, len: usize) -> Result<Bytes> {
        let kept = &*self.kept;
        let index = kept.blob.index();
        let end = offset.saturating_add(len as u64).min(kept.blob.len());
        if offset >= end {
            return Ok(Bytes::new());
        }
        let first = index.find(offset).expect("the offset is inside the blob");
        let last = index.find(end - 1).expect("the end is inside the blob");
        let mut out = vec![0; (end - offset) as usize];
        let mut next = first;
        while next <= last {
            let run = kept.run(next, last + 1);
            let start = index.span(run.start).range.start.max(offset);
            let stop = index.span(run.end - 1).range.end.min(end);
            let place = &mut out[(start - offset) as usize..(stop - offset) as usize];
            if kept.proven.get(next as u64) {
                kept.file
                    .read_exact_at(place, start)
                    .map_err(file(&kept.path, "read"))?;
            } else {
                let mut filled = 0;
                for (item, plain) in run.clone().zip(kept.obtain(run.clone())?) {
                    let span = index.span(item).range;
                    let part =
                        (start.max(span.start) - span.start) as usize..(stop.min(span.end) - span.start) as usize;
                    place[filled..filled + part.len()].copy_from_slice(&plain[part.clone()]);
                    filled += part.len();
                }
            }
            next = run.end;
        }
        Ok(out.into())
    }

    /// Writes the state, where one is to be saved.
    pub(super) fn save(&self) -> Result<()> {
        let Some(path) = &self.state_save else { return Ok(()) };
        replace_file(path, &[&self.kept.there.to_bytes()], false)
    }
}

impl Drop for CopyOnRead {
    fn drop(&mut self) {
        self.kept.stopped.store(true, Ordering::Relaxed);
        for thread in self.fill.drain(..) {
            // A panic there has been printed; there is nothing to undo.
            let _ = thread.join();
        }
    }
}

impl Kept {
    /// Items from `first` on, before `end`, that are all proven or all not.
    fn run(&self, first: usize, end: usize) -> Range<usize> {
        let proven = self.proven.get(first as u64);
        let rest = first + 1..end;
        let stop = rest.into_iter().find(|&item| self.proven.get(item as u64) != proven);
        first..stop.unwrap_or(end)
    }

    /// Items from the file where it holds them, else from the blob, kept from now on.
    fn obtain(&self, items: Range<usize>) -> Result<Vec<Bytes>> {
        let mut found: Vec<Bytes> = Vec::with_capacity(items.len());
        let mut next = items.start;
        while next < items.end {
            if let Some(plain) = self.recall(next) {
                found.push(plain);
                next += 1;
                continue;
            }
            let mut run = next..next + 1;
            while run.end < items.end && !self.there.get(run.end as u64) {
                run.end += 1;
            }
            for (item, plain) in run.clone().zip(self.blob.items(run.clone())?) {
                self.keep(item, &plain);
                found.push(plain);
            }
            next = run.end;
        }
        Ok(found)
    }

    /// What the file holds of an item, if that is the chunk that the index names.
    fn recall(&self, item: usize) -> Option<Bytes> {
        if !self.there.get(item as u64) {
            return None;
        }
        let index = self.blob.index();
        let span = index.span(item);
        let mut plain = vec![0; (span.range.end - span.range.start) as usize];
        let read = self.file.read_exact_at(&mut plain, span.range.start);
        if read.is_ok() && index.digest_algorithm().id(&plain) == span.id {
            self.proven.set(item as u64);
            return Some(plain.into());
        }
        self.there.clear(item as u64);
        None
    }

    fn keep(&self, item: usize, plain: &Bytes) {
        // Zeros cost nothing to make again, and a hole takes no room.
        if self.blob.is_null(item) || self.refused.load(Ordering::Relaxed) {
            return;
        }
        let start = self.blob.index().span(item).range.start;
        match self.file.write_all_at(plain, start) {
            Ok(()) => {
                self.proven.set(item as u64);
                self.there.set(item as u64);
            }
            Err(error) => {
                if !self.refused.swap(true, Ordering::Relaxed) {
                    eprintln!(
                        "cairn: {}: cannot keep what is read: {error}; reading goes on without it",
                        self.path.display()
                    );
                }
            }
        }
    }

    /// The work of a thread that fetches what a state names. What fails is left to whoever reads it.
    fn fill(&self, wanted: &Bitmap, next: &AtomicUsize) {
        let items = self.blob.index().len();
        while !self.stopped.load(Ordering::Relaxed) {
            let start = next.fetch_add(FILL_ITEMS, Ordering::Relaxed);
            if start >= items {
                return;
            }
            for item in start..(start + FILL_ITEMS).min(items) {
                if wanted.get(item as u64) && !self.proven.get(item as u64) && !self.blob.is_null(item) {
                    let _ = self.obtain(item..item + 1);
                }
            }
        }
    }
}

/// The state in a file, `None` where there is no file.
///
/// Errors: it cannot be read, or has another length than a state of so many items.
fn read_state(path: &Path, items: u64) -> Result<Option<Bitmap>> {
    let opened = match File::open(path) {
        Ok(opened) => opened,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(file(path, "open")(error)),
    };
    let mut bytes = Vec::new();
    opened
        .take(Bitmap::bytes_len(items) + 1)
        .read_to_end(&mut bytes)
        .map_err(file(path, "read"))?;
    let state = Bitmap::from_bytes(items, &bytes).ok_or_else(|| Error::State {
        path: path.to_owned(),
        what: "its length is not that of a state of this index",
    })?;
    Ok(Some(state))
}
