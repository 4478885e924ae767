//! Work that may wait or burn CPU, kept off the threads that serve connections, and the memory bound of request bodies.
//!
//! One request is one job on the runtime's blocking threads; at most `jobs` of them run, further ones wait (back-pressure).
//! Chunks that open to more than [`ORDINARY_PLAIN_LEN_MAX`] are opened [`LARGE_JOBS`] at a time, so that small frames with
//! huge contents cannot take the machine's memory together.

use std::sync::{Arc, Condvar, Mutex, PoisonError};

use cairn_formats::{CHUNK_LEN_MAX, ChunkError, FrameError};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Plain bytes of a chunk that is opened without waiting for a turn.
pub(crate) const ORDINARY_PLAIN_LEN_MAX: usize = 4 << 20;
/// Chunks above [`ORDINARY_PLAIN_LEN_MAX`] opened at once.
const LARGE_JOBS: usize = 2;
/// Bytes of answers with many chunks, read and not taken, of all together.
const ANSWER_BYTES: usize = 256 << 20;
/// Bytes of ids that answers with many chunks are still to be given for, of all together.
const ASKED_BYTES: usize = 64 << 20;
/// Memory of bodies and answers is counted in these units, so that the count fits a semaphore.
const BODY_UNIT: usize = 1 << 10;

/// How much roots may do at once; shared by all roots of a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WorkerOptions {
    /// Jobs at once on blocking threads.
    pub jobs: usize,
    /// Bytes of request bodies held in memory at once.
    pub body_bytes: usize,
}

impl Default for WorkerOptions {
    fn default() -> Self {
        Self {
            jobs: 64,
            body_bytes: 512 << 20,
        }
    }
}

/// Runs jobs within bounds.
#[derive(Clone, Debug)]
pub struct Workers {
    jobs: Arc<Semaphore>,
    bodies: Arc<Semaphore>,
    body_units: u32,
    asked: Arc<Semaphore>,
    answers: Arc<Semaphore>,
    large: Arc<Turns>,
}

/// The job panicked; the log has why.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("a job of the server failed")]
pub(crate) struct JobFailed;

/// Memory reserved for a request body; given back when dropped.
#[derive(Debug)]
pub struct BodyMemory {
    permit: OwnedSemaphorePermit,
    workers: Workers,
}

/// Memory reserved for a part of an answer; given back when dropped.
#[derive(Debug)]
pub(crate) struct AnswerMemory {
    _permit: OwnedSemaphorePermit,
}

impl Workers {
    /// Bounds for a process. A body is always let in when it is alone, whatever its length.
    pub fn new(options: WorkerOptions) -> Self {
        let body_units = u32::try_from(options.body_bytes / BODY_UNIT)
            .unwrap_or(u32::MAX)
            .clamp(1, u32::try_from(Semaphore::MAX_PERMITS).unwrap_or(u32::MAX));
        Self {
            jobs: Arc::new(Semaphore::new(options.jobs.max(1))),
            bodies: Arc::new(Semaphore::new(body_units as usize)),
            asked: Arc::new(Semaphore::new(ASKED_BYTES / BODY_UNIT)),
            answers: Arc::new(Semaphore::new(ANSWER_BYTES / BODY_UNIT)),
            body_units,
            large: Arc::new(Turns::new(LARGE_JOBS)),
        }
    }

    /// Runs `job` on a blocking thread when there is one free. It runs to its end even if the caller goes away.
    pub(crate) async fn run<T: Send + 'static>(
        &self,
        job: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, JobFailed> {
        let permit = Arc::clone(&self.jobs)
            .acquire_owned()
            .await
            .expect("the semaphore is never closed");
        tokio::task::spawn_blocking(move || {
            let _permit = permit;
            job()
        })
        .await
        .map_err(|_| JobFailed)
    }

    /// Waits for room for a body of `len` bytes.
    pub(crate) async fn body_memory(&self, len: usize) -> BodyMemory {
        let permit = Arc::clone(&self.bodies)
            .acquire_many_owned(self.units(len))
            .await
            .expect("the semaphore is never closed");
        BodyMemory {
            permit,
            workers: self.clone(),
        }
    }

    /// Room for `len` bytes of ids for as long as they are answered. Without waiting: who waits would hold a connection.
    pub(crate) fn asked_memory(&self, len: usize) -> Option<AnswerMemory> {
        let permit = Arc::clone(&self.asked).try_acquire_many_owned(self.units(len)).ok()?;
        Some(AnswerMemory { _permit: permit })
    }

    /// Waits for room for `len` bytes of an answer. What was given before goes back when it is sent or given up, so this ends.
    pub(crate) async fn answer_memory(&self, len: usize) -> AnswerMemory {
        let units = len.div_ceil(BODY_UNIT).clamp(1, ANSWER_BYTES / BODY_UNIT) as u32;
        let permit = Arc::clone(&self.answers)
            .acquire_many_owned(units)
            .await
            .expect("the semaphore is never closed");
        AnswerMemory { _permit: permit }
    }

    /// Calls `open` with the most plain bytes that a chunk may have, within the bound on large chunks. Blocks.
    pub(crate) fn open_bounded<T>(&self, open: impl Fn(usize) -> Result<T, ChunkError>) -> Result<T, ChunkError> {
        match open(ORDINARY_PLAIN_LEN_MAX) {
            Err(ChunkError::Frame {
                source: FrameError::TooLong { .. },
                ..
            }) => {
                let _turn = self.large.take();
                open(CHUNK_LEN_MAX)
            }
            result => result,
        }
    }

    fn units(&self, len: usize) -> u32 {
        u32::try_from(len.div_ceil(BODY_UNIT))
            .unwrap_or(u32::MAX)
            .clamp(1, self.body_units)
    }
}

impl BodyMemory {
    /// Makes room for `len` bytes in all, without waiting: two bodies that wait for each other's room would wait for ever.
    /// `false` when there is none.
    pub(crate) fn grow(&mut self, len: usize) -> bool {
        let more = self
            .workers
            .units(len)
            .saturating_sub(u32::try_from(self.permit.num_permits()).unwrap_or(u32::MAX));
        if more == 0 {
            return true;
        }
        match Arc::clone(&self.workers.bodies).try_acquire_many_owned(more) {
            Ok(permit) => {
                self.permit.merge(permit);
                true
            }
            Err(_) => false,
        }
    }
}

/// A counting semaphore for threads that may block.
#[derive(Debug)]
struct Turns {
    free: Mutex<usize>,
    freed: Condvar,
}

struct Turn<'a>(&'a Turns);

impl Turns {
    fn new(free: usize) -> Self {
        Self {
            free: Mutex::new(free),
            freed: Condvar::new(),
        }
    }

    fn take(&self) -> Turn<'_> {
        // A poisoned count is still a right count: it changes in one step.
        let free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
        let mut free = self
            .freed
            .wait_while(free, |free| *free == 0)
            .unwrap_or_else(PoisonError::into_inner);
        *free -= 1;
        Turn(self)
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        *self.0.free.lock().unwrap_or_else(PoisonError::into_inner) += 1;
        self.0.freed.notify_one();
    }
}
