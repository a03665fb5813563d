//! What every Unix can do with a process by its number.

use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, WaitOptions};

use super::wire::End;

/// The number as the kernel takes it. `None` for 0, which would be this process's own group, and for what is
/// no number of a process.
pub(crate) fn number(pid: u32) -> Option<Pid> {
    i32::try_from(pid).ok().and_then(Pid::from_raw)
}

/// Sends a signal to a process group. A group that is not there any more is no error: it has just ended.
pub(crate) fn signal_group(leader: u32, signal: Signal) {
    if let Some(group) = number(leader) {
        let _ = rustix::process::kill_process_group(group, signal);
    }
}

/// Kills a process group at once.
pub(crate) fn kill_group(leader: u32) {
    signal_group(leader, Signal::KILL);
}

/// How a child ended, if it has. It stays to be reaped.
pub(super) fn peek_end(pid: u32) -> Option<End> {
    let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
    let status = rustix::process::waitid(WaitId::Pid(number(pid)?), options).ok()??;
    match (status.exit_status(), status.terminating_signal()) {
        (Some(code), _) => Some(End::Exited(code)),
        (None, Some(signal)) => Some(End::Killed(signal)),
        (None, None) => None,
    }
}

/// Takes a child that has ended from the list of processes. One that lives is left.
pub(super) fn reap(pid: u32) {
    if let Some(pid) = number(pid) {
        // One that was reaped already is no concern.
        let _ = rustix::process::waitpid(Some(pid), WaitOptions::NOHANG);
    }
}
