//! The two traits.

use std::collections::BTreeMap;
use std::time::Duration;

use async_trait::async_trait;
use secrecy::SecretString;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::mpsc;

use super::super::cloud::supply::shell::{command, quote};
use super::command::{environment, surroundings};
use super::{Inner, Pocketenv, capabilities, label};
use crate::model::{
    Capabilities, Checkpoint, DesiredSandbox, Forked, Listing, Restored, SandboxName, SandboxSpec,
    Secrets, ServiceAddress, ServiceName, ServiceSpec,
};
use crate::platforms::{
    Act, Attached, Attachment, Described, Endpoint, ForkOptions, InventoryEntry, InventoryQuery,
    Key, LogLine, LogQuery, LogStream, NewKey, Observe, PlatformError, Progress, Result, Streams,
};

#[async_trait]
impl Observe for Pocketenv {
    fn capabilities(&self) -> &'static Capabilities {
        capabilities()
    }

    async fn observe(&self) -> Result<BTreeMap<SandboxName, Listing>> {
        self.0.observe_all().await
    }

    fn dates_lines(&self) -> bool {
        false
    }

    /// They are of one folder.
    fn checkpoints_hold_definitions(&self) -> bool {
        false
    }

    async fn logs(
        &self,
        service: &ServiceAddress,
        query: LogQuery,
    ) -> Result<mpsc::Receiver<LogLine>> {
        self.0.clone().read_log(service, query).await
    }

    async fn checkpoints(&self, sandbox: &SandboxName) -> Result<Vec<Checkpoint>> {
        self.0.list_backups(sandbox).await
    }

    async fn describe(&self, sandbox: Option<&str>) -> Result<Vec<Described>> {
        self.0.describe_all(sandbox).await
    }

    async fn inventory(&self, query: &InventoryQuery) -> Result<Vec<InventoryEntry>> {
        let all = match (query.catalogue, &query.actor) {
            (true, _) => self.0.api.catalogue().await?,
            (false, Some(actor)) => self.0.api.actor_sandboxes(actor).await?,
            (false, None) => self.0.all().await?,
        };
        let entries = all.into_iter().map(|sandbox| {
            let marked = label::of_sandbox(sandbox.description.as_deref());
            let (description, stack) = match marked {
                Some((text, label)) => (text, Some(label.mark.owner.stack)),
                None => (sandbox.description, None),
            };
            InventoryEntry {
                id: sandbox.id,
                name: sandbox.name,
                state: sandbox.status.unwrap_or_default(),
                stack,
                description,
                url: None,
                created_at: sandbox.created_at,
            }
        });
        Ok(query.page(entries.collect()))
    }

    async fn endpoints(&self, sandbox: &SandboxName) -> Result<Vec<Endpoint>> {
        self.0.endpoints_of(&self.0.id(sandbox).await?).await
    }

    async fn read_file(
        &self,
        sandbox: &SandboxName,
        path: &str,
        to: &mut (dyn AsyncWrite + Send + Unpin),
    ) -> Result<()> {
        let id = self.0.id(sandbox).await?;
        self.0.download(&id, path, to).await
    }

    async fn attached(&self, sandbox: &SandboxName, kind: Attachment) -> Result<Vec<Attached>> {
        let id = self.0.id(sandbox).await?;
        let all = self.0.api.attached(&id, kind).await?;
        let mut all: Vec<_> = all.into_iter().map(|it| it.shown()).collect();
        all.sort();
        Ok(all)
    }

    async fn keys(&self, sandbox: &SandboxName) -> Result<Vec<Key>> {
        self.0.keys_of(&self.0.id(sandbox).await?).await
    }
}

#[async_trait]
impl Act for Pocketenv {
    async fn create_sandbox(
        &self,
        sandbox: &SandboxName,
        spec: &SandboxSpec,
        secrets: &Secrets,
    ) -> Result<()> {
        self.0.create(sandbox, spec, secrets).await
    }

    async fn update_sandbox(
        &self,
        sandbox: &SandboxName,
        spec: &SandboxSpec,
        secrets: &Secrets,
    ) -> Result<()> {
        let id = self.0.id(sandbox).await?;
        self.0.redescribe(&id, sandbox, spec, secrets).await?;
        self.0.settle_editor(&id, spec.vscode).await
    }

    async fn start_sandbox(&self, sandbox: &SandboxName, spec: &SandboxSpec) -> Result<()> {
        self.0.start(&self.0.id(sandbox).await?, spec).await
    }

    async fn stop_sandbox(&self, sandbox: &SandboxName) -> Result<()> {
        match self.0.find(sandbox).await? {
            Some(id) => self.0.stop(&id).await,
            None => Ok(()),
        }
    }

    async fn delete_sandbox(&self, sandbox: &SandboxName) -> Result<()> {
        let Some(id) = self.0.find(sandbox).await? else {
            return Ok(());
        };
        self.0.remove(&id).await?;
        self.0.ids().remove(sandbox);
        Ok(())
    }

    async fn adopt(
        &self,
        found: &Described,
        sandbox: &SandboxName,
        wanted: &DesiredSandbox,
        _restart: bool,
    ) -> Result<Vec<ServiceName>> {
        self.0.take_in(found, sandbox, wanted).await?;
        Ok(Vec::new())
    }

    async fn upsert_service(
        &self,
        service: &ServiceAddress,
        spec: &ServiceSpec,
        secrets: &Secrets,
    ) -> Result<()> {
        self.0.upsert(service, spec, secrets).await
    }

    async fn start_service(
        &self,
        service: &ServiceAddress,
        spec: &ServiceSpec,
        secrets: &Secrets,
        progress: &dyn Progress,
    ) -> Result<()> {
        self.0
            .start_until_ready(service, spec, secrets, progress)
            .await
    }

    async fn stop_service(&self, service: &ServiceAddress) -> Result<()> {
        self.0.stop_one(service).await
    }

    async fn delete_service(&self, service: &ServiceAddress) -> Result<()> {
        self.0.delete_one(service).await
    }

    async fn write_file(
        &self,
        sandbox: &SandboxName,
        path: &str,
        from: &mut (dyn AsyncRead + Send + Unpin),
        mode: u32,
    ) -> Result<()> {
        let id = self.0.id(sandbox).await?;
        self.0.upload(&id, path, from, mode).await
    }

    async fn expose(
        &self,
        sandbox: &SandboxName,
        port: u16,
        description: Option<&str>,
    ) -> Result<Endpoint> {
        let id = self.0.id(sandbox).await?;
        let known = self.0.endpoints_of(&id).await?.into_iter();
        let mut known = known.filter(|it| it.port == port && it.url.is_some());
        match known.next() {
            Some(endpoint) => Ok(endpoint),
            None => self.0.expose_port(&id, port, description).await,
        }
    }

    async fn unexpose(&self, sandbox: &SandboxName, port: u16) -> Result<()> {
        let id = self.0.id(sandbox).await?;
        self.0.unexpose_port(&id, port).await
    }

    async fn open_editor(&self, sandbox: &SandboxName) -> Result<String> {
        let id = self.0.id(sandbox).await?;
        let url = self.0.expose_editor(&id).await?;
        url.ok_or_else(|| PlatformError::new("the platform does not tell where its editor is"))
    }

    async fn create_checkpoint(
        &self,
        sandbox: &SandboxName,
        name: Option<&str>,
        _secrets: &Secrets,
    ) -> Result<Checkpoint> {
        self.0.back_up(sandbox, name, None).await
    }

    async fn create_passing_checkpoint(
        &self,
        sandbox: &SandboxName,
        name: Option<&str>,
        time: Duration,
    ) -> Result<Checkpoint> {
        self.0.back_up(sandbox, name, Some(time)).await
    }

    async fn restore_checkpoint(
        &self,
        _sandbox: &SandboxName,
        id: &str,
        _secrets: &Secrets,
    ) -> Result<Restored> {
        self.0.bring_back(id).await
    }

    async fn delete_checkpoint(&self, _sandbox: &SandboxName, _id: &str) -> Result<()> {
        Err(self.cannot("delete checkpoints: it removes its backups when their time is over"))
    }

    async fn fork_sandbox(
        &self,
        _source: &SandboxName,
        _fork: &SandboxName,
        _options: &ForkOptions,
        _secrets: &Secrets,
    ) -> Result<Forked> {
        Err(self.cannot("make a copy of a sandbox"))
    }

    async fn attach(
        &self,
        sandbox: &SandboxName,
        kind: Attachment,
        name: &str,
        value: &SecretString,
    ) -> Result<()> {
        let id = self.0.id(sandbox).await?;
        self.0.set_attached(&id, kind, name, value).await
    }

    async fn detach(&self, sandbox: &SandboxName, kind: Attachment, name: &str) -> Result<()> {
        let id = self.0.id(sandbox).await?;
        let all = self.0.api.attached(&id, kind).await?;
        match all.iter().find(|it| it.name() == name) {
            Some(it) => self.0.remove_attached(kind, &id, &it.id).await,
            None => Ok(()),
        }
    }

    async fn write_folder(
        &self,
        sandbox: &SandboxName,
        path: &str,
        from: &mut (dyn AsyncRead + Send + Unpin),
        _secrets: &Secrets,
    ) -> Result<()> {
        let id = self.0.id(sandbox).await?;
        self.0.upload_folder(&id, path, from).await
    }

    async fn read_folder(
        &self,
        sandbox: &SandboxName,
        path: &str,
        to: &mut (dyn AsyncWrite + Send + Unpin),
        _secrets: &Secrets,
    ) -> Result<()> {
        let id = self.0.id(sandbox).await?;
        self.0.download_folder(&id, path, to).await
    }

    async fn set_key(&self, sandbox: &SandboxName, key: &NewKey) -> Result<()> {
        self.0.put_key(&self.0.id(sandbox).await?, key).await
    }

    /// Runs it to its end; it gets no input. Variables of the sandbox that hold secrets are left out: they
    /// would have to be in the command.
    async fn exec(
        &self,
        sandbox: &SandboxName,
        argv: &[String],
        _secrets: &Secrets,
        mut streams: Streams,
    ) -> Result<i32> {
        let ours = self.0.list().await?.remove(sandbox);
        let ours =
            ours.ok_or_else(|| PlatformError::new(format!("sandbox `{sandbox}` does not exist")))?;
        let mut env = ours.label.mark.spec.env;
        env.retain(|_, value| !value.contains("${secret."));
        let script = format!("{}{}", environment(&env, |_| None), command(argv));
        self.0
            .execute(&ours.sandbox.id, &script, &mut streams)
            .await
    }

    async fn exec_in_service(
        &self,
        service: &ServiceAddress,
        argv: &[String],
        _secrets: &Secrets,
        mut streams: Streams,
    ) -> Result<i32> {
        let (sandbox, name) = (&service.sandbox, &service.service);
        let id = self.0.id(sandbox).await?;
        let found = self.0.service_of(&id, sandbox, name).await?;
        let missing = || PlatformError::new(format!("there is no service `{service}`"));
        let (_, label) = found.ok_or_else(missing)?;
        // The sandbox has its secrets by their names.
        let script = format!(
            "{}exec {}",
            surroundings(name, &label.mark.spec),
            command(argv)
        );
        let script = format!("/bin/sh -c {}", quote(&script));
        self.0.execute(&id, &script, &mut streams).await
    }
}

impl Inner {
    /// Runs a command line and passes on what it has written.
    async fn execute(&self, id: &str, script: &str, streams: &mut Streams) -> Result<i32> {
        let ran = self.api.exec(id, script).await?;
        for (stream, text) in [
            (LogStream::Stdout, ran.stdout),
            (LogStream::Stderr, ran.stderr),
        ] {
            streams.pass_on(stream, text.as_bytes()).await?;
        }
        Ok(ran.exit_code)
    }
}
