//! Compressing objects when nobody writes: what came in raw blocks, so that its client did not wait for it, is made small then.
//!
//! A thread looks now and then. Once enough waits, and no upload has begun or gone on for a while, packs are written anew with smaller
//! frames, as fast as one processor can, and slowly as soon as somebody writes again; where very much waits it is done slowly beside
//! writers, too. Not here: how packs are written anew (`store`), what may go (`care.rs`).

use std::num::NonZeroU64;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use cairn_formats::Level;
use cairn_index::{CollectControl, Error, Objects, squeeze};
use cairn_store::{PackEngine, RateLimit};

use crate::config;
use crate::keeper::Rows;
use crate::routes::chain;

/// Between two looks.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Bytes that wait before it is worth a pack.
const WAITING_MIN: u64 = 1 << 20;
/// Time after which what failed is tried again.
const AGAIN_AFTER: Duration = Duration::from_secs(600);

/// Compresses when it is time, until it is dropped.
#[derive(Debug)]
pub(crate) struct Rest {
    control: Arc<CollectControl>,
    stop: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Rest {
    /// - `name`: in the log and the metrics.
    /// - Errors, in words: there is no thread for it.
    pub(crate) fn start(
        name: &str,
        rows: Arc<Rows>,
        packs: Arc<PackEngine>,
        objects: Arc<Objects>,
        settings: &config::S3,
    ) -> Result<Self, String> {
        let control = Arc::new(CollectControl::new());
        let (stop, stopped) = channel();
        let work = Work {
            name: name.to_owned(),
            rows,
            packs,
            objects,
            settings: settings.clone(),
            control: Arc::clone(&control),
        };
        let thread = std::thread::Builder::new()
            .name("rest".to_owned())
            .spawn(move || work.run(&stopped))
            .map_err(|error| format!("cannot start a thread: {error}"))?;
        Ok(Self {
            control,
            stop: Some(stop),
            thread: Some(thread),
        })
    }
}

impl Drop for Rest {
    fn drop(&mut self) {
        self.control.stop();
        self.stop = None;
        if let Some(thread) = self.thread.take() {
            // One that panicked has said so.
            let _ = thread.join();
        }
    }
}

struct Work {
    name: String,
    rows: Arc<Rows>,
    packs: Arc<PackEngine>,
    objects: Arc<Objects>,
    settings: config::S3,
    control: Arc<CollectControl>,
}

impl Work {
    fn run(&self, stopped: &Receiver<()>) {
        let rest = Duration::from_secs(self.settings.rest_seconds);
        let (mut begun, mut quiet_since) = (self.objects.uploads_begun(), Instant::now());
        // What an earlier start has left is not counted.
        let mut least = 0;
        let mut not_before = None;
        while stopped.recv_timeout(LOOK_EVERY) == Err(RecvTimeoutError::Timeout) {
            let now = self.objects.uploads_begun();
            if now != begun || self.objects.uploads() > 0 {
                (begun, quiet_since) = (now, Instant::now());
            }
            let waiting = self.objects.deferred_bytes();
            metrics::gauge!("s3_deferred_bytes").set(waiting as f64);
            metrics::gauge!("s3_plain_cache_bytes").set(self.objects.plain_bytes() as f64);
            let is_at_rest = quiet_since.elapsed() >= rest && waiting >= least;
            let is_much = waiting >= self.settings.deferred_bytes.max(least);
            if !(is_at_rest || is_much) || not_before.is_some_and(|when| Instant::now() < when) {
                continue;
            }
            not_before = None;
            match self.compress() {
                Ok(0) => {
                    self.objects.settle_deferred(waiting);
                    least = WAITING_MIN;
                }
                // A snapshot of the index that frees these packs is worth it when there are more of them.
                Ok(_) => least = waiting.saturating_mul(2).max(WAITING_MIN),
                Err(Error::Stopped) => return,
                // A collection writes a snapshot of the index just now.
                Err(Error::Store(cairn_store::Error::Refused { .. })) => {}
                Err(error) => {
                    tracing::error!(
                        store = self.name,
                        error = chain(&error),
                        "objects could not be compressed at rest"
                    );
                    not_before = Some(Instant::now() + AGAIN_AFTER);
                }
            }
        }
    }

    /// Returns the bytes of packs that had to stay as they are.
    fn compress(&self) -> cairn_index::Result<u64> {
        let begun = Instant::now();
        let limit = RateLimit::new(NonZeroU64::new(self.settings.rest_bytes_per_second).unwrap_or(NonZeroU64::MIN));
        let wait = |bytes: u64| match self.objects.uploads() {
            0 => Duration::ZERO,
            _ => limit.take(bytes as usize),
        };
        let level = Level::new(self.settings.rest_level);
        let report = squeeze(&self.rows, &self.packs, level, &wait, &self.control)?;
        let saved = report.bytes_before.saturating_sub(report.bytes_after);
        let store = || self.name.clone();
        metrics::counter!("store_recompressed_bytes_total", "store" => store()).increment(report.bytes_before);
        metrics::counter!("store_recompression_saved_bytes_total", "store" => store()).increment(saved);
        if report.packs_removed > 0 {
            tracing::info!(
                store = self.name,
                packs = report.packs_removed,
                bytes_before = report.bytes_before,
                bytes_after = report.bytes_after,
                bytes_held = report.bytes_held,
                ms = begun.elapsed().as_millis() as u64,
                "objects were compressed at rest"
            );
        }
        Ok(report.bytes_held)
    }
}
