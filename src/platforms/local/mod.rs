//! The embedded platform: real processes on this machine, nothing to install.
//!
//! A sandbox is a folder and one supervisor process. The folder says whose it is (`sandbox.json`,
//! written by this room) and what runs in it (written by the supervisor, which this room talks to
//! over its Unix socket). In: addresses and specs. Out: observations and effects.

mod folder;
mod logs;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;
use jiff::Timestamp;
use tokio::sync::mpsc;

use crate::event::Failure;
use crate::model::{
    Capabilities, Isolation, Listing, ObservedSandbox, ObservedService, SandboxName, SandboxSpec,
    SandboxState, Scope, Secrets, ServiceAddress, ServiceKind, ServiceName, ServiceSpec,
    ServiceState, Support,
};
use crate::platforms::{Act, LogLine, LogQuery, Observe, PlatformError, Progress, Result};
use crate::supervisor::{self, Client, ClientError, ServiceObject, Until};
use folder::{Folder, Stacks};
use futures_util::future;

/// What the local platform can honour.
pub static CAPABILITIES: Capabilities = Capabilities {
    kind: "local",
    summary: "processes on this machine, one supervisor per sandbox",
    shared_network: true,
    exceptions: &[
        (
            Scope::Sandbox,
            "name",
            Support::Unsupported,
            "a local sandbox is named by its address",
        ),
        (
            Scope::Sandbox,
            "base",
            Support::Unsupported,
            "processes run on this machine's own files",
        ),
        (
            Scope::Sandbox,
            "repo",
            Support::Unsupported,
            "set `workspace` to a checkout instead",
        ),
        (
            Scope::Sandbox,
            "keep_alive",
            Support::Unsupported,
            "a local sandbox stays until it is deleted",
        ),
        (
            Scope::Sandbox,
            "vcpus",
            Support::Unsupported,
            "processes share this machine's processors",
        ),
        (
            Scope::Sandbox,
            "memory",
            Support::Unsupported,
            "processes share this machine's memory",
        ),
        (
            Scope::Sandbox,
            "disk",
            Support::Unsupported,
            "processes share this machine's disk",
        ),
        (
            Scope::Sandbox,
            "vscode",
            Support::Unsupported,
            "open the workspace in an editor of your own",
        ),
        (
            Scope::Sandbox,
            "isolation: strict",
            Support::Unsupported,
            "processes are kept in process groups only",
        ),
        (
            Scope::Service,
            "container",
            Support::Unsupported,
            "there is no container engine behind it",
        ),
        (
            Scope::Service,
            "image",
            Support::Unsupported,
            "there is no container engine behind it",
        ),
        (
            Scope::Sandbox,
            "needs",
            Support::Supplied,
            "gabion orders and awaits",
        ),
        (
            Scope::Service,
            "watch",
            Support::Supplied,
            "`gabion watch` does it",
        ),
    ],
};

/// The local sandboxes of one stack.
#[derive(Debug, Clone)]
pub struct Local {
    stacks: Stacks,
    stack: String,
    /// The gabion program, which is also the supervisor.
    program: PathBuf,
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
        }
    }

    fn folder(&self, sandbox: &SandboxName) -> Folder {
        self.stacks.sandbox(&self.stack, sandbox)
    }

    fn client(&self, sandbox: &SandboxName) -> Result<Client> {
        let folder = self.folder(sandbox);
        open(&folder)?.ok_or_else(|| {
            PlatformError::new(format!("sandbox `{sandbox}` is not running"))
                .hint("gabion apply starts it")
        })
    }

    async fn launch(&self, folder: &Folder) -> Result<()> {
        if open(folder)?.is_some() {
            return Ok(());
        }
        let launched = supervisor::launch(&self.program, folder.path()).await;
        launched
            .map_err(|error| PlatformError::new(format!("the supervisor did not start: {error}")))
    }

    async fn read(&self, folder: &Folder) -> Result<Option<ObservedSandbox>> {
        let Some(spec) = folder.read_spec(&self.stack)? else {
            return Ok(None);
        };
        let spec = Arc::new(spec);
        let isolation = Isolation::None;
        let Some(client) = open(folder)? else {
            let stored = supervisor::stored_services(folder.path()).map_err(|error| {
                PlatformError::new(format!("cannot read its definitions: {error}"))
            })?;
            let services = stored.into_iter().collect();
            let state = SandboxState::Stopped;
            let supervisor_pid = None;
            return Ok(Some(ObservedSandbox {
                spec,
                state,
                isolation,
                supervisor_pid,
                services,
            }));
        };
        let (listed, health) = future::try_join(client.list(), client.health())
            .await
            .map_err(refused)?;
        let services = listed.iter().map(observed).collect::<Result<_>>()?;
        let supervisor_pid = Some(health.pid);
        let state = SandboxState::Running;
        Ok(Some(ObservedSandbox {
            spec,
            state,
            isolation,
            supervisor_pid,
            services,
        }))
    }

    /// Follows a start until the service is ready, or a task has exited 0.
    async fn settle(
        &self,
        client: &Client,
        service: &ServiceAddress,
        spec: &ServiceSpec,
        (asked, mut object): (Timestamp, ServiceObject),
        progress: &dyn Progress,
    ) -> Result<()> {
        // What an earlier run wrote is no evidence; one that is joined half-way began before.
        let since = object.started_at.map_or(asked, |began| began.min(asked));
        let mut executed = false;
        let mut told = None;
        loop {
            let state = object.fine_state();
            if !executed && (object.pid.is_some() || state == ServiceState::Completed) {
                executed = true;
                progress.executed();
            }
            match (state, spec.kind) {
                (ServiceState::Running, ServiceKind::Service)
                | (ServiceState::Completed, ServiceKind::Task) => return Ok(()),
                (ServiceState::Stopped, _) => {
                    return Err(self.failure(
                        service,
                        "exited before it was ready",
                        &object,
                        since,
                    ));
                }
                (ServiceState::Failed | ServiceState::BackingOff, _) => {
                    return Err(self.failure(service, "failed", &object, since));
                }
                _ => {}
            }
            if object.message != told {
                if let Some(message) = &object.message {
                    progress.waiting(message);
                }
                told = object.message.clone();
            }
            object = client
                .wait_change(&service.service, object.seq)
                .await
                .map_err(refused)?;
        }
    }

    fn failure(
        &self,
        service: &ServiceAddress,
        otherwise: &str,
        object: &ServiceObject,
        since: Timestamp,
    ) -> PlatformError {
        let message = object.message.clone().or_else(|| object.error.clone());
        PlatformError(Failure {
            message: message.unwrap_or_else(|| otherwise.to_owned()),
            log_tail: logs::tail(
                self.folder(&service.sandbox).path(),
                &service.service,
                since,
            ),
            hint: Some(format!("gabion logs {service}")),
        })
    }
}

fn open(folder: &Folder) -> Result<Option<Client>> {
    Client::open(folder.path())
        .map_err(|error| PlatformError::new(format!("the supervisor cannot be reached: {error}")))
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
        &CAPABILITIES
    }

    async fn observe(&self) -> Result<BTreeMap<SandboxName, Listing>> {
        let sandboxes = self.stacks.sandboxes(&self.stack)?;
        let reads = sandboxes.iter().map(|(name, folder)| async move {
            match self.read(folder).await {
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
        match open(&folder)? {
            Some(client) => client.logs(&service.service, &query).await.map_err(refused),
            None => logs::stored(folder.path(), &service.service, &query),
        }
    }
}

#[async_trait]
impl Act for Local {
    async fn create_sandbox(&self, sandbox: &SandboxName, spec: &SandboxSpec) -> Result<()> {
        let folder = self.stacks.create(&self.stack, sandbox, spec)?;
        self.launch(&folder).await
    }

    async fn update_sandbox(&self, sandbox: &SandboxName, spec: &SandboxSpec) -> Result<()> {
        self.folder(sandbox).write_spec(&self.stack, sandbox, spec)
    }

    async fn start_sandbox(&self, sandbox: &SandboxName, _: &SandboxSpec) -> Result<()> {
        self.launch(&self.folder(sandbox)).await
    }

    async fn stop_sandbox(&self, sandbox: &SandboxName) -> Result<()> {
        match open(&self.folder(sandbox))? {
            Some(client) => client.shutdown().await.map_err(refused),
            None => Ok(()),
        }
    }

    async fn delete_sandbox(&self, sandbox: &SandboxName) -> Result<()> {
        self.stop_sandbox(sandbox).await?;
        let folder = self.folder(sandbox);
        supervisor::kill_leftovers(folder.path())
            .await
            .map_err(|error| PlatformError::new(format!("cannot end its processes: {error}")))?;
        self.stacks.delete(&self.stack, sandbox)
    }

    async fn upsert_service(
        &self,
        service: &ServiceAddress,
        spec: &ServiceSpec,
        secrets: &Secrets,
    ) -> Result<()> {
        let client = self.client(&service.sandbox)?;
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
        let asked = Timestamp::now();
        let object = client
            .start(&service.service, &values, Until::Executed)
            .await
            .map_err(refused)?;
        self.settle(&client, service, spec, (asked, object), progress)
            .await
    }

    async fn stop_service(&self, service: &ServiceAddress) -> Result<()> {
        match open(&self.folder(&service.sandbox))? {
            Some(client) => client
                .stop(&service.service)
                .await
                .map_err(refused)
                .map(drop),
            None => Ok(()),
        }
    }

    async fn delete_service(&self, service: &ServiceAddress) -> Result<()> {
        let client = self.client(&service.sandbox)?;
        client.delete(&service.service).await.map_err(refused)
    }

    async fn exec(&self, sandbox: &SandboxName, argv: &[String], secrets: &Secrets) -> Result<i32> {
        let folder = self.folder(sandbox);
        let spec = folder.read_spec(&self.stack)?;
        let spec = spec.ok_or_else(|| {
            PlatformError::new(format!("there is no sandbox `{sandbox}`"))
                .hint("gabion apply makes it")
        })?;
        supervisor::exec_attached(folder.path(), &spec, argv, secrets)
            .await
            .map_err(|error| PlatformError::new(error.to_string()))
    }
}

fn values(spec: &ServiceSpec, secrets: &Secrets) -> Result<Secrets> {
    secrets
        .used_by(spec)
        .map_err(|missing| PlatformError::new(missing.to_string()))
}
