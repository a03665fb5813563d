//! Changing sandboxes: protocol page miosa, §4 and §8.

use std::time::Duration;

use async_trait::async_trait;
use secrecy::SecretString;
use serde_json::{Map, Value, json};
use tokio::io::AsyncRead;
use tokio::time::{Instant, sleep};

use super::client::key;
use super::size::size;
use super::wire::{Record, Stage};
use super::{Miosa, ledger};
use crate::model::{
    Checkpoint, DesiredSandbox, Forked, HumanDuration, Restored, SandboxName, SandboxSpec, Secrets,
    ServiceAddress, ServiceName, ServiceSpec, show_duration,
};
use crate::platforms::cloud::http::HttpError;
use crate::platforms::{
    Act, Attachment, Described, Endpoint, FileChange, FileEntry, ForkOptions, Link, LinkId, LinkTo,
    PlatformError, Progress, Result, Streams,
};

/// The pauses between two looks at a sandbox: from the first on, up to the second.
const PAUSES: [Duration; 2] = [Duration::from_millis(250), Duration::from_secs(2)];

pub(super) const MIB: u64 = 1 << 20;

pub(super) fn object(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(map) => map,
        _ => Map::new(),
    }
}

/// What can be changed on a sandbox that is there.
fn mutable(stack: &str, sandbox: &SandboxName, spec: &SandboxSpec) -> Map<String, Value> {
    let name = spec
        .name
        .clone()
        .unwrap_or_else(|| format!("{stack}-{sandbox}"));
    let mut fields = object(json!({
        "name": name,
        "tags": spec.topics,
        // Services are to go on.
        "always_on": spec.keep_alive.is_none(),
    }));
    if let Some(time) = spec.keep_alive {
        fields.insert("timeout_sec".to_owned(), seconds(time.0).into());
    }
    fields
}

fn seconds(time: Duration) -> u64 {
    let more = u64::from(time.subsec_nanos() > 0);
    time.as_secs() + more
}

/// Lays what a sandbox says of itself over what it was made from: it may have been changed by hand.
pub(super) fn lay_over(spec: &mut SandboxSpec, record: &Record) {
    match (record.always_on, record.timeout_sec) {
        (Some(true), _) => spec.keep_alive = None,
        (Some(false), Some(timeout))
            if spec.keep_alive.map(|it| seconds(it.0)) != Some(timeout) =>
        {
            spec.keep_alive = Some(HumanDuration(Duration::from_secs(timeout)));
        }
        _ => {}
    }
    if let (Some(wanted), Some(name)) = (&spec.name, &record.name)
        && wanted != name
    {
        spec.name = Some(name.clone());
    }
    if let (Some(wanted), Some(template)) = (&spec.base, &record.template_id)
        && wanted != template
    {
        spec.base = Some(template.clone());
    }
    let all = spec.vcpus.is_some() && spec.memory.is_some() && spec.disk.is_some();
    if all {
        spec.vcpus = record.cpu_count.or(spec.vcpus);
        let bytes = |mib: Option<u64>, wanted: Option<u64>| match (mib, wanted) {
            (Some(mib), Some(wanted)) if wanted.div_ceil(MIB) == mib => Some(wanted),
            (Some(mib), _) => Some(mib * MIB),
            (None, wanted) => wanted,
        };
        spec.memory = bytes(record.memory_mb, spec.memory);
        spec.disk = bytes(record.disk_size_mb, spec.disk);
    }
}

impl Miosa {
    /// The sandbox to go on with, after `made` was: an apply that was killed, or one on another machine, may
    /// have asked for one at the same time. All take the oldest, and each takes back what it has made.
    async fn the_first(&self, sandbox: &SandboxName, made: String) -> Result<String> {
        let owned = self.owned().await?;
        let own = owned.iter().filter(|(owner, _)| owner == sandbox);
        let first = own.min_by_key(|(_, record)| (record.created_at, &record.id));
        let first = first.map_or(&made, |(_, record)| &record.id);
        if *first != made {
            self.api.delete(&made).await?;
        }
        Ok(self.found(sandbox, first).id.clone())
    }

    /// Waits until a sandbox can run commands, and resumes it if it is paused.
    pub(super) async fn bring_up(&self, id: &str) -> Result<()> {
        let began = Instant::now();
        let mut pause = PAUSES[0];
        loop {
            let record = self.api.show(id).await?;
            let record =
                record.ok_or_else(|| PlatformError::new(format!("sandbox {id} is gone")))?;
            match record.stage() {
                Stage::Running if self.api.is_ready(id).await? => return Ok(()),
                Stage::Error => return Err(PlatformError::new(record.last_error())),
                Stage::Destroyed => {
                    return Err(PlatformError::new(format!("sandbox {id} was destroyed")));
                }
                Stage::Down if record.checkpoint_pending != Some(true) => {
                    match self.api.resume(id).await {
                        Ok(_) => continue,
                        // Too soon after it was paused.
                        Err(error) if is_passing(&error) => {}
                        Err(error) => return Err(error.into()),
                    }
                }
                Stage::Running | Stage::Moving | Stage::Down => {}
            }
            let limit = self.options.ready_timeout;
            if began.elapsed() >= limit {
                let (state, time) = (record.word(), show_duration(limit));
                let text = format!("sandbox {id} is not ready after {time}, but `{state}`");
                return Err(PlatformError::new(text));
            }
            sleep(pause).await;
            pause = (pause * 2).min(PAUSES[1]);
        }
    }

    async fn bring_down(&self, id: &str, to: Down) -> Result<()> {
        let began = Instant::now();
        loop {
            match self.api.show(id).await? {
                Some(record) if record.stage() == Stage::Moving => {}
                Some(record) if record.stage() == Stage::Running => {
                    match to {
                        Down::Stopped => self.api.stop(id).await?,
                        Down::Paused => self.api.pause(id).await?,
                    };
                }
                _ => return Ok(()),
            }
            if began.elapsed() >= self.options.ready_timeout {
                return Err(PlatformError::new(format!("sandbox {id} does not stop")));
            }
            if self
                .api
                .show(id)
                .await?
                .is_some_and(|it| it.stage() == Stage::Down)
            {
                return Ok(());
            }
            sleep(PAUSES[0]).await;
        }
    }
}

/// How a sandbox is brought down.
#[derive(Clone, Copy)]
enum Down {
    /// Its disk is kept.
    Stopped,
    /// Its memory, too.
    Paused,
}

fn is_passing(error: &HttpError) -> bool {
    matches!(error.status, Some(409 | 503)) || error.has_code("RESTORE_TRANSIENT")
}

#[async_trait]
impl Act for Miosa {
    async fn create_sandbox(
        &self,
        sandbox: &SandboxName,
        spec: &SandboxSpec,
        _secrets: &Secrets,
    ) -> Result<()> {
        if let Some(known) = self.find(sandbox).await? {
            // An apply that was cut off has made it.
            return self.start(&known.id, sandbox, spec).await;
        }
        let mut body = mutable(&self.stack, sandbox, spec);
        body.extend(size(spec)?);
        body.insert("persistent".to_owned(), true.into());
        let metadata = ledger::of_sandbox(&self.stack, sandbox, spec);
        body.insert("metadata".to_owned(), Value::Object(metadata));
        let project = ledger::project(&self.stack);
        body.insert("external_project_id".to_owned(), project.into());
        if let Some(base) = &spec.base {
            body.insert("template_id".to_owned(), base.as_str().into());
        }
        let id = match self.api.create(&Value::Object(body), &key()).await {
            Ok(record) => self.the_first(sandbox, record.id).await?,
            Err(error) if error.may_be_done() => match self.find(sandbox).await? {
                Some(known) => known.id.clone(),
                None => return Err(error.into()),
            },
            Err(error) => return Err(error.into()),
        };
        self.bring_up(&id).await
    }

    async fn update_sandbox(
        &self,
        sandbox: &SandboxName,
        spec: &SandboxSpec,
        _secrets: &Secrets,
    ) -> Result<()> {
        let known = self.get(sandbox).await?;
        // Before it is written down that it has the size: what fails is tried again.
        self.resize(sandbox, &known, spec).await?;
        let fields = mutable(&self.stack, sandbox, spec);
        self.rewrite(sandbox, &known, spec, fields).await
    }

    async fn start_sandbox(&self, sandbox: &SandboxName, _spec: &SandboxSpec) -> Result<()> {
        let known = self.get(sandbox).await?;
        self.bring_up(&known.id).await
    }

    async fn stop_sandbox(&self, sandbox: &SandboxName) -> Result<()> {
        let known = self.get(sandbox).await?;
        self.bring_down(&known.id, Down::Stopped).await
    }

    async fn delete_sandbox(&self, sandbox: &SandboxName) -> Result<()> {
        let Some(known) = self.find(sandbox).await? else {
            return Ok(());
        };
        let record = self.api.show(&known.id).await?;
        if record.is_some_and(|record| record.stage() != Stage::Destroyed) {
            // Whose it is may have changed.
            self.record(&known).await?;
            self.api.delete(&known.id).await?;
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
        _secrets: &Secrets,
    ) -> Result<()> {
        self.define(service, spec).await
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
        self.end(service).await
    }

    async fn delete_service(&self, service: &ServiceAddress) -> Result<()> {
        self.forget(service).await
    }

    async fn send_stdin(&self, service: &ServiceAddress, data: &str, eof: bool) -> Result<()> {
        self.write_stdin(service, data, eof).await
    }

    async fn signal(&self, service: &ServiceAddress, signal: &str) -> Result<()> {
        self.send_signal(service, signal).await
    }

    async fn share(
        &self,
        sandbox: &SandboxName,
        to: LinkTo,
        time: Option<Duration>,
    ) -> Result<(Link, SecretString)> {
        self.make_link(sandbox, to, time).await
    }

    async fn unshare(&self, sandbox: &SandboxName, link: &LinkId) -> Result<()> {
        self.take_link(sandbox, link).await
    }

    async fn kill(&self, sandbox: &SandboxName, id: &str, signal: Option<&str>) -> Result<()> {
        self.end_process(sandbox, id, signal).await
    }

    async fn create_checkpoint(
        &self,
        sandbox: &SandboxName,
        name: Option<&str>,
        _secrets: &Secrets,
    ) -> Result<Checkpoint> {
        self.snapshot(sandbox, name).await
    }

    async fn restore_checkpoint(
        &self,
        sandbox: &SandboxName,
        id: &str,
        _secrets: &Secrets,
    ) -> Result<Restored> {
        self.rewind(sandbox, id).await
    }

    async fn fork_sandbox(
        &self,
        source: &SandboxName,
        fork: &SandboxName,
        options: &ForkOptions,
        secrets: &Secrets,
    ) -> Result<Forked> {
        self.copy(source, fork, options, secrets).await
    }

    async fn pause(&self, sandbox: &SandboxName) -> Result<()> {
        let known = self.get(sandbox).await?;
        self.bring_down(&known.id, Down::Paused).await
    }

    async fn resume(&self, sandbox: &SandboxName) -> Result<()> {
        let known = self.get(sandbox).await?;
        self.bring_up(&known.id).await
    }

    async fn extend(&self, sandbox: &SandboxName, time: Option<Duration>) -> Result<()> {
        let known = self.get(sandbox).await?;
        Ok(self.api.extend(&known.id, time.map(seconds)).await?)
    }

    async fn delete_checkpoint(&self, sandbox: &SandboxName, id: &str) -> Result<()> {
        let known = self.get(sandbox).await?;
        Ok(self.api.delete_snapshot(&known.id, id).await?)
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

    async fn expose(
        &self,
        sandbox: &SandboxName,
        port: u16,
        description: Option<&str>,
    ) -> Result<Endpoint> {
        self.make_preview(sandbox, port, description).await
    }

    async fn unexpose(&self, sandbox: &SandboxName, port: u16) -> Result<()> {
        self.end_preview(sandbox, port).await
    }

    async fn attach(
        &self,
        sandbox: &SandboxName,
        kind: Attachment,
        name: &str,
        value: &SecretString,
    ) -> Result<()> {
        self.put_variable(sandbox, kind, name, value).await
    }

    async fn detach(&self, sandbox: &SandboxName, kind: Attachment, name: &str) -> Result<()> {
        self.drop_variable(sandbox, kind, name).await
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

impl Miosa {
    /// Brings up what is there already, and makes it what is wanted.
    async fn start(&self, id: &str, sandbox: &SandboxName, spec: &SandboxSpec) -> Result<()> {
        self.bring_up(id).await?;
        self.store(sandbox, spec).await
    }

    /// Stores a spec.
    async fn store(&self, sandbox: &SandboxName, spec: &SandboxSpec) -> Result<()> {
        let known = self.get(sandbox).await?;
        let fields = mutable(&self.stack, sandbox, spec);
        self.rewrite(sandbox, &known, spec, fields).await
    }
}
