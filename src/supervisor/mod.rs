//! Keeps the services of one sandbox running and serves the iris `/v1` API on a Unix socket.

use std::path::Path;
use std::process::ExitCode;

/// Runs the supervisor of the sandbox kept in `dir` until it is told to stop.
pub fn main(_dir: &Path) -> ExitCode {
    ExitCode::FAILURE
}
