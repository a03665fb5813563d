//! The two traits.

use std::collections::BTreeMap;

use async_trait::async_trait;
use secrecy::SecretString;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::sync::mpsc;

use super::super::cloud::supply::shell::command;
use super::command::environment;
use super::{Pocketenv, capabilities, label};
use crate::model::{
    Capabilities, Listing, SandboxName, SandboxSpec, Secrets, ServiceAddress, ServiceSpec,
};
use crate::platforms::{
    Act, Endpoint, InventoryEntry, InventoryQuery, LogLine, LogQuery, Observe, PlatformError,
    Progress, Result, Streams, VariableKind,
};

#[async_trait]
impl Observe for Pocketenv {
    fn capabilities(&self) -> &'static Capabilities {
        capabilities()
    }

    async fn observe(&self) -> Result<BTreeMap<SandboxName, Listing>> {
        self.0.observe_all().await
    }

    async fn logs(
        &self,
        service: &ServiceAddress,
        query: LogQuery,
    ) -> Result<mpsc::Receiver<LogLine>> {
        self.0.clone().read_log(service, query).await
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
                Some((text, mark)) => (text, Some(mark.owner.stack)),
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

    async fn variables(&self, sandbox: &SandboxName, kind: VariableKind) -> Result<Vec<String>> {
        let id = self.0.id(sandbox).await?;
        let all = self.0.api.attached(&id, kind).await?;
        let mut names: Vec<_> = all.into_iter().map(|it| it.name).collect();
        names.sort();
        Ok(names)
    }
}

#[async_trait]
impl Act for Pocketenv {
    async fn create_sandbox(&self, sandbox: &SandboxName, spec: &SandboxSpec) -> Result<()> {
        self.0.create(sandbox, spec).await
    }

    async fn update_sandbox(&self, sandbox: &SandboxName, spec: &SandboxSpec) -> Result<()> {
        let id = self.0.id(sandbox).await?;
        self.0.describe(&id, sandbox, spec).await?;
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

    async fn set_variable(
        &self,
        sandbox: &SandboxName,
        kind: VariableKind,
        name: &str,
        value: &SecretString,
    ) -> Result<()> {
        let id = self.0.id(sandbox).await?;
        self.0.set_attached(&id, kind, name, value).await
    }

    async fn unset_variable(
        &self,
        sandbox: &SandboxName,
        kind: VariableKind,
        name: &str,
    ) -> Result<()> {
        let id = self.0.id(sandbox).await?;
        let all = self.0.api.attached(&id, kind).await?;
        match all.iter().find(|it| it.name == name) {
            Some(it) => self.0.remove_attached(kind, &id, &it.id).await,
            None => Ok(()),
        }
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
        let mut env = ours.mark.spec.env;
        env.retain(|_, value| !value.contains("${secret."));
        let script = format!("{}{}", environment(&env, |_| None), command(argv));
        let ran = self.0.api.exec(&ours.sandbox.id, &script).await?;
        let written = async {
            streams.stdout.write_all(ran.stdout.as_bytes()).await?;
            streams.stdout.flush().await?;
            streams.stderr.write_all(ran.stderr.as_bytes()).await?;
            streams.stderr.flush().await
        };
        let written: std::io::Result<()> = written.await;
        written.map_err(|error| PlatformError::new(error.to_string()))?;
        Ok(ran.exit_code)
    }
}
