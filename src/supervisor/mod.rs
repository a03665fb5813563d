//! Keeps the services of one sandbox running and serves the iris `/v1` API on a Unix socket.
//!
//! In: a folder with the definitions, and requests over the socket. Out: processes, their logs and
//! their states. One owner task per service is the only source of truth about it; the API asks the
//! owners. This room knows neither manifests nor plans.
//! `client` and `launch` are the other end: how the rest of the program reaches a supervisor.

mod client;
mod launch;
pub mod logs;
mod signal;
mod store;
mod wire;

#[cfg(target_os = "linux")]
#[path = "linux.rs"]
mod os;
#[cfg(not(target_os = "linux"))]
#[path = "other_unix.rs"]
mod os;

use std::path::Path;
use std::process::ExitCode;

pub use client::{Client, ClientError, HealthReport, Until};
pub use launch::{LaunchError, launch};
pub use wire::{ServiceObject, Status};

/// Runs the supervisor of the sandbox kept in `dir` until it is told to stop.
pub fn main(_dir: &Path) -> ExitCode {
    ExitCode::FAILURE
}
