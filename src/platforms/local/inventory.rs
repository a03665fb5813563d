//! What there is on this machine, of every stack, and where its ports are reached.

use crate::model::{SandboxName, SandboxSpec};
use crate::platforms::{
    Attached, Attachment, Endpoint, InventoryEntry, InventoryQuery, Observe, PlatformError, Result,
};
use crate::supervisor;

use super::Local;

impl Local {
    /// Every local sandbox of this home.
    pub(super) fn list_all(&self, query: &InventoryQuery) -> Result<Vec<InventoryEntry>> {
        self.only_own(query)?;
        let mut entries = Vec::new();
        for stack in self.stacks.names()? {
            for (name, folder) in self.stacks.sandboxes(&stack)? {
                // Removed, or not completely made, by somebody else just now.
                let Some(spec) = folder.read_spec(&stack)? else {
                    continue;
                };
                let state = match supervisor::is_serving(folder.path()) {
                    true => "running",
                    false => "stopped",
                };
                entries.push(InventoryEntry {
                    id: format!("{stack}/{name}"),
                    name: shown_name(&stack, &name, &spec),
                    state: state.to_owned(),
                    stack: Some(stack.clone()),
                    description: spec.description,
                    url: None,
                    created_at: None,
                });
            }
        }
        Ok(query.page(entries))
    }

    /// The ports that services declare, which are those of this machine.
    pub(super) async fn list_endpoints(&self, sandbox: &SandboxName) -> Result<Vec<Endpoint>> {
        let read = self.read(sandbox, &self.folder(sandbox)).await?;
        let mut endpoints = Vec::new();
        for (name, service) in read
            .ok_or_else(|| PlatformError::no_sandbox(sandbox))?
            .services
        {
            let spec = service.spec().cloned();
            endpoints.extend(
                spec.iter()
                    .flat_map(|spec| spec.all_ports())
                    .map(|port| Endpoint {
                        port,
                        service: Some(name.clone()),
                        url: Some(format!("http://127.0.0.1:{port}")),
                    }),
            );
        }
        endpoints.sort();
        Ok(endpoints)
    }

    /// The variables that the manifest has set on a sandbox.
    pub(super) fn list_variables(
        &self,
        sandbox: &SandboxName,
        kind: Attachment,
    ) -> Result<Vec<Attached>> {
        let spec = self.folder(sandbox).read_spec(&self.stack)?;
        let spec = spec.ok_or_else(|| PlatformError::no_sandbox(sandbox))?;
        if let Attachment::File | Attachment::Volume = kind {
            return Err(self.cannot_attach(kind));
        }
        let of_kind = |value: &str| match value.contains("${secret.") {
            true => kind == Attachment::Secret,
            false => kind == Attachment::Variable,
        };
        let named = spec.env.into_iter().filter(|(_, value)| of_kind(value));
        Ok(named.map(|(name, _)| Attached::named(name)).collect())
    }
}

/// The name that a sandbox would have on any other platform.
fn shown_name(stack: &str, name: &SandboxName, spec: &SandboxSpec) -> String {
    spec.name
        .clone()
        .unwrap_or_else(|| format!("{stack}-{name}"))
}
