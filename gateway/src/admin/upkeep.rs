//! Upkeep as the door knows it: somebody else, who sees disks, collects what nothing names and reads packs for damage.

use std::collections::BTreeMap;
use std::fmt::Debug;

/// What is done now and then, and can be asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum UpkeepTask {
    /// Chunks that nothing names are taken away.
    Collection,
    /// Packs are read for damage.
    Scrub,
}

/// Does the upkeep of the objects' folder, one run of each task at a time.
pub trait Upkeep: Send + Sync + Debug {
    /// Has a run begin at once, whatever the interval of the settings, and does not wait for it. Returns the state with it.
    fn start(&self, task: UpkeepTask) -> Result<UpkeepState, UpkeepError>;

    /// What runs, and what the last run did.
    fn state(&self, task: UpkeepTask) -> UpkeepState;
}

/// A task as it is now.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UpkeepState {
    /// The run that goes on, or is about to begin.
    pub running: Option<UpkeepRun>,
    /// The last that has ended since the start of the server.
    pub last: Option<UpkeepRun>,
}

/// A run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UpkeepRun {
    /// Seconds since 1970 UTC.
    pub begun_at: u64,
    /// The same, of one that has ended.
    pub ended_at: Option<u64>,
    /// What it is at, or how it ended: `done`, `stopped`, `failed`.
    pub state: &'static str,
    /// What it has done.
    pub counts: BTreeMap<&'static str, u64>,
}

/// Why no run begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UpkeepError {
    /// One goes on.
    Running,
    /// The settings say that none is to begin.
    Paused,
    /// The server is about to end.
    Leaving,
}
