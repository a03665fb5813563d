//! The same as `linux.rs` with what every Unix has. Weaker: processes that leave their group are not
//! found, and what a killed supervisor leaves behind is known by its number only.

use crate::keeper::{kill_group, number};
use std::collections::BTreeMap;
use std::io;

use nix::unistd::{Gid, User};
use rustix::process::Signal;

/// The user's own group only.
pub(super) fn groups_of(user: &User) -> io::Result<Vec<Gid>> {
    Ok(vec![user.gid])
}

/// Unknown, so that nothing is ever taken for a leftover of this boot.
pub(super) fn boot_id() -> io::Result<String> {
    Err(io::ErrorKind::Unsupported.into())
}

/// Waits; exact to a millisecond.
pub(super) async fn sleep(length: std::time::Duration) -> io::Result<()> {
    tokio::time::sleep(length).await;
    Ok(())
}

/// Kills one process at once; whether that was allowed.
pub(super) fn kill_process(pid: u32) -> bool {
    let pid = number(pid);
    pid.is_some_and(|pid| rustix::process::kill_process(pid, Signal::KILL).is_ok())
}

/// Ends of processes that are not children cannot be awaited here.
#[derive(Debug)]
pub(super) struct Ends;

impl Ends {
    pub(super) fn of(_pids: &[u32]) -> io::Result<Self> {
        Ok(Self)
    }

    pub(super) async fn of_these(self, _pids: &[u32]) -> io::Result<()> {
        Ok(())
    }
}

/// Unknown.
pub(super) fn start_time(_pid: u32) -> Option<u64> {
    None
}

/// Kills the process group of a session's leader.
pub(super) async fn kill_session(leader: u32, _start_time: Option<u64>) -> io::Result<()> {
    kill_group(leader);
    Ok(())
}

/// Unknown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Identity {}

/// Unknown.
pub(super) fn descendants(_roots: impl IntoIterator<Item = u32>) -> Vec<Identity> {
    Vec::new()
}

/// Unknown.
pub(super) fn parent(_pid: u32) -> Option<u32> {
    None
}

/// Unknown.
pub(super) fn marked_orphans(_parent: u32, _mark: &str) -> Vec<Identity> {
    Vec::new()
}

/// Unknown.
pub(super) fn marked(_mark: &str) -> Vec<Identity> {
    Vec::new()
}

/// Nothing is known to be killed.
pub(super) async fn kill_family(_family: Vec<Identity>) -> io::Result<()> {
    Ok(())
}

/// To open something with, only to look at it or below it. Does not wait for the other end of a pipe.
pub(super) const LOOK: rustix::fs::OFlags =
    rustix::fs::OFlags::RDONLY.union(rustix::fs::OFlags::NONBLOCK);

/// The path of what was opened.
pub(super) fn path_of(opened: &std::os::fd::OwnedFd) -> io::Result<std::path::PathBuf> {
    use std::os::unix::ffi::OsStringExt;
    let path = rustix::fs::getpath(opened)?.into_bytes();
    Ok(std::path::PathBuf::from(std::ffi::OsString::from_vec(path)))
}

/// Opens what is at `path` below `root`. Nothing here keeps a link or `..` from leading out of it,
/// which is as well: there is no isolation here, and `root` is that of the machine.
pub(super) fn open_in_root(
    root: &std::os::fd::OwnedFd,
    path: &str,
    flags: rustix::fs::OFlags,
) -> Result<std::os::fd::OwnedFd, rustix::io::Errno> {
    rustix::fs::openat(root, path, flags, rustix::fs::Mode::empty())
}

/// Unknown.
pub(super) fn port_holder(_port: u16) -> Option<String> {
    None
}

/// What is known of a process elsewhere.
#[derive(Debug, Clone, Copy)]
pub(super) struct Stat {
    pub parent: u32,
    pub session: u32,
    pub start_time: u64,
}

impl Stat {
    pub(super) fn lives(&self) -> bool {
        true
    }

    pub(super) fn is_stopped(&self) -> bool {
        false
    }
}

/// Unknown.
pub(super) fn processes() -> io::Result<Option<BTreeMap<u32, Stat>>> {
    Ok(None)
}

/// Unknown.
pub(super) fn stat(_pid: u32) -> Option<Stat> {
    None
}
