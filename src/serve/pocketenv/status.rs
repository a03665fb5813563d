//! What a sandbox's status is: protocol page pocketenv, §4.4.

use super::note::Note;
use crate::serve::engine::{Result, Sandbox};

pub(super) const INITIALIZING: &str = "INITIALIZING";
pub(super) const RUNNING: &str = "RUNNING";
pub(super) const STOPPED: &str = "STOPPED";

/// How a sandbox is.
pub(super) fn status(sandbox: &Sandbox) -> &'static str {
    let note = Note::of(sandbox);
    match sandbox.is_up() {
        _ if note.stuck || note.initializing > 0 => INITIALIZING,
        true => RUNNING,
        false => STOPPED,
    }
}

/// The same, told to somebody: one of the times that it is told as `INITIALIZING` is over then.
pub(super) fn tell(sandbox: &Sandbox) -> Result<&'static str> {
    let status = status(sandbox);
    if Note::of(sandbox).initializing > 0 {
        Note::change(sandbox, |note| {
            note.initializing = note.initializing.saturating_sub(1);
        })?;
    }
    Ok(status)
}
