//! The embedded platform: real processes on this machine, nothing to install.
//!
//! A sandbox is a folder and one supervisor process. The folder says whose it is (`sandbox.json`,
//! written by this room) and what runs in it (written by the supervisor, which this room talks to
//! over its Unix socket). In: addresses and specs. Out: observations and effects.

mod capabilities;
mod checkpoint;
mod describe;
mod files;
mod folder;
mod inventory;
mod logs;
mod processes;
mod repo;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use tokio::io::{AsyncRead, AsyncWrite, copy_bidirectional};
use tokio::net::TcpStream;
use tokio::sync::mpsc;

use crate::event::Failure;
use crate::keeper;
use crate::model::{
    Capabilities, Checkpoint, DesiredSandbox, Forked, Health, HumanDuration, Listing,
    MissingSecret, ObservedSandbox, ObservedService, Restored, SandboxName, SandboxSpec,
    SandboxState, Secrets, ServiceAddress, ServiceName, ServiceSpec, ServiceState,
};
use crate::platforms::{
    Act, Attached, Attachment, Described, Endpoint, FileChange, FileEntry, ForkOptions,
    InventoryEntry, InventoryQuery, LogLine, LogQuery, Observe, PlatformError, Process, Progress,
    Result, Streams, Upgraded,
};

use crate::supervisor::{self, Client, ClientError, ServiceObject};
pub use capabilities::capabilities;
use folder::{Folder, Stacks};
use futures_util::future;

/// The local sandboxes of one stack.
#[derive(Debug, Clone)]
pub struct Local {
    stacks: Stacks,
    stack: String,
    /// The gabion program, which is also the supervisor.
    program: PathBuf,
    /// Those that were opened, so that acts on one sandbox share their connections.
    clients: Arc<Mutex<BTreeMap<SandboxName, Client>>>,
}

impl Local {
    /// The sandboxes of `stack` kept under `home`, with `program` as the supervisor's executable.
    pub fn new(
        home: impl Into<PathBuf>,
        stack: impl Into<String>,
        program: impl Into<PathBuf>,
    ) -> Self {
        Self {
            stacks: Stacks::new(home),
            stack: stack.into(),
            program: program.into(),
            clients: Arc::default(),
        }
    }

    fn folder(&self, sandbox: &SandboxName) -> Folder {
        self.stacks.sandbox(&self.stack, sandbox)
    }

    fn clients(&self) -> MutexGuard<'_, BTreeMap<SandboxName, Client>> {
        // The map is whole after every statement, so a panic elsewhere cannot have torn it.
        self.clients.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The client of a sandbox's supervisor; `None` if none runs.
    fn open(&self, sandbox: &SandboxName) -> Result<Option<Client>> {
        let opened = Client::open(self.folder(sandbox).path()).map_err(|error| {
            PlatformError::new(format!("the supervisor cannot be reached: {error}"))
        })?;
        match &opened {
            Some(client) => self.clients().insert(sandbox.clone(), client.clone()),
            None => self.clients().remove(sandbox),
        };
        Ok(opened)
    }

    /// The client of a sandbox that runs, or did when it was last looked at.
    fn client(&self, sandbox: &SandboxName) -> Result<Client> {
        let known = self.clients().get(sandbox).cloned();
        if let Some(client) = known {
            return Ok(client);
        }
        self.open(sandbox)?.ok_or_else(|| {
            PlatformError::new(format!("sandbox `{sandbox}` is not running"))
                .hint("gabion apply starts it")
        })
    }

    async fn launch(&self, sandbox: &SandboxName, spec: &SandboxSpec) -> Result<()> {
        if self.open(sandbox)?.is_some() {
            return Ok(());
        }
        let folder = self.folder(sandbox);
        if let Some(repo) = &spec.repo {
            let own = || folder.path().join("workspace");
            repo::clone_into(repo, &spec.workspace.clone().unwrap_or_else(own)).await?;
        }
        let launched = keeper::launch(&self.program, folder.path()).await;
        launched.map_err(|error| PlatformError::new(format!("the sandbox did not start: {error}")))
    }

    async fn read(
        &self,
        sandbox: &SandboxName,
        folder: &Folder,
    ) -> Result<Option<ObservedSandbox>> {
        let Some(spec) = folder.read_spec(&self.stack)? else {
            return Ok(None);
        };
        let spec = Arc::new(spec);
        let Some(client) = self.open(sandbox)? else {
            if supervisor::is_occupied(folder.path()) {
                return Err(PlatformError::new(
                    "its supervisor runs, but cannot be reached",
                ));
            }
            let stored = supervisor::stored_services(folder.path()).map_err(|error| {
                PlatformError::new(format!("cannot read its definitions: {error}"))
            })?;
            let services = stored.into_iter().collect();
            let state = SandboxState::Stopped;
            return Ok(Some(ObservedSandbox {
                spec,
                state,
                spec_known: true,
                isolation: None,
                keeper_pid: None,
                supervisor_pid: None,
                services,
            }));
        };
        let (listed, health) = future::try_join(client.list(), client.health())
            .await
            .map_err(refused)?;
        let services = listed.iter().map(observed).collect::<Result<_>>()?;
        Ok(Some(ObservedSandbox {
            spec,
            state: SandboxState::Running,
            spec_known: true,
            isolation: health.isolation,
            keeper_pid: health.keeper_pid,
            supervisor_pid: Some(health.pid),
            services,
        }))
    }

    /// Stops everything in a sandbox, and its supervisor.
    async fn shut_down(&self, sandbox: &SandboxName) -> Result<()> {
        let Some(client) = self.open(sandbox)? else {
            return Ok(());
        };
        self.clients().remove(sandbox);
        client.shutdown().await.map_err(refused)
    }

    /// Removes the containers of sandboxes that are not there any more.
    async fn clear_orphans(&self) -> Result<()> {
        if !self.stacks.has_containers() {
            return Ok(());
        }
        let known = self.stacks.sandboxes(&self.stack)?;
        let known: Vec<_> = known.into_keys().collect();
        supervisor::clear_orphans(self.stacks.root(), &self.stack, &known)
            .await
            .map_err(|error| PlatformError::new(format!("containers left behind: {error}")))
    }

    /// Makes sure that no supervisor runs in a folder, and nothing that one has left behind.
    async fn occupy(&self, folder: &Folder) -> Result<supervisor::Occupied> {
        let failed = |error| PlatformError::new(format!("cannot end its processes: {error}"));
        let occupied = supervisor::occupy(folder.path()).await.map_err(failed)?;
        supervisor::kill_leftovers(folder.path())
            .await
            .map_err(failed)?;
        Ok(occupied)
    }

    /// Waits until a service that was up already, but not healthy, is so again.
    async fn healthy(
        client: &Client,
        service: &ServiceName,
        mut object: ServiceObject,
    ) -> Result<()> {
        while object.fine_state() == ServiceState::Unhealthy {
            object = client
                .wait_change(service, object.seq)
                .await
                .map_err(refused)?;
        }
        match object.fine_state() {
            ServiceState::Running | ServiceState::Completed => Ok(()),
            state => {
                let message = object.message.or(object.error);
                Err(PlatformError::new(
                    message.unwrap_or_else(|| state.word().to_owned()),
                ))
            }
        }
    }
}

fn observed(object: &ServiceObject) -> Result<(ServiceName, ObservedService)> {
    let name = ServiceName::new(object.name.clone());
    let name = name.map_err(|error| PlatformError::new(error.to_string()))?;
    Ok((name, object.observed()))
}

fn refused(error: ClientError) -> PlatformError {
    PlatformError(Failure {
        message: error.message,
        log_tail: error.log_tail,
        hint: None,
    })
}

#[async_trait]
impl Observe for Local {
    fn capabilities(&self) -> &'static Capabilities {
        capabilities()
    }

    async fn observe(&self) -> Result<BTreeMap<SandboxName, Listing>> {
        let sandboxes = self.stacks.sandboxes(&self.stack)?;
        let reads = sandboxes.iter().map(|(name, folder)| async move {
            match self.read(name, folder).await {
                Ok(None) => None,
                Ok(Some(sandbox)) => Some((name.clone(), Listing::Known(sandbox))),
                Err(error) => Some((
                    name.clone(),
                    Listing::Unknown {
                        reason: error.to_string(),
                    },
                )),
            }
        });
        Ok(future::join_all(reads)
            .await
            .into_iter()
            .flatten()
            .collect())
    }

    async fn logs(
        &self,
        service: &ServiceAddress,
        query: LogQuery,
    ) -> Result<mpsc::Receiver<LogLine>> {
        let folder = self.folder(&service.sandbox);
        match self.open(&service.sandbox)? {
            Some(client) => client.logs(&service.service, &query).await.map_err(refused),
            None => logs::stored(folder.path(), &service.service, &query),
        }
    }

    async fn checkpoints(&self, sandbox: &SandboxName) -> Result<Vec<Checkpoint>> {
        self.list_checkpoints(sandbox).await
    }

    async fn describe(&self, sandbox: Option<&str>) -> Result<Vec<Described>> {
        self.describe_all(sandbox).await
    }

    fn forwards_ports(&self) -> bool {
        true
    }

    async fn inventory(&self, query: &InventoryQuery) -> Result<Vec<InventoryEntry>> {
        self.list_all(query)
    }

    async fn endpoints(&self, sandbox: &SandboxName) -> Result<Vec<Endpoint>> {
        self.list_endpoints(sandbox).await
    }

    async fn processes(&self, sandbox: &SandboxName) -> Result<Vec<Process>> {
        self.list_processes(sandbox).await
    }

    async fn attached(&self, sandbox: &SandboxName, kind: Attachment) -> Result<Vec<Attached>> {
        self.list_variables(sandbox, kind)
    }

    async fn read_file(
        &self,
        sandbox: &SandboxName,
        path: &str,
        to: &mut (dyn AsyncWrite + Send + Unpin),
    ) -> Result<()> {
        self.copy_out(sandbox, path, to).await
    }
}

#[async_trait]
impl Act for Local {
    async fn create_sandbox(
        &self,
        sandbox: &SandboxName,
        spec: &SandboxSpec,
        _secrets: &Secrets,
    ) -> Result<()> {
        // A sandbox of this name may have been removed by hand, but not its containers.
        self.clear_orphans().await?;
        self.stacks.create(&self.stack, sandbox, spec)?;
        self.launch(sandbox, spec).await
    }

    async fn update_sandbox(
        &self,
        sandbox: &SandboxName,
        spec: &SandboxSpec,
        _secrets: &Secrets,
    ) -> Result<()> {
        self.folder(sandbox).write_spec(&self.stack, sandbox, spec)
    }

    async fn start_sandbox(&self, sandbox: &SandboxName, spec: &SandboxSpec) -> Result<()> {
        self.launch(sandbox, spec).await
    }

    async fn stop_sandbox(&self, sandbox: &SandboxName) -> Result<()> {
        let folder = self.folder(sandbox);
        self.shut_down(sandbox).await?;
        // A start that follows at once must not meet the keeper that is about to end.
        if folder.path().exists() {
            drop(self.occupy(&folder).await?);
        }
        Ok(())
    }

    async fn delete_sandbox(&self, sandbox: &SandboxName) -> Result<()> {
        let folder = self.folder(sandbox);
        self.shut_down(sandbox).await?;
        if !folder.path().exists() {
            return Ok(());
        }
        // Held until the folder is gone: no supervisor may come up in between.
        let _occupied = self.occupy(&folder).await?;
        self.stacks.delete(&self.stack, sandbox)
    }

    async fn upgrade(&self, sandbox: &SandboxName) -> Result<Option<Upgraded>> {
        let client = self.client(sandbox)?;
        let from = client.health().await.map_err(refused)?.version;
        let to = client
            .upgrade(&self.program)
            .await
            .map_err(refused)?
            .version;
        if to != keeper::version() {
            return Err(PlatformError::new(format!(
                "gabion {} did not come up in `{sandbox}`: {to} goes on, its services untouched",
                keeper::version(),
            )));
        }
        Ok(Some(Upgraded { from, to }))
    }

    async fn upgrade_outdated(&self) -> Result<Vec<(SandboxName, Upgraded)>> {
        let mut upgraded = Vec::new();
        for sandbox in self.stacks.sandboxes(&self.stack)?.into_keys() {
            let Some(client) = self.open(&sandbox)? else {
                continue;
            };
            // One that does not answer is told of when it is observed.
            let Ok(health) = client.health().await else {
                continue;
            };
            if keeper::is_newer(keeper::version(), &health.version) {
                let done = self.upgrade(&sandbox).await?;
                upgraded.extend(done.map(|done| (sandbox, done)));
            }
        }
        Ok(upgraded)
    }

    async fn create_checkpoint(
        &self,
        sandbox: &SandboxName,
        name: Option<&str>,
        secrets: &Secrets,
    ) -> Result<Checkpoint> {
        self.make_checkpoint(sandbox, name, secrets).await
    }

    async fn begin_checkpoint(
        &self,
        sandbox: &SandboxName,
        name: Option<&str>,
        secrets: &Secrets,
    ) -> Result<String> {
        let client = self.client(sandbox)?;
        let begun = client.begin_checkpoint(name, secrets).await;
        begun.map_err(refused)
    }

    async fn wait_checkpoint(&self, sandbox: &SandboxName, id: &str) -> Result<Checkpoint> {
        self.await_checkpoint(sandbox, id).await
    }

    async fn restore_checkpoint(
        &self,
        sandbox: &SandboxName,
        id: &str,
        secrets: &Secrets,
    ) -> Result<Restored> {
        self.rewind(sandbox, id, secrets).await
    }

    async fn delete_checkpoint(&self, sandbox: &SandboxName, id: &str) -> Result<()> {
        self.remove_checkpoint(sandbox, id).await
    }

    async fn fork_sandbox(
        &self,
        source: &SandboxName,
        fork: &SandboxName,
        options: &ForkOptions,
        secrets: &Secrets,
    ) -> Result<Forked> {
        self.fork(source, fork, options, secrets).await
    }

    async fn tidy(&self) -> Result<()> {
        self.stacks.tidy(&self.stack)?;
        self.clear_orphans().await?;
        self.stacks.forget_containers();
        Ok(())
    }

    async fn adopt(
        &self,
        _found: &Described,
        _sandbox: &SandboxName,
        _wanted: &DesiredSandbox,
        _restart: bool,
    ) -> Result<Vec<ServiceName>> {
        Err(self.cannot(
            "adopt what another stack has made: the processes of a sandbox live in its folder, which names the stack",
        ))
    }

    async fn upsert_service(
        &self,
        service: &ServiceAddress,
        spec: &ServiceSpec,
        secrets: &Secrets,
    ) -> Result<()> {
        let client = self.client(&service.sandbox)?;
        if spec.container {
            self.stacks.note_containers()?;
        }
        client
            .put(&service.service, spec, &values(spec, secrets)?)
            .await
            .map_err(refused)?;
        Ok(())
    }

    async fn start_service(
        &self,
        service: &ServiceAddress,
        spec: &ServiceSpec,
        secrets: &Secrets,
        progress: &dyn Progress,
    ) -> Result<()> {
        let client = self.client(&service.sandbox)?;
        let values = values(spec, secrets)?;
        let name = &service.service;
        let mut waits_for = None;
        let mut told = |object: &ServiceObject| {
            if object.pid.is_some() {
                progress.executed();
            }
            let starting = object.fine_state() == ServiceState::Starting;
            if let Some(message) = object.message.as_ref().filter(|_| starting)
                && waits_for.as_ref() != Some(message)
            {
                progress.waiting(message);
                waits_for = Some(message.clone());
            }
        };
        let started = client.start_telling(name, &values, &mut told).await;
        let object =
            started.map_err(|error| refused(error).hint(format!("gabion logs {service}")))?;
        progress.executed();
        let limit = spec
            .health
            .as_ref()
            .map_or(Health::default_timeout().0, Health::time_to_ready);
        match tokio::time::timeout(limit, Self::healthy(&client, name, object)).await {
            Ok(result) => result,
            Err(_) => {
                let limit = HumanDuration(limit);
                Err(PlatformError::new(format!("not healthy after {limit}")))
            }
        }
    }

    async fn stop_service(&self, service: &ServiceAddress) -> Result<()> {
        match self.open(&service.sandbox)? {
            Some(client) => client
                .stop(&service.service)
                .await
                .map_err(refused)
                .map(drop),
            None => self.stop_sandbox(&service.sandbox).await,
        }
    }

    async fn delete_service(&self, service: &ServiceAddress) -> Result<()> {
        let client = self.client(&service.sandbox)?;
        match client.delete(&service.service).await {
            Err(error) if !error.is_not_found() => Err(refused(error)),
            _ => Ok(()),
        }
    }

    async fn send_stdin(&self, service: &ServiceAddress, data: &str, eof: bool) -> Result<()> {
        let client = self.client(&service.sandbox)?;
        let sent = client.send_stdin(&service.service, data, eof).await;
        sent.map_err(refused).map(drop)
    }

    async fn signal(&self, service: &ServiceAddress, signal: &str) -> Result<()> {
        let client = self.client(&service.sandbox)?;
        let sent = client.signal(&service.service, signal).await;
        sent.map_err(refused).map(drop)
    }

    async fn kill(&self, sandbox: &SandboxName, id: &str, signal: Option<&str>) -> Result<()> {
        self.end_process(sandbox, id, signal).await
    }

    async fn write_file(
        &self,
        sandbox: &SandboxName,
        path: &str,
        from: &mut (dyn AsyncRead + Send + Unpin),
        mode: u32,
    ) -> Result<()> {
        self.copy_in(sandbox, path, from, mode).await
    }

    async fn forward(&self, sandbox: &SandboxName, port: u16, mut from: TcpStream) -> Result<()> {
        self.client(sandbox)?;
        let mut to = supervisor::connect_to_port(port).await?;
        // Whoever leaves in the middle of it is not missed.
        let _ = copy_bidirectional(&mut from, &mut to).await;
        Ok(())
    }

    async fn list_files(
        &self,
        sandbox: &SandboxName,
        path: &str,
        _: &Secrets,
    ) -> Result<Vec<FileEntry>> {
        self.list_folder(sandbox, path).await
    }

    async fn stat_file(&self, sandbox: &SandboxName, path: &str, _: &Secrets) -> Result<FileEntry> {
        self.stat(sandbox, path).await
    }

    async fn change_files(
        &self,
        sandbox: &SandboxName,
        change: &FileChange,
        _: &Secrets,
    ) -> Result<()> {
        self.change(sandbox, change).await
    }

    async fn exec(
        &self,
        sandbox: &SandboxName,
        argv: &[String],
        secrets: &Secrets,
        _: Streams,
    ) -> Result<i32> {
        let folder = self.folder(sandbox);
        let spec = folder.read_spec(&self.stack)?;
        let spec = spec.ok_or_else(|| PlatformError::no_sandbox(sandbox))?;
        if self.open(sandbox)?.is_none() {
            return Err(
                PlatformError::new(format!("sandbox `{sandbox}` is stopped"))
                    .hint("gabion start brings it up"),
            );
        }
        let mut used = Secrets::default();
        for name in spec.secrets.keys() {
            let missing = || MissingSecret(name.clone());
            used.insert(name.clone(), secrets.get(name).ok_or_else(missing)?.clone());
        }
        let what = supervisor::Attached {
            service: None,
            argv,
            secrets: &used,
        };
        Ok(supervisor::attach(folder.path(), &what).await?)
    }

    async fn exec_in_service(
        &self,
        service: &ServiceAddress,
        argv: &[String],
        secrets: &Secrets,
        streams: Streams,
    ) -> Result<i32> {
        let folder = self.folder(&service.sandbox);
        let (dir, name) = (folder.path(), &service.service);
        Ok(supervisor::exec_in_service(dir, name, argv, secrets, streams).await?)
    }
}

fn values(spec: &ServiceSpec, secrets: &Secrets) -> Result<Secrets> {
    Ok(secrets.used_by(spec)?)
}
