//! Collections and scrubs of the objects' folder, as the admin API asks for them.

use std::sync::mpsc::Sender;

use cairn_gateway::admin::{UpkeepError, UpkeepState, UpkeepTask};

use crate::care::Collections;
use crate::keeper::unix_seconds;
use crate::scrub::Scrubs;

/// Who has both done.
#[derive(Debug)]
pub(crate) struct Upkeep {
    pub(crate) collections: Collections,
    pub(crate) scrubs: Scrubs,
}

impl cairn_gateway::admin::Upkeep for Upkeep {
    fn start(&self, task: UpkeepTask) -> Result<UpkeepState, UpkeepError> {
        match task {
            UpkeepTask::Collection => self.collections.start()?,
            UpkeepTask::Scrub => self.scrubs.start()?,
        }
        Ok(self.state(task))
    }

    fn state(&self, task: UpkeepTask) -> UpkeepState {
        match task {
            UpkeepTask::Collection => self.collections.state(),
            UpkeepTask::Scrub => self.scrubs.state(),
        }
    }
}

/// What somebody has asked a thread for.
#[derive(Debug, Default)]
pub(crate) struct Asked {
    /// In seconds since 1970 UTC; `None`: nobody has.
    pub(crate) at: Option<u64>,
    /// Wakes the thread, until the end.
    pub(crate) wake: Option<Sender<()>>,
}

impl Asked {
    /// Asks for a run. Errors: one runs or waits; settings have it pause; the server leaves.
    pub(crate) fn ask(&mut self, is_running: bool, is_paused: bool) -> Result<(), UpkeepError> {
        if is_running || self.at.is_some() {
            return Err(UpkeepError::Running);
        }
        if is_paused {
            return Err(UpkeepError::Paused);
        }
        let wake = self.wake.as_ref().ok_or(UpkeepError::Leaving)?;
        wake.send(()).map_err(|_| UpkeepError::Leaving)?;
        self.at = Some(unix_seconds());
        Ok(())
    }
}
