//! The logs of services. In: bytes from the pipes of processes. Out: `logs/NAME.log`, bounded by
//! rotation, and readers of it that need no running supervisor.
//!
//! One thread (`thread.rs`) takes turns with all pipes of a sandbox. Each batch goes by way of a
//! stage pipe and a journal, both of which outlive this process, so that a SIGKILL at any moment
//! loses and doubles nothing (`batch.rs`). Must not: hold a line in memory, or block the runtime.

mod batch;
mod engine;
mod file;
mod follow;
mod format;
mod journal;
#[cfg(test)]
mod killed;
mod seek;
mod seen;
mod stamped;
mod thread;

#[cfg(target_os = "linux")]
#[path = "linux.rs"]
mod os;
#[cfg(not(target_os = "linux"))]
#[path = "other_unix.rs"]
mod os;

use std::io;
use std::path::{Path, PathBuf};

use crate::model::ServiceName;
use crate::platforms::{LogLine, LogQuery};

pub(super) use engine::{Attached, LogEngine, Watch};
pub(super) use follow::Follower;
pub(super) use format::show_line;
pub(super) use os::Kept;
pub(super) use stamped::{Piece, StampedLog, pieces, write_end};

/// The size in bytes at which a log file is put aside.
pub const LIMIT: u64 = 16 << 20;

/// How many files of a log are kept: `NAME.log` and `NAME.log.1` to `NAME.log.4`, the oldest last.
pub const KEEP: usize = 5;

/// The most bytes of one stream that are taken in one turn.
const CHUNK: usize = 256 << 10;

/// How many bytes of a log are read at once.
const PAGE: usize = 64 << 10;

/// The file of a log by its age; 0 is the one that is written.
fn path(dir: &Path, name: &ServiceName, age: usize) -> PathBuf {
    let file = match age {
        0 => format!("{name}.log"),
        age => format!("{name}.log.{age}"),
    };
    dir.join("logs").join(file)
}

/// The lines that a service of the sandbox kept in `dir` has written, oldest first, with one that
/// has no line end yet. `query.follow` is not honoured here: new lines are told of by the supervisor
/// only.
pub fn read(dir: &Path, name: &ServiceName, query: &LogQuery) -> io::Result<Vec<LogLine>> {
    let mut follower = Follower::open(dir, name, query)?;
    let mut lines = Vec::new();
    loop {
        let more = follower.read()?;
        if more.is_empty() {
            lines.extend(follower.unfinished());
            let wanted = query.tail.unwrap_or(lines.len());
            lines.drain(..lines.len().saturating_sub(wanted));
            return Ok(lines);
        }
        lines.extend(more);
    }
}
