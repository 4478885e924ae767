//! A store whose calls are counted and timed: `store_op_duration_seconds{backend, op}`, `store_errors_total{backend, op, class}`.
//!
//! Reads from the page cache are not timed: they are the hot path, and the request's own duration says the same.

use std::sync::Arc;
use std::time::Instant;

use cairn_formats::{ChunkForm, ChunkId, EncodedChunk, StorableChunk};
use cairn_store::{ChunkStat, ChunkStore, Error, Result, StoreName};
use metrics::{Histogram, counter, histogram};

/// Measures `inner`.
pub(crate) struct Measured {
    inner: Arc<dyn ChunkStore>,
    backend: &'static str,
    durations: Durations,
}

struct Durations {
    has: Histogram,
    get: Histogram,
    put: Histogram,
    flush: Histogram,
    stat: Histogram,
}

impl Measured {
    /// - `backend`: the kind of store, not its name, so that labels stay few.
    pub(crate) fn new(inner: Arc<dyn ChunkStore>, backend: &'static str) -> Self {
        let duration = |op: &'static str| histogram!("store_op_duration_seconds", "backend" => backend, "op" => op);
        Self {
            inner,
            backend,
            durations: Durations {
                has: duration("has"),
                get: duration("get"),
                put: duration("put"),
                flush: duration("flush"),
                stat: duration("stat"),
            },
        }
    }

    fn measure<T>(&self, op: &'static str, duration: &Histogram, call: impl FnOnce() -> Result<T>) -> Result<T> {
        let started = Instant::now();
        let result = call();
        duration.record(started.elapsed().as_secs_f64());
        result.inspect_err(|error| self.count(op, error))
    }

    fn count(&self, op: &'static str, error: &Error) {
        let class = match error {
            // An answer, not a failure.
            Error::Missing { .. } => return,
            Error::Corrupt { .. } => "corrupt",
            Error::ReadOnly { .. } => "read_only",
            Error::Unavailable { .. } => "unavailable",
            Error::Refused { .. } => "refused",
            _ => "other",
        };
        counter!("store_errors_total", "backend" => self.backend, "op" => op, "class" => class).increment(1);
    }
}

impl std::fmt::Debug for Measured {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.inner.fmt(f)
    }
}

#[deny(clippy::missing_trait_methods)]
impl ChunkStore for Measured {
    fn name(&self) -> &StoreName {
        self.inner.name()
    }

    fn has_many(&self, ids: &[ChunkId]) -> Result<Vec<bool>> {
        self.measure("has", &self.durations.has, || self.inner.has_many(ids))
    }

    fn get_many(&self, ids: &[ChunkId]) -> Vec<Result<EncodedChunk>> {
        let started = Instant::now();
        let chunks = self.inner.get_many(ids);
        self.durations.get.record(started.elapsed().as_secs_f64());
        for error in chunks.iter().filter_map(|chunk| chunk.as_ref().err()) {
            self.count("get", error);
        }
        chunks
    }

    fn put_many(&self, chunks: &[StorableChunk]) -> Result<()> {
        self.measure("put", &self.durations.put, || self.inner.put_many(chunks))
    }

    fn flush(&self) -> Result<()> {
        self.measure("flush", &self.durations.flush, || self.inner.flush())
    }

    fn stat(&self, id: ChunkId, form: ChunkForm) -> Result<Option<ChunkStat>> {
        self.measure("stat", &self.durations.stat, || self.inner.stat(id, form))
    }

    fn get_resident(&self, id: ChunkId, form: ChunkForm) -> Option<EncodedChunk> {
        self.inner.get_resident(id, form)
    }
}
