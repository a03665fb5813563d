//! Namespaces for the services of a sandbox: own users, processes, mounts and IPC, with the machine's files
//! read-only, the workspace writable, and a `/tmp`, `/run`, `/dev` and `/proc` of their own.
//!
//! In: which paths are writable and which hidden. Out: a process that is number 1 in there. The network is
//! the machine's.

use std::fs;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};

use nix::libc;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use rustix::mount::{MoveMountFlags, OpenTreeFlags, move_mount, open_tree};

/// What is different in there from the machine outside.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Walls {
    /// An empty folder of the sandbox that the new root is put together in.
    pub root: PathBuf,
    /// The folder that is `/tmp` in there.
    pub tmp: PathBuf,
    /// What may be written, among it the workspace.
    pub writable: Vec<PathBuf>,
    /// What looks empty.
    pub hidden: Vec<PathBuf>,
}

/// Where the machine's own servers listen. Who is answered there by a container engine, by D-Bus or by
/// systemd can have any program executed outside.
const RUN: [&str; 2] = ["/run", "/var/run"];

/// What programs need of it: how names are resolved, and where NixOS keeps its programs.
const KEPT_OF_RUN: [&str; 8] = [
    "/run/systemd/resolve",
    "/run/resolvconf",
    "/run/NetworkManager/resolv.conf",
    "/run/connman/resolv.conf",
    "/run/nscd",
    "/run/current-system",
    "/run/booted-system",
    "/run/opengl-driver",
];

/// Devices without side effects.
const DEVICES: [&str; 6] = ["null", "zero", "full", "random", "urandom", "tty"];

/// Where root could change the machine, or read its memory, through `/proc`.
const PROC_READ_ONLY: [&str; 5] = ["sys", "sysrq-trigger", "irq", "bus", "fs"];
const PROC_MASKED: [&str; 5] = [
    "kcore",
    "keys",
    "timer_list",
    "latency_stats",
    "sched_debug",
];

/// Forks a process into new namespaces, where it is number 1. Returns its number out here; 0 in there.
///
/// The process must have one thread only. In there it must wait until [`map_users`] was called on it.
pub(super) fn fork_enclosed() -> io::Result<u32> {
    let flags = libc::CLONE_NEWUSER
        | libc::CLONE_NEWPID
        | libc::CLONE_NEWNS
        | libc::CLONE_NEWIPC
        | libc::SIGCHLD;
    // SAFETY: as fork: without a stack of its own the child goes on with a copy of this one's memory, in
    // which no other thread can have left anything half done.
    let pid = unsafe { libc::syscall(libc::SYS_clone, libc::c_long::from(flags), 0, 0, 0, 0) };
    match u32::try_from(pid) {
        Ok(pid) => Ok(pid),
        Err(_) => Err(io::Error::last_os_error()),
    }
}

/// Whether this machine lets this user have such namespaces: makes some, mounts what is the hardest to get,
/// and lets them go again. May be called in any process.
pub(crate) fn probe() -> io::Result<()> {
    let flags = libc::CLONE_NEWUSER
        | libc::CLONE_NEWPID
        | libc::CLONE_NEWNS
        | libc::CLONE_NEWIPC
        | libc::SIGCHLD;
    // SAFETY: the child only makes system calls, on constants, and exits.
    let child = unsafe {
        let child = libc::syscall(libc::SYS_clone, libc::c_long::from(flags), 0, 0, 0, 0);
        if child == 0 {
            let (root, proc) = (c"/".as_ptr(), c"/proc".as_ptr());
            let none = std::ptr::null();
            let private = libc::MS_REC | libc::MS_PRIVATE;
            let done = libc::mount(none, root, none, private, none.cast()) == 0
                && libc::mount(c"proc".as_ptr(), proc, c"proc".as_ptr(), 0, none.cast()) == 0;
            libc::_exit(if done { 0 } else { *libc::__errno_location() });
        }
        child
    };
    let failed = io::Error::last_os_error();
    let pid = i32::try_from(child).ok().filter(|pid| *pid > 0);
    let Some(pid) = pid.and_then(rustix::process::Pid::from_raw) else {
        return Err(failed);
    };
    let waited = rustix::process::waitpid(Some(pid), rustix::process::WaitOptions::empty())?;
    match waited.and_then(|(_, status)| status.exit_status()) {
        Some(0) => Ok(()),
        Some(code) => Err(io::Error::from_raw_os_error(code)),
        None => Err(io::ErrorKind::Other.into()),
    }
}

/// Gives a process in a new user namespace the same users and groups as out here, as far as this process may.
pub(super) fn map_users(pid: u32) -> io::Result<()> {
    let of = |name: &str| format!("/proc/{pid}/{name}");
    let own = (
        nix::unistd::geteuid().as_raw(),
        nix::unistd::getegid().as_raw(),
    );
    if own.0 == 0 {
        for name in ["uid_map", "gid_map"] {
            let outside = fs::read_to_string(format!("/proc/self/{name}"))?;
            fs::write(of(name), same_inside(&outside))?;
        }
        return Ok(());
    }
    fs::write(of("setgroups"), "deny")?;
    fs::write(of("uid_map"), format!("{0} {0} 1\n", own.0))?;
    fs::write(of("gid_map"), format!("{0} {0} 1\n", own.1))
}

/// The map that gives every number that exists out here the same number in there.
fn same_inside(outside: &str) -> String {
    let ranges = outside.lines().filter_map(|line| {
        let mut fields = line.split_ascii_whitespace();
        let (first, count) = (fields.next()?, fields.nth(1)?);
        Some(format!("{first} {first} {count}\n"))
    });
    ranges.collect()
}

/// Puts the new root together and moves into it. To be called by process number 1 in there.
pub(super) fn move_in(walls: &Walls) -> io::Result<()> {
    // Nothing that is mounted in here is seen out there.
    mount(
        None::<&str>,
        "/",
        None::<&str>,
        MsFlags::MS_REC | MsFlags::MS_SLAVE,
        None::<&str>,
    )?;
    let root = &walls.root;
    // Taken before anything changes, so that nothing that is put together shows up in itself.
    let whole = clone_tree(Path::new("/"))?;
    let devices: Vec<_> = DEVICES
        .iter()
        .filter_map(|name| Some((*name, clone_tree(&Path::new("/dev").join(name)).ok()?)))
        .collect();
    let null = clone_tree(Path::new("/dev/null"))?;
    let changes = changes(walls)?;
    make_read_only(&whole, true)?;
    attach(&whole, root)?;
    let mut empty = Vec::new();
    for change in &changes {
        let made = change.make(root, &null).map_err(|error| {
            io::Error::new(error.kind(), format!("{}: {error}", change.path.display()))
        })?;
        if made && matches!(change.kind, Kind::EmptyFolder) {
            empty.push(inside(root, &change.path));
        }
    }
    // What looks empty stays so, now that the places for what lies below are made.
    for at in empty {
        let mount = open_tree(rustix::fs::CWD, &at, OpenTreeFlags::OPEN_TREE_CLOEXEC)?;
        make_read_only(&mount, false)?;
    }
    own_devices(&root.join("dev"), devices)?;
    own_proc(&root.join("proc"), &null)?;
    rustix::process::chdir(root)?;
    nix::unistd::pivot_root(".", ".")?;
    umount2(".", MntFlags::MNT_DETACH)?;
    rustix::process::chdir("/")?;
    Ok(())
}

/// One path that is different in there.
struct Change {
    path: PathBuf,
    kind: Kind,
    /// Whether something below it is different again.
    holds: bool,
}

enum Kind {
    /// What is there out here, writable.
    Writable(OwnedFd),
    /// What is there out here, read-only as everything else, where something above it is not.
    Kept(OwnedFd),
    /// A folder of the sandbox in its place.
    Replaced(OwnedFd),
    /// An empty folder that may be written, in memory.
    OwnFolder,
    /// An empty folder that may not be written.
    EmptyFolder,
    /// An empty file.
    EmptyFile,
}

/// Parents before what is in them, so that the more precise path wins.
fn changes(walls: &Walls) -> io::Result<Vec<Change>> {
    let mut changes = Vec::new();
    for path in writable(walls)? {
        let kind = Kind::Writable(clone_tree(&path)?);
        changes.push(Change {
            path,
            kind,
            holds: false,
        });
    }
    for path in ["/tmp", "/var/tmp"] {
        if let Ok(path) = Path::new(path).canonicalize()
            && !changes.iter().any(|change| change.path == path)
        {
            let kind = Kind::Replaced(clone_tree(&walls.tmp)?);
            changes.push(Change {
                path,
                kind,
                holds: false,
            });
        }
    }
    let is_other = |changes: &[Change], path: &Path| !changes.iter().any(|c| c.path == path);
    for path in KEPT_OF_RUN {
        // A link leads to what is seen anyway, or is kept by its own name.
        if let Ok(path) = Path::new(path).canonicalize()
            && RUN.iter().any(|run| path.starts_with(run))
            && is_other(&changes, &path)
        {
            let tree = clone_tree(&path)?;
            make_read_only(&tree, true)?;
            let kind = Kind::Kept(tree);
            changes.push(Change {
                path,
                kind,
                holds: false,
            });
        }
    }
    for path in RUN {
        if let Ok(path) = Path::new(path).canonicalize()
            && is_other(&changes, &path)
        {
            let kind = Kind::OwnFolder;
            changes.push(Change {
                path,
                kind,
                holds: false,
            });
        }
    }
    for path in &walls.hidden {
        // What is not there cannot be seen.
        let Ok(path) = path.canonicalize() else {
            continue;
        };
        changes.retain(|change| change.path != path);
        let kind = match path.is_dir() {
            true => Kind::EmptyFolder,
            false => Kind::EmptyFile,
        };
        changes.push(Change {
            path,
            kind,
            holds: false,
        });
    }
    changes.sort_by_key(|change| change.path.components().count());
    let paths: Vec<_> = changes.iter().map(|change| change.path.clone()).collect();
    for change in &mut changes {
        let below = |path: &PathBuf| *path != change.path && path.starts_with(&change.path);
        change.holds = paths.iter().any(below);
    }
    Ok(changes)
}

/// The writable paths, without links.
///
/// Of two of them, one in the other, the inner one may have been replaced by whoever was allowed to write the
/// outer one: by a link that leads out of it.
fn writable(walls: &Walls) -> io::Result<Vec<PathBuf>> {
    let mut found: Vec<PathBuf> = Vec::new();
    for path in &walls.writable {
        found.push(path.canonicalize()?);
    }
    let leads_out = |(wanted, real): (&PathBuf, &PathBuf)| {
        let within = |outer: &PathBuf| wanted != outer && wanted.starts_with(outer);
        let mut outer = walls.writable.iter().zip(&found);
        outer.any(|(outer, outer_real)| within(outer) && !real.starts_with(outer_real))
    };
    let pairs = walls.writable.iter().zip(&found);
    let (out, kept): (Vec<_>, Vec<_>) = pairs.partition(|pair| leads_out(*pair));
    for (path, _) in out {
        tracing::warn!(path = %path.display(), "leads out of the writable folder that it is in");
    }
    Ok(kept.into_iter().map(|(_, real)| real.clone()).collect())
}

impl Change {
    /// `false` if there is nothing to change: what is to be hidden cannot be seen there anyway.
    fn make(&self, root: &Path, null: &OwnedFd) -> io::Result<bool> {
        let at = inside(root, &self.path);
        match &self.kind {
            Kind::Writable(tree) | Kind::Kept(tree) => {
                make_place(&at, &self.path)?;
                attach(tree, &at)?;
            }
            Kind::Replaced(tree) => attach(tree, &at)?,
            Kind::OwnFolder => empty(&at, "mode=0755,size=64m")?,
            Kind::EmptyFolder if self.holds || at.is_dir() => {
                make_place(&at, &self.path)?;
                empty(&at, "mode=0755,size=1m")?;
            }
            Kind::EmptyFile if at.exists() => {
                let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::AT_EMPTY_PATH;
                attach(&open_tree(null.as_fd(), "", flags)?, &at)?;
            }
            Kind::EmptyFolder | Kind::EmptyFile => return Ok(false),
        }
        Ok(true)
    }
}

/// A path of the machine as it is under the new root.
fn inside(root: &Path, path: &Path) -> PathBuf {
    root.join(path.strip_prefix("/").unwrap_or(path))
}

/// Makes what a mount needs to be put on, where an empty folder hides it.
fn make_place(at: &Path, original: &Path) -> io::Result<()> {
    if at.exists() {
        return Ok(());
    }
    let folders = |path: &Path| {
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o755)
            .create(path)
    };
    match original.is_dir() {
        true => folders(at),
        false => {
            at.parent().map_or(Ok(()), folders)?;
            fs::File::create(at).map(drop)
        }
    }
}

fn clone_tree(path: &Path) -> io::Result<OwnedFd> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE
        | OpenTreeFlags::OPEN_TREE_CLOEXEC
        | OpenTreeFlags::AT_RECURSIVE;
    open_tree(rustix::fs::CWD, path, flags).map_err(|error| {
        io::Error::new(
            io::Error::from(error).kind(),
            format!("{}: {error}", path.display()),
        )
    })
}

fn attach(tree: &OwnedFd, at: &Path) -> io::Result<()> {
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH;
    Ok(move_mount(tree.as_fd(), "", rustix::fs::CWD, at, flags)?)
}

/// Makes a mount read-only, and if wished for all that is mounted in it.
fn make_read_only(tree: &OwnedFd, recursive: bool) -> io::Result<()> {
    #[repr(C)]
    struct MountAttributes {
        set: u64,
        clear: u64,
        propagation: u64,
        user_namespace: u64,
    }
    const READ_ONLY: u64 = 1;
    let attributes = MountAttributes {
        set: READ_ONLY,
        clear: 0,
        propagation: 0,
        user_namespace: 0,
    };
    let depth = match recursive {
        true => libc::AT_RECURSIVE,
        false => 0,
    };
    // SAFETY: the kernel reads one structure of the size given, which lives here.
    let result = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            tree.as_raw_fd(),
            c"".as_ptr(),
            libc::AT_EMPTY_PATH | depth,
            &raw const attributes,
            size_of::<MountAttributes>(),
        )
    };
    match result {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

fn empty(at: &Path, options: &str) -> io::Result<()> {
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
    Ok(mount(
        Some("tmpfs"),
        at,
        Some("tmpfs"),
        flags,
        Some(options),
    )?)
}

/// A `/dev` with devices without side effects, own terminals and own shared memory.
fn own_devices(dev: &Path, devices: Vec<(&str, OwnedFd)>) -> io::Result<()> {
    empty(dev, "mode=0755,size=1m")?;
    for (name, device) in devices {
        fs::File::create(dev.join(name))?;
        attach(&device, &dev.join(name))?;
    }
    for (name, to) in [
        ("fd", "/proc/self/fd"),
        ("stdin", "/proc/self/fd/0"),
        ("stdout", "/proc/self/fd/1"),
        ("stderr", "/proc/self/fd/2"),
        ("ptmx", "pts/ptmx"),
    ] {
        std::os::unix::fs::symlink(to, dev.join(name))?;
    }
    fs::create_dir(dev.join("pts"))?;
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NOEXEC;
    let options = "newinstance,ptmxmode=0666,mode=0620";
    mount(
        Some("devpts"),
        &dev.join("pts"),
        Some("devpts"),
        flags,
        Some(options),
    )?;
    fs::create_dir(dev.join("shm"))?;
    empty(&dev.join("shm"), "mode=1777")
}

/// A `/proc` that shows the processes in here, and through which root cannot reach the machine.
fn own_proc(proc: &Path, null: &OwnedFd) -> io::Result<()> {
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    mount(Some("proc"), proc, Some("proc"), flags, None::<&str>).map_err(|error| {
        io::Error::new(io::Error::from(error).kind(), format!("/proc: {error}"))
    })?;
    for name in PROC_READ_ONLY {
        let at = proc.join(name);
        if let Ok(tree) = clone_tree(&at) {
            make_read_only(&tree, true)?;
            attach(&tree, &at)?;
        }
    }
    for name in PROC_MASKED {
        let at = proc.join(name);
        if at.exists() {
            let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::AT_EMPTY_PATH;
            let again = open_tree(null.as_fd(), "", flags)?;
            attach(&again, &at)?;
        }
    }
    Ok(())
}

/// Leaves the keys that the caller's session holds, which every process in it may read.
pub(super) fn own_keys() {
    const JOIN_SESSION: libc::c_int = 1;
    // SAFETY: changes this process's own session keyring; the null pointer asks for a new one.
    let joined = unsafe {
        libc::syscall(
            libc::SYS_keyctl,
            JOIN_SESSION,
            std::ptr::null::<libc::c_char>(),
        )
    };
    if joined < 0 {
        // A kernel without keys has none to be read.
        tracing::debug!(error = %io::Error::last_os_error(), "the session's keys stay");
    }
}

/// Makes the two folders that [`Walls`] are put together in.
pub(super) fn prepare(walls: &Walls) -> io::Result<()> {
    for (path, mode) in [(&walls.root, 0o700), (&walls.tmp, 0o1777)] {
        match fs::DirBuilder::new().mode(0o700).create(path) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            _ => fs::set_permissions(path, fs::Permissions::from_mode(mode))?,
        }
    }
    Ok(())
}
