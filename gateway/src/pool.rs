//! Where work that may block is done: so many jobs at once, so many more waiting for so long, and beyond that a refusal.
//!
//! A request never stalls behind a queue without an end: its door answers 503 with `Retry-After` instead. All work on the index that
//! requests ask for passes here, so it is measured here, whichever door it came by: how long it waited, and how long it took.

use std::cell::Cell;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use metrics::{Counter, Histogram};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// How much a pool takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PoolOptions {
    /// Jobs at once, each on a thread.
    pub jobs: usize,
    /// Jobs that wait for one of those to end.
    pub waiting: usize,
    /// How long they wait.
    pub patience: Duration,
}

impl Default for PoolOptions {
    fn default() -> Self {
        Self {
            jobs: 64,
            waiting: 4096,
            patience: Duration::from_secs(10),
        }
    }
}

/// Why a job came to nothing. Each door has its own words for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum JobLost {
    /// There was no place for it.
    Full,
    /// It panicked, which the log tells.
    Panicked,
}

/// Runs jobs within bounds, on the runtime's blocking threads.
#[derive(Clone, Debug)]
pub(crate) struct Pool {
    meters: Arc<Meters>,
    jobs: Arc<Semaphore>,
    waiting: Arc<Semaphore>,
    patience: Duration,
    answers: Arc<AtomicUsize>,
}

/// What a pool measures. Handles are made once: to look one up for each job would cost more than the counting.
#[derive(Debug)]
struct Meters {
    /// How long jobs took that ask the index.
    queries: Histogram,
    /// How long jobs waited that had to.
    waits: Histogram,
    full: Counter,
    late: Counter,
}

impl Meters {
    fn new(name: &'static str) -> Self {
        let refused = |why| metrics::counter!("s3_refused_total", "pool" => name, "why" => why);
        Self {
            queries: queries(name),
            waits: metrics::histogram!("s3_wait_seconds", "pool" => name),
            full: refused("full"),
            late: refused("late"),
        }
    }
}

fn queries(domain: &'static str) -> Histogram {
    metrics::histogram!("index_query_duration_seconds", "domain" => domain)
}

/// One of several that share memory, until it is dropped.
#[derive(Debug)]
pub(crate) struct Counted(Arc<AtomicUsize>);

impl Counted {
    fn new(count: &Arc<AtomicUsize>) -> Self {
        count.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(count))
    }

    /// How many there are now, this one among them.
    pub(crate) fn count(&self) -> usize {
        self.0.load(Ordering::Relaxed).max(1)
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Pool {
    /// - `name`: in the metrics.
    pub(crate) fn new(name: &'static str, options: PoolOptions) -> Self {
        Self {
            meters: Arc::new(Meters::new(name)),
            jobs: Arc::new(Semaphore::new(options.jobs.max(1))),
            waiting: Arc::new(Semaphore::new(options.waiting)),
            patience: options.patience,
            answers: Arc::default(),
        }
    }

    /// Counts an answer whose content is read: many are to have less memory each.
    pub(crate) fn answer(&self) -> Counted {
        Counted::new(&self.answers)
    }

    /// Runs a job. It runs to its end even if the caller goes away.
    ///
    /// Errors: those of the job; [`JobLost`].
    pub(crate) async fn run<T, E>(&self, job: impl FnOnce() -> Result<T, E> + Send + 'static) -> Result<T, E>
    where
        T: Send + 'static,
        E: From<JobLost> + Send + 'static,
    {
        let queries = self.meters.queries.clone();
        self.run_bytes(move || timed(&queries, job)).await
    }

    /// [`Pool::run`] of a job that is counted with those of a domain of the index instead of the pool's.
    pub(crate) async fn run_of<T, E>(
        &self,
        domain: &'static str,
        job: impl FnOnce() -> Result<T, E> + Send + 'static,
    ) -> Result<T, E>
    where
        T: Send + 'static,
        E: From<JobLost> + Send + 'static,
    {
        let queries = queries(domain);
        self.run_bytes(move || timed(&queries, job)).await
    }

    /// [`Pool::run`] of a job that takes bytes of a body: its time says nothing of the index.
    pub(crate) async fn run_bytes<T, E>(&self, job: impl FnOnce() -> Result<T, E> + Send + 'static) -> Result<T, E>
    where
        T: Send + 'static,
        E: From<JobLost> + Send + 'static,
    {
        if WITHIN.get() {
            return job();
        }
        let place = match Arc::clone(&self.jobs).try_acquire_owned() {
            Ok(place) => place,
            Err(_) => {
                let refuse = |counter: &Counter| {
                    counter.increment(1);
                    JobLost::Full
                };
                let _turn = self.waiting.try_acquire().map_err(|_| refuse(&self.meters.full))?;
                let since = Instant::now();
                let place = tokio::time::timeout(self.patience, Arc::clone(&self.jobs).acquire_owned()).await;
                self.meters.waits.record(since.elapsed());
                place
                    .map_err(|_| refuse(&self.meters.late))?
                    .expect("the semaphore is never closed")
            }
        };
        run_at(place, job).await
    }

    /// Runs all of a request in one job: the jobs that it asks for are done at once, on the same thread.
    ///
    /// - `request`: waits for nothing but jobs of this pool, or else has a thread wait.
    /// - Errors: as [`Pool::run`].
    pub(crate) async fn run_whole<T, E>(
        &self,
        request: impl Future<Output = Result<T, E>> + Send + 'static,
    ) -> Result<T, E>
    where
        T: Send + 'static,
        E: From<JobLost> + Send + 'static,
    {
        let runtime = tokio::runtime::Handle::current();
        self.run(move || {
            let _within = Within::begin();
            runtime.block_on(request)
        })
        .await
    }

    /// [`Pool::run_bytes`] of a job whose answer has begun: it waits for its turn however long that takes.
    pub(crate) async fn run_patiently<T, E>(&self, job: impl FnOnce() -> Result<T, E> + Send + 'static) -> Result<T, E>
    where
        T: Send + 'static,
        E: From<JobLost> + Send + 'static,
    {
        let place = Arc::clone(&self.jobs).acquire_owned().await;
        run_at(place.expect("the semaphore is never closed"), job).await
    }
}

thread_local! {
    /// This thread is within [`Pool::run_whole`].
    static WITHIN: Cell<bool> = const { Cell::new(false) };
}

/// Does a job, and measures it unless it is a part of one that is measured.
fn timed<T>(queries: &Histogram, job: impl FnOnce() -> T) -> T {
    if WITHIN.get() {
        return job();
    }
    let begun = Instant::now();
    let done = job();
    queries.record(begun.elapsed());
    done
}

/// Until it is dropped.
struct Within;

impl Within {
    fn begin() -> Self {
        WITHIN.set(true);
        Self
    }
}

impl Drop for Within {
    fn drop(&mut self) {
        WITHIN.set(false);
    }
}

async fn run_at<T, E>(place: OwnedSemaphorePermit, job: impl FnOnce() -> Result<T, E> + Send + 'static) -> Result<T, E>
where
    T: Send + 'static,
    E: From<JobLost> + Send + 'static,
{
    let done = tokio::task::spawn_blocking(move || {
        let _place = place;
        job()
    });
    done.await.unwrap_or_else(|_| Err(JobLost::Panicked.into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pool(waiting: usize, patience: Duration) -> Pool {
        let options = PoolOptions {
            jobs: 1,
            waiting,
            patience,
        };
        Pool::new("ordinary", options)
    }

    /// Goal: a job beyond the bounds is answered at once, one within them when its turn comes.
    #[tokio::test]
    async fn a_full_pool_refuses_and_does_not_wait() {
        let pool = pool(1, Duration::from_secs(60));
        let (release, released) = std::sync::mpsc::channel::<()>();
        let (begun, began) = tokio::sync::oneshot::channel();
        let first = tokio::spawn({
            let pool = pool.clone();
            async move {
                let job = move || {
                    let _ = begun.send(());
                    let _ = released.recv();
                    Ok::<_, JobLost>(1)
                };
                pool.run(job).await
            }
        });
        began.await.unwrap();
        let mut second = Box::pin(pool.run(|| Ok::<_, JobLost>(2)));
        // Once polled it waits.
        assert!(futures_now(second.as_mut()).is_none());
        assert_eq!(pool.run(|| Ok::<_, JobLost>(3)).await.unwrap_err(), JobLost::Full);
        release.send(()).unwrap();
        assert_eq!(second.await.unwrap(), 2);
        assert_eq!(first.await.unwrap().unwrap(), 1);
    }

    /// Goal: a request in one job needs one place for all of its jobs, and gives it back.
    #[tokio::test]
    async fn a_request_in_one_job_runs_its_jobs_at_once() {
        let pool = pool(0, Duration::ZERO);
        let own = pool.clone();
        let request = async move {
            let first = own.run(|| Ok::<_, JobLost>(1)).await?;
            let second = own.run(move || Ok::<_, JobLost>(first + 1)).await?;
            let failed: Result<u32, JobLost> = own.run(|| Err(JobLost::Full)).await;
            assert_eq!(failed.unwrap_err(), JobLost::Full);
            Ok::<_, JobLost>(second)
        };
        assert_eq!(pool.run_whole(request).await.unwrap(), 2);
        let own = pool.clone();
        let panics = async move { own.run(|| -> Result<(), JobLost> { panic!("on purpose") }).await };
        assert_eq!(pool.run_whole(panics).await.unwrap_err(), JobLost::Panicked);
        assert_eq!(pool.run(|| Ok::<_, JobLost>(3)).await.unwrap(), 3);
    }

    #[tokio::test]
    async fn who_waits_too_long_is_refused() {
        let pool = pool(1, Duration::ZERO);
        let _held = Arc::clone(&pool.jobs).try_acquire_owned().unwrap();
        assert_eq!(pool.run(|| Ok::<_, JobLost>(())).await.unwrap_err(), JobLost::Full);
    }

    #[tokio::test]
    async fn a_job_that_panics_is_an_error_and_gives_its_place_back() {
        let pool = pool(0, Duration::ZERO);
        let result: Result<(), JobLost> = pool.run(|| panic!("on purpose")).await;
        assert_eq!(result.unwrap_err(), JobLost::Panicked);
        assert_eq!(pool.run(|| Ok::<_, JobLost>(1)).await.unwrap(), 1);
    }

    /// Goal: whichever way the work of a request comes, it is measured once, and so is waiting, and why jobs were refused.
    #[test]
    fn what_a_pool_does_is_measured() {
        let recorder = metrics_exporter_prometheus::PrometheusBuilder::new().build_recorder();
        let page = recorder.handle();
        // Handles are made with the pool, and go where they were made.
        let pool = metrics::with_local_recorder(&recorder, || self::pool(1, Duration::ZERO));
        let count = |line: &str| -> u64 {
            let page = page.render();
            let found = page.lines().find_map(|each| each.strip_prefix(line));
            found.map_or(0, |value| value.trim().parse().unwrap())
        };
        let queries = || count("index_query_duration_seconds_count{domain=\"ordinary\"}");
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .build()
            .unwrap();
        runtime.block_on(async {
            pool.run(|| Ok::<_, JobLost>(())).await.unwrap();
            assert_eq!(queries(), 1);
            let own = pool.clone();
            let request = async move {
                own.run(|| Ok::<_, JobLost>(())).await?;
                own.run(|| Ok::<_, JobLost>(())).await
            };
            pool.run_whole(request).await.unwrap();
            assert_eq!(queries(), 2, "all of a request is one");
            pool.run_bytes(|| Ok::<_, JobLost>(())).await.unwrap();
            pool.run_patiently(|| Ok::<_, JobLost>(())).await.unwrap();
            assert_eq!(queries(), 2, "bytes are no queries");
            let _held = Arc::clone(&pool.jobs).try_acquire_owned().unwrap();
            pool.run(|| Ok::<_, JobLost>(())).await.unwrap_err();
            let _waits = pool.waiting.try_acquire().unwrap();
            pool.run(|| Ok::<_, JobLost>(())).await.unwrap_err();
        });
        let refused = |why| count(&format!("s3_refused_total{{pool=\"ordinary\",why=\"{why}\"}}"));
        assert_eq!((refused("late"), refused("full"), queries()), (1, 1, 2));
        assert_eq!(count("s3_wait_seconds_count{pool=\"ordinary\"}"), 1);
    }

    /// What a future has now, without waiting.
    fn futures_now<F: Future>(future: std::pin::Pin<&mut F>) -> Option<F::Output> {
        let mut context = std::task::Context::from_waker(std::task::Waker::noop());
        match future.poll(&mut context) {
            std::task::Poll::Ready(output) => Some(output),
            std::task::Poll::Pending => None,
        }
    }
}
