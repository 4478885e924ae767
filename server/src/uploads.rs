//! Gives up uploads in parts that nobody has completed in time (`s3.upload_age_seconds`), now and then.

use std::cell::Cell;
use std::sync::Arc;
use std::sync::mpsc::{RecvTimeoutError, Sender, TryRecvError, channel};
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use cairn_index::Objects;
use cairn_index::names::expire_uploads;

use crate::routes::chain;

/// Longest and shortest pause between two looks; in between, a quarter of the age.
const LOOK_EVERY_MAX: Duration = Duration::from_secs(3600);
const LOOK_EVERY_MIN: Duration = Duration::from_secs(1);

/// The thread that looks; ends with its value.
#[derive(Debug)]
pub(crate) struct Expirer {
    stop: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Expirer {
    /// - `age`: zero: none is given up.
    /// - Errors, in words: there is no thread to be had.
    pub(crate) fn start(objects: &Arc<Objects>, age: Duration) -> Result<Self, String> {
        let (stop, stopped) = channel();
        if age.is_zero() {
            return Ok(Self {
                stop: None,
                thread: None,
            });
        }
        let objects = Arc::clone(objects);
        let pause = (age / 4).clamp(LOOK_EVERY_MIN, LOOK_EVERY_MAX);
        let work = move || {
            while stopped.recv_timeout(pause) != Err(RecvTimeoutError::Disconnected) {
                let is_stopped = Cell::new(false);
                let go_on = || {
                    is_stopped.set(stopped.try_recv() == Err(TryRecvError::Disconnected));
                    !is_stopped.get()
                };
                match expire_uploads(objects.names(), before(age), go_on) {
                    Ok(0) => {}
                    Ok(uploads) => {
                        metrics::counter!("uploads_expired_total").increment(uploads);
                        tracing::info!(uploads, "uploads that nobody has completed in time were given up");
                    }
                    Err(error) => tracing::error!(
                        error = chain(&error),
                        "old uploads could not be given up, which will be tried again"
                    ),
                }
                if is_stopped.get() {
                    return;
                }
            }
        };
        let thread = std::thread::Builder::new()
            .name("uploads".to_owned())
            .spawn(work)
            .map_err(|error| format!("cannot start a thread: {error}"))?;
        Ok(Self {
            stop: Some(stop),
            thread: Some(thread),
        })
    }
}

/// What began before this is too old, in milliseconds since 1970 UTC.
fn before(age: Duration) -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.saturating_sub(age).as_millis()).unwrap_or(u64::MAX)
}

impl Drop for Expirer {
    fn drop(&mut self) {
        self.stop = None;
        // One that panicked has said so.
        let _ = self.thread.take().map(JoinHandle::join);
    }
}
