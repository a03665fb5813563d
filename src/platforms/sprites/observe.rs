//! What is there: one listing of the account's sprites, and one of the services of each that is ours.

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use futures_util::future::join_all;
use tokio::io::AsyncWrite;
use tokio::sync::mpsc;

use super::definition::Mark;
use super::labels::{self, Found};
use super::wire::Service;
use super::{CAPABILITIES, Seen, SeenService, Sprites};
use crate::model::{
    Capabilities, Checkpoint, Isolation, Listing, ObservedSandbox, SandboxName, SandboxSpec,
    SandboxState, ServiceAddress, ServiceName,
};
use crate::platforms::{
    Endpoint, InventoryEntry, InventoryQuery, LogLine, LogQuery, Observe, PlatformError, Result,
};

impl Sprites {
    /// Reads every sprite of the stack.
    pub(super) async fn read_all(&self) -> Result<BTreeMap<SandboxName, Listing>> {
        let sprites = self.client.sprites().await?;
        let mut listings = BTreeMap::new();
        let mut ours: BTreeMap<SandboxName, (String, SandboxSpec)> = BTreeMap::new();
        let unknown = |reason: String| Listing::Unknown { reason };
        for sprite in sprites {
            let name = sprite.name.clone();
            match labels::find(&sprite, &self.stack) {
                Found::NotOurs => {}
                Found::Damaged(sandbox) => {
                    let reason = format!("the labels of sprite `{name}` are damaged");
                    listings.insert(sandbox, unknown(reason));
                }
                Found::Ours(sandbox, mut spec) => {
                    self.name.clone_into(&mut spec.platform);
                    if let Some((other, _)) = ours.insert(sandbox.clone(), (name.clone(), *spec)) {
                        let reason = format!("sprites `{other}` and `{name}` both say they are it");
                        listings.insert(sandbox, unknown(reason));
                    }
                }
            }
        }
        ours.retain(|sandbox, _| !listings.contains_key(sandbox));
        let reads = ours.into_iter().map(|(sandbox, (sprite, spec))| async {
            let services = self.client.services(&sprite).await;
            (sandbox, sprite, spec, services)
        });
        for (sandbox, sprite, spec, services) in join_all(reads).await {
            match services {
                // It was deleted in between.
                Ok(None) => {}
                Ok(Some(services)) => {
                    let seen = self.sort(&sandbox, sprite, spec, services);
                    listings.insert(sandbox.clone(), Listing::Known(observed(&seen)));
                    self.lock().insert(sandbox, seen);
                }
                Err(error) => {
                    listings.insert(sandbox, unknown(PlatformError::from(error).to_string()));
                }
            }
        }
        self.lock()
            .retain(|sandbox, _| matches!(listings.get(sandbox), Some(Listing::Known(_))));
        Ok(listings)
    }

    /// Tells services of ours from others.
    fn sort(
        &self,
        sandbox: &SandboxName,
        sprite: String,
        spec: SandboxSpec,
        services: Vec<Service>,
    ) -> Seen {
        let owner = self.owner(sandbox);
        let mut seen = Seen {
            sprite,
            spec,
            services: BTreeMap::new(),
            foreign: Default::default(),
        };
        for service in services {
            let name = ServiceName::new(service.name.as_str()).ok();
            match name.zip(Mark::of(&service, &owner)) {
                Some((name, mark)) => {
                    let known = SeenService { mark, service };
                    seen.services.insert(name, known);
                }
                None => {
                    seen.foreign.insert(service.name);
                }
            }
        }
        seen
    }
}

fn observed(seen: &Seen) -> ObservedSandbox {
    let services = seen.services.iter();
    let services = services.map(|(name, it)| (name.clone(), it.mark.observed(&it.service)));
    ObservedSandbox {
        spec: Arc::new(seen.spec.clone()),
        // Also a cold one: any request wakes it.
        state: SandboxState::Running,
        isolation: Isolation::Strict,
        keeper_pid: None,
        supervisor_pid: None,
        services: services.collect(),
    }
}

#[async_trait]
impl Observe for Sprites {
    fn capabilities(&self) -> &'static Capabilities {
        &CAPABILITIES
    }

    async fn observe(&self) -> Result<BTreeMap<SandboxName, Listing>> {
        self.read_all().await
    }

    async fn logs(
        &self,
        service: &ServiceAddress,
        query: LogQuery,
    ) -> Result<mpsc::Receiver<LogLine>> {
        self.read_log(service, query).await
    }

    async fn checkpoints(&self, sandbox: &SandboxName) -> Result<Vec<Checkpoint>> {
        self.list_checkpoints(sandbox).await
    }

    async fn inventory(&self, query: &InventoryQuery) -> Result<Vec<InventoryEntry>> {
        self.list_all(query).await
    }

    async fn endpoints(&self, sandbox: &SandboxName) -> Result<Vec<Endpoint>> {
        self.list_endpoints(sandbox).await
    }

    async fn read_file(
        &self,
        sandbox: &SandboxName,
        path: &str,
        to: &mut (dyn AsyncWrite + Send + Unpin),
    ) -> Result<()> {
        self.download(sandbox, path, to).await
    }
}
