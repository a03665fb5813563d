//! The same as `linux.rs` with what every Unix has. Weaker: orphans go to the system, and nothing dies with
//! the keeper by itself.

use std::collections::BTreeSet;
use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use nix::libc;
use nix::unistd::Gid;
use rustix::process::{Pid, WaitOptions};

use super::folder::SOCKET;
use super::unix::number;
use super::wire::ChildId;

/// The path of a sandbox's socket. The system limits its length to about 100 bytes.
#[derive(Debug)]
pub(crate) struct SocketPath(PathBuf);

impl SocketPath {
    pub(crate) fn open(dir: &Path) -> io::Result<Self> {
        Self::named(dir, SOCKET)
    }

    pub(crate) fn named(dir: &Path, name: &str) -> io::Result<Self> {
        dir.metadata()?;
        Ok(Self(dir.join(name)))
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }
}

/// Every child has to be asked.
#[derive(Debug)]
pub(super) struct Exits;

impl Exits {
    pub(super) fn new() -> io::Result<Self> {
        Ok(Self)
    }

    pub(super) fn as_fd(&self) -> Option<BorrowedFd<'_>> {
        None
    }

    pub(super) fn add(&self, _: ChildId, _: Option<&OwnedFd>) {}

    pub(super) fn remove(&self, _: Option<&OwnedFd>) {}

    pub(super) fn candidates(&self, living: impl Iterator<Item = (ChildId, u32)>) -> Vec<ChildId> {
        living.map(|(id, _)| id).collect()
    }
}

/// Waits for the end of a child, and reaps it.
pub(super) fn await_end(pid: u32) {
    if let Some(pid) = number(pid) {
        let _ = rustix::process::waitpid(Some(pid), WaitOptions::empty());
    }
}

/// The system's allocator is left to itself.
pub(crate) fn one_arena() {}

/// The system's allocator is left to itself.
pub(crate) fn give_back_memory() {}

/// There are no control groups here.
pub(super) fn fork_into(_: &OwnedFd) -> io::Result<u32> {
    Err(io::ErrorKind::Unsupported.into())
}

/// There are no handles here.
pub(super) fn pidfd(_: u32) -> Option<OwnedFd> {
    None
}

/// There are no handles here.
pub(super) fn number_of(_: &OwnedFd) -> Option<u32> {
    None
}

/// Orphans are the system's.
pub(super) fn reap_all_but(_: &BTreeSet<u32>) {}

/// Orphans are not known here.
pub(super) fn kill_children() {}

/// Orphans go to the system here.
pub(super) fn adopt_orphans() -> io::Result<()> {
    Ok(())
}

/// There is no such request here: the supervisor sees to it.
pub(super) fn die_with_parent(_: Pid) -> io::Result<()> {
    Ok(())
}

/// Lets the program that is executed next have nothing but the standard streams, whatever this process
/// was itself given. To be called between fork and exec.
pub(super) fn close_others_on_exec() -> io::Result<()> {
    const MOST: u64 = 1 << 16;
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
    let last = limit.unwrap_or(MOST).min(MOST) as i32;
    for descriptor in 3..last {
        // SAFETY: changes a flag of a descriptor, or fails for one that is not open.
        unsafe { libc::fcntl(descriptor, libc::F_SETFD, libc::FD_CLOEXEC) };
    }
    Ok(())
}

/// Changing supplementary groups is not portable; they stay as they are.
pub(super) fn set_groups(_: &[Gid]) -> io::Result<()> {
    Ok(())
}

/// There are no namespaces here.
pub(super) fn give_up_privileges() -> io::Result<()> {
    Ok(())
}

/// The system decides.
pub(super) fn hide_memory() {}

/// A file that no folder has.
pub(super) fn memory_file() -> io::Result<OwnedFd> {
    Ok(tempfile::tempfile()?.into())
}
