//! Programs that somebody runs in the sandbox from a terminal or a pipe of their own: `gabion exec`, and the
//! commands of `gabion serve`.
//!
//! In: a request with the caller's standard streams, over a socket of its own in the sandbox's folder. Out:
//! the program's exit code. The program ends with the connection.

mod client;
mod server;
mod session;

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::model::ServiceName;

pub use client::{Attached, attach};
pub(super) use server::{bind, serve};
pub use session::{Command, Input, Output, Session};

/// The socket's name in the folder.
const SOCKET: &str = "exec.sock";

/// What a caller says.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Word {
    /// Run this, with the three descriptors that come along, or with a terminal of its own.
    Run(Box<Run>),
    /// Send it a signal.
    Signal(String),
}

/// What is to be run. Holds secrets, so it cannot be printed.
#[derive(Serialize, Deserialize)]
struct Run {
    /// With its environment, user and folder; `None`: the sandbox's.
    service: Option<ServiceName>,
    argv: Vec<String>,
    /// Where the sandbox's or the service's environment says nothing.
    env: Vec<(String, String)>,
    /// Over that environment.
    #[serde(default)]
    over: Vec<(String, String)>,
    /// Where; relative to the workspace. `None`: as the sandbox or the service says.
    #[serde(default)]
    dir: Option<PathBuf>,
    secrets: Vec<(String, String)>,
    /// Whether the sandbox's own environment, which may need secrets, is left out.
    #[serde(default)]
    bare: bool,
    tty: bool,
    /// The rows and columns of that.
    #[serde(default)]
    window: Option<(u16, u16)>,
}

/// What a caller hears.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Reply {
    /// It runs. With a terminal, the other end of that comes along.
    Started,
    /// It could not be executed.
    Refused(String),
    /// It has ended, with this code.
    Ended(i32),
}
