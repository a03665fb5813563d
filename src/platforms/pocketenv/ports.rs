//! Ports: those of services, and those that are exposed by hand.

use super::Inner;
use super::surely::surely;
use super::wire::{Port, port_description};
use crate::model::{ServiceName, ServiceSpec};
use crate::platforms::{Endpoint, Result};

/// What the platform's editor listens at.
pub(super) const VSCODE: u16 = 1024;

/// What the platform keeps for itself.
pub(super) const RESERVED: u16 = 3000;

/// The ports of a service that the platform exposes: 1025 and above, but for 3000.
pub(super) fn exposed(spec: &ServiceSpec) -> impl Iterator<Item = u16> {
    let all = spec.ports.iter().copied();
    all.filter(|port| *port > VSCODE && *port != RESERVED)
}

/// The ports of a service as they are: what its spec says, where that is so.
pub(super) fn observed(spec: &ServiceSpec, name: &str, rows: &[Port]) -> Vec<u16> {
    let mine = |row: &&Port| row.service() == Some(name) && row.preview_url.is_some();
    let found: Vec<u16> = rows.iter().filter(mine).map(|row| row.port).collect();
    let wanted: Vec<u16> = exposed(spec).collect();
    let kept = spec.ports.iter().copied();
    let kept = kept.filter(|port| !wanted.contains(port) || found.contains(port));
    let more = found.iter().copied().filter(|port| !wanted.contains(port));
    kept.chain(more).collect()
}

fn endpoint(row: &Port) -> Endpoint {
    Endpoint {
        port: row.port,
        service: row.service().and_then(|name| ServiceName::new(name).ok()),
        url: row.preview_url.clone(),
    }
}

impl Inner {
    /// Exposes just the ports that a service has; of those that are exposed otherwise, none is touched.
    pub(super) async fn settle_ports(
        &self,
        id: &str,
        name: &ServiceName,
        spec: &ServiceSpec,
    ) -> Result<()> {
        let rows = self.api.ports(id).await?;
        let wanted: Vec<u16> = exposed(spec).collect();
        for row in &rows {
            let mine = row.service() == Some(name.as_str());
            if mine && (!wanted.contains(&row.port) || row.preview_url.is_none()) {
                self.unexpose_port(id, row.port).await?;
            }
        }
        for port in wanted {
            let there = |row: &Port| {
                row.port == port
                    && (row.preview_url.is_some() || row.service() != Some(name.as_str()))
            };
            if !rows.iter().any(there) {
                let description = port_description(port, name.as_str());
                self.expose_port(id, port, Some(&description)).await?;
            }
        }
        Ok(())
    }

    pub(super) async fn expose_port(
        &self,
        id: &str,
        port: u16,
        description: Option<&str>,
    ) -> Result<Endpoint> {
        let row = surely(
            || async {
                Ok(Port {
                    port,
                    description: description.map(str::to_owned),
                    preview_url: self.api.expose(id, port, description).await?,
                })
            },
            || self.exposed_port(id, port),
        );
        match row.await {
            Ok(row) => Ok(endpoint(&row)),
            Err(error) => {
                // What is refused leaves a row without a URL behind.
                let rows = self.api.ports(id).await.unwrap_or_default();
                if rows
                    .iter()
                    .any(|row| row.port == port && row.preview_url.is_none())
                {
                    self.unexpose_port(id, port).await?;
                }
                Err(error)
            }
        }
    }

    async fn exposed_port(&self, id: &str, port: u16) -> Result<Option<Port>> {
        let rows = self.api.ports(id).await?;
        let mut rows = rows.into_iter();
        Ok(rows.find(|row| row.port == port && row.preview_url.is_some()))
    }

    pub(super) async fn unexpose_port(&self, id: &str, port: u16) -> Result<()> {
        surely(
            || self.api.unexpose(id, port),
            || async {
                let rows = self.api.ports(id).await?;
                Ok(rows.iter().all(|row| row.port != port).then_some(()))
            },
        )
        .await
    }

    /// Exposes the platform's editor, and tells where.
    pub(super) async fn expose_editor(&self, id: &str) -> Result<Option<String>> {
        surely(
            || self.api.expose_vscode(id),
            || async {
                let row = self.exposed_port(id, VSCODE).await?;
                Ok(row.map(|row| row.preview_url))
            },
        )
        .await
    }

    pub(super) async fn endpoints_of(&self, id: &str) -> Result<Vec<Endpoint>> {
        let rows = self.api.ports(id).await?;
        let mut all: Vec<_> = rows.iter().map(endpoint).collect();
        all.sort();
        Ok(all)
    }
}
