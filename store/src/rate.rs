//! A limit on bytes a second, shared by everything that moves bytes on behalf of one run.

use std::num::NonZeroU64;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// How much may be moved at once after a pause, as time at the full rate.
const BURST: Duration = Duration::from_millis(100);

/// A shared limit on bytes a second. It never waits itself: it says how long to wait.
#[derive(Debug)]
pub struct RateLimit {
    bytes_per_second: NonZeroU64,
    /// When everything that was promised so far is paid for.
    paid_at: Mutex<Option<Instant>>,
}

impl RateLimit {
    /// A limit of so many bytes a second.
    pub fn new(bytes_per_second: NonZeroU64) -> Self {
        Self {
            bytes_per_second,
            paid_at: Mutex::new(None),
        }
    }

    /// Takes `bytes` off the allowance.
    ///
    /// - Returns how long the caller must pause so that the limit holds; pieces larger than a second's allowance are fine.
    pub fn take(&self, bytes: usize) -> Duration {
        self.take_at(bytes, Instant::now())
    }

    fn take_at(&self, bytes: usize, now: Instant) -> Duration {
        let nanos = bytes as u128 * 1_000_000_000 / u128::from(self.bytes_per_second.get());
        let cost = Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX));
        let mut paid_at = self.paid_at.lock().unwrap_or_else(PoisonError::into_inner);
        let earliest = now.checked_sub(BURST).unwrap_or(now);
        let start = paid_at.map_or(earliest, |paid_at| paid_at.max(earliest));
        let end = start + cost;
        *paid_at = Some(end);
        end.saturating_duration_since(now)
    }
}

/// Waits until a limit, if there is one, allows so many bytes.
pub(crate) async fn pause_for(limit: Option<&RateLimit>, bytes: usize) {
    if let Some(limit) = limit {
        let pause = limit.take(bytes);
        if !pause.is_zero() {
            tokio::time::sleep(pause).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rate_holds_over_any_pieces_and_a_pause_earns_one_burst() {
        let limit = RateLimit::new(NonZeroU64::new(1000).unwrap());
        let start = Instant::now() + BURST;
        assert_eq!(limit.take_at(100, start), Duration::ZERO);
        assert_eq!(limit.take_at(400, start), Duration::from_millis(400));
        assert_eq!(limit.take_at(5000, start), Duration::from_millis(5400));
        let later = start + Duration::from_secs(3600);
        assert_eq!(limit.take_at(100, later), Duration::ZERO);
        assert_eq!(limit.take_at(1, later), Duration::from_millis(1));
    }
}
