//! Starting a supervisor as a detached process.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt};
use std::path::Path;
use std::process::Stdio;

use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::Command;

/// The line that a supervisor writes to its standard output once it serves.
pub(super) const READY: &str = "ready";

/// Why a supervisor could not be started.
#[derive(Debug, thiserror::Error)]
pub enum LaunchError {
    /// Its folder, its log or its process could not be made.
    #[error("cannot start the supervisor: {0}")]
    Io(#[from] io::Error),
    /// It ended before it served.
    #[error("the supervisor did not come up: {}", tail.last().map_or("it said nothing", |l| l))]
    Ended {
        /// The last lines of its own log.
        tail: Vec<String>,
    },
}

/// Runs `exe supervise dir` in a session of its own and returns once it serves.
///
/// The process holds none of the caller's descriptors and outlives the caller. What it has to say
/// goes to `dir/supervisor.log`.
pub async fn launch(exe: &Path, dir: &Path) -> Result<(), LaunchError> {
    let dir = std::path::absolute(dir)?;
    DirBuilder::new().recursive(true).mode(0o700).create(&dir)?;
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
    // SAFETY: the closure runs between fork and exec and only makes the setsid system call.
    unsafe {
        command.pre_exec(|| {
            rustix::process::setsid()?;
            Ok(())
        });
    }
    let mut child = command.spawn()?;
    let mut line = String::new();
    if let Some(stdout) = child.stdout.take() {
        BufReader::new(stdout).read_line(&mut line).await?;
    }
    if line.trim_end() == READY {
        // Dropped while it runs: the runtime reaps it should it end before this process does.
        return Ok(());
    }
    child.wait().await?;
    Err(LaunchError::Ended {
        tail: lines_from(&log, before)?,
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
