//! One member of a mirror: what was put into it and is not flushed, what it owes, and how it has been answering.
//!
//! Flushes of one member run one at a time, and who asks for one meanwhile shares the next: a flush that fails is so known to all
//! whose chunks it may have cost, and many writers still share one sync.

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use cairn_formats::{ChunkId, StorableChunk};

use super::Behind;
use crate::{ChunkStore, Error, Result, error_chain};

/// A store of a mirror.
#[derive(Debug)]
pub(super) struct Member<S: ChunkStore + ?Sized> {
    pub(super) store: Arc<S>,
    state: Mutex<State>,
    flush_ended: Condvar,
    /// Time that one chunk of a read takes, in nanoseconds, a running average; 0 before the first.
    nanos: AtomicU64,
    is_read_only: AtomicBool,
}

#[derive(Debug, Default)]
struct State {
    /// Taken since the last flush began.
    unflushed: HashSet<ChunkId>,
    /// Not taken, or perhaps lost with a flush that failed.
    owed: HashSet<ChunkId>,
    /// There was no room for more in `owed`.
    owes_more: bool,
    flushes_begun: u64,
    flushes_ended: u64,
    flushes_failed: u64,
    has_flush_failed: bool,
    failed_at: Option<Instant>,
    cause: Option<String>,
    /// It was told that it is behind.
    is_told: bool,
}

impl State {
    fn owe(&mut self, ids: impl IntoIterator<Item = ChunkId>, owed_max: usize) {
        for id in ids {
            if self.owed.len() >= owed_max && !self.owed.contains(&id) {
                self.owes_more = true;
                return;
            }
            self.owed.insert(id);
        }
    }

    fn is_whole(&self) -> bool {
        self.owed.is_empty() && !self.owes_more && !self.has_flush_failed
    }
}

/// A flush under way. Dropped before it succeeded, also by a panic, it has failed.
struct Flush<'a, S: ChunkStore + ?Sized> {
    member: &'a Member<S>,
    pending: HashSet<ChunkId>,
    owed_max: usize,
    is_done: bool,
}

impl<S: ChunkStore + ?Sized> Drop for Flush<'_, S> {
    fn drop(&mut self) {
        let mut state = self.member.state();
        state.flushes_ended = state.flushes_begun;
        state.has_flush_failed = !self.is_done;
        if !self.is_done {
            state.flushes_failed += 1;
            // What was put while it ran may have been part of it.
            let lost = std::mem::take(&mut state.unflushed);
            state.owe(std::mem::take(&mut self.pending).into_iter().chain(lost), self.owed_max);
        }
        self.member.flush_ended.notify_all();
    }
}

impl<S: ChunkStore + ?Sized> Member<S> {
    pub(super) fn new(store: Arc<S>) -> Self {
        Self {
            store,
            state: Mutex::default(),
            flush_ended: Condvar::new(),
            nanos: AtomicU64::new(0),
            is_read_only: AtomicBool::new(false),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts chunks. On an error they are not owed yet: perhaps nobody has them.
    pub(super) fn put(&self, chunks: &[StorableChunk], owed_max: usize) -> Result<()> {
        let failed_before = self.state().flushes_failed;
        if let Err(error) = self.store.put_many(chunks) {
            self.failed(&error);
            return Err(error);
        }
        let ids = chunks.iter().map(StorableChunk::id);
        let mut state = self.state();
        state.failed_at = None;
        if state.flushes_failed == failed_before {
            state.unflushed.extend(ids);
        } else {
            // A flush that failed meanwhile may have cost them.
            state.owe(ids, owed_max);
        }
        let is_much = state.unflushed.len() > owed_max;
        drop(state);
        if is_much {
            self.flush(owed_max);
        }
        Ok(())
    }

    /// Flushes, or waits for one that began after this call and was somebody else's; whether it succeeded.
    pub(super) fn flush(&self, owed_max: usize) -> bool {
        let mut state = self.state();
        let wanted = state.flushes_begun + 1;
        loop {
            if state.flushes_ended >= wanted {
                return !state.has_flush_failed;
            }
            if state.flushes_begun == state.flushes_ended {
                break;
            }
            state = self.flush_ended.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        state.flushes_begun += 1;
        let mut flush = Flush {
            member: self,
            pending: std::mem::take(&mut state.unflushed),
            owed_max,
            is_done: false,
        };
        drop(state);
        let flushed = self.store.flush();
        flush.is_done = flushed.is_ok();
        drop(flush);
        match flushed {
            Ok(()) => {
                self.state().failed_at = None;
                true
            }
            Err(error) => {
                self.failed(&error);
                false
            }
        }
    }

    /// It does not have these.
    pub(super) fn owe(&self, ids: &[ChunkId], owed_max: usize) {
        if !ids.is_empty() {
            self.state().owe(ids.iter().copied(), owed_max);
        }
    }

    /// Some of what it owes.
    pub(super) fn owed(&self, count: usize) -> Vec<ChunkId> {
        self.state().owed.iter().take(count).copied().collect()
    }

    /// How many flushes have failed so far.
    pub(super) fn flushes_failed(&self) -> u64 {
        self.state().flushes_failed
    }

    /// These were put, and a flush succeeded. They are owed still if one has failed since there were `failed_before`: somebody else's
    /// may have cost what was put.
    pub(super) fn has_paid(&self, ids: &[ChunkId], failed_before: u64) {
        let mut state = self.state();
        if state.flushes_failed == failed_before {
            for id in ids {
                state.owed.remove(id);
            }
        }
    }

    /// These are to be nowhere.
    pub(super) fn forget(&self, ids: &[ChunkId]) {
        let mut state = self.state();
        for id in ids {
            state.owed.remove(id);
            state.unflushed.remove(id);
        }
    }

    /// Notes a call that failed.
    pub(super) fn failed(&self, error: &Error) {
        if matches!(error, Error::ReadOnly { .. }) {
            self.is_read_only.store(true, Ordering::Relaxed);
        }
        let mut state = self.state();
        state.failed_at = Some(Instant::now());
        state.cause = Some(error_chain(error));
    }

    /// Notes how long a read took.
    pub(super) fn took(&self, time: Duration, chunks: usize) {
        self.state().failed_at = None;
        let new = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX) / chunks.max(1) as u64;
        let old = self.nanos();
        let average = if old == 0 { new } else { old - old / 8 + new / 8 };
        self.nanos.store(average.max(1), Ordering::Relaxed);
    }

    pub(super) fn nanos(&self) -> u64 {
        self.nanos.load(Ordering::Relaxed)
    }

    /// Whether it failed less than `time` ago.
    pub(super) fn is_spared(&self, now: Instant, time: Duration) -> bool {
        let failed_at = self.state().failed_at;
        failed_at.is_some_and(|at| now.saturating_duration_since(at) < time)
    }

    pub(super) fn is_read_only(&self) -> bool {
        self.is_read_only.load(Ordering::Relaxed)
    }

    pub(super) fn owes_more(&self) -> bool {
        self.state().owes_more
    }

    /// Whether it has everything that the mirror was given, durable.
    pub(super) fn is_whole(&self) -> bool {
        self.state().is_whole()
    }

    pub(super) fn behind(&self) -> Behind {
        let state = self.state();
        let is_whole = state.is_whole();
        Behind {
            member: self.store.name().clone(),
            chunks: state.owed.len(),
            and_more: state.owes_more,
            cause: state.cause.clone().filter(|_| !is_whole),
        }
    }

    /// What is to be told of it, if that has changed since it was asked last.
    pub(super) fn news(&self) -> Option<Behind> {
        let behind = self.behind();
        let mut state = self.state();
        let is_told = std::mem::replace(&mut state.is_told, !behind.is_whole());
        (is_told == behind.is_whole()).then_some(behind)
    }
}
