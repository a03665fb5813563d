//! The smallest process of a sandbox, and the one that must not die: starts the supervisor and starts it
//! again, executes and reaps the services, and holds the descriptors that must outlive a supervisor.
//!
//! In: the sandbox's folder, and requests of the supervisor. Out: processes, in namespaces of their own where
//! that is wished for. It has no runtime, no thread but one, and decides nothing about services.
//! With the keeper dies everything in the sandbox.

mod birth;
mod children;
mod client;
mod folder;
mod init;
mod keep;
mod launch;
mod program;
mod signals;
mod unix;
mod version;
mod wire;

#[cfg_attr(not(target_os = "linux"), path = "no_enclosure.rs")]
mod enclosure;

#[cfg(target_os = "linux")]
#[path = "linux.rs"]
mod os;
#[cfg(not(target_os = "linux"))]
#[path = "other_unix.rs"]
mod os;

use std::path::Path;
use std::process::ExitCode;

pub(crate) use client::Line;
pub use client::{Child, Keeper, Legacy, Superior};
pub(crate) use enclosure::probe as probe_isolation;
pub(crate) use folder::{LOCK, SOCKET, SPEC};
pub use keep::{Inherited, KeepError, Remote};
pub(crate) use launch::READY;
pub use launch::{LaunchError, launch};
pub(crate) use os::{SocketPath, give_back_memory, one_arena};
pub(crate) use unix::{kill_group, number, signal_group};
pub use version::{is_newer, version};
pub use wire::{ChildId, End, Hello, Identity, Obstacle, Spawn, Stream};

/// Keeps the sandbox in `dir` until its supervisor was told to end, and has.
///
/// With `remote`, the API is served over TCP, too. Its own diagnostics go to its standard error. Must be called on the process's main thread, outside of
/// any runtime, while there is no other thread.
pub fn main(dir: &Path, remote: Option<Remote>) -> ExitCode {
    // A second call in one process keeps the first one's subscriber.
    let _ = tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .with_ansi(false)
        .try_init();
    match keep::run(dir, remote) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{error}");
            ExitCode::FAILURE
        }
    }
}
