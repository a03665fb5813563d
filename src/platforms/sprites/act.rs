//! Writing: sprites, and what the other files do with services.

use std::time::Duration;

use async_trait::async_trait;
use futures_util::future::try_join_all;
use tokio::io::AsyncRead;
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep};

use super::labels::{self, Found, default_name};
use super::wire::{Config, CreateSprite, Sprite, UpdateSprite, UrlSettings};
use super::{Seen, Sprites};
use crate::model::{
    Checkpoint, DesiredSandbox, Forked, Restored, SandboxName, SandboxSpec, Secrets,
    ServiceAddress, ServiceKind, ServiceName, ServiceSpec,
};
use crate::platforms::cloud::http::HttpError;
use crate::platforms::{
    Act, Described, FileChange, FileEntry, ForkOptions, PlatformError, Process, Progress, Result,
    Streams, Upgraded,
};

/// How often a create is tried whose end is not known, and that has come to nothing.
const TRIES: usize = 3;

/// How long a name may be taken by a sprite that cannot be read yet: one that an apply which was killed
/// has asked for is still being made.
const MADE_WITHIN: Duration = Duration::from_secs(60);

/// The pauses between two looks at such a sprite: from the first on, up to the second.
const PAUSES: [Duration; 2] = [Duration::from_millis(50), Duration::from_secs(1)];

const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;

impl Sprites {
    fn size(&self, spec: &SandboxSpec) -> Config {
        Config {
            cpus: spec.vcpus,
            ram_mb: spec.memory.map(|bytes| bytes.div_ceil(MIB)),
            storage_gb: spec.disk.map(|bytes| bytes.div_ceil(GIB)),
            region: self.region.clone(),
        }
    }

    /// Creates a sprite. The name is its key: whether it was done is told by reading it.
    async fn create(&self, sandbox: &SandboxName, spec: &SandboxSpec) -> Result<String> {
        let owner = self.owner(sandbox);
        let name = spec.name.clone();
        let name = name.unwrap_or_else(|| default_name(&self.stack, sandbox));
        let body = CreateSprite {
            labels: labels::labels(&owner, spec, &[]),
            url_settings: UrlSettings::new(spec.public),
            config: self.size(spec),
            name: name.clone(),
        };
        let mut tries = 1;
        loop {
            let Err(error) = self.client.create_sprite(&body).await else {
                return Ok(name);
            };
            // Also 400 may mean that an earlier try was done: the name is taken then.
            let refused = matches!(error.status, Some(400 | 409));
            if !error.may_be_done() && !refused {
                return Err(error.into());
            }
            let found = match is_taken(&error) {
                true => self.appearing(&name).await?,
                false => self.client.sprite(&name).await?,
            };
            match found {
                Some(found) if self.is_ours(&found, sandbox) => {
                    self.write_labels(sandbox, &name, spec, &found).await?;
                    return Ok(name);
                }
                Some(_) => {
                    let text = format!("there is a sprite `{name}` that is not of this sandbox");
                    let hint = "give the sandbox another `name:`";
                    return Err(PlatformError::new(text).hint(hint));
                }
                None if error.may_be_done() && tries < TRIES => tries += 1,
                None => return Err(error.into()),
            }
        }
    }

    /// The sprite that has this name, once it can be read.
    async fn appearing(&self, name: &str) -> Result<Option<Sprite>> {
        let began = Instant::now();
        let mut pause = PAUSES[0];
        loop {
            let found = self.client.sprite(name).await?;
            if found.is_some() || began.elapsed() >= MADE_WITHIN {
                return Ok(found);
            }
            sleep(pause).await;
            pause = (pause * 2).min(PAUSES[1]);
        }
    }

    fn is_ours(&self, sprite: &Sprite, sandbox: &SandboxName) -> bool {
        match labels::find(sprite, &self.stack) {
            Found::Ours(found, _) | Found::Damaged(found) => found == *sandbox,
            Found::NotOurs => false,
        }
    }

    pub(super) async fn write_labels(
        &self,
        sandbox: &SandboxName,
        name: &str,
        spec: &SandboxSpec,
        before: &Sprite,
    ) -> Result<()> {
        let before = before.labels.as_deref().unwrap_or_default();
        let body = UpdateSprite {
            labels: labels::labels(&self.owner(sandbox), spec, before),
            url_settings: UrlSettings::new(spec.public),
        };
        Ok(self.client.update_sprite(name, &body).await?)
    }

    /// A sprite of ours as it is now, by its name.
    async fn find(&self, sandbox: &SandboxName, name: &str) -> Result<Option<Sprite>> {
        let Some(found) = self.client.sprite(name).await? else {
            return Ok(None);
        };
        match self.is_ours(&found, sandbox) {
            true => Ok(Some(found)),
            false => {
                let text =
                    format!("sprite `{name}` does not carry the mark of `{sandbox}` any more");
                Err(PlatformError::new(text))
            }
        }
    }

    async fn replace(&self, sandbox: &SandboxName, spec: &SandboxSpec) -> Result<()> {
        let seen = self.seen(sandbox).await?;
        let found = self.find(sandbox, &seen.sprite).await?;
        let gone = || PlatformError::new(format!("sprite `{}` is gone", seen.sprite));
        self.write_labels(sandbox, &seen.sprite, spec, &found.ok_or_else(gone)?)
            .await?;
        if let Some(seen) = self.lock().get_mut(sandbox) {
            seen.spec = spec.clone();
        }
        Ok(())
    }

    async fn remove(&self, sandbox: &SandboxName) -> Result<()> {
        // Read again, because nothing brings a sprite back.
        self.lock().remove(sandbox);
        let listings = self.read_all().await?;
        let seen = self.lock().get(sandbox).cloned();
        let seen: Seen = match (seen, listings.get(sandbox)) {
            (Some(seen), _) => seen,
            (None, None) => return Ok(()),
            (None, Some(_)) => return Err(PlatformError::new("it cannot be read now")),
        };
        if !seen.foreign.is_empty() {
            let names: Vec<_> = seen.foreign.iter().map(String::as_str).collect();
            let text = format!(
                "sprite `{}` has services that gabion has not made: {}",
                seen.sprite,
                names.join(", ")
            );
            return Err(PlatformError::new(text).hint("delete them, or the sprite, by hand"));
        }
        match self.client.delete_sprite(&seen.sprite).await {
            Err(error) if error.may_be_done() => {
                if self.client.sprite(&seen.sprite).await?.is_some() {
                    return Err(error.into());
                }
            }
            other => other?,
        }
        self.lock().remove(sandbox);
        Ok(())
    }

    /// Remembers that a service is down.
    pub(super) fn note_stopped(&self, address: &ServiceAddress) {
        let mut seen = self.lock();
        let seen = seen.get_mut(&address.sandbox);
        let service = seen.and_then(|seen| seen.services.get_mut(&address.service));
        if let Some(state) = service.and_then(|it| it.service.state.as_mut()) {
            state.status = super::wire::Status::Stopped;
            state.pid = None;
            state.started_at = None;
        }
    }
}

/// Whether a create was refused because there is a sprite of the name (protocol page sprites, §2: 400, with
/// words of the platform's own).
fn is_taken(error: &HttpError) -> bool {
    let told = [error.code.as_deref().unwrap_or_default(), &error.message];
    let says = |words: &str| told.iter().any(|it| it.to_lowercase().contains(words));
    error.status == Some(409) || error.status == Some(400) && (says("taken") || says("exist"))
}

#[async_trait]
impl Act for Sprites {
    async fn create_sandbox(
        &self,
        sandbox: &SandboxName,
        spec: &SandboxSpec,
        _secrets: &Secrets,
    ) -> Result<()> {
        let sprite = self.create(sandbox, spec).await?;
        let seen = Seen {
            sprite,
            spec: spec.clone(),
            services: Default::default(),
            foreign: Default::default(),
            stopped: false,
        };
        self.lock().insert(sandbox.clone(), seen);
        Ok(())
    }

    async fn update_sandbox(
        &self,
        sandbox: &SandboxName,
        spec: &SandboxSpec,
        _secrets: &Secrets,
    ) -> Result<()> {
        self.replace(sandbox, spec).await
    }

    /// A sprite wakes on any request; one that was stopped is to begin afresh.
    async fn start_sandbox(&self, sandbox: &SandboxName, _: &SandboxSpec) -> Result<()> {
        self.begin_afresh(sandbox).await
    }

    /// A sprite sleeps when it is idle: only its services can be stopped.
    async fn stop_sandbox(&self, sandbox: &SandboxName) -> Result<()> {
        let seen = self.seen(sandbox).await?;
        let live = seen.services.iter().filter(|(_, it)| {
            // One that has failed is started again.
            it.service.status() != super::wire::Status::Stopped
        });
        let stops = live.map(|(name, it)| {
            let address = ServiceAddress::new(sandbox.clone(), name.clone());
            let (sprite, grace) = (&seen.sprite, it.mark.spec().stop.grace.0);
            async move { self.stop(sprite, &address, grace).await }
        });
        try_join_all(stops).await?;
        if let Some(seen) = self.lock().get_mut(sandbox) {
            seen.stopped = true;
        }
        Ok(())
    }

    async fn delete_sandbox(&self, sandbox: &SandboxName) -> Result<()> {
        self.remove(sandbox).await
    }

    async fn adopt(
        &self,
        found: &Described,
        sandbox: &SandboxName,
        wanted: &DesiredSandbox,
        restart: bool,
    ) -> Result<Vec<ServiceName>> {
        self.take_in(found, sandbox, wanted, restart).await
    }

    async fn upsert_service(
        &self,
        service: &ServiceAddress,
        spec: &ServiceSpec,
        secrets: &Secrets,
    ) -> Result<()> {
        self.keep(service, spec, secrets).await
    }

    async fn start_service(
        &self,
        service: &ServiceAddress,
        spec: &ServiceSpec,
        secrets: &Secrets,
        progress: &dyn Progress,
    ) -> Result<()> {
        match spec.kind {
            ServiceKind::Service => self.start(service, spec, secrets, progress).await,
            ServiceKind::Task => self.run_task(service, spec, secrets, progress).await,
        }
    }

    async fn stop_service(&self, service: &ServiceAddress) -> Result<()> {
        let (sprite, found) = self.seen_service(service).await?;
        match found {
            Some(found) => {
                let grace = found.mark.spec().stop.grace.0;
                self.stop(&sprite, service, grace).await
            }
            None => Ok(()),
        }
    }

    async fn delete_service(&self, service: &ServiceAddress) -> Result<()> {
        let (sprite, found) = self.seen_service(service).await?;
        let Some(found) = found else {
            return Ok(());
        };
        if found.service.status() != super::wire::Status::Stopped {
            let grace = found.mark.spec().stop.grace.0;
            self.stop(&sprite, service, grace).await?;
        }
        let name = service.service.as_str();
        match self.client.delete_service(&sprite, name).await {
            Err(error) if error.may_be_done() => {
                if self.read(&sprite, service).await?.is_some() {
                    return Err(error.into());
                }
            }
            other => other?,
        }
        self.note(service, None);
        Ok(())
    }

    async fn signal(&self, service: &ServiceAddress, signal: &str) -> Result<()> {
        let (sprite, _) = self.seen_service(service).await?;
        let name = service.service.as_str();
        Ok(self.client.signal(&sprite, name, signal).await?)
    }

    async fn kill(&self, sandbox: &SandboxName, id: &str, signal: Option<&str>) -> Result<()> {
        self.end_session(sandbox, id, signal).await
    }

    async fn join(
        &self,
        sandbox: &SandboxName,
        process: &Process,
        streams: Streams,
    ) -> Result<i32> {
        self.join_session(sandbox, process, streams).await
    }

    /// The answer tells no version.
    async fn upgrade(&self, sandbox: &SandboxName) -> Result<Option<Upgraded>> {
        let seen = self.seen(sandbox).await?;
        self.client.upgrade(&seen.sprite).await?;
        Ok(None)
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

    async fn create_checkpoint(
        &self,
        sandbox: &SandboxName,
        name: Option<&str>,
        secrets: &Secrets,
    ) -> Result<Checkpoint> {
        self.make_checkpoint(sandbox, name, secrets).await
    }

    async fn wait_checkpoint(&self, sandbox: &SandboxName, id: &str) -> Result<Checkpoint> {
        // One that is in the list is written.
        let all = self.list_checkpoints(sandbox).await?;
        let found = all.into_iter().find(|it| it.id == id);
        found.ok_or_else(|| PlatformError::new(format!("there is no checkpoint `{id}`")))
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
        let seen = self.seen(sandbox).await?;
        Ok(self.client.delete_checkpoint(&seen.sprite, id).await?)
    }

    async fn fork_sandbox(
        &self,
        _: &SandboxName,
        _: &SandboxName,
        _: &ForkOptions,
        _: &Secrets,
    ) -> Result<Forked> {
        Err(PlatformError::new("Sprites cannot make a copy of a sprite"))
    }

    async fn forward(&self, sandbox: &SandboxName, port: u16, from: TcpStream) -> Result<()> {
        self.carry(sandbox, port, from).await
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
        let seen = self.seen(sandbox).await?;
        let around = super::exec::environment(&seen.spec);
        self.run(&seen.sprite, argv, &around, secrets, streams)
            .await
    }

    async fn exec_in_service(
        &self,
        service: &ServiceAddress,
        argv: &[String],
        secrets: &Secrets,
        streams: Streams,
    ) -> Result<i32> {
        let (sprite, found) = self.seen_service(service).await?;
        let Some(found) = found else {
            return Err(PlatformError::new(format!(
                "there is no service `{service}`"
            )));
        };
        let spec = found.mark.spec().clone();
        self.run(&sprite, argv, &spec, secrets, streams).await
    }
}
