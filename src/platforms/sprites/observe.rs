//! What is there: one listing of the account's sprites, and one of the services of each that is ours.

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use futures_util::TryStreamExt;
use futures_util::future::ready;
use tokio::io::AsyncWrite;
use tokio::sync::mpsc;

use super::client::AT_ONCE;
use super::definition::Mark;
use super::labels::{self, Found};
use super::wire::{Service, Sprite};
use super::{Seen, SeenService, Sprites, capabilities};
use crate::model::{
    Capabilities, Checkpoint, Listing, ObservedSandbox, Reference, SandboxName, SandboxSpec,
    SandboxState, ServiceAddress, ServiceName, ServiceSpec,
};
use crate::platforms::cloud::http::HttpError;
use crate::platforms::{
    Check, Described, Endpoint, InventoryEntry, InventoryQuery, LogLine, LogQuery, Observe,
    PlatformError, Process, Result,
};

/// What was found of a sprite that is the stack's.
enum Read {
    /// Its labels are damaged.
    Damaged,
    /// What it is to be, and its services; `None` if it was deleted in between.
    Whole(Box<SandboxSpec>, Result<Option<Vec<Service>>, HttpError>),
}

/// A sprite that was read.
struct Own {
    sandbox: SandboxName,
    sprite: String,
    read: Read,
}

impl Sprites {
    /// Reads every sprite of the stack.
    pub(super) async fn read_all(&self) -> Result<BTreeMap<SandboxName, Listing>> {
        // Services of those that are listed are read while the next ones are still being listed.
        let reads = self.client.listed().map_ok(|listed| self.read_own(listed));
        let reads = reads.try_buffered(AT_ONCE);
        let all: Vec<Own> = reads
            .try_filter_map(|own| ready(Ok(own)))
            .try_collect()
            .await?;

        let mut listings = BTreeMap::new();
        let mut ours = BTreeMap::new();
        let unknown = |reason: String| Listing::Unknown { reason };
        for own in all {
            let (sandbox, sprite) = (own.sandbox, own.sprite);
            match own.read {
                Read::Damaged => {
                    let reason = format!("the labels of sprite `{sprite}` are damaged");
                    listings.insert(sandbox, unknown(reason));
                }
                Read::Whole(spec, services) => {
                    let before = ours.insert(sandbox.clone(), (sprite.clone(), spec, services));
                    if let Some((other, ..)) = before {
                        let reason =
                            format!("sprites `{other}` and `{sprite}` both say they are it");
                        listings.insert(sandbox, unknown(reason));
                    }
                }
            }
        }
        ours.retain(|sandbox, _| !listings.contains_key(sandbox));
        for (sandbox, (sprite, spec, services)) in ours {
            match services {
                Ok(None) => {}
                Ok(Some(services)) => {
                    let seen = self.sort(&sandbox, sprite, *spec, services);
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

    /// Reads a sprite that was listed, if it is the stack's.
    async fn read_own(&self, listed: Sprite) -> Result<Option<Own>, HttpError> {
        let Some(sprite) = self.client.whole(listed).await? else {
            return Ok(None);
        };
        let (sandbox, read) = match labels::find(&sprite, &self.stack) {
            Found::NotOurs => return Ok(None),
            Found::Damaged(sandbox) => (sandbox, Read::Damaged),
            Found::Ours(sandbox, mut spec) => {
                self.name.clone_into(&mut spec.platform);
                let services = self.client.services(&sprite.name).await;
                (sandbox, Read::Whole(spec, services))
            }
        };
        let sprite = sprite.name;
        Ok(Some(Own {
            sandbox,
            sprite,
            read,
        }))
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
            stopped: false,
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
        spec_known: true,
        isolation: None,
        keeper_pid: None,
        supervisor_pid: None,
        services: services.collect(),
    }
}

#[async_trait]
impl Observe for Sprites {
    fn capabilities(&self) -> &'static Capabilities {
        capabilities()
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

    async fn foreign_services(
        &self,
        sandbox: &SandboxName,
        wanted: &[(&ServiceName, &ServiceSpec)],
    ) -> Result<Vec<ServiceName>> {
        let foreign = self.seen(sandbox).await?.foreign;
        let names = wanted.iter().map(|(name, _)| *name);
        let taken = names.filter(|name| foreign.contains(name.as_str()));
        Ok(taken.cloned().collect())
    }

    async fn checkpoints(&self, sandbox: &SandboxName) -> Result<Vec<Checkpoint>> {
        self.list_checkpoints(sandbox).await
    }

    async fn describe(&self, sandbox: Option<&str>) -> Result<Vec<Described>> {
        self.describe_all(sandbox).await
    }

    fn forwards_ports(&self) -> bool {
        true
    }

    fn gives_terminals(&self) -> bool {
        true
    }

    fn joins_processes(&self) -> bool {
        true
    }

    async fn inventory(&self, query: &InventoryQuery) -> Result<Vec<InventoryEntry>> {
        self.list_all(query).await
    }

    async fn endpoints(&self, sandbox: &SandboxName) -> Result<Vec<Endpoint>> {
        self.list_endpoints(sandbox).await
    }

    /// The URL of a sprite leads to whichever service has its `http_port`, and is there before that is.
    async fn urls(
        &self,
        sandbox: &SandboxName,
        references: &[&Reference],
    ) -> Result<BTreeMap<Reference, String>> {
        let Some(url) = self.public_url(sandbox).await? else {
            return Ok(BTreeMap::new());
        };
        let told = |reference: &&Reference| ((*reference).clone(), url.clone());
        Ok(references.iter().map(told).collect())
    }

    async fn processes(&self, sandbox: &SandboxName) -> Result<Vec<Process>> {
        self.list_sessions(sandbox).await
    }

    async fn check(&self, sandbox: &SandboxName) -> Result<Option<Check>> {
        let seen = self.seen(sandbox).await?;
        let found = self.client.check(&seen.sprite).await?;
        Ok(Some(Check {
            status: found.status,
            reason: found.reason,
            checked_at: found.checked_at,
        }))
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
