//! The places where sandboxes live, one folder each, behind two traits: [`Observe`] only reads,
//! [`Act`] writes.
//!
//! In: addresses and specs. Out: observations and effects. No type of a platform's own leaves its
//! folder.

pub mod memory;

use std::collections::BTreeMap;
use std::time::Duration;

use async_trait::async_trait;
use secrecy::SecretString;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::mpsc;

use crate::model::{
    Capabilities, Checkpoint, DesiredSandbox, Forked, Listing, Reference, Restored, SandboxName,
    SandboxSpec, Secrets, ServiceAddress, ServiceName, ServiceSpec,
};

mod acts;
pub mod cloud;
mod described;
mod error;
mod files;
mod folders;
pub mod iris;
mod lines;
pub mod local;
pub mod miosa;
mod open;
mod placed;
pub mod pocketenv;
mod programs;
pub mod sprites;
mod streams;
mod url;

pub use acts::{
    Attached, Attachment, Check, Endpoint, ForkOptions, InventoryEntry, InventoryQuery, Key,
    KeyKind, Link, LinkId, LinkTo, NewKey, Process, Progress, Upgraded, Usage,
};
pub use described::Described;
pub use error::PlatformError;
pub use files::{FileChange, FileEntry};
pub use lines::{LogLine, LogQuery, LogStream};
pub use open::{Opening, capabilities, open};
pub use placed::Platforms;
pub use streams::{Streams, TerminalSize};

/// What a platform answers.
pub type Result<T, E = PlatformError> = std::result::Result<T, E>;

/// Reading from a platform. Opened for one stack; sees only what carries that stack's owner mark.
#[async_trait]
pub trait Observe: Send + Sync {
    /// What this kind of platform can honour.
    fn capabilities(&self) -> &'static Capabilities;

    /// The fields of a sandbox that cannot be changed once it is there, as this platform is set up.
    fn fixed_fields(&self) -> Vec<&'static str> {
        self.capabilities().fixed().collect()
    }

    /// Every sandbox of the stack, with its services.
    async fn observe(&self) -> Result<BTreeMap<SandboxName, Listing>>;

    /// Whether it tells when a line of a log was written. Where not, lines have the time at which they are
    /// read, and none can be asked for by a time.
    fn dates_lines(&self) -> bool {
        true
    }

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

    /// Whether a checkpoint holds all that says how services are defined, so that a restore brings them back as they
    /// were.
    fn checkpoints_hold_definitions(&self) -> bool {
        true
    }

    /// Whether a sandbox itself can be restarted: whether all that runs in it ends with a stop.
    fn restarts_sandboxes(&self) -> bool {
        true
    }

    /// Whether connections are carried to ports of its sandboxes: whether [`Act::forward`] can work.
    fn forwards_ports(&self) -> bool {
        false
    }

    /// Whether a command that is run there gets the terminal of its [`Streams`].
    fn gives_terminals(&self) -> bool {
        false
    }

    /// Whether what runs beside services can be joined: whether [`Act::join`] can work.
    fn joins_processes(&self) -> bool {
        false
    }

    /// What exists there, whoever it belongs to.
    async fn inventory(&self, _query: &InventoryQuery) -> Result<Vec<InventoryEntry>> {
        Err(self.cannot("list what exists there"))
    }

    /// What exists there, whoever made it, in the words of a manifest: one sandbox, by its name or id
    /// there, or all of them.
    async fn describe(&self, _sandbox: Option<&str>) -> Result<Vec<Described>> {
        Err(self.cannot("tell what others have made"))
    }

    /// The ports of a sandbox that somebody listens at or that are exposed, by number.
    async fn endpoints(&self, _sandbox: &SandboxName) -> Result<Vec<Endpoint>> {
        Err(self.cannot("tell where ports are reached"))
    }

    /// Where these services of a sandbox are reached, as far as they are. The sandbox has to be there; the
    /// services need not.
    async fn urls(
        &self,
        sandbox: &SandboxName,
        references: &[&Reference],
    ) -> Result<BTreeMap<Reference, String>> {
        let endpoints = self.endpoints(sandbox).await?;
        let url = |reference: &&Reference| {
            let mut endpoints = endpoints.iter().filter(|it| it.port == reference.port);
            let url = endpoints.find_map(|it| it.url.clone())?;
            Some(((*reference).clone(), url))
        };
        Ok(references
            .iter()
            .copied()
            .filter_map(|it| url(&it))
            .collect())
    }

    /// The links that let others into a sandbox, as far as the platform lists them.
    async fn links(&self, _sandbox: &SandboxName) -> Result<Vec<Link>> {
        Err(self.cannot("make links that let others in"))
    }

    /// Which of these services cannot be made, because the sandbox has one of that name which is not of the stack.
    async fn foreign_services(
        &self,
        _sandbox: &SandboxName,
        _wanted: &[(&ServiceName, &ServiceSpec)],
    ) -> Result<Vec<ServiceName>> {
        Ok(Vec::new())
    }

    /// What runs in a sandbox beside its services.
    async fn processes(&self, _sandbox: &SandboxName) -> Result<Vec<Process>> {
        Err(self.cannot("tell what runs beside services"))
    }

    /// How the platform itself finds a sandbox when it looks at it; `None` where it does not look.
    async fn check(&self, _sandbox: &SandboxName) -> Result<Option<Check>> {
        Ok(None)
    }

    /// What a sandbox has used; `None` where the platform does not tell.
    async fn usage(&self, _sandbox: &SandboxName) -> Result<Option<Usage>> {
        Ok(None)
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

    /// What is attached to a sandbox itself, sorted.
    async fn attached(&self, _sandbox: &SandboxName, kind: Attachment) -> Result<Vec<Attached>> {
        Err(self.cannot_attach(kind))
    }

    /// The keys of a sandbox.
    async fn keys(&self, _sandbox: &SandboxName) -> Result<Vec<Key>> {
        Err(self.cannot("give keys to sandboxes"))
    }

    /// Refuses a query for more than the sandboxes of this account.
    fn only_own(&self, query: &InventoryQuery) -> Result<()> {
        match query {
            InventoryQuery { actor: Some(_), .. } => {
                Err(self.cannot("list what belongs to others"))
            }
            InventoryQuery {
                catalogue: true, ..
            } => Err(self.cannot("show a catalogue")),
            _ => Ok(()),
        }
    }

    /// What is said where something cannot be done: `platform `local` cannot …`.
    fn cannot(&self, what: &str) -> PlatformError {
        let kind = self.capabilities().kind;
        PlatformError::new(format!("platform `{kind}` cannot {what}"))
    }

    /// Refuses a signal where a process is ended in the platform's own way.
    fn only_its_own_end(&self, signal: Option<&str>) -> Result<()> {
        match signal {
            None => Ok(()),
            Some(_) => {
                let what = "send another signal to what is no service than SIGTERM, then SIGKILL";
                Err(self.cannot(what).hint("leave out --signal"))
            }
        }
    }

    /// What is said where something of this kind cannot be attached to a sandbox.
    fn cannot_attach(&self, kind: Attachment) -> PlatformError {
        self.cannot(&format!("attach {} to sandboxes", kind.plural()))
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
    async fn create_sandbox(
        &self,
        sandbox: &SandboxName,
        spec: &SandboxSpec,
        secrets: &Secrets,
    ) -> Result<()>;
    /// Stores a new spec on an existing sandbox; what runs in it goes on.
    async fn update_sandbox(
        &self,
        sandbox: &SandboxName,
        spec: &SandboxSpec,
        secrets: &Secrets,
    ) -> Result<()>;
    /// Brings an existing sandbox up.
    async fn start_sandbox(&self, sandbox: &SandboxName, spec: &SandboxSpec) -> Result<()>;
    /// Stops everything in a sandbox and keeps it.
    async fn stop_sandbox(&self, sandbox: &SandboxName) -> Result<()>;
    /// Removes a sandbox, its services and its data. An absent one counts as removed.
    async fn delete_sandbox(&self, sandbox: &SandboxName) -> Result<()>;

    /// Marks a sandbox that others have made, and the services of it that are wanted, as the stack's. Nothing
    /// that runs is touched, but where a mark is part of what runs: only if it may `restart`, and then these
    /// services are told.
    async fn adopt(
        &self,
        _found: &Described,
        _sandbox: &SandboxName,
        _wanted: &DesiredSandbox,
        _restart: bool,
    ) -> Result<Vec<ServiceName>> {
        Err(self.cannot("adopt what others have made"))
    }

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

    /// Ends something that runs beside services, by its id there: with a signal, or as the platform does it; what
    /// ignores that is killed. Returns once it has ended.
    async fn kill(&self, _sandbox: &SandboxName, _id: &str, _signal: Option<&str>) -> Result<()> {
        Err(self.cannot("end what runs beside services"))
    }

    /// Joins something that runs beside services: passes its streams on, and returns its exit code.
    async fn join(&self, _: &SandboxName, _: &Process, _: Streams) -> Result<i32> {
        Err(self.cannot("join what runs already"))
    }

    /// Lets this program supervise the sandbox, whose services are not touched; or has the platform upgrade it,
    /// where that is the platform's business: `None` if it does not tell from what to what.
    async fn upgrade(&self, sandbox: &SandboxName) -> Result<Option<Upgraded>> {
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
    /// As [`Act::create_checkpoint`], of one that the platform removes after this time.
    async fn create_passing_checkpoint(
        &self,
        _sandbox: &SandboxName,
        _name: Option<&str>,
        _time: Duration,
    ) -> Result<Checkpoint> {
        Err(self.cannot("remove checkpoints when a time is over"))
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

    /// Holds everything in a sandbox as it is, memory and all. One that is held stays so.
    async fn pause(&self, _sandbox: &SandboxName) -> Result<()> {
        Err(self.cannot("pause sandboxes"))
    }

    /// Lets what is held go on. A sandbox that goes on stays so.
    async fn resume(&self, _sandbox: &SandboxName) -> Result<()> {
        Err(self.cannot("pause sandboxes"))
    }

    /// Has the time begin again after which the platform stops a sandbox: this time, or what it was given.
    async fn extend(&self, _sandbox: &SandboxName, _time: Option<Duration>) -> Result<()> {
        Err(self.cannot("give sandboxes more time"))
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

    /// Makes a link that lets in whoever has it, for this time or for as long as the platform lets one hold. It is a
    /// secret.
    async fn share(
        &self,
        _sandbox: &SandboxName,
        _to: LinkTo,
        _time: Option<Duration>,
    ) -> Result<(Link, SecretString)> {
        Err(self.cannot("make links that let others in"))
    }

    /// Takes a link back. One that is not there counts as taken back.
    async fn unshare(&self, _sandbox: &SandboxName, _link: &LinkId) -> Result<()> {
        Err(self.cannot("make links that let others in"))
    }

    /// Carries a connection to a port of a sandbox, until either side ends it.
    async fn forward(&self, _sandbox: &SandboxName, _port: u16, _from: TcpStream) -> Result<()> {
        Err(self.cannot("carry connections to ports"))
    }

    /// Opens the platform's own editor on a sandbox and returns where it is reached.
    async fn open_editor(&self, _sandbox: &SandboxName) -> Result<String> {
        Err(self.cannot("open an editor"))
    }

    /// Attaches something to a sandbox, in place of what has the same name.
    async fn attach(
        &self,
        _sandbox: &SandboxName,
        kind: Attachment,
        _name: &str,
        _value: &SecretString,
    ) -> Result<()> {
        Err(self.cannot_attach(kind))
    }

    /// Removes it. What is not attached counts as removed.
    async fn detach(&self, _sandbox: &SandboxName, kind: Attachment, _name: &str) -> Result<()> {
        Err(self.cannot_attach(kind))
    }

    /// Gives a sandbox a key, in place of the one of that kind. It has it once it is started the next time.
    async fn set_key(&self, _sandbox: &SandboxName, _key: &NewKey) -> Result<()> {
        Err(self.cannot("give keys to sandboxes"))
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

    /// Whether there is a folder at `path`, absolute or relative to where services run.
    async fn is_folder(
        &self,
        sandbox: &SandboxName,
        path: &str,
        secrets: &Secrets,
    ) -> Result<bool> {
        folders::is_folder(self, sandbox, path, secrets).await
    }

    /// Unpacks a gzipped tar archive in the folder `path`, which is made if it is not there.
    async fn write_folder(
        &self,
        sandbox: &SandboxName,
        path: &str,
        from: &mut (dyn AsyncRead + Send + Unpin),
        secrets: &Secrets,
    ) -> Result<()> {
        folders::write(self, sandbox, path, from, secrets).await
    }

    /// Packs what is in the folder `path` as a gzipped tar archive.
    async fn read_folder(
        &self,
        sandbox: &SandboxName,
        path: &str,
        to: &mut (dyn AsyncWrite + Send + Unpin),
        secrets: &Secrets,
    ) -> Result<()> {
        folders::read(self, sandbox, path, to, secrets).await
    }

    /// What is in the folder `path`, sorted by name; of a file, the file.
    async fn list_files(
        &self,
        sandbox: &SandboxName,
        path: &str,
        secrets: &Secrets,
    ) -> Result<Vec<FileEntry>> {
        programs::list(self, sandbox, path, secrets).await
    }

    /// What is known of the file or folder `path`.
    async fn stat_file(
        &self,
        sandbox: &SandboxName,
        path: &str,
        secrets: &Secrets,
    ) -> Result<FileEntry> {
        programs::stat(self, sandbox, path, secrets).await
    }

    /// Removes, makes, moves or copies files, or gives them other permissions.
    async fn change_files(
        &self,
        sandbox: &SandboxName,
        change: &FileChange,
        secrets: &Secrets,
    ) -> Result<()> {
        programs::change(self, sandbox, change, secrets).await
    }

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

fn not_supported(what: &str) -> PlatformError {
    PlatformError::new(format!("this platform does not support {what}"))
}
