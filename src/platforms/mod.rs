//! The places where sandboxes live, one folder each, behind two traits: [`Observe`] only reads,
//! [`Act`] writes.
//!
//! In: addresses and specs. Out: observations and effects. No type of a platform's own leaves its
//! folder.

pub mod memory;

use std::collections::BTreeMap;

use async_trait::async_trait;
use tokio::sync::mpsc;

use crate::event::Failure;
use crate::model::{
    Capabilities, Listing, SandboxName, SandboxSpec, Secrets, ServiceAddress, ServiceSpec,
};

/// Why a platform could not do what it was asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}", .0.message)]
pub struct PlatformError(pub Failure);

impl PlatformError {
    /// An error with nothing but words.
    pub fn new(message: impl Into<String>) -> Self {
        Self(Failure {
            message: message.into(),
            log_tail: Vec::new(),
            hint: None,
        })
    }

    /// Adds what to do next.
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.0.hint = Some(hint.into());
        self
    }
}

/// What a platform answers.
pub type Result<T, E = PlatformError> = std::result::Result<T, E>;

/// Reading from a platform. Opened for one stack; sees only what carries that stack's owner mark.
#[async_trait]
pub trait Observe: Send + Sync {
    /// What this kind of platform can honour.
    fn capabilities(&self) -> &'static Capabilities;

    /// Every sandbox of the stack, with its services.
    async fn observe(&self) -> Result<BTreeMap<SandboxName, Listing>>;

    /// The log lines that `query` asks for, oldest first; the channel closes at the end.
    async fn logs(
        &self,
        service: &ServiceAddress,
        query: LogQuery,
    ) -> Result<mpsc::Receiver<LogLine>>;
}

/// Writing to a platform. Every call is idempotent: asking for what is already so succeeds.
#[async_trait]
pub trait Act: Observe {
    /// Creates a sandbox, marks it as the stack's and brings it up.
    async fn create_sandbox(&self, sandbox: &SandboxName, spec: &SandboxSpec) -> Result<()>;
    /// Stores a new spec on an existing sandbox; what runs in it goes on.
    async fn update_sandbox(&self, sandbox: &SandboxName, spec: &SandboxSpec) -> Result<()>;
    /// Brings an existing sandbox up.
    async fn start_sandbox(&self, sandbox: &SandboxName, spec: &SandboxSpec) -> Result<()>;
    /// Stops everything in a sandbox and keeps it.
    async fn stop_sandbox(&self, sandbox: &SandboxName) -> Result<()>;
    /// Removes a sandbox, its services and its data. An absent one counts as removed.
    async fn delete_sandbox(&self, sandbox: &SandboxName) -> Result<()>;

    /// Stores a definition; a live process goes on as it is.
    async fn upsert_service(
        &self,
        service: &ServiceAddress,
        spec: &ServiceSpec,
        secrets: &Secrets,
    ) -> Result<()>;
    /// Starts a service and returns once it is ready; for a task, once it has exited 0.
    async fn start_service(
        &self,
        service: &ServiceAddress,
        spec: &ServiceSpec,
        secrets: &Secrets,
        progress: &dyn Progress,
    ) -> Result<()>;
    /// Stops a service and returns once all its processes are gone.
    async fn stop_service(&self, service: &ServiceAddress) -> Result<()>;
    /// Stops and removes a service. An absent one counts as removed.
    async fn delete_service(&self, service: &ServiceAddress) -> Result<()>;

    /// Runs a command in a sandbox with this process's own standard streams and terminal, and
    /// returns its exit code (128 + signal number if it was killed).
    async fn exec(&self, sandbox: &SandboxName, argv: &[String], secrets: &Secrets) -> Result<i32>;
}

/// Where a long action tells how far it has come.
pub trait Progress: Send + Sync {
    /// The program was executed.
    fn executed(&self);
    /// It is not ready yet, because of this: `port 5432 not open yet`.
    fn waiting(&self, waiting_for: &str);
}

/// Which log lines are wanted.
#[derive(Debug, Clone, Default)]
pub struct LogQuery {
    /// Only the last so many lines of what there is.
    pub tail: Option<usize>,
    /// Only lines at or after this time.
    pub since: Option<jiff::Timestamp>,
    /// Whether to go on with new lines as they come.
    pub follow: bool,
}

/// One line of a service's output.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogLine {
    /// When it was read.
    pub at: jiff::Timestamp,
    /// Which stream it was written to.
    pub stream: LogStream,
    /// The text without its line end; invalid UTF-8 is replaced.
    pub text: String,
}

/// A service's output streams.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogStream {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}
