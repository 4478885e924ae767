//! Syncs what buckets of the class `batch` were acknowledged before it was durable: some of it is there at most for a second.

use std::sync::Arc;
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::Duration;

use cairn_store::PackEngine;

use crate::routes::chain;

/// Pause between two looks: with a slow sync behind it still well within the second that is promised.
const LOOK_EVERY: Duration = Duration::from_millis(250);

/// The thread that looks; ends with its value.
#[derive(Debug)]
pub(crate) struct EarlySync {
    stop: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl EarlySync {
    /// Errors, in words: there is no thread to be had.
    pub(crate) fn start(packs: &Arc<PackEngine>) -> Result<Self, String> {
        let (stop, stopped) = channel();
        let packs = Arc::clone(packs);
        let work = move || {
            let mut is_told = false;
            while stopped.recv_timeout(LOOK_EVERY) != Err(RecvTimeoutError::Disconnected) {
                match packs.sync_early() {
                    Ok(()) => is_told = false,
                    // Writes fail from then on, too, and say so each time.
                    Err(error) if !is_told => {
                        tracing::error!(error = chain(&error), "what was acknowledged early could not be synced");
                        is_told = true;
                    }
                    Err(_) => {}
                }
            }
        };
        let thread = std::thread::Builder::new()
            .name("sync".to_owned())
            .spawn(work)
            .map_err(|error| format!("cannot start a thread: {error}"))?;
        Ok(Self {
            stop: Some(stop),
            thread: Some(thread),
        })
    }
}

impl Drop for EarlySync {
    fn drop(&mut self) {
        self.stop = None;
        // One that panicked has said so.
        let _ = self.thread.take().map(JoinHandle::join);
    }
}
