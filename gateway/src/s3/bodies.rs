//! Bodies that are being read, and the memory and the patience that they share.
//!
//! What has come of a body and waits for its job is bounded for all bodies together: the more there are, the less is gathered of each.
//! A signed chunk is held until its signature is checked; those of all bodies have a bound too. Not here: blocks that are cut
//! (`cairn_index::ObjectOptions`), what a connection has read (`cairn_roots`).

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use crate::s3::error::{Code, S3Result};

/// Bytes that are gathered of a body for one job, at least and at most.
const BATCH_LEN: (usize, usize) = (16 << 10, 1 << 20);
/// Bytes a second that a body brings at the least, all in all.
const RATE_MIN: u64 = 1 << 10;

/// How much bodies may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BodyOptions {
    /// Bytes that are gathered of all bodies together for their next jobs; as many again are in those jobs.
    pub batches: usize,
    /// Bytes of signed chunks that are not whole yet, of all bodies together.
    pub signed: usize,
    /// For how long a body may bring nothing.
    pub idle: Duration,
}

impl Default for BodyOptions {
    fn default() -> Self {
        Self {
            batches: 32 << 20,
            signed: 128 << 20,
            idle: Duration::from_secs(30),
        }
    }
}

/// All bodies that are being read.
#[derive(Debug, Default)]
pub(crate) struct Bodies {
    options: BodyOptions,
    open: AtomicUsize,
    signed: AtomicUsize,
}

impl Bodies {
    pub(crate) fn new(options: BodyOptions) -> Arc<Self> {
        Arc::new(Self {
            options,
            ..Self::default()
        })
    }

    /// Begins to read one.
    pub(crate) fn begin(self: &Arc<Self>) -> Reading {
        self.open.fetch_add(1, Ordering::Relaxed);
        metrics::gauge!("s3_bodies").increment(1.0);
        Reading {
            bodies: Arc::clone(self),
            received: 0,
            waited: Duration::ZERO,
        }
    }

    /// Counts signed chunks of one body.
    pub(crate) fn signed(self: &Arc<Self>) -> SignedShare {
        SignedShare {
            bodies: Arc::clone(self),
            len: 0,
        }
    }
}

/// A body that is being read, until it is dropped.
#[derive(Debug)]
pub(crate) struct Reading {
    bodies: Arc<Bodies>,
    received: u64,
    /// All in all, for the client.
    waited: Duration,
}

impl Reading {
    /// Bytes to gather for the next job. Asked each time: others come and go.
    pub(crate) fn batch_len(&self) -> usize {
        let (least, most) = BATCH_LEN;
        let open = self.bodies.open.load(Ordering::Relaxed).max(1);
        (self.bodies.options.batches / open).clamp(least, most)
    }

    /// How long to wait for the next bytes: a pause is bounded, and so is bringing a little now and then.
    pub(crate) fn patience(&self) -> Duration {
        let idle = self.bodies.options.idle;
        let earned = idle + Duration::from_secs(self.received / RATE_MIN);
        earned.saturating_sub(self.waited).min(idle)
    }

    /// So many bytes have come after so long.
    pub(crate) fn came(&mut self, len: usize, after: Duration) {
        self.received += len as u64;
        self.waited += after;
    }
}

impl Drop for Reading {
    fn drop(&mut self) {
        self.bodies.open.fetch_sub(1, Ordering::Relaxed);
        metrics::gauge!("s3_bodies").decrement(1.0);
    }
}

/// What a body holds of signed chunks that are not whole, until it is dropped.
#[derive(Debug)]
pub(crate) struct SignedShare {
    bodies: Arc<Bodies>,
    len: usize,
}

impl SignedShare {
    /// It holds so much now. Errors: `SlowDown` when all together hold too much.
    pub(crate) fn set(&mut self, len: usize) -> S3Result<()> {
        let before = self.bodies.signed.fetch_add(len, Ordering::Relaxed);
        self.bodies.signed.fetch_sub(self.len, Ordering::Relaxed);
        let grows = len > self.len;
        let all = before + len - self.len;
        self.len = len;
        if grows && all > self.bodies.options.signed {
            return Err(Code::SlowDown.into());
        }
        Ok(())
    }
}

impl Drop for SignedShare {
    fn drop(&mut self) {
        self.bodies.signed.fetch_sub(self.len, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bodies() -> Arc<Bodies> {
        Bodies::new(BodyOptions {
            batches: 1 << 20,
            signed: 100,
            idle: Duration::from_secs(10),
        })
    }

    #[test]
    fn the_more_bodies_the_less_is_gathered_of_each() {
        let bodies = bodies();
        let first = bodies.begin();
        assert_eq!(first.batch_len(), 1 << 20);
        let many: Vec<Reading> = (0..15).map(|_| bodies.begin()).collect();
        assert_eq!(first.batch_len(), 64 << 10);
        let more: Vec<Reading> = (0..1000).map(|_| bodies.begin()).collect();
        assert_eq!(first.batch_len(), 16 << 10);
        drop((many, more));
        assert_eq!(first.batch_len(), 1 << 20);
    }

    #[test]
    fn a_body_may_pause_but_not_drip_for_ever() {
        let bodies = bodies();
        let mut reading = bodies.begin();
        assert_eq!(reading.patience(), Duration::from_secs(10));
        reading.came(1, Duration::from_secs(8));
        assert_eq!(reading.patience(), Duration::from_secs(2));
        reading.came(1 << 20, Duration::ZERO);
        assert_eq!(reading.patience(), Duration::from_secs(10), "it has earned more");
        reading.came(0, Duration::from_secs(2000));
        assert_eq!(reading.patience(), Duration::ZERO);
    }

    #[test]
    fn signed_chunks_of_all_bodies_have_one_bound() {
        let bodies = bodies();
        let (mut first, mut second) = (bodies.signed(), bodies.signed());
        assert!(first.set(60).is_ok() && second.set(40).is_ok());
        assert_eq!(second.set(41).unwrap_err().code, Code::SlowDown);
        drop(second);
        assert!(first.set(100).is_ok());
        assert!(first.set(0).is_ok());
        assert_eq!(bodies.signed.load(Ordering::Relaxed), 0);
    }
}
