//! One thread that drives the connections of one store, and so many requests at a time over all callers.
//!
//! Callers only block: they may be inside async code of their own, as everywhere in this crate.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;

use tokio::runtime::{self, Runtime};
use tokio::sync::Semaphore;

/// The network thread of one store.
pub(crate) struct Workers {
    /// `None` only while it is dropped.
    runtime: Option<Runtime>,
    permits: Arc<Semaphore>,
    concurrency: usize,
}

impl Workers {
    /// Starts the thread.
    ///
    /// - `concurrency`: jobs under way at most, over all callers; 0 counts as 1.
    pub(crate) fn start(concurrency: usize) -> std::io::Result<Self> {
        let concurrency = concurrency.clamp(1, Semaphore::MAX_PERMITS);
        Ok(Self {
            runtime: Some(network_thread()?),
            permits: Arc::new(Semaphore::new(concurrency)),
            concurrency,
        })
    }

    /// Jobs under way at most.
    pub(crate) fn concurrency(&self) -> usize {
        self.concurrency
    }

    /// Runs `job` for `0..count`, at most `concurrency` at a time; answers arrive in any order.
    ///
    /// - `goes_on`: says after each answer whether the jobs not yet begun are still wanted.
    pub(crate) fn run_many<T, F>(
        &self,
        count: usize,
        job: impl Fn(usize) -> F + Clone + Send + 'static,
        mut goes_on: impl FnMut(usize, T) -> bool,
    ) where
        T: Send + 'static,
        F: Future<Output = T> + Send,
    {
        let runtime = self.runtime.as_ref().expect("taken only by drop");
        let next = Arc::new(AtomicUsize::new(0));
        let (answers, incoming) = mpsc::channel();
        for _ in 0..count.min(self.concurrency) {
            let (permits, next, answers, job) = (self.permits.clone(), next.clone(), answers.clone(), job.clone());
            runtime.spawn(async move {
                loop {
                    let Ok(_permit) = permits.acquire().await else {
                        return;
                    };
                    let index = next.fetch_add(1, Ordering::Relaxed);
                    if index >= count || answers.send((index, job(index).await)).is_err() {
                        return;
                    }
                }
            });
        }
        drop(answers);
        // Ends when the last worker has let go of its sender, so that none outlives the call.
        for (index, answer) in incoming {
            if !goes_on(index, answer) {
                next.store(count, Ordering::Relaxed);
            }
        }
    }

    /// Runs one job. `None`: it ended without an answer.
    pub(crate) fn run<T: Send + 'static>(&self, job: impl Future<Output = T> + Send + 'static) -> Option<T> {
        let runtime = self.runtime.as_ref().expect("taken only by drop");
        let (answer, incoming) = mpsc::channel();
        let permits = self.permits.clone();
        runtime.spawn(async move {
            let _permit = permits.acquire().await;
            // Nobody waits any more only if the caller panicked.
            let _ = answer.send(job.await);
        });
        incoming.recv().ok()
    }
}

impl Drop for Workers {
    fn drop(&mut self) {
        // Nothing runs between calls but idle connections, and waiting is not allowed where async code drops a store.
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

/// One thread that drives the connections of one client.
pub(crate) fn network_thread() -> std::io::Result<Runtime> {
    runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .thread_name("cairn-network")
        .enable_all()
        .build()
}
