//! What is no state: what there is, and where it is reached.

use super::Sprites;
use crate::model::SandboxName;
use crate::platforms::cloud::mark::Owner;
use crate::platforms::{Endpoint, InventoryEntry, InventoryQuery, Observe, Result};

impl Sprites {
    /// Every sprite of the organisation.
    pub(super) async fn list_all(&self, query: &InventoryQuery) -> Result<Vec<InventoryEntry>> {
        self.only_own(query)?;
        let mut entries = Vec::new();
        for listed in query.page(self.client.sprites().await?) {
            // A list may leave out all but names.
            let whole = match listed.status {
                Some(_) => Some(listed),
                None => self.client.sprite(&listed.name).await?,
            };
            let Some(sprite) = whole else { continue };
            let labels = sprite.labels.iter().flatten();
            let mut owners = labels.filter_map(|label| Owner::from_label(label));
            entries.push(InventoryEntry {
                id: sprite.name.clone(),
                stack: owners.next().map(|owner| owner.stack),
                name: sprite.name,
                state: sprite.status.unwrap_or_else(|| "unknown".to_owned()),
                description: None,
                url: sprite.url,
                created_at: sprite.created_at,
            });
        }
        Ok(entries)
    }

    /// Where a sprite is reached.
    pub(super) async fn public_url(&self, sandbox: &SandboxName) -> Result<Option<String>> {
        let seen = self.seen(sandbox).await?;
        let sprite = self.client.sprite(&seen.sprite).await?;
        Ok(sprite.and_then(|sprite| sprite.url))
    }

    /// The ports that services declare; the public URL leads to one of them.
    pub(super) async fn list_endpoints(&self, sandbox: &SandboxName) -> Result<Vec<Endpoint>> {
        let seen = self.seen(sandbox).await?;
        let url = self.public_url(sandbox).await?;
        let mut endpoints = Vec::new();
        for (name, service) in &seen.services {
            let spec = &service.mark.mark.spec;
            let mut ports: Vec<u16> = spec.http_port.into_iter().chain(spec.all_ports()).collect();
            ports.dedup();
            endpoints.extend(ports.into_iter().map(|port| Endpoint {
                port,
                service: Some(name.clone()),
                url: url.clone().filter(|_| spec.http_port == Some(port)),
            }));
        }
        endpoints.sort();
        endpoints.dedup();
        Ok(endpoints)
    }
}
