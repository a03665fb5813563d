//! What an owner shows of its service.

use super::Owner;
use super::phase::{Phase, Rest, Stage};
use crate::model::ServiceState;
use crate::supervisor::sandbox::goal_word;
use crate::supervisor::wire::ServiceObject;

/// The state as all platforms call it.
fn state(owner: &Owner) -> ServiceState {
    match &owner.phase {
        Phase::Down(Rest::Stopped) => ServiceState::Stopped,
        Phase::Down(Rest::Completed) => ServiceState::Completed,
        Phase::Down(Rest::Failed) => ServiceState::Failed,
        Phase::Waiting(_) => ServiceState::Starting,
        Phase::Preparing(preparing) if preparing.then.is_some() => ServiceState::Stopping,
        Phase::Preparing(_) => ServiceState::Starting,
        Phase::BackingOff(_) => ServiceState::BackingOff,
        Phase::Up(up) => match up.stage {
            Stage::Starting => ServiceState::Starting,
            Stage::Ready { .. } => ServiceState::Running,
            Stage::Unhealthy { .. } => ServiceState::Unhealthy,
            Stage::Stopping => ServiceState::Stopping,
        },
    }
}

/// What it waits for, why it failed, what it says of itself, or why it was restarted.
fn message(owner: &Owner) -> Option<String> {
    match &owner.phase {
        Phase::Down(Rest::Stopped | Rest::Completed) => None,
        Phase::Down(Rest::Failed) | Phase::BackingOff(_) => owner.record.error.clone(),
        Phase::Waiting(waiting) => Some(waiting.message()),
        Phase::Preparing(preparing) => preparing.message.clone(),
        Phase::Up(up) => {
            let said = up
                .message
                .clone()
                .or_else(|| up.log_trouble.borrow().clone());
            let said = said.or_else(|| up.status.clone());
            said.or_else(|| owner.record.error.clone())
        }
    }
}

/// Everything but the sequence number.
pub(super) fn show(owner: &Owner) -> ServiceObject {
    let record = &owner.record;
    let mut object = ServiceObject::of_definition(&owner.name, &record.definition);
    let state = state(owner);
    object.state = Some(state);
    object.status = state.into();
    object.message = message(owner);
    object.error.clone_from(&record.error);
    object.last_exit.clone_from(&record.last_exit);
    object.exit_code = record.last_exit.as_ref().map(|exit| exit.code);
    object.signal = record.last_exit.as_ref().and_then(|e| e.signal.clone());
    object.restart_count = owner.history.restarts;
    object.desired = goal_word(record.goal).to_owned();
    object.revision = record.revision;
    match &owner.phase {
        Phase::Up(up) => {
            object.pid = up.live.pid();
            object.started_at = Some(up.live.started().1);
            object.running_revision = owner.running_revision;
        }
        Phase::Down(_) if owner.name.is_process() => {
            // Processes are known by their number, also when they have ended.
            object.pid = owner.last_process.map(|(pid, _)| pid);
            object.started_at = owner.last_process.map(|(_, at)| at);
        }
        Phase::BackingOff(retry) => object.next_restart_at = Some(retry.due_at),
        Phase::Down(_) | Phase::Waiting(_) | Phase::Preparing(_) => {}
    }
    object
}
