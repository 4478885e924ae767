//! Collections and scrubs of the objects' folder, as the admin API asks for them.

use cairn_gateway::admin::{UpkeepError, UpkeepState, UpkeepTask};

use crate::care::Collections;
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
