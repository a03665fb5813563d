//! What is no state of a manifest: what there is, ports, files, variables, snapshots.

use std::collections::BTreeMap;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use futures_util::future::try_join;
use jiff::Timestamp;
use secrecy::{ExposeSecret, SecretString};
use serde_json::{Value, json};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use super::command::WORKSPACE;
use super::wire::Stage;
use super::{Miosa, ledger};
use crate::model::{Checkpoint, SandboxName};
use crate::platforms::cloud::supply::shell::quote;
use crate::platforms::{
    Endpoint, InventoryEntry, InventoryQuery, Observe, PlatformError, Result, VariableKind,
};

/// The largest file that is copied in one request, in bytes.
const LARGEST: u64 = 32 << 20;

/// What a file is made with by the platform.
const MODE: u32 = 0o644;

fn broken(error: &std::io::Error) -> PlatformError {
    PlatformError::new(error.to_string())
}

/// A path of the sandbox: relative ones begin where services run.
fn absolute(path: &str) -> String {
    match path.starts_with('/') {
        true => path.to_owned(),
        false => format!("{WORKSPACE}/{path}"),
    }
}

impl Miosa {
    pub(super) async fn list_all(&self, query: &InventoryQuery) -> Result<Vec<InventoryEntry>> {
        if query.catalogue || query.actor.is_some() {
            return Err(self.cannot("list that"));
        }
        let all = self.api.list(None).await?;
        let alive = all.into_iter().filter(|it| it.stage() != Stage::Destroyed);
        let entry = |record: super::wire::Record| InventoryEntry {
            state: record.word().to_owned(),
            stack: ledger::owner(&record).map(|owner| owner.stack),
            name: record.name.unwrap_or_default(),
            id: record.id,
            description: None,
            url: record.preview_url,
            created_at: record.created_at,
        };
        Ok(query.page(alive.map(entry).collect()))
    }

    pub(super) async fn list_endpoints(&self, sandbox: &SandboxName) -> Result<Vec<Endpoint>> {
        let known = self.get(sandbox).await?;
        let record = self.record(&known).await?;
        let open = async {
            match record.is_ready() {
                true => self.api.ports(&known.id).await,
                false => Ok(Vec::new()),
            }
        };
        let (open, previews) = try_join(open, self.api.previews(&known.id)).await?;
        let mut all = BTreeMap::new();
        let endpoint = |port| Endpoint {
            port,
            service: None,
            url: None,
        };
        for port in open {
            all.insert(port, endpoint(port));
        }
        for (_, port, url) in previews {
            all.entry(port).or_insert_with(|| endpoint(port)).url = url;
        }
        for (name, ledger) in ledger::services(&record) {
            for port in ledger.spec.all_ports() {
                let endpoint = all.entry(port).or_insert_with(|| endpoint(port));
                endpoint.service = Some(name.clone());
            }
        }
        Ok(all.into_values().collect())
    }

    pub(super) async fn make_preview(
        &self,
        sandbox: &SandboxName,
        port: u16,
        description: Option<&str>,
    ) -> Result<Endpoint> {
        let known = self.get(sandbox).await?;
        let mut body = json!({ "port": port });
        if let Some(description) = description {
            body["title"] = description.into();
        }
        let url = self.api.expose(&known.id, &body).await?;
        Ok(Endpoint {
            port,
            service: None,
            url,
        })
    }

    pub(super) async fn end_preview(&self, sandbox: &SandboxName, port: u16) -> Result<()> {
        let known = self.get(sandbox).await?;
        for (id, of, _) in self.api.previews(&known.id).await? {
            if of == port {
                self.api.remove_preview(&known.id, &id).await?;
            }
        }
        Ok(())
    }

    pub(super) async fn download(
        &self,
        sandbox: &SandboxName,
        path: &str,
        to: &mut (dyn AsyncWrite + Send + Unpin),
    ) -> Result<()> {
        let known = self.get(sandbox).await?;
        let answer = self.api.read_file(&known.id, &absolute(path)).await?;
        to.write_all(&answer.body)
            .await
            .map_err(|error| broken(&error))?;
        to.flush().await.map_err(|error| broken(&error))
    }

    pub(super) async fn upload(
        &self,
        sandbox: &SandboxName,
        path: &str,
        from: &mut (dyn AsyncRead + Send + Unpin),
        mode: u32,
    ) -> Result<()> {
        let known = self.get(sandbox).await?;
        let mut bytes = Vec::new();
        let read = from.take(LARGEST + 1).read_to_end(&mut bytes).await;
        let size = read.map_err(|error| broken(&error))?;
        if size as u64 > LARGEST {
            return Err(PlatformError::new(
                "files of more than 32 MiB are not copied to Miosa",
            ));
        }
        let path = absolute(path);
        self.api
            .write_file(&known.id, &path, &STANDARD.encode(&bytes))
            .await?;
        if mode == MODE {
            return Ok(());
        }
        // The platform takes no mode. Its name for the workspace need not be a path in it.
        let inside = path
            .strip_prefix(WORKSPACE)
            .map(|rest| rest.trim_start_matches('/'));
        let inside = quote(inside.unwrap_or(&path));
        let script = format!(
            "chmod {mode:o} {} 2>/dev/null || chmod {mode:o} {inside}",
            quote(&path)
        );
        let ran = self
            .script(&known.id, &script.into(), Duration::from_secs(30))
            .await?;
        match ran.exit_code {
            0 => Ok(()),
            _ => Err(PlatformError::new(format!(
                "{path} was written, but not made {mode:o}"
            ))),
        }
    }

    pub(super) async fn list_variables(
        &self,
        sandbox: &SandboxName,
        kind: VariableKind,
    ) -> Result<Vec<String>> {
        if kind == VariableKind::Secret {
            return Err(self.cannot("tell secrets from variables: it shows the values of neither"));
        }
        let known = self.get(sandbox).await?;
        let mut names = self.api.variables(&known.id).await?;
        names.sort();
        Ok(names)
    }

    pub(super) async fn put_variable(
        &self,
        sandbox: &SandboxName,
        kind: VariableKind,
        name: &str,
        value: &SecretString,
    ) -> Result<()> {
        let known = self.get(sandbox).await?;
        let others = self.api.variables(&known.id).await?;
        if !self.options.merges_variables && others.iter().any(|other| other != name) {
            let text = "Miosa may replace all variables when one is set, and hides their values";
            return Err(PlatformError::new(text)
                .hint("if yours does not, say `merges_variables: true` in `platforms:`"));
        }
        let mut variable = json!({ "key": name, "value": value.expose_secret() });
        if kind == VariableKind::Secret {
            variable["encrypted"] = true.into();
        }
        Ok(self
            .api
            .set_variables(&known.id, &json!([variable]))
            .await?)
    }

    pub(super) async fn list_snapshots(&self, sandbox: &SandboxName) -> Result<Vec<Checkpoint>> {
        let known = self.get(sandbox).await?;
        let all = self.api.snapshots(&known.id).await?;
        let mut all: Vec<_> = all.iter().filter_map(checkpoint).collect();
        all.sort_by_key(|checkpoint| checkpoint.created_at);
        Ok(all)
    }

    pub(super) async fn snapshot(
        &self,
        sandbox: &SandboxName,
        name: Option<&str>,
    ) -> Result<Checkpoint> {
        let known = self.get(sandbox).await?;
        let made = self.api.create_snapshot(&known.id, name).await?;
        checkpoint(&made).ok_or_else(|| PlatformError::new("the snapshot that was made has no id"))
    }
}

/// A snapshot in our words; the platform tells neither its size nor what ran.
fn checkpoint(snapshot: &Value) -> Option<Checkpoint> {
    let text = |key: &str| snapshot[key].as_str().map(str::to_owned);
    let created_at = text("created_at").and_then(|text| text.parse().ok());
    Some(Checkpoint {
        id: text("id")?,
        name: text("comment").filter(|comment| !comment.is_empty()),
        created_at: created_at.unwrap_or_else(Timestamp::now),
        size_bytes: 0,
        copy_duration_ms: 0,
        running: Vec::new(),
        frozen: true,
    })
}
