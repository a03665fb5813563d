//! The places where sandboxes live, one folder each, behind two traits: [`Observe`] only reads,
//! [`Act`] writes.
//!
//! In: addresses and specs. Out: observations and effects. No type of a platform's own leaves its
//! folder.

pub mod memory;

use std::collections::BTreeMap;

use async_trait::async_trait;
use secrecy::SecretString;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::{mpsc, watch};

use crate::event::Failure;
use crate::model::{
    Capabilities, Checkpoint, Desired, Forked, Listing, Observed, Restored, SandboxName,
    SandboxSpec, Secrets, ServiceAddress, ServiceSpec,
};

mod acts;
pub mod cloud;
pub mod iris;
pub mod local;
pub mod miosa;
mod open;
pub mod pocketenv;
pub mod sprites;

pub use acts::{Endpoint, InventoryEntry, InventoryQuery, VariableKind};
pub use open::{Opening, capabilities, open};

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

    /// The checkpoints of a sandbox, the oldest first.
    async fn checkpoints(&self, _sandbox: &SandboxName) -> Result<Vec<Checkpoint>> {
        Err(self.without_checkpoints())
    }

    /// What exists there, whoever it belongs to.
    async fn inventory(&self, _query: &InventoryQuery) -> Result<Vec<InventoryEntry>> {
        Err(self.cannot("list what exists there"))
    }

    /// The ports of a sandbox that somebody listens at or that are exposed, by number.
    async fn endpoints(&self, _sandbox: &SandboxName) -> Result<Vec<Endpoint>> {
        Err(self.cannot("tell where ports are reached"))
    }

    /// Reads a file of a sandbox and writes its content to `to`. The path is absolute, or relative to
    /// where services run.
    async fn read_file(
        &self,
        _sandbox: &SandboxName,
        _path: &str,
        _to: &mut (dyn AsyncWrite + Send + Unpin),
    ) -> Result<()> {
        Err(self.cannot("copy files"))
    }

    /// The names of the variables that are set on a sandbox itself, sorted.
    async fn variables(&self, _sandbox: &SandboxName, kind: VariableKind) -> Result<Vec<String>> {
        Err(self.cannot(&format!("keep {} of sandboxes", kind.plural())))
    }

    /// What is said where something cannot be done: `platform `local` cannot …`.
    fn cannot(&self, what: &str) -> PlatformError {
        let kind = self.capabilities().kind;
        PlatformError::new(format!("platform `{kind}` cannot {what}"))
    }

    /// What is said where there are no checkpoints.
    fn without_checkpoints(&self) -> PlatformError {
        let kind = self.capabilities().kind;
        PlatformError::new(format!("platform `{kind}` has no checkpoints"))
    }
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

    /// Writes to the standard input of a running service, and ends it after that if `eof`.
    async fn send_stdin(&self, service: &ServiceAddress, data: &str, eof: bool) -> Result<()> {
        let _ = (service, data, eof);
        Err(not_supported("writing to a service"))
    }

    /// Sends a signal, by its name with or without `SIG`, to a running service.
    async fn signal(&self, service: &ServiceAddress, signal: &str) -> Result<()> {
        let _ = (service, signal);
        Err(not_supported("sending signals"))
    }

    /// Lets this program supervise the sandbox, whose services are not touched.
    async fn upgrade(&self, sandbox: &SandboxName) -> Result<Upgraded> {
        let _ = sandbox;
        Err(not_supported("upgrading"))
    }

    /// Does so with every sandbox that an older version supervises.
    async fn upgrade_outdated(&self) -> Result<Vec<(SandboxName, Upgraded)>> {
        Ok(Vec::new())
    }

    /// Makes a checkpoint and returns once it is written. The secrets are for its hooks.
    async fn create_checkpoint(
        &self,
        _sandbox: &SandboxName,
        _name: Option<&str>,
        _secrets: &Secrets,
    ) -> Result<Checkpoint> {
        Err(self.without_checkpoints())
    }
    /// Begins a checkpoint and returns its id; [`Act::wait_checkpoint`] awaits its end.
    async fn begin_checkpoint(
        &self,
        sandbox: &SandboxName,
        name: Option<&str>,
        secrets: &Secrets,
    ) -> Result<String> {
        let made = self.create_checkpoint(sandbox, name, secrets).await?;
        Ok(made.id)
    }
    /// Returns once a checkpoint is written.
    async fn wait_checkpoint(&self, _sandbox: &SandboxName, _id: &str) -> Result<Checkpoint> {
        Err(self.without_checkpoints())
    }
    /// Rewinds a sandbox: its files and definitions, and which of its services run. One that is
    /// stopped stays so. Services get what they need of `secrets`.
    async fn restore_checkpoint(
        &self,
        _sandbox: &SandboxName,
        _id: &str,
        _secrets: &Secrets,
    ) -> Result<Restored> {
        Err(self.without_checkpoints())
    }
    /// Removes a checkpoint. An absent one counts as removed.
    async fn delete_checkpoint(&self, _sandbox: &SandboxName, _id: &str) -> Result<()> {
        Err(self.without_checkpoints())
    }
    /// Makes another sandbox of the stack with the files, definitions and running services of `source`.
    async fn fork_sandbox(
        &self,
        _source: &SandboxName,
        _fork: &SandboxName,
        _options: &ForkOptions,
        _secrets: &Secrets,
    ) -> Result<Forked> {
        Err(self.without_checkpoints())
    }

    /// Writes a file of a sandbox, with the folders above it where they are missing; it is replaced whole.
    /// `mode` are its permission bits.
    async fn write_file(
        &self,
        _sandbox: &SandboxName,
        _path: &str,
        _from: &mut (dyn AsyncRead + Send + Unpin),
        _mode: u32,
    ) -> Result<()> {
        Err(self.cannot("copy files"))
    }

    /// Makes a port reachable from outside; one that is stays so.
    async fn expose(
        &self,
        _sandbox: &SandboxName,
        _port: u16,
        _description: Option<&str>,
    ) -> Result<Endpoint> {
        Err(self.cannot("expose ports"))
    }

    /// Ends that. A port that is not exposed counts as done.
    async fn unexpose(&self, _sandbox: &SandboxName, _port: u16) -> Result<()> {
        Err(self.cannot("expose ports"))
    }

    /// Opens the platform's own editor on a sandbox and returns where it is reached.
    async fn open_editor(&self, _sandbox: &SandboxName) -> Result<String> {
        Err(self.cannot("open an editor"))
    }

    /// Sets a variable of a sandbox.
    async fn set_variable(
        &self,
        _sandbox: &SandboxName,
        kind: VariableKind,
        _name: &str,
        _value: &SecretString,
    ) -> Result<()> {
        Err(self.cannot(&format!("keep {} of sandboxes", kind.plural())))
    }

    /// Removes one. One that is not set counts as removed.
    async fn unset_variable(
        &self,
        _sandbox: &SandboxName,
        kind: VariableKind,
        _name: &str,
    ) -> Result<()> {
        Err(self.cannot(&format!("keep {} of sandboxes", kind.plural())))
    }

    /// Removes what interrupted work has left behind. To be called while nobody else works on the
    /// stack.
    async fn tidy(&self) -> Result<()> {
        Ok(())
    }

    /// Runs a command in a sandbox and returns its exit code (128 + signal number if it was killed). On
    /// this machine it gets this process's own standard streams and terminal, elsewhere `streams`.
    async fn exec(
        &self,
        sandbox: &SandboxName,
        argv: &[String],
        secrets: &Secrets,
        streams: Streams,
    ) -> Result<i32>;

    /// Runs a command as a service would run it: with its user, environment and folder, and in its
    /// container if it has one. Where the command does not get this process's own streams, it gets
    /// `streams`.
    async fn exec_in_service(
        &self,
        service: &ServiceAddress,
        argv: &[String],
        secrets: &Secrets,
        streams: Streams,
    ) -> Result<i32> {
        let _ = (argv, secrets, streams);
        Err(PlatformError::new(format!(
            "the platform of `{service}` runs no commands in services"
        )))
    }
}

/// The streams of whoever runs a command; nothing but the command line has a terminal.
pub struct Streams {
    /// Its input.
    pub stdin: Box<dyn AsyncRead + Send + Unpin>,
    /// Its output.
    pub stdout: Box<dyn AsyncWrite + Send + Unpin>,
    /// Its error output; unused with a terminal, which has one output only.
    pub stderr: Box<dyn AsyncWrite + Send + Unpin>,
    /// The size of the terminal, and its changes; `None` if the command gets no terminal.
    pub terminal: Option<watch::Receiver<TerminalSize>>,
}

/// The size of a terminal, in characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TerminalSize {
    /// Columns.
    pub width: u16,
    /// Rows.
    pub height: u16,
}

fn not_supported(what: &str) -> PlatformError {
    PlatformError::new(format!("this platform does not support {what}"))
}

/// The versions before and after an upgrade.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Upgraded {
    /// What has supervised the sandbox.
    pub from: String,
    /// What supervises it now.
    pub to: String,
}

/// How a sandbox is forked.
#[derive(Debug, Clone, Default)]
pub struct ForkOptions {
    /// The id of the checkpoint to fork from; the present state if there is none.
    pub from: Option<String>,
    /// Whether its services are left stopped.
    pub stopped: bool,
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
    /// Only lines of this stream.
    pub stream: Option<LogStream>,
    /// Whether to go on with new lines as they come.
    pub follow: bool,
}

/// One line of a service's output.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogLine {
    /// When its end was read.
    pub at: jiff::Timestamp,
    /// Which stream it was written to.
    pub stream: LogStream,
    /// The text without its line end; invalid UTF-8 is replaced.
    pub text: String,
}

/// A service's output streams.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize, schemars::JsonSchema,
)]
#[serde(rename_all = "lowercase")]
pub enum LogStream {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

/// The platforms of one stack, and which sandbox lives on which.
#[derive(Default)]
pub struct Platforms {
    by_name: BTreeMap<String, Box<dyn Act>>,
    placement: BTreeMap<SandboxName, String>,
}

impl Platforms {
    /// Adds a platform under the name that manifests use for it.
    pub fn add(&mut self, name: impl Into<String>, platform: Box<dyn Act>) {
        self.by_name.insert(name.into(), platform);
    }

    /// Reads all platforms, and remembers where everything is and where `desired` wants it.
    ///
    /// A platform that cannot be read makes every sandbox that is wanted there unknown.
    pub async fn observe(&mut self, desired: &Desired) -> Result<Observed> {
        for (sandbox, wanted) in &desired.sandboxes {
            self.placement
                .insert(sandbox.clone(), wanted.spec.platform.clone());
        }
        let names: Vec<&String> = self.by_name.keys().collect();
        let reads = self.by_name.values().map(|platform| platform.observe());
        let listings = futures_util::future::join_all(reads).await;
        let mut observed = Observed::default();
        let mut placement = Vec::new();
        for (name, listing) in names.into_iter().zip(listings) {
            match listing {
                Ok(sandboxes) => {
                    for (sandbox, listing) in sandboxes {
                        placement.push((sandbox.clone(), name.clone()));
                        observed.sandboxes.insert(sandbox, listing);
                    }
                }
                Err(error) => {
                    let here = desired
                        .sandboxes
                        .iter()
                        .filter(|(_, s)| s.spec.platform == *name);
                    let mut found = here.map(|(sandbox, _)| sandbox.clone()).peekable();
                    if found.peek().is_none() {
                        return Err(error);
                    }
                    for sandbox in found {
                        let reason = error.to_string();
                        observed
                            .sandboxes
                            .insert(sandbox, Listing::Unknown { reason });
                    }
                }
            }
        }
        self.placement.extend(placement);
        Ok(observed)
    }

    /// [`Act::upgrade_outdated`] on all platforms.
    pub async fn upgrade_outdated(&self) -> Result<Vec<(SandboxName, Upgraded)>> {
        let mut upgraded = Vec::new();
        for platform in self.by_name.values() {
            upgraded.extend(platform.upgrade_outdated().await?);
        }
        Ok(upgraded)
    }

    /// [`Act::tidy`] on all platforms.
    pub async fn tidy(&self) -> Result<()> {
        for platform in self.by_name.values() {
            platform.tidy().await?;
        }
        Ok(())
    }

    /// Every platform that is open, by name.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &dyn Act)> {
        let all = self.by_name.iter();
        all.map(|(name, platform)| (name.as_str(), platform.as_ref()))
    }

    /// The platform that `sandbox` lives on.
    pub fn of(&self, sandbox: &SandboxName) -> Result<&dyn Act> {
        let name = self.placement.get(sandbox);
        let platform = name.and_then(|name| self.by_name.get(name));
        platform.map(Box::as_ref).ok_or_else(|| {
            PlatformError::new(format!(
                "it is not known which platform `{sandbox}` lives on"
            ))
        })
    }
}
