//! A store that counts: how long its calls take and which errors they end with.
//!
//! `store_op_duration_seconds{backend, op}` has one value a call, whatever its batch is; `store_errors_total{backend, op, class}`
//! one a failed call, of a batch read one a failed chunk. A missing chunk is an answer, not an error. The handles are made
//! once, from the recorder that is installed when the store is made. Hot path: two clock reads a call; reads from memory
//! ([`ChunkStore::get_resident`]) are passed through uncounted.

use std::sync::Arc;
use std::time::Instant;

use cairn_formats::{ChunkForm, ChunkId, EncodedChunk, StorableChunk};
use metrics::Histogram;

use crate::{ChunkStat, ChunkStore, Error, Result, StoreName};

/// A store whose calls are counted.
#[derive(Debug)]
pub struct MetricsStore {
    inner: Arc<dyn ChunkStore>,
    backend: &'static str,
    has: Operation,
    get: Operation,
    put: Operation,
    flush: Operation,
    stat: Operation,
}

/// One kind of call.
struct Operation {
    name: &'static str,
    seconds: Histogram,
}

impl std::fmt::Debug for Operation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name)
    }
}

impl MetricsStore {
    /// Counts the calls to `inner`.
    ///
    /// - `backend`: its kind, as a label: `flat`, `http`.
    pub fn new(inner: Arc<dyn ChunkStore>, backend: &'static str) -> Self {
        let operation = |name| Operation {
            name,
            seconds: metrics::histogram!("store_op_duration_seconds", "backend" => backend, "op" => name),
        };
        Self {
            inner,
            backend,
            has: operation("has"),
            get: operation("get"),
            put: operation("put"),
            flush: operation("flush"),
            stat: operation("stat"),
        }
    }

    fn timed<T>(&self, operation: &Operation, call: impl FnOnce(&dyn ChunkStore) -> Result<T>) -> Result<T> {
        let start = Instant::now();
        let answer = call(&*self.inner);
        operation.seconds.record(start.elapsed());
        if let Err(error) = &answer {
            self.failed(operation, error);
        }
        answer
    }

    fn failed(&self, operation: &Operation, error: &Error) {
        let class = match error {
            Error::Missing { .. } | Error::NoIndex { .. } => return,
            Error::Corrupt { .. } => "corrupt",
            Error::ReadOnly { .. } => "read_only",
            Error::Unavailable { .. } => "unavailable",
            Error::Refused { .. } => "refused",
        };
        metrics::counter!("store_errors_total", "backend" => self.backend, "op" => operation.name, "class" => class)
            .increment(1);
    }
}

#[deny(clippy::missing_trait_methods)]
impl ChunkStore for MetricsStore {
    fn name(&self) -> &StoreName {
        self.inner.name()
    }

    fn has_many(&self, ids: &[ChunkId]) -> Result<Vec<bool>> {
        self.timed(&self.has, |inner| inner.has_many(ids))
    }

    fn get_many(&self, ids: &[ChunkId]) -> Vec<Result<EncodedChunk>> {
        let start = Instant::now();
        let answers = self.inner.get_many(ids);
        self.get.seconds.record(start.elapsed());
        for error in answers.iter().filter_map(|answer| answer.as_ref().err()) {
            self.failed(&self.get, error);
        }
        answers
    }

    fn put_many(&self, chunks: &[StorableChunk]) -> Result<()> {
        self.timed(&self.put, |inner| inner.put_many(chunks))
    }

    fn flush(&self) -> Result<()> {
        self.timed(&self.flush, |inner| inner.flush())
    }

    fn stat(&self, id: ChunkId, form: ChunkForm) -> Result<Option<ChunkStat>> {
        self.timed(&self.stat, |inner| inner.stat(id, form))
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
