//! Upkeep: have a collection or a scrub begin, and see what they do.

use cairn_identity::Permit;
use http::StatusCode;
use serde_json::{Value, json};

use crate::admin::error::{AdminError, AdminResult, Code};
use crate::admin::request::{Answer, Ask};
use crate::admin::service::Core;
use crate::admin::upkeep::{UpkeepError, UpkeepRun, UpkeepState, UpkeepTask};
use crate::date::rfc3339;

impl From<UpkeepError> for AdminError {
    fn from(error: UpkeepError) -> Self {
        match error {
            UpkeepError::Running => Code::UpkeepRunning,
            UpkeepError::Paused => Code::UpkeepPaused,
            UpkeepError::Leaving => Code::Busy,
        }
        .into()
    }
}

/// What runs, and what the last run did.
pub(in crate::admin) fn get(core: &Core, _permit: Permit, mut ask: Ask) -> AdminResult<Answer> {
    let task = task_of(&ask)?;
    ask.end()?;
    Ok(Answer::ok(show(&core.upkeep().state(task))))
}

/// Has a run begin.
pub(in crate::admin) fn start(core: &Core, _permit: Permit, mut ask: Ask) -> AdminResult<Answer> {
    let task = task_of(&ask)?;
    ask.end()?;
    Ok(Answer {
        status: StatusCode::ACCEPTED,
        body: show(&core.upkeep().start(task)?),
    })
}

fn task_of(ask: &Ask) -> AdminResult<UpkeepTask> {
    match ask.place() {
        "collection" => Ok(UpkeepTask::Collection),
        "scrub" => Ok(UpkeepTask::Scrub),
        _ => Err(Code::NoRoute.into()),
    }
}

fn show(state: &UpkeepState) -> Value {
    json!({ "running": state.running.as_ref().map(show_run), "last": state.last.as_ref().map(show_run) })
}

fn show_run(run: &UpkeepRun) -> Value {
    let time = |seconds: u64| rfc3339(seconds.saturating_mul(1000));
    json!({
        "begun_at": time(run.begun_at),
        "ended_at": run.ended_at.map(time),
        "state": run.state,
        "counts": run.counts,
    })
}
