//! Digests of objects that came without, for buckets that want them: a thread that reads them back.
//!
//! It looks now and then whether an object waits, and goes on until none does: as fast as one processor can, and slowly while
//! somebody writes. Not here: which objects wait, and what becomes of them (`cairn_index`).

use std::num::NonZeroU64;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::Duration;

use cairn_index::{DigestCursor, DigestedAtRest, Error, Objects};
use cairn_store::RateLimit;

use crate::routes::chain;

/// Between two looks.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Time after which what failed is tried again.
const AGAIN_AFTER: Duration = Duration::from_secs(60);

/// Works digests out until it is dropped.
#[derive(Debug)]
pub(crate) struct Digester {
    /// Its end is what stops the thread.
    stop: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Digester {
    /// - `bytes_per_second`: read beside writes.
    /// - Errors, in words: there is no thread for it.
    pub(crate) fn start(objects: &Arc<Objects>, bytes_per_second: u64) -> Result<Self, String> {
        let (stop, asked) = channel();
        let work = Work {
            objects: Arc::clone(objects),
            limit: RateLimit::new(NonZeroU64::new(bytes_per_second).unwrap_or(NonZeroU64::MIN)),
            asked,
        };
        let thread = std::thread::Builder::new()
            .name("digester".to_owned())
            .spawn(move || work.run())
            .map_err(|error| format!("cannot start a thread: {error}"))?;
        Ok(Self {
            stop: Some(stop),
            thread: Some(thread),
        })
    }
}

impl Drop for Digester {
    fn drop(&mut self) {
        self.stop = None;
        if let Some(thread) = self.thread.take() {
            // One that panicked has said so.
            let _ = thread.join();
        }
    }
}

struct Work {
    objects: Arc<Objects>,
    limit: RateLimit,
    asked: Receiver<()>,
}

impl Work {
    fn run(&self) {
        let (mut pause, mut cursor) = (LOOK_EVERY, DigestCursor::default());
        while self.goes_on(pause) {
            pause = LOOK_EVERY;
            match self.all(&mut cursor) {
                Ok(()) => {}
                Err(Error::Stopped) => return,
                Err(error) => {
                    tracing::error!(error = chain(&error), "digests of objects could not be worked out");
                    pause = AGAIN_AFTER;
                }
            }
        }
    }

    /// Waits for so long. Returns whether nobody has stopped it until then.
    fn goes_on(&self, pause: Duration) -> bool {
        self.asked.recv_timeout(pause) == Err(RecvTimeoutError::Timeout)
    }

    /// Until no object waits.
    fn all(&self, cursor: &mut DigestCursor) -> cairn_index::Result<()> {
        let pace = |bytes: u64| {
            self.goes_on(match self.objects.uploads() {
                0 => Duration::ZERO,
                _ => self.limit.take(usize::try_from(bytes).unwrap_or(usize::MAX)),
            })
        };
        let count = |result: &'static str| metrics::counter!("s3_digests_total", "result" => result).increment(1);
        while let Some(became) = self.objects.digest_next(cursor, &pace)? {
            match became {
                DigestedAtRest::Done(bytes) => {
                    count("done");
                    metrics::counter!("s3_digest_bytes_total").increment(bytes);
                }
                DigestedAtRest::GivenUp => {
                    count("given_up");
                    tracing::warn!("an object cannot be read, and stays without the digests that its bucket wants");
                }
                DigestedAtRest::Nothing => {}
            }
            if !self.goes_on(Duration::ZERO) {
                return Err(Error::Stopped);
            }
        }
        Ok(())
    }
}
