//! The same as `linux.rs` with what every Unix has. Weaker: processes that leave their group are not
//! found, and what a killed supervisor leaves behind is known by its number only.

use std::ffi::CStr;
use std::io;
use std::path::{Path, PathBuf};

use nix::unistd::{Gid, User};
use rustix::process::{Pid, Signal};
use tokio::process::Child;

use super::store::SOCKET;

/// The path of a sandbox's socket. The system limits its length to about 100 bytes.
#[derive(Debug)]
pub(super) struct SocketPath(PathBuf);

impl SocketPath {
    pub(super) fn open(dir: &Path) -> io::Result<Self> {
        dir.metadata()?;
        Ok(Self(dir.join(SOCKET)))
    }

    pub(super) fn path(&self) -> &Path {
        &self.0
    }
}

/// There is no such request here.
pub(super) fn die_with_parent(_parent: Pid) -> io::Result<()> {
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
        unsafe { nix::libc::fcntl(descriptor, nix::libc::F_SETFD, nix::libc::FD_CLOEXEC) };
    }
    Ok(())
}

/// The user's own group only.
pub(super) fn groups_of(user: &User) -> io::Result<Vec<Gid>> {
    Ok(vec![user.gid])
}

/// Changing supplementary groups is not portable; they stay as they are.
pub(super) fn set_groups(_groups: &[Gid]) -> io::Result<()> {
    Ok(())
}

/// Unknown, so that nothing is ever taken for a leftover of this boot.
pub(super) fn boot_id() -> io::Result<String> {
    Err(io::ErrorKind::Unsupported.into())
}

/// There is no boot id to note.
pub(super) fn note_identity(_file: &CStr, _boot_id: &str) -> io::Result<()> {
    Ok(())
}

/// Kills a process group at once.
pub(super) fn kill_group(leader: u32) {
    if let Some(group) = i32::try_from(leader).ok().and_then(Pid::from_raw) {
        // A group that is not there any more is what is wanted.
        let _ = rustix::process::kill_process_group(group, Signal::KILL);
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

/// Orphans go to the system here.
pub(super) fn adopt_orphans() -> io::Result<()> {
    Ok(())
}

/// No child can be taken for a stray here.
#[derive(Debug)]
pub(super) struct Own;

impl Own {
    pub(super) fn new(_pid: u32) -> Self {
        Self
    }
}

/// Unknown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Identity {}

/// Unknown.
pub(super) fn descendants(_roots: impl IntoIterator<Item = u32>) -> Vec<Identity> {
    Vec::new()
}

/// Nothing is known to be killed.
pub(super) async fn kill_family(_family: Vec<Identity>) -> io::Result<()> {
    Ok(())
}

/// There are none.
pub(super) fn reap_strays() {}

/// There are none.
pub(super) async fn kill_strays() -> io::Result<()> {
    Ok(())
}

/// Tells of the end of a child.
#[derive(Debug)]
pub(super) struct ExitWatch;

impl ExitWatch {
    pub(super) fn new(_child: &Child) -> io::Result<Self> {
        Ok(Self)
    }

    /// Returns once the child has ended. Cancel-safe.
    pub(super) async fn ended(&mut self, child: &mut Child) -> io::Result<()> {
        child.wait().await.map(drop)
    }
}

/// Unknown.
pub(super) fn port_holder(_port: u16) -> Option<String> {
    None
}
