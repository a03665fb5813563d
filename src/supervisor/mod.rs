//! Keeps the services of one sandbox running and serves the iris `/v1` API on a Unix socket.
//!
//! In: a folder with the definitions, and requests over the socket. Out: processes, their logs and
//! their states. One owner task per service is the only source of truth about it; the API asks the
//! owners. This room knows neither manifests nor plans.
//! `client` is the other end: how the rest of the program reaches a supervisor.

mod api;
mod aside;
mod attach;
mod cgroup;
mod changes;
mod checkpoint;
mod client;
mod container;
mod exec;
mod files;
mod folder;
mod input;
mod keyvalue;
mod listen;
mod live;
pub mod logs;
mod occupy;
mod owner;
mod policy;
mod port;
mod probe;
mod process;
mod processes;
mod quiet;
mod sandbox;
mod serve;
mod signal;
mod spawn;
mod store;
mod stored;
mod subscription;
mod wire;

#[cfg(target_os = "linux")]
#[path = "linux.rs"]
mod os;
#[cfg(not(target_os = "linux"))]
#[path = "other_unix.rs"]
mod os;

use std::path::Path;
use std::process::ExitCode;

use secrecy::SecretString;

pub use api::document as openapi;
pub use attach::{Attached, Command, Input, Output, Session, attach};
pub use cgroup::{LimitSupport, limit_support};
pub use checkpoint::{
    ForkedFiles, OfflineError, create_offline, delete_offline, fork_offline, list_offline,
    restore_offline,
};
pub use client::{Client, ClientError, HealthReport, Until};
pub use container::{EngineError, EngineSettings, probe_engine};
pub use files::{Entry as FileEntry, Found as FileFound, Listed as FilesListed};
pub use listen::{Bound, Listen, ListenError, token_from};
pub use occupy::{Occupied, is_occupied, is_serving, occupy};
pub use port::connect as connect_to_port;
pub use processes::ProcessObject;
pub use signal::name_of as signal_name;
pub use stored::{clear_orphans, exec_in_service, kill_leftovers, stored_logs, stored_services};
pub use subscription::ServiceEvent;
pub use wire::{ServiceObject, Status};

/// Runs the supervisor of the sandbox kept in `dir` until SIGTERM, SIGINT or a shutdown request. To be
/// started by a keeper only: `inherited` says, in JSON, what it hands over; `token` is what clients show where it hands a TCP socket over.
///
/// Writes the line `ready` to its standard output once it serves, with the address on TCP; its own diagnostics go to its
/// standard error. Must be called outside of any runtime, before any descriptor was opened.
pub fn main(dir: &Path, inherited: &str, token: Option<SecretString>) -> ExitCode {
    // A second call in one process keeps the first one's subscriber.
    let _ = tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .with_ansi(false)
        .try_init();
    match serve::run(dir, inherited, token) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{error}");
            ExitCode::FAILURE
        }
    }
}
