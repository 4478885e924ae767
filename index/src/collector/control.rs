//! A collection is paused, resumed and stopped from outside, at any moment; it looks here between small steps.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::{Error, Result};

/// The handle of one collection. It may be used from any thread.
#[derive(Debug, Default)]
pub struct CollectControl {
    wish: Mutex<Wish>,
    changed: Condvar,
    stage: Mutex<CollectStage>,
}

/// What a collection is at.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum CollectStage {
    /// It has not begun.
    #[default]
    Waiting,
    /// Reading what is named.
    Mark,
    /// Choosing what goes.
    Condemn,
    /// Reading what has been named since.
    Remark,
    /// Letting readers end.
    Grace,
    /// Deleting.
    Sweep,
    /// Writing what is left of packs anew.
    Compact,
    /// Compressing packs anew.
    Recompress,
}

impl CollectStage {
    /// In a word.
    pub fn word(self) -> &'static str {
        match self {
            Self::Waiting => "waiting",
            Self::Mark => "mark",
            Self::Condemn => "condemn",
            Self::Remark => "remark",
            Self::Grace => "grace",
            Self::Sweep => "sweep",
            Self::Compact => "compact",
            Self::Recompress => "recompress",
        }
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Wish {
    #[default]
    Run,
    Pause,
    Stop,
}

impl CollectControl {
    /// One that lets it run.
    pub fn new() -> Self {
        Self::default()
    }

    /// Has it wait at its next step.
    pub fn pause(&self) {
        self.set(Wish::Pause);
    }

    /// Has it go on.
    pub fn resume(&self) {
        self.set(Wish::Run);
    }

    /// Has it end at its next step. What it did holds; the next collection goes on from there.
    pub fn stop(&self) {
        self.set(Wish::Stop);
    }

    /// What it is at.
    pub fn stage(&self) -> CollectStage {
        *self.stage.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn begin(&self, stage: CollectStage) {
        *self.stage.lock().unwrap_or_else(PoisonError::into_inner) = stage;
    }

    fn set(&self, wish: Wish) {
        let mut now = self.wish();
        // Stopped is stopped.
        if *now != Wish::Stop {
            *now = wish;
        }
        self.changed.notify_all();
    }

    fn wish(&self) -> MutexGuard<'_, Wish> {
        self.wish.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits while paused. Errors: [`Error::Stopped`].
    pub(super) fn step(&self) -> Result<()> {
        self.rest(Duration::ZERO)
    }

    /// Waits for some time, and while paused. Errors: [`Error::Stopped`].
    pub(super) fn rest(&self, time: Duration) -> Result<()> {
        let end = Instant::now().checked_add(time);
        let mut wish = self.wish();
        loop {
            let left = end.map(|end| end.saturating_duration_since(Instant::now()));
            wish = match (*wish, left) {
                (Wish::Stop, _) => return Err(Error::Stopped),
                (Wish::Run, Some(Duration::ZERO)) => return Ok(()),
                (Wish::Run, Some(left)) => {
                    let waited = self.changed.wait_timeout(wish, left);
                    waited.unwrap_or_else(PoisonError::into_inner).0
                }
                (Wish::Pause, _) | (Wish::Run, None) => self.changed.wait(wish).unwrap_or_else(PoisonError::into_inner),
            };
        }
    }
}
