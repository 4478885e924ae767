//! Trying again: how often, how long to wait, and when to stop.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// Longest pause between two tries that we choose ourselves.
const BACKOFF_MAX: Duration = Duration::from_secs(30);
/// Longest pause that a server may ask for; when it asks for more, the request fails at once.
pub(crate) const RETRY_AFTER_MAX: Duration = Duration::from_secs(60);
/// How often a waiting request looks whether it is still wanted.
const CANCELLED_LOOK: Duration = Duration::from_millis(50);

/// What to do after a failed try.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Next {
    /// It would fail again.
    GiveUp,
    /// It may work, but not before so long.
    TryAgain {
        /// What the server asked for, else zero.
        not_before: Duration,
    },
}

/// A try that failed.
#[derive(Debug)]
pub(crate) struct Failure<E> {
    pub(crate) fault: E,
    pub(crate) next: Next,
}

/// How much trouble is borne.
#[derive(Clone, Debug)]
pub(crate) struct Patience {
    /// Tries in all; 0 counts as 1.
    pub(crate) tries: u32,
    /// Upper end of the first pause.
    pub(crate) base: Duration,
    /// Once this is set, everything is given up.
    pub(crate) cancelled: Option<Arc<AtomicBool>>,
}

/// Why there is no answer.
#[derive(Debug)]
pub(crate) enum GivenUp<E> {
    /// Of the last of so many tries.
    Failed { fault: E, tries: u32 },
    /// Somebody set the flag.
    Cancelled,
}

impl Patience {
    /// Tries until it works, the tries are used up, another try cannot help, or nobody wants to know any more.
    pub(crate) async fn insist<T, E, F>(&self, try_once: impl FnMut() -> F) -> Result<T, GivenUp<E>>
    where
        F: Future<Output = Result<T, Failure<E>>>,
    {
        let Some(cancelled) = &self.cancelled else {
            return self.insist_uncancelled(try_once).await;
        };
        tokio::select! {
            answer = self.insist_uncancelled(try_once) => answer,
            () = until_set(cancelled) => Err(GivenUp::Cancelled),
        }
    }

    async fn insist_uncancelled<T, E, F>(&self, mut try_once: impl FnMut() -> F) -> Result<T, GivenUp<E>>
    where
        F: Future<Output = Result<T, Failure<E>>>,
    {
        let mut tries = 1;
        loop {
            let Failure { fault, next } = match try_once().await {
                Ok(answer) => return Ok(answer),
                Err(failure) => failure,
            };
            match next {
                Next::TryAgain { not_before } if tries < self.tries => {
                    let pause = backoff(self.base, tries).max(not_before);
                    tokio::time::sleep(pause).await;
                    tries += 1;
                }
                _ => return Err(GivenUp::Failed { fault, tries }),
            }
        }
    }
}

/// Looks at the flag again and again: a signal's handler can set one, and wake nobody.
async fn until_set(flag: &AtomicBool) {
    while !flag.load(Ordering::Relaxed) {
        tokio::time::sleep(CANCELLED_LOOK).await;
    }
}

/// The pause after the `done`th try: a random part ("full jitter") of `base` doubled per try.
fn backoff(base: Duration, done: u32) -> Duration {
    let top = base.saturating_mul(1 << (done - 1).min(16)).min(BACKOFF_MAX);
    top.mul_f64(fastrand::f64())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_a_bound_and_never_pass_it() {
        let base = Duration::from_millis(500);
        for done in 1..100 {
            let top = base.saturating_mul(1 << (done - 1).min(16)).min(BACKOFF_MAX);
            for _ in 0..100 {
                assert!(backoff(base, done) <= top);
            }
        }
        assert_eq!(backoff(Duration::ZERO, 1), Duration::ZERO);
        assert!(backoff(Duration::MAX, 9) <= BACKOFF_MAX);
    }
}
