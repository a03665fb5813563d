//! Starting a keeper as a detached process.

use std::ffi::OsStr;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::process::Stdio;

use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::Command;

use super::os;

/// The line that a supervisor writes to its standard output once it serves.
pub(crate) const READY: &str = "ready";

/// Why a supervisor could not be started.
#[derive(Debug, thiserror::Error)]
pub enum LaunchError {
    /// Its folder, its log or its process could not be made.
    #[error("cannot start the supervisor: {0}")]
    Io(#[from] io::Error),
    /// There is no such folder: it is made with the sandbox, not with the supervisor.
    #[error("cannot start the supervisor: {0} does not exist")]
    NoFolder(PathBuf),
    /// It ended before it served.
    #[error("the supervisor did not come up: {}", reason(tail))]
    Ended {
        /// The last lines of its own log.
        tail: Vec<String>,
    },
}

/// The first error of a log, without time and module; otherwise its last line.
fn reason(tail: &[String]) -> &str {
    let mut errors = tail.iter().filter_map(|line| {
        let (_, told) = line.split_once(" ERROR ")?;
        Some(told.split_once(": ").map_or(told, |(_, text)| text))
    });
    let last = || tail.last().map_or("it said nothing", String::as_str);
    errors.next().unwrap_or_else(last)
}

/// Runs `exe supervise dir` in a session of its own and returns once it serves.
///
/// The process holds none of the caller's descriptors and outlives the caller. What it has to say
/// goes to `dir/supervisor.log`.
pub async fn launch(exe: &Path, dir: &Path) -> Result<(), LaunchError> {
    let dir = std::path::absolute(dir)?;
    if !dir.is_dir() {
        return Err(LaunchError::NoFolder(dir));
    }
    let log = OpenOptions::new()
        .create(true)
        .append(true)
        .read(true)
        .mode(0o600)
        .open(dir.join("supervisor.log"))?;
    let before = log.metadata()?.len();
    // It runs in another folder, where a relative path would mean another file.
    let exe = match exe.components().count() {
        0 | 1 => exe.to_owned(),
        _ => std::path::absolute(exe)?,
    };
    let mut command = Command::new(exe);
    command
        .arg("supervise")
        .arg(&dir)
        .current_dir(&dir)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(log.try_clone()?);
    // `/proc/PID/environ` shows it for as long as the supervisor lives, so the caller's secrets must
    // not be in it.
    command
        .env_clear()
        .envs(std::env::vars_os().filter(|(name, _)| is_kept(name)));
    // SAFETY: the closure runs between fork and exec and only makes system calls.
    unsafe {
        command.pre_exec(|| {
            rustix::process::setsid()?;
            os::close_others_on_exec()
        });
    }
    let mut child = command.spawn()?;
    let mut line = String::new();
    if let Some(stdout) = child.stdout.take() {
        BufReader::new(stdout).read_line(&mut line).await?;
    }
    // The address on TCP may follow.
    if line.split_ascii_whitespace().next() == Some(READY) {
        // Dropped while it runs: the runtime reaps it should it end before this process does.
        return Ok(());
    }
    child.wait().await?;
    Err(LaunchError::Ended {
        tail: lines_from(&log, before)?,
    })
}

/// Whether a variable of the caller's environment is the supervisor's business.
fn is_kept(name: &OsStr) -> bool {
    const KEPT: [&str; 11] = [
        "PATH",
        "HOME",
        "USER",
        "LANG",
        "LC_ALL",
        "TZ",
        "TERM",
        "TMPDIR",
        "DOCKER_HOST",
        "DOCKER_CONTEXT",
        "DOCKER_CONFIG",
    ];
    name.to_str().is_some_and(|name| {
        KEPT.contains(&name) || name.starts_with("XDG_") || name.starts_with("GABION_")
    })
}

/// The last lines that were appended after `offset`.
fn lines_from(log: &File, offset: u64) -> io::Result<Vec<String>> {
    let length = log.metadata()?.len();
    let start = offset.max(length.saturating_sub(4096));
    let mut bytes = vec![0; (length - start) as usize];
    log.read_exact_at(&mut bytes, start)?;
    let text = String::from_utf8_lossy(&bytes);
    let lines: Vec<_> = text.lines().map(str::to_owned).collect();
    Ok(lines[lines.len().saturating_sub(10)..].to_vec())
}
