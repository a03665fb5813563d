//! What the keeper asks of Linux.

use std::fs::File;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use nix::libc;
use nix::unistd::Gid;
use rustix::event::epoll;
use rustix::process::{Pid, PidfdFlags, Signal, WaitOptions};

use super::folder::SOCKET;
use super::unix::{kill_group, number, reap};
use super::wire::ChildId;

/// The path of a sandbox's socket, short enough for any folder: it goes through a descriptor of the
/// folder, which is held as long as this value lives.
#[derive(Debug)]
pub(crate) struct SocketPath {
    path: PathBuf,
    _dir: File,
}

impl SocketPath {
    /// The API's. Opens the folder; the socket itself need not exist.
    pub(crate) fn open(dir: &Path) -> io::Result<Self> {
        Self::named(dir, SOCKET)
    }

    /// Another one in the same folder.
    pub(crate) fn named(dir: &Path, name: &str) -> io::Result<Self> {
        let flags = rustix::fs::OFlags::PATH | rustix::fs::OFlags::DIRECTORY;
        let dir = File::options()
            .read(true)
            .custom_flags(flags.bits() as i32)
            .open(dir)?;
        let path = PathBuf::from(format!("/proc/self/fd/{}/{name}", dir.as_raw_fd()));
        Ok(Self { path, _dir: dir })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

/// Tells which children have ended, without asking each of them.
#[derive(Debug)]
pub(super) struct Exits(OwnedFd);

impl Exits {
    pub(super) fn new() -> io::Result<Self> {
        Ok(Self(epoll::create(epoll::CreateFlags::CLOEXEC)?))
    }

    pub(super) fn as_fd(&self) -> Option<BorrowedFd<'_>> {
        Some(self.0.as_fd())
    }

    pub(super) fn add(&self, id: ChildId, pidfd: Option<&OwnedFd>) {
        let Some(pidfd) = pidfd else { return };
        let data = epoll::EventData::new_u64(id);
        // Told once: the child is held, and stays readable, until it is released.
        let flags = epoll::EventFlags::IN | epoll::EventFlags::ONESHOT;
        if let Err(error) = epoll::add(&self.0, pidfd, data, flags) {
            tracing::error!(%error, "the end of a child will not be seen");
        }
    }

    pub(super) fn remove(&self, pidfd: Option<&OwnedFd>) {
        if let Some(pidfd) = pidfd {
            // Not there any more is what is wanted.
            let _ = epoll::delete(&self.0, pidfd);
        }
    }

    /// Those that may have ended.
    pub(super) fn candidates(&self, _: impl Iterator<Item = (ChildId, u32)>) -> Vec<ChildId> {
        let mut found = Vec::new();
        loop {
            let mut room = [MaybeUninit::<epoll::Event>::uninit(); 64];
            let now = rustix::event::Timespec::default();
            let Ok((events, _)) = epoll::wait(&self.0, &mut room, Some(&now)) else {
                return found;
            };
            found.extend(events.iter().map(|event| event.data.u64()));
            if events.len() < 64 {
                return found;
            }
        }
    }
}

/// A handle of a child that was not reaped yet.
pub(super) fn pidfd(pid: u32) -> Option<OwnedFd> {
    let opened = rustix::process::pidfd_open(number(pid)?, PidfdFlags::empty());
    opened
        .inspect_err(|error| tracing::error!(pid, %error, "no handle of a child"))
        .ok()
}

/// Waits for the end of a child, and reaps it.
pub(super) fn await_end(pid: u32) {
    if let Some(pid) = number(pid) {
        let _ = rustix::process::waitpid(Some(pid), WaitOptions::empty());
    }
}

/// As `fork(2)`, with the child in a control group: see `clone3(2)`. Returns 0 in the child.
pub(super) fn fork_into(group: &OwnedFd) -> io::Result<u32> {
    const CLONE_INTO_CGROUP: u64 = 1 << 33;
    let mut arguments = [0_u64; 11];
    arguments[0] = CLONE_INTO_CGROUP;
    // The number of an open descriptor and of a signal are not negative.
    arguments[4] = libc::SIGCHLD as u64;
    arguments[10] = group.as_raw_fd() as u64;
    // SAFETY: as fork: without a stack of its own the child goes on with a copy of this one's memory, in
    // which no other thread can have left anything half done.
    let pid = unsafe {
        libc::syscall(
            libc::SYS_clone3,
            arguments.as_ptr(),
            size_of_val(&arguments),
        )
    };
    u32::try_from(pid).map_err(|_| io::Error::last_os_error())
}

/// The children of this process.
fn children() -> Vec<u32> {
    let own = std::process::id();
    let list = std::fs::read_to_string(format!("/proc/self/task/{own}/children"))
        // In a namespace of its own, where `self` is not `own` until `/proc` is mounted anew.
        .unwrap_or_default();
    list.split_ascii_whitespace()
        .filter_map(|n| n.parse().ok())
        .collect()
}

/// Takes the orphans that have ended from the list of processes.
pub(super) fn reap_all_but(known: &std::collections::BTreeSet<u32>) {
    for pid in children() {
        if !known.contains(&pid) {
            reap(pid);
        }
    }
}

/// Kills every child, orphans included, until none is left that can be killed.
pub(super) fn kill_children() {
    loop {
        let mut killed = false;
        for pid in children() {
            kill_group(pid);
            let Some(number) = number(pid) else { continue };
            if rustix::process::kill_process(number, Signal::KILL).is_ok() {
                killed |= rustix::process::waitpid(Some(number), WaitOptions::empty()).is_ok();
            }
        }
        if !killed {
            return;
        }
    }
}

/// Makes this process the new parent of what its services leave orphaned.
pub(super) fn adopt_orphans() -> io::Result<()> {
    let own = rustix::process::getpid();
    Ok(rustix::process::set_child_subreaper(Some(own))?)
}

/// Asks the kernel to kill this process when the thread that forked it ends. To be called between
/// fork and exec, after any change of user (which clears it).
pub(super) fn die_with_parent(parent: Pid) -> io::Result<()> {
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?;
    // The parent may have died before the request was in place.
    match rustix::process::getppid() == Some(parent) {
        true => Ok(()),
        false => Err(io::ErrorKind::BrokenPipe.into()),
    }
}

/// Lets the program that is executed next have nothing but the standard streams, whatever this process
/// was itself given. To be called between fork and exec.
pub(crate) fn close_others_on_exec() -> io::Result<()> {
    use libc::{CLOSE_RANGE_CLOEXEC, SYS_close_range, syscall};
    // SAFETY: changes a flag of descriptors and touches no memory.
    let result = unsafe { syscall(SYS_close_range, 3_u32, u32::MAX, CLOSE_RANGE_CLOEXEC) };
    if result == 0 {
        return Ok(());
    }
    // A kernel before 5.11.
    mark_each_close_on_exec();
    Ok(())
}

/// Does the same one by one, for as many as a process usually has.
fn mark_each_close_on_exec() {
    const MOST: u64 = 1 << 16;
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
    let last = limit.unwrap_or(MOST).min(MOST) as i32;
    for descriptor in 3..last {
        // SAFETY: changes a flag of a descriptor, or fails for one that is not open.
        unsafe { libc::fcntl(descriptor, libc::F_SETFD, libc::FD_CLOEXEC) };
    }
}

/// Replaces the supplementary groups. To be called between fork and exec.
pub(super) fn set_groups(groups: &[Gid]) -> io::Result<()> {
    Ok(nix::unistd::setgroups(groups)?)
}

/// What root may do in a container: the usual set. Nothing in it leads out of the namespaces.
const KEPT_CAPABILITIES: [i32; 10] = [
    0,  // CHOWN
    1,  // DAC_OVERRIDE
    3,  // FOWNER
    4,  // FSETID
    5,  // KILL
    6,  // SETGID
    7,  // SETUID
    8,  // SETPCAP
    10, // NET_BIND_SERVICE
    18, // SYS_CHROOT
];

/// Gives up for good what would let a process change its namespaces. To be called between fork and
/// exec, before any change of user.
pub(super) fn give_up_privileges() -> io::Result<()> {
    const LAST: i32 = 63;
    for capability in 0..=LAST {
        if KEPT_CAPABILITIES.contains(&capability) {
            continue;
        }
        // SAFETY: changes this process's own bounding set.
        if unsafe { libc::prctl(libc::PR_CAPBSET_DROP, capability, 0, 0, 0) } != 0 {
            // Beyond the last that this kernel knows.
            break;
        }
    }
    // SAFETY: changes this process's own flag.
    match unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Keeps other processes of the same user from looking into this one, which holds secrets.
pub(super) fn hide_memory() {
    // SAFETY: changes this process's own flag.
    if unsafe { libc::prctl(libc::PR_SET_DUMPABLE, 0, 0, 0, 0) } != 0 {
        tracing::warn!(error = %io::Error::last_os_error(), "the memory can be looked into");
    }
}

/// Makes all threads allocate from one place, which is less than one for each. To be called before there
/// are threads.
pub(crate) fn one_arena() {
    #[cfg(target_env = "gnu")]
    // SAFETY: sets a number in the allocator.
    unsafe {
        libc::mallopt(libc::M_ARENA_MAX, 1);
    }
}

/// Gives back what the allocator holds and nobody uses, and lets go of the program's own pages: those that
/// are needed again come back from the page cache.
pub(crate) fn give_back_memory() {
    #[cfg(target_env = "gnu")]
    // SAFETY: only memory that nobody has allocated is given back.
    unsafe {
        libc::malloc_trim(0);
    }
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap_or_default();
    for (start, length) in maps.lines().filter_map(pages_of_program) {
        // SAFETY: the pages are those of a file and were never written to, so that they come back as they
        // were. A failure means that they stay.
        unsafe {
            libc::madvise(start as *mut libc::c_void, length, libc::MADV_DONTNEED);
        }
    }
}

/// Start and length of what is read from a program or a library, if a line of `/proc/self/maps` is about that:
/// its code, and what lies before it. What the dynamic linker has written to lies behind.
fn pages_of_program(line: &str) -> Option<(usize, usize)> {
    // `55d0-55d4 r-xp 00001000 08:01 1234   /usr/bin/gabion`
    let mut fields = line.split_ascii_whitespace();
    let (range, rights, offset) = (fields.next()?, fields.next()?, fields.next()?);
    let is_file = fields.nth(2)?.starts_with('/');
    let first = rights == "r--p" && offset.bytes().all(|digit| digit == b'0');
    if !is_file || !(first || rights == "r-xp") {
        return None;
    }
    let (start, end) = range.split_once('-')?;
    let number = |hex| usize::from_str_radix(hex, 16).ok();
    let (start, end) = (number(start)?, number(end)?);
    Some((start, end.checked_sub(start)?))
}

/// The number of a process among those that `/proc` shows here. `None` if it is gone.
pub(super) fn number_of(pidfd: &OwnedFd) -> Option<u32> {
    let text = std::fs::read_to_string(format!("/proc/self/fdinfo/{}", pidfd.as_raw_fd())).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("Pid:"))?;
    line.trim().parse().ok()
}

/// A file that no folder has.
pub(super) fn memory_file() -> io::Result<OwnedFd> {
    Ok(rustix::fs::memfd_create(
        "gabion",
        rustix::fs::MemfdFlags::CLOEXEC,
    )?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_unwritten_pages_of_files_are_let_go_of() {
        for (line, is_it) in [
            ("1000-3000 r--p 00000000 08:01 12  /usr/bin/gabion", true),
            ("3000-4000 r-xp 00002000 08:01 12  /usr/bin/gabion", true),
            ("4000-5000 r--p 00003000 08:01 12  /usr/bin/gabion", false),
            ("5000-6000 rw-p 00004000 08:01 12  /usr/bin/gabion", false),
            ("6000-7000 r-xp 00000000 00:00 0  [vdso]", false),
            ("7000-8000 rw-p 00000000 00:00 0", false),
        ] {
            assert_eq!(pages_of_program(line).is_some(), is_it, "{line}");
        }
        give_back_memory();
    }
}
