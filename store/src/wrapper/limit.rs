//! A bound on the calls that a store has to do with at once: the others wait for their turn.
//!
//! A call is one whatever its batch is, for callers bound their batches. Invariant: no more than `calls_max` calls are inside
//! the inner store, and a place is given back also when a call panics. Reads that cannot wait are not counted.

use std::num::NonZeroUsize;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use cairn_formats::{ChunkForm, ChunkId, EncodedChunk, StorableChunk};

use crate::{ChunkStat, ChunkStore, Result, StoreName};

/// A store that is asked only so much at once.
#[derive(Debug)]
pub struct LimitStore {
    inner: Arc<dyn ChunkStore>,
    free: Mutex<usize>,
    given_back: Condvar,
}

/// The right to be inside the inner store.
struct Place<'a>(&'a LimitStore);

impl LimitStore {
    /// Lets at most `calls_max` calls into `inner` at once.
    pub fn new(inner: Arc<dyn ChunkStore>, calls_max: NonZeroUsize) -> Self {
        Self {
            inner,
            free: Mutex::new(calls_max.get()),
            given_back: Condvar::new(),
        }
    }

    fn place(&self) -> Place<'_> {
        let mut free = self
            .given_back
            .wait_while(self.free(), |free| *free == 0)
            .unwrap_or_else(PoisonError::into_inner);
        *free -= 1;
        Place(self)
    }

    fn free(&self) -> MutexGuard<'_, usize> {
        self.free.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        *self.0.free() += 1;
        self.0.given_back.notify_one();
    }
}

#[deny(clippy::missing_trait_methods)]
impl ChunkStore for LimitStore {
    fn name(&self) -> &StoreName {
        self.inner.name()
    }

    fn has_many(&self, ids: &[ChunkId]) -> Result<Vec<bool>> {
        let _place = self.place();
        self.inner.has_many(ids)
    }

    fn get_many(&self, ids: &[ChunkId]) -> Vec<Result<EncodedChunk>> {
        let _place = self.place();
        self.inner.get_many(ids)
    }

    fn put_many(&self, chunks: &[StorableChunk]) -> Result<()> {
        let _place = self.place();
        self.inner.put_many(chunks)
    }

    fn flush(&self) -> Result<()> {
        let _place = self.place();
        self.inner.flush()
    }

    fn stat(&self, id: ChunkId, form: ChunkForm) -> Result<Option<ChunkStat>> {
        let _place = self.place();
        self.inner.stat(id, form)
    }

    fn get_resident(&self, id: ChunkId, form: ChunkForm) -> Option<EncodedChunk> {
        self.inner.get_resident(id, form)
    }

    fn is_far(&self) -> bool {
        self.inner.is_far()
    }

    fn set_aside(&self, damaged: &EncodedChunk) -> Result<bool> {
        self.inner.set_aside(damaged)
    }
}
