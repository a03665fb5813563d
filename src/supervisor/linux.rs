//! What only Linux can do: short socket paths, identity of processes, sessions, pidfds.

use crate::keeper::number;
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::time::Duration;

use nix::unistd::{Gid, User};
use rustix::process::{PidfdFlags, Signal};
use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create,
    timerfd_settime,
};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// Every group that the user is in.
pub(super) fn groups_of(user: &User) -> io::Result<Vec<Gid>> {
    let name = std::ffi::CString::new(user.name.as_str())?;
    Ok(nix::unistd::getgrouplist(&name, user.gid)?)
}

/// Identifies this boot of the machine.
pub(super) fn boot_id() -> io::Result<String> {
    static KNOWN: OnceLock<String> = OnceLock::new();
    if let Some(known) = KNOWN.get() {
        return Ok(known.clone());
    }
    let text = std::fs::read_to_string("/proc/sys/kernel/random/boot_id")?;
    Ok(KNOWN.get_or_init(|| text.trim().to_owned()).clone())
}

/// What `/proc/PID/stat` says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Stat {
    state: char,
    /// Its parent's number.
    pub parent: u32,
    /// The number of its session's leader.
    pub session: u32,
    /// When it was started, in ticks since boot.
    pub start_time: u64,
}

impl Stat {
    /// Whether it is more than an entry in a list.
    pub(super) fn lives(&self) -> bool {
        !matches!(self.state, 'Z' | 'X')
    }

    /// Whether it is held by a signal or a tracer.
    pub(super) fn is_stopped(&self) -> bool {
        matches!(self.state, 'T' | 't')
    }
}

/// Every living process of this machine, by number. `None` where the system does not tell.
pub(super) fn processes() -> io::Result<Option<BTreeMap<u32, Stat>>> {
    let mut found = BTreeMap::new();
    for entry in std::fs::read_dir("/proc")? {
        let pid = entry?.file_name();
        let pid = pid.to_str().and_then(|pid| pid.parse().ok());
        if let Some((pid, stat)) = pid.and_then(|pid| Some((pid, stat(pid)?)))
            && stat.lives()
        {
            found.insert(pid, stat);
        }
    }
    Ok(Some(found))
}

/// One process. `None` if there is none.
pub(super) fn stat(pid: u32) -> Option<Stat> {
    parse_stat(&std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
}

/// The command's name is in parentheses and may hold anything, so fields are counted after the last
/// one: state (3), ppid, pgrp, session (6), …, starttime (22).
fn parse_stat(text: &str) -> Option<Stat> {
    let mut fields = text[text.rfind(')')? + 1..].split_ascii_whitespace();
    let state = fields.next()?.chars().next()?;
    let parent = fields.next()?.parse().ok()?;
    let session = fields.nth(1)?.parse().ok()?;
    let start_time = fields.nth(15)?.parse().ok()?;
    Some(Stat {
        state,
        parent,
        session,
        start_time,
    })
}

/// Kills one process at once; whether that was allowed.
pub(super) fn kill_process(pid: u32) -> bool {
    let pid = number(pid);
    pid.is_some_and(|pid| rustix::process::kill_process(pid, Signal::KILL).is_ok())
}

/// The ends of several processes, whoever their parents are.
#[derive(Debug)]
pub(super) struct Ends(Vec<(u32, AsyncFd<OwnedFd>)>);

impl Ends {
    /// Those of the processes that live, and that this user may kill.
    pub(super) fn of(pids: &[u32]) -> io::Result<Self> {
        let mut ends = Vec::new();
        for &pid in pids {
            let Some(raw) = number(pid) else {
                continue;
            };
            let may_kill = rustix::process::test_kill_process(raw).is_ok();
            let pidfd = rustix::process::pidfd_open(raw, PidfdFlags::NONBLOCK);
            if let (true, Ok(pidfd)) = (may_kill, pidfd) {
                ends.push((pid, watch(pidfd)?));
            }
        }
        Ok(Self(ends))
    }

    /// Returns once all that are also in `pids` have ended.
    pub(super) async fn of_these(self, pids: &[u32]) -> io::Result<()> {
        for (_, end) in self.0.iter().filter(|(pid, _)| pids.contains(pid)) {
            end.readable().await?.retain_ready();
        }
        Ok(())
    }
}

/// When a process was started, in ticks since boot. `None` if there is none.
pub(super) fn start_time(pid: u32) -> Option<u64> {
    stat(pid).map(|stat| stat.start_time)
}

/// The living processes of a session. A zombie is not living.
fn session_members(session: u32) -> io::Result<Vec<u32>> {
    let mut members = Vec::new();
    for entry in std::fs::read_dir("/proc")? {
        let Some(pid) = entry?
            .file_name()
            .to_str()
            .and_then(|n| n.parse::<i32>().ok())
        else {
            continue;
        };
        // The system call is a hundred times cheaper than reading `stat` of everybody. (Not rustix's:
        // kernel threads are in session 0, which its type does not have.)
        let of = nix::unistd::getsid(Some(nix::unistd::Pid::from_raw(pid)));
        let Ok(pid) = u32::try_from(pid) else {
            continue;
        };
        if of.is_ok_and(|of| u32::try_from(of.as_raw()) == Ok(session))
            && stat(pid).is_some_and(|stat| stat.lives())
        {
            members.push(pid);
        }
    }
    Ok(members)
}

/// Kills every process of a session and returns once none is left.
///
/// `start_time` is that of its leader: a leader that was started at another time belongs to somebody
/// else, and nothing is killed. Processes that may not be killed are left.
pub(super) async fn kill_session(leader: u32, start_time: Option<u64>) -> io::Result<()> {
    if let (Some(now), Some(then)) = (self::start_time(leader), start_time)
        && now != then
    {
        return Ok(());
    }
    loop {
        let mut ends = Vec::new();
        for pid in session_members(leader)? {
            let Some(raw) = number(pid) else {
                continue;
            };
            let Ok(pidfd) = rustix::process::pidfd_open(raw, PidfdFlags::NONBLOCK) else {
                continue;
            };
            // The number may have changed hands between the listing and the open.
            if stat(pid).is_none_or(|stat| stat.session != leader) {
                continue;
            }
            if rustix::process::pidfd_send_signal(&pidfd, Signal::KILL).is_ok() {
                ends.push(watch(pidfd)?);
            }
        }
        if ends.is_empty() {
            return Ok(());
        }
        for end in ends {
            end.readable().await?.retain_ready();
        }
    }
}

/// One process, for good: its number may change hands, not together with its start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Identity {
    pid: u32,
    start_time: u64,
}

impl Identity {
    fn is_alive(&self) -> bool {
        stat(self.pid).is_some_and(|stat| stat.start_time == self.start_time && stat.lives())
    }
}

/// The children of a process, of all its threads.
fn children_of(pid: u32) -> Vec<u32> {
    let Ok(tasks) = std::fs::read_dir(format!("/proc/{pid}/task")) else {
        return Vec::new();
    };
    tasks
        .flatten()
        .filter_map(|task| std::fs::read_to_string(task.path().join("children")).ok())
        .flat_map(|list| {
            let numbers = list.split_ascii_whitespace().filter_map(|n| n.parse().ok());
            numbers.collect::<Vec<u32>>()
        })
        .collect()
}

/// The processes below `roots` at any distance, without the roots.
pub(super) fn descendants(roots: impl IntoIterator<Item = u32>) -> Vec<Identity> {
    let mut found = Vec::new();
    let mut queue: Vec<u32> = roots.into_iter().collect();
    let mut seen: BTreeSet<u32> = queue.iter().copied().collect();
    while let Some(parent) = queue.pop() {
        for pid in children_of(parent) {
            if seen.insert(pid)
                && let Some(start_time) = start_time(pid)
            {
                found.push(Identity { pid, start_time });
                queue.push(pid);
            }
        }
    }
    found
}

/// The parent of a process: its keeper, or number 1 of its namespaces.
pub(super) fn parent(pid: u32) -> Option<u32> {
    stat(pid).map(|stat| stat.parent)
}

/// What `parent` has taken in, and all below it, that has a variable in its environment that starts with `mark`.
pub(super) fn marked_orphans(parent: u32, mark: &str) -> Vec<Identity> {
    descendants([parent])
        .into_iter()
        .filter(|found| bears(found.pid, mark))
        .collect()
}

fn bears(pid: u32, mark: &str) -> bool {
    // One that may not be looked into is not ours.
    let environment = std::fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
    let mut variables = environment.split(|byte| *byte == 0);
    variables.any(|variable| variable.starts_with(mark.as_bytes()))
}

/// Everything on this machine that has a variable in its environment that starts with `mark`.
pub(super) fn marked(mark: &str) -> Vec<Identity> {
    let processes = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    processes
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .filter(|pid| bears(*pid, mark))
        .filter_map(|pid| {
            let start_time = start_time(pid)?;
            Some(Identity { pid, start_time })
        })
        .collect()
}

/// Kills these processes and all below them, and returns once none is left.
pub(super) async fn kill_family(mut family: Vec<Identity>) -> io::Result<()> {
    loop {
        family.retain(Identity::is_alive);
        for member in descendants(family.iter().map(|member| member.pid)) {
            if !family.contains(&member) {
                family.push(member);
            }
        }
        let mut ends = Vec::new();
        for member in &family {
            let Some(raw) = number(member.pid) else {
                continue;
            };
            let Ok(pidfd) = rustix::process::pidfd_open(raw, PidfdFlags::NONBLOCK) else {
                continue;
            };
            // The number may have changed hands before the open.
            if member.is_alive() && rustix::process::pidfd_send_signal(&pidfd, Signal::KILL).is_ok()
            {
                ends.push(watch(pidfd)?);
            }
        }
        if ends.is_empty() {
            return Ok(());
        }
        for end in ends {
            end.readable().await?.retain_ready();
        }
    }
}

/// To open something with, only to look at it or below it.
pub(super) const LOOK: rustix::fs::OFlags = rustix::fs::OFlags::PATH;

/// A path to what was opened, which does not change when that is moved.
pub(super) fn path_of(opened: &OwnedFd) -> io::Result<PathBuf> {
    Ok(PathBuf::from(format!(
        "/proc/self/fd/{}",
        opened.as_raw_fd()
    )))
}

/// Opens what is at `path` below `root`. Nothing leads out of it: absolute links and `..` begin and
/// end at it.
pub(super) fn open_in_root(
    root: &OwnedFd,
    path: &str,
    flags: rustix::fs::OFlags,
) -> Result<OwnedFd, rustix::io::Errno> {
    use rustix::fs::{Mode, ResolveFlags, openat2};
    use rustix::io::Errno;
    /// Somebody who moves folders about all the time is not waited for.
    const TRIES: usize = 64;
    for _ in 0..TRIES {
        match openat2(root, path, flags, Mode::empty(), ResolveFlags::IN_ROOT) {
            Err(Errno::AGAIN | Errno::INTR) => {}
            other => return other,
        }
    }
    Err(Errno::AGAIN)
}

/// Waits by a timer of the kernel, which is exact to some microseconds. The runtime's own has whole
/// milliseconds.
pub(super) async fn sleep(length: Duration) -> io::Result<()> {
    let timer = timerfd_create(
        TimerfdClockId::Monotonic,
        TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC,
    )?;
    let once = Itimerspec {
        it_interval: Timespec::default(),
        // Nothing at all would never end.
        it_value: Timespec::try_from(length.max(Duration::from_nanos(1)))
            .map_err(|_| io::ErrorKind::InvalidInput)?,
    };
    timerfd_settime(&timer, TimerfdTimerFlags::empty(), &once)?;
    // SAFETY: the wrapper owns the descriptor and gives it to nobody.
    let timer = unsafe { AsyncFd::register_with_interest(timer, Interest::READABLE) }?;
    timer.readable().await.map(drop)
}

/// Becomes readable when the process ends.
fn watch(pidfd: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: an `OwnedFd` names the same open descriptor for as long as it lives.
    let watched = unsafe { AsyncFd::register_with_interest(pidfd, Interest::READABLE) };
    Ok(watched?)
}

/// Who listens on a TCP port, as `` `command` (pid N)``, where that can be found out.
pub(super) fn port_holder(port: u16) -> Option<String> {
    let inodes: Vec<String> = ["/proc/net/tcp", "/proc/net/tcp6"]
        .iter()
        .filter_map(|table| std::fs::read_to_string(table).ok())
        .flat_map(|table| listeners(&table, port))
        .collect();
    for entry in std::fs::read_dir("/proc").ok()?.flatten() {
        let Some(pid) = entry
            .file_name()
            .to_str()
            .and_then(|n| n.parse::<u32>().ok())
        else {
            continue;
        };
        let Ok(descriptors) = std::fs::read_dir(entry.path().join("fd")) else {
            continue;
        };
        let holds = descriptors.flatten().any(|descriptor| {
            std::fs::read_link(descriptor.path())
                .is_ok_and(|target| inodes.iter().any(|inode| target == Path::new(inode)))
        });
        if holds {
            let name = std::fs::read_to_string(entry.path().join("comm")).ok()?;
            return Some(format!("`{}` (pid {pid})", name.trim()));
        }
    }
    None
}

/// The sockets that listen on `port` in one table, written as the links in `/proc/PID/fd` are.
fn listeners(table: &str, port: u16) -> Vec<String> {
    const LISTEN: &str = "0A";
    let suffix = format!(":{port:04X}");
    let inode = |line: &str| {
        let fields: Vec<_> = line.split_ascii_whitespace().collect();
        let listens = fields.get(1)?.ends_with(&suffix) && *fields.get(3)? == LISTEN;
        listens.then(|| format!("socket:[{}]", fields.get(9).unwrap_or(&"")))
    };
    table.lines().filter_map(inode).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stat_survives_a_hostile_command_name() {
        let text = "7 (a) S 1) (b) R 1 7 5 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 987 0";
        let found = parse_stat(text).unwrap();
        assert_eq!(
            (found.state, found.parent, found.session, found.start_time),
            ('R', 1, 5, 987)
        );
        assert_eq!(parse_stat("nonsense"), None);
        assert!(stat(std::process::id()).is_some());
    }

    #[test]
    fn a_listener_is_found_with_its_process() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let holder = port_holder(listener.local_addr().unwrap().port()).unwrap();
        assert!(
            holder.ends_with(&format!("(pid {})", std::process::id())),
            "{holder}"
        );
    }
}
