//! What is no state: what there is, where it is reached, and files.

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use super::Sprites;
use crate::model::SandboxName;
use crate::platforms::cloud::mark::Owner;
use crate::platforms::{Endpoint, InventoryEntry, InventoryQuery, Observe, PlatformError, Result};

impl Sprites {
    /// Every sprite of the organisation.
    pub(super) async fn list_all(&self, query: &InventoryQuery) -> Result<Vec<InventoryEntry>> {
        if query.actor.is_some() {
            return Err(self.cannot("list what belongs to others"));
        }
        if query.catalogue {
            return Err(self.cannot("show a catalogue"));
        }
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

    /// The ports that services declare; the public URL leads to one of them.
    pub(super) async fn list_endpoints(&self, sandbox: &SandboxName) -> Result<Vec<Endpoint>> {
        let seen = self.seen(sandbox).await?;
        let sprite = self.client.sprite(&seen.sprite).await?;
        let url = sprite.and_then(|sprite| sprite.url);
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

    pub(super) async fn download(
        &self,
        sandbox: &SandboxName,
        path: &str,
        to: &mut (dyn AsyncWrite + Send + Unpin),
    ) -> Result<()> {
        let seen = self.seen(sandbox).await?;
        let bytes = self.client.read_file(&seen.sprite, absolute(path)?).await?;
        let written = async {
            to.write_all(&bytes).await?;
            to.flush().await
        };
        written.await.map_err(failed)
    }

    pub(super) async fn upload(
        &self,
        sandbox: &SandboxName,
        path: &str,
        from: &mut (dyn AsyncRead + Send + Unpin),
        mode: u32,
    ) -> Result<()> {
        let path = absolute(path)?;
        let mut bytes = Vec::new();
        from.read_to_end(&mut bytes).await.map_err(failed)?;
        let seen = self.seen(sandbox).await?;
        Ok(self
            .client
            .put_file(&seen.sprite, path, bytes, mode)
            .await?)
    }
}

fn absolute(path: &str) -> Result<&str> {
    match path.starts_with('/') {
        true => Ok(path),
        false => Err(PlatformError::new(format!(
            "`{path}`: paths on Sprites begin with `/`"
        ))),
    }
}

fn failed(error: std::io::Error) -> PlatformError {
    PlatformError::new(error.to_string())
}
