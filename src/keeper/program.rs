//! From a request to an executed program: folder and program looked up where it will run, so that an
//! error says which one is wrong.

use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use nix::unistd::{Gid, Uid};
use rustix::fs::Access;
use rustix::io::Errno;
use rustix::process::{Resource, Rlimit, setrlimit};

use super::birth::{Stillborn, execute_in};
use super::os;
use super::wire::{Obstacle, Spawn, Stream};

/// What the child says when it may not enter its folder: `EACCES` would be taken for one of the
/// program. That the folder is one was checked before.
const NO_ENTRY: Errno = Errno::NOTDIR;

/// What every child is given, whatever the request says.
#[derive(Debug, Clone, Copy)]
pub(super) struct Terms {
    /// How many files it may open: what the keeper itself was started with.
    pub files: Rlimit,
    /// Whether it runs in namespaces of its own, where it gets no privilege that leads out of them.
    pub strict: bool,
}

/// A program that was executed, and our ends of its piped streams.
pub(super) struct Executed {
    pub pid: u32,
    pub ends: [Option<OwnedFd>; 3],
}

/// Executes the program as the leader of a new session.
pub(super) fn execute(
    request: &Spawn,
    given: Vec<OwnedFd>,
    terms: &Terms,
) -> Result<Executed, Obstacle> {
    let cmd = request.argv.first().map_or("", String::as_str);
    match request.dir.metadata() {
        Err(_) => return Err(Obstacle::NoFolder(request.dir.clone())),
        Ok(found) if !found.is_dir() => return Err(Obstacle::NotAFolder(request.dir.clone())),
        Ok(_) => {}
    }
    let path = request.env.iter().find(|(name, _)| name == "PATH");
    let path = path.map_or("", |(_, path)| path);
    let program = find(cmd, path, &request.dir)?;
    let other = |error: io::Error| Obstacle::Other(cmd.to_owned(), error.to_string());
    let mut given = given.into_iter();
    let mut command = Command::new(program);
    command.arg0(cmd).args(request.argv.iter().skip(1));
    command.env_clear();
    command.envs(request.env.iter().map(|(name, value)| (name, value)));
    let ends = match request.tty {
        true => terminal(&mut command, request.window).map_err(other)?,
        false => streams(&mut command, &request.streams, &mut given).map_err(other)?,
    };
    let entries: Vec<OwnedFd> = given.by_ref().take(request.cgroups).collect();
    let birthplace = given.next().filter(|_| request.born);
    let born = Arc::new(AtomicBool::new(false));
    become_it(&mut command, request, entries, born.clone(), *terms);
    born.store(birthplace.is_some(), Ordering::Relaxed);
    let born_there = birthplace.map(|group| execute_in(&group, &mut command));
    let pid = match born_there {
        Some(Ok(pid)) => Ok(pid),
        Some(Err(Stillborn::NotExecuted(error))) => Err(error),
        None | Some(Err(Stillborn::Impossible)) => {
            // It moves there itself.
            born.store(false, Ordering::Relaxed);
            command.spawn().map(|child| child.id())
        }
    };
    match pid {
        Ok(pid) => Ok(Executed { pid, ends }),
        Err(error) => Err(obstacle(error, request, cmd)),
    }
}

/// Pipes and descriptors for the three streams; returns our ends.
fn streams(
    command: &mut Command,
    wanted: &[Stream; 3],
    given: &mut impl Iterator<Item = OwnedFd>,
) -> io::Result<[Option<OwnedFd>; 3]> {
    let mut ends = [None, None, None];
    for (index, (wanted, end)) in wanted.iter().zip(&mut ends).enumerate() {
        let theirs = match wanted {
            Stream::Null => Stdio::null(),
            Stream::Given => Stdio::from(given.next().ok_or(io::ErrorKind::InvalidInput)?),
            Stream::Pipe => {
                let (reader, writer) = io::pipe()?;
                let (ours, theirs): (OwnedFd, OwnedFd) = match index {
                    0 => (writer.into(), reader.into()),
                    _ => (reader.into(), writer.into()),
                };
                *end = Some(ours);
                Stdio::from(theirs)
            }
        };
        match index {
            0 => command.stdin(theirs),
            1 => command.stdout(theirs),
            _ => command.stderr(theirs),
        };
    }
    Ok(ends)
}

/// A new terminal as all three streams, and as the one that controls the session.
fn terminal(command: &mut Command, window: Option<(u16, u16)>) -> io::Result<[Option<OwnedFd>; 3]> {
    let (ws_row, ws_col) = window.unwrap_or((24, 80));
    let pty = nix::pty::openpty(
        Some(&nix::pty::Winsize {
            ws_row,
            ws_col,
            ws_xpixel: 0,
            ws_ypixel: 0,
        }),
        None,
    )?;
    // The end of an executed program must not be kept open by another one.
    for end in [&pty.master, &pty.slave] {
        rustix::io::fcntl_setfd(end, rustix::io::FdFlags::CLOEXEC)?;
    }
    // A line in a log ends with a newline, not with a carriage return before it.
    if window.is_none() {
        let mut modes = rustix::termios::tcgetattr(&pty.slave)?;
        modes
            .output_modes
            .remove(rustix::termios::OutputModes::ONLCR);
        let now = rustix::termios::OptionalActions::Now;
        rustix::termios::tcsetattr(&pty.slave, now, &modes)?;
    }
    command.stdin(Stdio::from(pty.slave.try_clone()?));
    command.stdout(Stdio::from(pty.slave.try_clone()?));
    command.stderr(Stdio::from(pty.slave));
    Ok([Some(pty.master.try_clone()?), Some(pty.master), None])
}

/// What the child does between fork and exec.
fn become_it(
    command: &mut Command,
    request: &Spawn,
    entries: Vec<OwnedFd>,
    born: Arc<AtomicBool>,
    terms: Terms,
) {
    let parent = rustix::process::getpid();
    let dir = request.dir.clone();
    let identity = request.identity.clone();
    let groups: Vec<Gid> = identity
        .iter()
        .flat_map(|identity| identity.groups.iter().copied().map(Gid::from_raw))
        .collect();
    let (tty, address_space) = (request.tty, request.address_space);
    let files = match request.files {
        Some(files) => Rlimit {
            current: Some(files),
            maximum: Some(files),
        },
        None => terms.files,
    };
    // SAFETY: the closure runs between fork and exec. It only makes system calls, on values that were
    // allocated before the fork.
    unsafe {
        command.pre_exec(move || {
            rustix::process::setsid()?;
            if tty {
                rustix::process::ioctl_tiocsctty(rustix::stdio::stdin())?;
            }
            // It is in the first already if it was born there.
            for entry in entries.iter().skip(born.load(Ordering::Relaxed).into()) {
                // "0" is the writer itself.
                rustix::io::write(entry, b"0")?;
            }
            os::close_others_on_exec()?;
            setrlimit(Resource::Nofile, files)?;
            if let Some(bytes) = address_space {
                let limit = Rlimit {
                    current: Some(bytes),
                    maximum: Some(bytes),
                };
                setrlimit(Resource::As, limit)?;
            }
            if terms.strict {
                os::give_up_privileges()?;
            }
            if let Some(identity) = &identity {
                os::set_groups(&groups)?;
                nix::unistd::setgid(Gid::from_raw(identity.gid))?;
                nix::unistd::setuid(Uid::from_raw(identity.uid))?;
            }
            // As the user of the service, who has to find its way to its own files.
            match rustix::process::chdir(&dir) {
                Err(Errno::ACCESS) => return Err(NO_ENTRY.into()),
                other => other?,
            }
            os::die_with_parent(parent)
        });
    }
}

/// What an error of the execution means.
fn obstacle(error: io::Error, request: &Spawn, cmd: &str) -> Obstacle {
    let cmd = cmd.to_owned();
    match error.kind() {
        _ if error.raw_os_error() == Some(NO_ENTRY.raw_os_error()) => Obstacle::NoEntry {
            dir: request.dir.clone(),
            user: match &request.identity {
                Some(identity) => identity.name.clone(),
                None => "this user".to_owned(),
            },
        },
        io::ErrorKind::PermissionDenied => Obstacle::Denied(cmd),
        io::ErrorKind::NotFound => Obstacle::Other(
            cmd,
            "it, or the interpreter it names, does not exist".to_owned(),
        ),
        _ if error.raw_os_error() == Some(Errno::NOEXEC.raw_os_error()) => Obstacle::BadFormat(cmd),
        _ => Obstacle::Other(cmd, error.to_string()),
    }
}

fn find(cmd: &str, path: &str, dir: &Path) -> Result<PathBuf, Obstacle> {
    let executable = |file: &Path| rustix::fs::access(file, Access::EXEC_OK).is_ok();
    let is_file = |file: &Path| file.metadata().is_ok_and(|found| found.is_file());
    if cmd.contains('/') {
        let file = dir.join(cmd);
        return match file.metadata() {
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                Err(Obstacle::Denied(cmd.to_owned()))
            }
            Err(_) => Err(Obstacle::NoProgram(cmd.to_owned())),
            // Root may "execute" anything that has one execute bit; without any, exec refuses too.
            Ok(found) if !found.is_file() || found.mode() & 0o111 == 0 || !executable(&file) => {
                Err(Obstacle::Denied(cmd.to_owned()))
            }
            Ok(_) => Ok(file),
        };
    }
    let mut denied = false;
    for folder in path.split(':').filter(|folder| !folder.is_empty()) {
        let file = dir.join(folder).join(cmd);
        if !cmd.is_empty() && is_file(&file) {
            if executable(&file) {
                return Ok(file);
            }
            denied = true;
        }
    }
    Err(match denied {
        true => Obstacle::Denied(cmd.to_owned()),
        false => Obstacle::NotInPath(cmd.to_owned()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(cmd: &str, dir: &Path) -> Spawn {
        Spawn {
            id: 1,
            key: String::new(),
            note: None,
            argv: vec![cmd.to_owned()],
            env: vec![("PATH".to_owned(), "/usr/bin:/bin".to_owned())],
            dir: dir.to_owned(),
            identity: None,
            files: None,
            address_space: None,
            streams: [Stream::Null; 3],
            tty: false,
            window: None,
            cgroups: 0,
            born: false,
        }
    }

    #[test]
    fn limits_of_each_process_are_set() {
        use std::io::Read;
        let dir = tempfile::tempdir().unwrap();
        let mut request = request("sh", dir.path());
        request
            .argv
            .extend(["-c".into(), "ulimit -v; ulimit -n".into()]);
        (request.address_space, request.files) = (Some(1 << 30), Some(77));
        request.streams[1] = Stream::Pipe;
        let terms = Terms {
            files: rustix::process::getrlimit(Resource::Nofile),
            strict: false,
        };
        let executed = execute(&request, Vec::new(), &terms).unwrap();
        let [_, Some(output), _] = executed.ends else {
            panic!("no pipe");
        };
        let mut text = String::new();
        std::fs::File::from(output)
            .read_to_string(&mut text)
            .unwrap();
        assert_eq!(text, "1048576\n77\n");
        crate::keeper::unix::reap(executed.pid);
    }

    #[test]
    fn each_obstacle_is_named() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("plain"), "x").unwrap();
        let mut path = request("sh", dir.path());
        path.env[0].1 = "/nowhere".to_owned();
        let terms = Terms {
            files: rustix::process::getrlimit(Resource::Nofile),
            strict: false,
        };
        for (request, part) in [
            (
                request("nodde", dir.path()),
                "`nodde` was not found in PATH",
            ),
            (request("./nodde", dir.path()), "`./nodde` does not exist"),
            (
                request("./plain", dir.path()),
                "`./plain`: permission denied",
            ),
            (path, "`sh` was not found in PATH"),
            (
                request("sh", &dir.path().join("gone")),
                "gone` does not exist",
            ),
            (
                request("sh", &dir.path().join("plain")),
                "plain` is not a folder",
            ),
        ] {
            let error = execute(&request, Vec::new(), &terms).err().unwrap();
            assert!(error.to_string().contains(part), "{error}");
        }
    }
}
