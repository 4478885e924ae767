//! Chunks on their way: written under temporary names, made durable together, then renamed.
//!
//! A commit takes all that was staged: one `syncfs` (or an fsync each, when they are few), the renames, one sync of the
//! folders. Flushes that arrive meanwhile wait for one common next commit. Order is the promise: no chunk has its final name
//! before its bytes are durable, no flush returns before the names are.
//!
//! A sync that fails poisons the stage: what the kernel then holds is unknown (it may drop dirty pages and call the next
//! sync a success), so nothing is renamed, and every later call answers the same error until the store is opened anew.

use std::collections::{BTreeSet, HashSet};
use std::ffi::{CStr, CString};
use std::fs::File;
use std::io::{self, Write as _};
use std::os::fd::{BorrowedFd, OwnedFd};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rustix::fs::{AtFlags, Mode, OFlags, fsync, mkdirat, openat, renameat, syncfs, unlinkat};
use rustix::io::Errno;

use super::path::{ChunkPath, TEMPORARY};
use super::{FlatOptions, SyncPolicy};

/// Chunks staged at most before they are committed unasked: bounds memory and what a crash throws away.
const STAGED_CHUNKS_MAX: usize = 16_384;
/// Bytes staged at most, likewise.
const STAGED_BYTES_MAX: u64 = 1 << 30;
/// Up to so many files are synced one by one: on a busy machine `syncfs` writes out everybody's data.
const FEW: usize = 4;
/// Longest time between syncs under [`SyncPolicy::Batch`] while there are flushes.
const BATCH_INTERVAL: Duration = Duration::from_millis(50);

#[derive(Debug)]
pub(super) struct Stage {
    policy: SyncPolicy,
    state: Mutex<State>,
    committed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    staged: Staged,
    /// Number of the batch that `staged` is.
    batch: u64,
    /// Batches below this are committed.
    done: u64,
    committing: bool,
    poison: Option<Arc<io::Error>>,
    /// [`SyncPolicy::Batch`]: since when something is not synced.
    unsynced_since: Option<Instant>,
}

#[derive(Debug, Default)]
struct Staged {
    files: Vec<StagedFile>,
    /// Final names in `files`, so that a chunk put twice is written once.
    names: HashSet<[u8; 33]>,
    bytes: u64,
    /// Chunks found under their final names that may not be durable yet. One more than [`FEW`] at most: from there on it is
    /// `syncfs`, which covers all.
    noted: Vec<ChunkPath>,
}

impl Staged {
    fn is_empty(&self) -> bool {
        self.files.is_empty() && self.noted.is_empty()
    }
}

#[derive(Debug)]
struct StagedFile {
    temporary: CString,
    path: ChunkPath,
}

impl Stage {
    pub(super) fn new(policy: SyncPolicy) -> Self {
        Self {
            policy,
            state: Mutex::default(),
            committed: Condvar::new(),
        }
    }

    /// Writes a chunk under a temporary name. What it wrote is gone again if it fails.
    pub(super) fn put(
        &self,
        root: BorrowedFd<'_>,
        path: &ChunkPath,
        bytes: &[u8],
        options: &FlatOptions,
    ) -> io::Result<()> {
        let key = key(path);
        {
            let state = self.lock();
            check(&state)?;
            // Only what is wholly staged counts: the flush that follows this call has to cover it.
            if state.staged.names.contains(&key) {
                return Ok(());
            }
        }
        let temporary = write_temporary(root, path, bytes, options)?;
        if self.policy == SyncPolicy::None {
            return rename(root, &temporary, path);
        }
        let mut state = self.lock();
        state.staged.names.insert(key);
        state.staged.files.push(StagedFile { temporary, path: *path });
        state.staged.bytes += bytes.len() as u64;
        let full = state.staged.files.len() >= STAGED_CHUNKS_MAX || state.staged.bytes >= STAGED_BYTES_MAX;
        drop(state);
        if full { self.flush(root) } else { Ok(()) }
    }

    /// A chunk that somebody else has just written: the next flush makes it durable too.
    pub(super) fn note(&self, path: &ChunkPath) {
        let mut state = self.lock();
        if state.staged.noted.len() <= FEW {
            state.staged.noted.push(*path);
        }
    }

    /// Commits what was staged before the call, alone or with others'.
    pub(super) fn flush(&self, root: BorrowedFd<'_>) -> io::Result<()> {
        let mut state = self.lock();
        let wanted = state.batch;
        loop {
            check(&state)?;
            if state.done > wanted {
                return Ok(());
            }
            if !state.committing {
                break;
            }
            state = self.committed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        let due = state
            .unsynced_since
            .is_some_and(|since| since.elapsed() >= BATCH_INTERVAL);
        if state.staged.is_empty() && !due {
            // Nothing of ours is left: whoever took it has committed it, or the check above would have failed.
            return Ok(());
        }
        state.committing = true;
        state.batch += 1;
        let batch = std::mem::take(&mut state.staged);
        drop(state);

        let result = match self.policy {
            SyncPolicy::Sync => commit(root, &batch),
            SyncPolicy::Batch | SyncPolicy::None => {
                let renamed = batch
                    .files
                    .iter()
                    .try_for_each(|file| rename(root, &file.temporary, &file.path));
                renamed.and_then(|()| if due { Ok(syncfs(root)?) } else { Ok(()) })
            }
        };

        let mut state = self.lock();
        state.committing = false;
        state.done = state.batch;
        if self.policy == SyncPolicy::Batch && (due || state.unsynced_since.is_none()) {
            state.unsynced_since = (!due).then(Instant::now);
        }
        let result = result.map_err(|error| {
            for file in &batch.files {
                let _ = unlinkat(root, &file.temporary, AtFlags::empty());
            }
            let copy = copy(&error);
            state.poison = Some(Arc::new(error));
            copy
        });
        drop(state);
        self.committed.notify_all();
        result
    }

    /// Removes what was never flushed, and syncs what a weaker policy still owes.
    pub(super) fn abandon(&self, root: BorrowedFd<'_>) {
        let mut state = self.lock();
        for file in std::mem::take(&mut state.staged).files {
            let _ = unlinkat(root, &file.temporary, AtFlags::empty());
        }
        if state.unsynced_since.take().is_some() {
            let _ = syncfs(root);
        }
    }

    #[cfg(test)]
    pub(super) fn noted(&self) -> usize {
        self.lock().staged.noted.len()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn check(state: &State) -> io::Result<()> {
    match &state.poison {
        Some(error) => Err(copy(error)),
        None => Ok(()),
    }
}

fn copy(error: &io::Error) -> io::Error {
    match error.raw_os_error() {
        Some(code) => io::Error::from_raw_os_error(code),
        None => io::Error::new(error.kind(), error.to_string()),
    }
}

/// Digest digits are unique; the form is told by the length.
fn key(path: &ChunkPath) -> [u8; 33] {
    let text = path.as_str().as_bytes();
    let mut key = [0; 33];
    for (byte, pair) in key.iter_mut().zip(text[5..69].chunks_exact(2)) {
        let digit = |digit: u8| {
            if digit.is_ascii_digit() {
                digit - b'0'
            } else {
                digit - b'a' + 10
            }
        };
        *byte = digit(pair[0]) << 4 | digit(pair[1]);
    }
    key[32] = text.len() as u8;
    key
}

/// Bytes durable, then names, then folders durable.
fn commit(root: BorrowedFd<'_>, batch: &Staged) -> io::Result<()> {
    let few = batch.files.len() + batch.noted.len() <= FEW;
    if !few {
        syncfs(root)?;
    }
    let mut folders = BTreeSet::new();
    for path in batch.noted.iter().filter(|_| few) {
        match open(root, path.as_c_str()) {
            Ok(file) => fsync(file)?,
            // Deleted since: whoever deletes chunks answers for who still wants them.
            Err(Errno::NOENT | Errno::NOTDIR) => continue,
            // Somebody else's, not ours to read.
            Err(_) => syncfs(root)?,
        }
        folders.insert(path.folder());
    }
    for file in batch.files.iter().filter(|_| few) {
        fsync(open(root, &file.temporary)?)?;
        folders.insert(file.path.folder());
    }
    for file in &batch.files {
        rename(root, &file.temporary, &file.path)?;
    }
    if few {
        for folder in folders {
            fsync(openat(
                root,
                folder,
                OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC,
                Mode::empty(),
            )?)?;
        }
        // The folder itself may be new.
        fsync(root)?;
    } else if !batch.files.is_empty() {
        syncfs(root)?;
    }
    Ok(())
}

fn rename(root: BorrowedFd<'_>, temporary: &CString, path: &ChunkPath) -> io::Result<()> {
    renameat(root, temporary.as_c_str(), root, path.as_c_str()).map_err(|error| {
        let _ = unlinkat(root, temporary.as_c_str(), AtFlags::empty());
        error.into()
    })
}

fn open(root: BorrowedFd<'_>, name: &CStr) -> rustix::io::Result<OwnedFd> {
    openat(root, name, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
}

fn write_temporary(root: BorrowedFd<'_>, path: &ChunkPath, bytes: &[u8], options: &FlatOptions) -> io::Result<CString> {
    let name = format!("{}/{TEMPORARY}{:016x}", path.folder(), fastrand::u64(..));
    let name = CString::new(name).expect("digits and letters");
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
    let mode = Mode::from_raw_mode(options.file_mode);
    let opened = match openat(root, name.as_c_str(), flags, mode) {
        Err(Errno::NOENT) => {
            match mkdirat(root, path.folder(), Mode::from_raw_mode(options.folder_mode)) {
                Ok(()) | Err(Errno::EXIST) => {}
                Err(error) => return Err(error.into()),
            }
            openat(root, name.as_c_str(), flags, mode)?
        }
        opened => opened?,
    };
    let written = File::from(opened).write_all(bytes);
    if let Err(error) = written {
        let _ = unlinkat(root, name.as_c_str(), AtFlags::empty());
        return Err(error);
    }
    Ok(name)
}
