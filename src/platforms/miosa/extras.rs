//! What is no state of a manifest: what there is, ports, variables, snapshots.

use std::collections::BTreeMap;

use futures_util::future::{join, try_join};
use secrecy::{ExposeSecret, SecretString};
use serde_json::json;

use super::wire::Stage;
use super::{Miosa, ledger};
use crate::model::SandboxName;
use crate::platforms::{
    Attached, Attachment, Endpoint, InventoryEntry, InventoryQuery, Observe, PlatformError, Result,
    Usage,
};

impl Miosa {
    pub(super) async fn list_all(&self, query: &InventoryQuery) -> Result<Vec<InventoryEntry>> {
        self.only_own(query)?;
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

    /// Either is told where the other is not.
    pub(super) async fn tell_usage(&self, sandbox: &SandboxName) -> Result<Usage> {
        let known = self.get(sandbox).await?;
        match join(self.api.usage(&known.id), self.api.metrics(&known.id)).await {
            (Err(error), Err(_)) => Err(error.into()),
            (total, last_hour) => Ok(Usage {
                total: total.ok(),
                last_hour: last_hour.ok(),
            }),
        }
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

    pub(super) async fn list_variables(
        &self,
        sandbox: &SandboxName,
        kind: Attachment,
    ) -> Result<Vec<Attached>> {
        self.only_variables(kind)?;
        if kind == Attachment::Secret {
            return Err(self.cannot("tell secrets from variables: it shows the values of neither"));
        }
        let known = self.get(sandbox).await?;
        let mut names = self.api.variables(&known.id).await?;
        names.sort();
        Ok(names.into_iter().map(Attached::named).collect())
    }

    fn only_variables(&self, kind: Attachment) -> Result<()> {
        match kind {
            Attachment::Variable | Attachment::Secret => Ok(()),
            Attachment::File | Attachment::Volume => Err(self.cannot_attach(kind)),
        }
    }

    pub(super) async fn drop_variable(
        &self,
        sandbox: &SandboxName,
        kind: Attachment,
        name: &str,
    ) -> Result<()> {
        self.only_variables(kind)?;
        let known = self.get(sandbox).await?;
        Ok(self.api.unset_variable(&known.id, name).await?)
    }

    pub(super) async fn put_variable(
        &self,
        sandbox: &SandboxName,
        kind: Attachment,
        name: &str,
        value: &SecretString,
    ) -> Result<()> {
        self.only_variables(kind)?;
        let known = self.get(sandbox).await?;
        let others = self.api.variables(&known.id).await?;
        if !self.options.merges_variables && others.iter().any(|other| other != name) {
            let text = "Miosa may replace all variables when one is set, and hides their values";
            return Err(PlatformError::new(text)
                .hint("if yours does not, say `merges_variables: true` in `platforms:`"));
        }
        let mut variable = json!({ "key": name, "value": value.expose_secret() });
        if kind == Attachment::Secret {
            variable["encrypted"] = true.into();
        }
        Ok(self
            .api
            .set_variables(&known.id, &json!([variable]))
            .await?)
    }
}
