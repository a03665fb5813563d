//! What only Linux can do: short socket paths, identity of processes, sessions, pidfds.

use std::collections::BTreeSet;
use std::ffi::CStr;
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use nix::unistd::{Gid, User};
use rustix::process::{Pid, PidfdFlags, Signal};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::process::Child;

use super::store::{IDENTITY_ROOM, SOCKET};

/// The path of a sandbox's socket, short enough for any folder: it goes through a descriptor of the
/// folder, which is held as long as this value lives.
#[derive(Debug)]
pub(super) struct SocketPath {
    path: PathBuf,
    _dir: File,
}

impl SocketPath {
    /// Opens the folder; the socket itself need not exist.
    pub(super) fn open(dir: &Path) -> io::Result<Self> {
        let flags = rustix::fs::OFlags::PATH | rustix::fs::OFlags::DIRECTORY;
        let dir = File::options()
            .read(true)
            .custom_flags(flags.bits() as i32)
            .open(dir)?;
        let path = PathBuf::from(format!("/proc/self/fd/{}/{SOCKET}", dir.as_raw_fd()));
        Ok(Self { path, _dir: dir })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }
}

/// Asks the kernel to kill this process when the thread that forked it ends. To be called between
/// fork and exec, after any change of user (which clears it).
pub(super) fn die_with_parent(parent: Pid) -> io::Result<()> {
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?;
    // The parent may have died before the request was in place.
    if rustix::process::getppid() == Some(parent) {
        Ok(())
    } else {
        Err(io::ErrorKind::BrokenPipe.into())
    }
}

/// Lets the program that is executed next have nothing but the standard streams, whatever this process
/// was itself given. To be called between fork and exec.
pub(super) fn close_others_on_exec() -> io::Result<()> {
    use nix::libc::{CLOSE_RANGE_CLOEXEC, SYS_close_range, syscall};
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
        unsafe { nix::libc::fcntl(descriptor, nix::libc::F_SETFD, nix::libc::FD_CLOEXEC) };
    }
}

/// Every group that the user is in.
pub(super) fn groups_of(user: &User) -> io::Result<Vec<Gid>> {
    let name = std::ffi::CString::new(user.name.as_str())?;
    Ok(nix::unistd::getgrouplist(&name, user.gid)?)
}

/// Replaces the supplementary groups. To be called between fork and exec.
pub(super) fn set_groups(groups: &[Gid]) -> io::Result<()> {
    Ok(nix::unistd::setgroups(groups)?)
}

/// Identifies this boot of the machine.
pub(super) fn boot_id() -> io::Result<String> {
    let text = std::fs::read_to_string("/proc/sys/kernel/random/boot_id")?;
    Ok(text.trim().to_owned())
}

/// What `/proc/PID/stat` says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stat {
    state: char,
    session: u32,
    start_time: u64,
}

fn stat(pid: u32) -> Option<Stat> {
    parse_stat(&std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
}

/// The command's name is in parentheses and may hold anything, so fields are counted after the last
/// one: state (3), ppid, pgrp, session (6), …, starttime (22).
fn parse_stat(text: &str) -> Option<Stat> {
    let mut fields = text[text.rfind(')')? + 1..].split_ascii_whitespace();
    let state = fields.next()?.chars().next()?;
    let session = fields.nth(2)?.parse().ok()?;
    let start_time = fields.nth(15)?.parse().ok()?;
    Some(Stat {
        state,
        session,
        start_time,
    })
}

/// Kills a process group at once.
pub(super) fn kill_group(leader: u32) {
    if let Some(group) = i32::try_from(leader).ok().and_then(Pid::from_raw) {
        // A group that is not there any more is what is wanted.
        let _ = rustix::process::kill_process_group(group, Signal::KILL);
    }
}

/// Writes this process's identity, as JSON of a `Running`, into a file. To be called between fork and
/// exec: it does not allocate.
pub(super) fn note_identity(file: &CStr, boot_id: &str) -> io::Result<()> {
    use rustix::fs::{Mode, OFlags, open};
    let mut buffer = [0; 1024];
    let stat = open(
        c"/proc/self/stat",
        OFlags::RDONLY | OFlags::CLOEXEC,
        Mode::empty(),
    )?;
    let length = rustix::io::read(stat, &mut buffer)?;
    let text = str::from_utf8(&buffer[..length]).map_err(|_| io::ErrorKind::InvalidData)?;
    let start_time = parse_stat(text)
        .ok_or(io::ErrorKind::InvalidData)?
        .start_time;
    let pid = rustix::process::getpid().as_raw_nonzero();
    let mut json = io::Cursor::new([0; IDENTITY_ROOM]);
    write!(
        json,
        r#"{{"boot_id":"{boot_id}","pid":{pid},"start_time":{start_time}}}"#
    )?;
    let length = json.position() as usize;
    // Not truncated: its blocks are there already, so that a full disk is no obstacle.
    let file = open(file, OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty())?;
    rustix::io::write(file, &json.get_ref()[..length])?;
    Ok(())
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
            && stat(pid).is_some_and(|stat| !matches!(stat.state, 'Z' | 'X'))
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
            let Some(raw) = i32::try_from(pid).ok().and_then(Pid::from_raw) else {
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

/// Makes this process the new parent of what its services leave orphaned.
pub(super) fn adopt_orphans() -> io::Result<()> {
    let own = rustix::process::getpid();
    Ok(rustix::process::set_child_subreaper(Some(own))?)
}

/// The children that somebody in this process waits for.
static OWN: Mutex<BTreeSet<u32>> = Mutex::new(BTreeSet::new());

fn own() -> MutexGuard<'static, BTreeSet<u32>> {
    // The set is whole after every statement, so a panic elsewhere cannot have torn it.
    OWN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Marks a child as one that is waited for, so that it is not taken for a stray. To be made in the
/// same step as the child, and kept until it is reaped.
#[derive(Debug)]
pub(super) struct Own(u32);

impl Own {
    pub(super) fn new(pid: u32) -> Self {
        own().insert(pid);
        Self(pid)
    }
}

impl Drop for Own {
    fn drop(&mut self) {
        own().remove(&self.0);
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
        stat(self.pid).is_some_and(|stat| {
            stat.start_time == self.start_time && !matches!(stat.state, 'Z' | 'X')
        })
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
            let Some(raw) = i32::try_from(member.pid).ok().and_then(Pid::from_raw) else {
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

/// The children of this process that nobody waits for: orphans of its services.
fn strays() -> Vec<u32> {
    let mut children = children_of(std::process::id());
    let own = own();
    children.retain(|pid| !own.contains(pid));
    children
}

/// Takes the strays that have ended from the list of processes.
pub(super) fn reap_strays() {
    for pid in strays() {
        if let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw) {
            // One that was reaped elsewhere meanwhile is no concern.
            let _ = rustix::process::waitpid(Some(pid), rustix::process::WaitOptions::NOHANG);
        }
    }
}

/// Kills every stray and all below it. For the end, when no service is left.
pub(super) async fn kill_strays() -> io::Result<()> {
    loop {
        let family: Vec<_> = strays()
            .into_iter()
            .filter_map(|pid| {
                let start_time = start_time(pid)?;
                Some(Identity { pid, start_time })
            })
            .filter(Identity::is_alive)
            .collect();
        let before = family.clone();
        kill_family(family).await?;
        reap_strays();
        // What may not be killed is left.
        if before.iter().all(Identity::is_alive) {
            return Ok(());
        }
    }
}

/// Becomes readable when the process ends.
fn watch(pidfd: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: an `OwnedFd` names the same open descriptor for as long as it lives.
    let watched = unsafe { AsyncFd::register_with_interest(pidfd, Interest::READABLE) };
    Ok(watched?)
}

/// Tells of the end of a child without reaping it, so that its number stays its own meanwhile.
#[derive(Debug)]
pub(super) struct ExitWatch(AsyncFd<OwnedFd>);

impl ExitWatch {
    pub(super) fn new(child: &Child) -> io::Result<Self> {
        let pid = child.id().and_then(|pid| i32::try_from(pid).ok());
        let pid = pid.and_then(Pid::from_raw).ok_or(io::ErrorKind::NotFound)?;
        let pidfd = rustix::process::pidfd_open(pid, PidfdFlags::NONBLOCK)?;
        watch(pidfd).map(Self)
    }

    /// Returns once the child has ended. Cancel-safe.
    pub(super) async fn ended(&mut self, _child: &mut Child) -> io::Result<()> {
        self.0.readable().await?.retain_ready();
        Ok(())
    }
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
            (found.state, found.session, found.start_time),
            ('R', 5, 987)
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
