//! What names need of the world: the time, and bytes that nobody can guess. An argument, so that tests and simulators say both.

use std::fmt;
use std::sync::{Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use rustix::rand::{GetRandomFlags, getrandom};

use crate::{Error, Result};

/// The clock and the source of chance.
pub trait Surroundings: Send + Sync + fmt::Debug {
    /// Milliseconds since 1970 UTC.
    fn now_ms(&self) -> u64;

    /// Fills `bytes` with what nobody can guess.
    fn fill(&self, bytes: &mut [u8]) -> Result<()>;
}

/// Those of the system.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemSurroundings;

impl Surroundings for SystemSurroundings {
    fn now_ms(&self) -> u64 {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        u64::try_from(since.as_millis()).unwrap_or(u64::MAX >> 16)
    }

    fn fill(&self, bytes: &mut [u8]) -> Result<()> {
        let mut filled = 0;
        while filled < bytes.len() {
            let more = getrandom(&mut bytes[filled..], GetRandomFlags::empty());
            filled += more.map_err(|source| Error::Unavailable {
                place: "this process".to_owned(),
                action: "draw random bytes",
                source: std::io::Error::from(source).into(),
            })?;
        }
        Ok(())
    }
}

/// A clock that is set by hand, and chance that repeats itself: for tests, simulators and benches, never for a server.
#[derive(Debug)]
pub struct FixedSurroundings(Mutex<(u64, u64)>);

impl FixedSurroundings {
    /// A clock that stands at `now_ms`.
    pub fn new(now_ms: u64, seed: u64) -> Self {
        Self(Mutex::new((now_ms, seed)))
    }

    /// Sets the clock.
    pub fn set_now(&self, now_ms: u64) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).0 = now_ms;
    }
}

impl Surroundings for FixedSurroundings {
    fn now_ms(&self) -> u64 {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).0
    }

    fn fill(&self, bytes: &mut [u8]) -> Result<()> {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for byte in bytes {
            // SplitMix64: short, and good enough to be different each time.
            state.1 = state.1.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mixed = (state.1 ^ state.1 >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            *byte = (mixed >> 40) as u8;
        }
        Ok(())
    }
}
