//! Changing sandboxes.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tokio::io::AsyncRead;
use tokio::time::{Instant, sleep};

use super::document::{self, Document};
use super::gateway::Gateway;
use super::plane::Plane;
use super::wire::{Pass, Record, Stage};
use super::{Access, Iris, Known};
use crate::model::{
    Checkpoint, DesiredSandbox, Forked, Restored, SandboxName, SandboxSpec, Secrets,
    ServiceAddress, ServiceName, ServiceSpec, show_duration,
};
use crate::platforms::cloud::http::{BaseUrl, Client, Endpoint};
use crate::platforms::cloud::mark::Owner;
use crate::platforms::{
    Act, Described, FileChange, FileEntry, ForkOptions, PlatformError, Progress, Result, Streams,
};

/// The pauses between two looks at a sandbox: from the first on, up to the second.
const PAUSES: [Duration; 2] = [Duration::from_millis(100), Duration::from_secs(2)];

impl Iris {
    /// The data plane of a sandbox; with the token that came with it, if one did.
    pub(super) fn plane_of(&self, record: &Record, pass: Option<&Pass>) -> Result<Arc<Plane>> {
        let gateway = self.gateway()?;
        let domain = record.domain.as_str();
        let url = match domain.contains("://") {
            true => domain.to_owned(),
            false => format!("https://{domain}"),
        };
        let url = BaseUrl::parse(&url).map_err(|error| {
            PlatformError::new(format!("the domain of sandbox {}: {error}", record.id))
        })?;
        let client = Client::new(&self.planes, Endpoint::new(url, None), self.secrets.clone())?;
        Ok(Arc::new(Plane::new(
            client,
            gateway.clone(),
            &record.id,
            pass,
        )))
    }

    pub(super) fn gateway(&self) -> Result<&Gateway> {
        match &self.access {
            Access::Gateway(gateway) => Ok(gateway),
            Access::Direct(_) => Err(PlatformError::new(
                "a data plane that is spoken to directly is neither suspended, resumed nor forked",
            )),
        }
    }

    fn owner(&self, sandbox: &SandboxName) -> Owner {
        Owner {
            stack: self.stack.clone(),
            sandbox: sandbox.clone(),
        }
    }

    /// Its name there.
    fn name_of(&self, sandbox: &SandboxName, spec: &SandboxSpec) -> String {
        let name = spec.name.clone();
        name.unwrap_or_else(|| format!("{}-{sandbox}", self.stack))
    }

    async fn create(&self, sandbox: &SandboxName, spec: &SandboxSpec) -> Result<()> {
        let known = match &self.access {
            Access::Direct(plane) => self.found(sandbox, "", plane),
            Access::Gateway(gateway) => self.make(gateway, sandbox, spec).await?,
        };
        self.await_plane(&known).await?;
        if let Some(other) = known.read().await?
            && other.owner != self.owner(sandbox)
        {
            let label = other.owner.label();
            return Err(PlatformError::new(format!(
                "the sandbox belongs to {label}"
            )));
        }
        let document = Document {
            owner: self.owner(sandbox),
            spec: spec.clone(),
            services: Default::default(),
        };
        Ok(known.plane.set_value(document::KEY, &document).await?)
    }

    /// Makes a sandbox, or takes one that an apply has made and not come to mark.
    async fn make(
        &self,
        gateway: &Gateway,
        sandbox: &SandboxName,
        spec: &SandboxSpec,
    ) -> Result<Arc<Known>> {
        let name = self.name_of(sandbox, spec);
        if let Some(found) = self.unmarked(gateway, sandbox, &name).await? {
            return Ok(found);
        }
        let made = match gateway.create(&name).await {
            Ok(made) => made,
            // Its answer may be lost, and not the sandbox.
            Err(error) if error.may_be_done() => {
                let found = self.unmarked(gateway, sandbox, &name).await?;
                return found.ok_or_else(|| error.into());
            }
            Err(error) => return Err(error.into()),
        };
        if let Some(first) = self
            .rival(gateway, sandbox, &name, &made.sandbox.id)
            .await?
        {
            gateway.delete(&made.sandbox.id).await?;
            return Ok(first);
        }
        let plane = self.plane_of(&made.sandbox, Some(&made.pass))?;
        Ok(self.found(sandbox, &made.sandbox.id, &plane))
    }

    /// What is to be used instead of what was made: an apply that was killed, or one on another machine, may
    /// have asked for one at the same time. That is one that is marked already, or has the smaller id.
    async fn rival(
        &self,
        gateway: &Gateway,
        sandbox: &SandboxName,
        name: &str,
        made: &str,
    ) -> Result<Option<Arc<Known>>> {
        let listed = gateway.list().await?.into_iter();
        let same = listed.filter(|it| it.name == name && it.id != made);
        for record in same.filter(|it| it.stage() == Stage::Running) {
            let plane = self.plane_of(&record, None)?;
            let rivals = match plane.value::<Document>(document::KEY).await {
                Ok(Some(document)) => document.owner == self.owner(sandbox),
                Ok(None) if record.id.as_str() < made => {
                    plane.services().await.is_ok_and(|all| all.is_empty())
                }
                // What cannot be read is not taken.
                Ok(None) | Err(_) => false,
            };
            if rivals {
                return Ok(Some(self.found(sandbox, &record.id, &plane)));
            }
        }
        Ok(None)
    }

    /// A sandbox of this name that nothing was done with yet. One that is in use is an error.
    async fn unmarked(
        &self,
        gateway: &Gateway,
        sandbox: &SandboxName,
        name: &str,
    ) -> Result<Option<Arc<Known>>> {
        let listed = gateway.list().await?;
        let named = listed.into_iter().filter(|it| it.name == name);
        let mut found = None;
        for record in named.filter(|it| it.stage() != Stage::Terminated) {
            let foreign = || {
                let text = format!(
                    "a sandbox `{name}` ({}) is there, and is not of this stack",
                    record.id
                );
                PlatformError::new(text).hint("give this one another `name`")
            };
            if record.stage() == Stage::Suspended {
                return Err(foreign());
            }
            let plane = self.plane_of(&record, None)?;
            let known = self.found(sandbox, &record.id, &plane);
            self.await_plane(&known).await?;
            let empty = match known.read().await? {
                Some(document) => document.owner == self.owner(sandbox),
                None => known.plane.services().await?.is_empty(),
            };
            if !empty || found.is_some() {
                self.known().remove(sandbox);
                return Err(foreign());
            }
            found = Some(known);
        }
        Ok(found)
    }

    /// Waits until a data plane answers: a sandbox may run before that.
    async fn await_plane(&self, known: &Known) -> Result<()> {
        let began = Instant::now();
        let mut pause = PAUSES[0];
        loop {
            let error = match known.plane.services().await {
                Ok(_) => return Ok(()),
                Err(error) => error,
            };
            let passing = error.status.is_none_or(|status| status >= 500);
            if !passing || began.elapsed() >= self.ready_timeout {
                let time = show_duration(self.ready_timeout);
                return Err(match passing {
                    true => PlatformError::new(format!("it does not answer after {time}: {error}")),
                    false => error.into(),
                });
            }
            sleep(pause).await;
            pause = (pause * 2).min(PAUSES[1]);
        }
    }

    /// Makes sure that a sandbox which could not be asked before is ours.
    async fn check_owner(&self, sandbox: &SandboxName, known: &Known) -> Result<()> {
        let owner = known.marked().await?.owner;
        match owner == self.owner(sandbox) {
            true => Ok(()),
            false => Err(PlatformError::new(format!(
                "sandbox {} belongs to {}",
                known.id,
                owner.label()
            ))),
        }
    }

    /// Goes on with a sandbox; with one of somebody else's only until that is known.
    async fn resume(&self, sandbox: &SandboxName) -> Result<Arc<Known>> {
        let known = self.get(sandbox).await?;
        let gateway = self.gateway()?;
        let record = gateway.show(&known.id).await?;
        let suspended = record.is_some_and(|record| record.stage() == Stage::Suspended);
        if suspended {
            gateway.resume(&known.id).await?;
        }
        self.await_plane(&known).await?;
        let checked = self.check_owner(sandbox, &known).await;
        if checked.is_err() && suspended {
            gateway.suspend(&known.id).await?;
        }
        checked.map(|()| known)
    }
}

#[async_trait]
impl Act for Iris {
    async fn create_sandbox(
        &self,
        sandbox: &SandboxName,
        spec: &SandboxSpec,
        _secrets: &Secrets,
    ) -> Result<()> {
        self.create(sandbox, spec).await
    }

    async fn update_sandbox(
        &self,
        sandbox: &SandboxName,
        spec: &SandboxSpec,
        _secrets: &Secrets,
    ) -> Result<()> {
        let known = self.get(sandbox).await?;
        known.change(|document| document.spec = spec.clone()).await
    }

    async fn start_sandbox(&self, sandbox: &SandboxName, spec: &SandboxSpec) -> Result<()> {
        let known = self.resume(sandbox).await?;
        known.change(|document| document.spec = spec.clone()).await
    }

    async fn stop_sandbox(&self, sandbox: &SandboxName) -> Result<()> {
        let known = self.get(sandbox).await?;
        Ok(self.gateway()?.suspend(&known.id).await?)
    }

    async fn delete_sandbox(&self, sandbox: &SandboxName) -> Result<()> {
        let Some(known) = self.find(sandbox).await? else {
            return Ok(());
        };
        match &self.access {
            Access::Gateway(gateway) => {
                if gateway.show(&known.id).await?.is_some() {
                    let known = self.resume(sandbox).await?;
                    // That could not be known while it was suspended.
                    if known.marked().await?.spec.protect {
                        return Err(PlatformError::new("it is protected and would be deleted"));
                    }
                    gateway.delete(&known.id).await?;
                }
            }
            // The sandbox is somebody's own; what is ours in it goes.
            Access::Direct(plane) => {
                let document = known.read().await?;
                for name in document.iter().flat_map(|it| it.services.keys()) {
                    plane.stop(name).await?;
                    plane.delete(name).await?;
                }
                plane.remove_value(document::KEY).await?;
            }
        }
        self.known().remove(sandbox);
        Ok(())
    }

    async fn adopt(
        &self,
        found: &Described,
        sandbox: &SandboxName,
        wanted: &DesiredSandbox,
        _restart: bool,
    ) -> Result<Vec<ServiceName>> {
        self.take_in(found, sandbox, wanted).await?;
        Ok(Vec::new())
    }

    async fn upsert_service(
        &self,
        service: &ServiceAddress,
        spec: &ServiceSpec,
        secrets: &Secrets,
    ) -> Result<()> {
        self.upsert(service, spec, secrets).await
    }

    async fn start_service(
        &self,
        service: &ServiceAddress,
        spec: &ServiceSpec,
        secrets: &Secrets,
        progress: &dyn Progress,
    ) -> Result<()> {
        self.run(service, spec, secrets, progress).await
    }

    async fn stop_service(&self, service: &ServiceAddress) -> Result<()> {
        self.halt(service).await
    }

    async fn delete_service(&self, service: &ServiceAddress) -> Result<()> {
        self.remove(service).await
    }

    async fn send_stdin(&self, service: &ServiceAddress, data: &str, eof: bool) -> Result<()> {
        let known = self.get(&service.sandbox).await?;
        Ok(known.plane.stdin(&service.service, data, eof).await?)
    }

    async fn signal(&self, service: &ServiceAddress, signal: &str) -> Result<()> {
        let known = self.get(&service.sandbox).await?;
        Ok(known.plane.signal(&service.service, signal).await?)
    }

    async fn create_checkpoint(
        &self,
        sandbox: &SandboxName,
        name: Option<&str>,
        _: &Secrets,
    ) -> Result<Checkpoint> {
        let id = self.begin(sandbox, name).await?;
        self.await_checkpoint(sandbox, &id).await
    }

    async fn begin_checkpoint(
        &self,
        sandbox: &SandboxName,
        name: Option<&str>,
        _: &Secrets,
    ) -> Result<String> {
        self.begin(sandbox, name).await
    }

    async fn wait_checkpoint(&self, sandbox: &SandboxName, id: &str) -> Result<Checkpoint> {
        self.await_checkpoint(sandbox, id).await
    }

    async fn restore_checkpoint(
        &self,
        sandbox: &SandboxName,
        id: &str,
        _: &Secrets,
    ) -> Result<Restored> {
        self.rewind(sandbox, id).await
    }

    async fn delete_checkpoint(&self, sandbox: &SandboxName, id: &str) -> Result<()> {
        let known = self.get(sandbox).await?;
        Ok(known.plane.delete_checkpoint(id).await?)
    }

    async fn fork_sandbox(
        &self,
        source: &SandboxName,
        fork: &SandboxName,
        options: &ForkOptions,
        _: &Secrets,
    ) -> Result<Forked> {
        if options.from.is_some() || options.stopped {
            return Err(PlatformError::new(
                "iris forks a sandbox as it is now, with what runs in it",
            ));
        }
        if self.find(fork).await?.is_some() {
            return Err(PlatformError::taken(fork));
        }
        let known = self.get(source).await?;
        let mut document = known.marked().await?;
        let name = format!("{}-{fork}", self.stack);
        let made = self.gateway()?.fork(&known.id, &name).await?;
        let plane = self.plane_of(&made.sandbox, Some(&made.pass))?;
        let forked = self.found(fork, &made.sandbox.id, &plane);
        self.await_plane(&forked).await?;
        document.owner = self.owner(fork);
        document.spec.name = None;
        plane.set_value(document::KEY, &document).await?;
        self.tell_fork(&forked, &document).await
    }

    async fn pause(&self, sandbox: &SandboxName) -> Result<()> {
        self.stop_sandbox(sandbox).await
    }

    async fn resume(&self, sandbox: &SandboxName) -> Result<()> {
        Iris::resume(self, sandbox).await.map(drop)
    }

    async fn write_file(
        &self,
        sandbox: &SandboxName,
        path: &str,
        from: &mut (dyn AsyncRead + Send + Unpin),
        mode: u32,
    ) -> Result<()> {
        self.upload(sandbox, path, from, mode).await
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
        secrets: &Secrets,
    ) -> Result<()> {
        self.change(sandbox, change, secrets).await
    }

    async fn exec(
        &self,
        sandbox: &SandboxName,
        argv: &[String],
        secrets: &Secrets,
        streams: Streams,
    ) -> Result<i32> {
        self.exec_plain(sandbox, argv, secrets, streams).await
    }

    async fn exec_in_service(
        &self,
        service: &ServiceAddress,
        argv: &[String],
        secrets: &Secrets,
        streams: Streams,
    ) -> Result<i32> {
        self.exec_as(service, argv, secrets, streams).await
    }
}
