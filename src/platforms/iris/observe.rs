//! Reading: one list, and of every running sandbox its document and, if it is ours, its services.

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use futures_util::future::join_all;
use tokio::io::AsyncWrite;
use tokio::sync::mpsc;

use super::document::{self, Document, Entry, rev};
use super::services::lay_over;
use super::wire::{Record, Service, Stage};
use super::{Access, Iris, Known};
use crate::model::{
    Capabilities, Checkpoint, Isolation, Listing, ObservedSandbox, ObservedService, SandboxName,
    SandboxSpec, SandboxState, ServiceAddress, ServiceGoal, ServiceKind, ServiceName, ServiceState,
};
use crate::platforms::cloud::mark::Owner;
use crate::platforms::{
    InventoryEntry, InventoryQuery, LogLine, LogQuery, Observe, PlatformError, Result,
};

/// A sandbox of the stack.
pub(super) struct Ours {
    known: Arc<Known>,
    /// `None`: it cannot be read now, and may be ours by its name only.
    document: Option<Document>,
    state: SandboxState,
}

impl Iris {
    /// Finds the sandboxes of the stack, with what could be read of each.
    pub(super) async fn look(&self) -> Result<Vec<(SandboxName, Result<Ours>)>> {
        let found = match &self.access {
            Access::Direct(plane) => {
                let document: Option<Document> = plane.value(document::KEY).await?;
                let owner = document.as_ref().map(|it| it.owner.clone());
                let ours = owner.filter(|owner| owner.stack == self.stack);
                let read = |owner: Owner| {
                    let read = (String::new(), plane.clone(), document);
                    (owner.sandbox, Ok(read), SandboxState::Running)
                };
                ours.map(read).into_iter().collect()
            }
            Access::Gateway(gateway) => {
                let listed = gateway.list().await?;
                let read = join_all(listed.into_iter().map(|record| self.read(record))).await;
                read.into_iter().flatten().collect::<Vec<_>>()
            }
        };
        let mut ours = Vec::new();
        for (name, read, state) in found {
            let read = read.map(|(id, plane, document)| Ours {
                known: self.found(&name, &id, &plane),
                document,
                state,
            });
            ours.push((name, read));
        }
        Ok(ours)
    }

    /// What one sandbox says of itself; `None` if it is not ours.
    async fn read(
        &self,
        record: Record,
    ) -> Option<(
        SandboxName,
        Result<(String, Arc<super::Plane>, Option<Document>)>,
        SandboxState,
    )> {
        let by_name = || {
            let rest = record.name.strip_prefix(self.stack.as_str())?;
            SandboxName::new(rest.strip_prefix('-')?).ok()
        };
        let plane = self.plane_of(&record, None);
        match record.stage() {
            Stage::Terminated => None,
            // Whoever is suspended cannot be asked whose it is.
            Stage::Suspended => {
                let plane = plane.ok()?;
                Some((
                    by_name()?,
                    Ok((record.id, plane, None)),
                    SandboxState::Stopped,
                ))
            }
            Stage::Creating | Stage::Running | Stage::Unknown => {
                let asked = match &plane {
                    Ok(plane) => plane
                        .value(document::KEY)
                        .await
                        .map_err(PlatformError::from),
                    Err(error) => Err(error.clone()),
                };
                match (asked, plane) {
                    (Ok(Some(document)), Ok(plane)) => {
                        let document: Document = document;
                        let Owner { stack, sandbox } = document.owner.clone();
                        let ours = (record.id, plane, Some(document));
                        (stack == self.stack).then_some((sandbox, Ok(ours), SandboxState::Running))
                    }
                    (Ok(None), _) => None,
                    (Err(error), _) | (_, Err(error)) => {
                        Some((by_name()?, Err(error), SandboxState::Running))
                    }
                }
            }
        }
    }

    async fn listing(&self, ours: Ours) -> Listing {
        let Some(document) = ours.document else {
            // It is told whose it is once it goes on, before anything is done to it.
            return Listing::Known(self.sandbox(
                SandboxSpec::default(),
                ours.state,
                BTreeMap::new(),
            ));
        };
        let services = match ours.known.plane.services().await {
            Ok(services) => services,
            Err(error) => {
                let reason = error.to_string();
                return Listing::Unknown { reason };
            }
        };
        let live: BTreeMap<_, _> = services.iter().map(|it| (it.name.as_str(), it)).collect();
        let entries = document.services.iter();
        let services = entries.filter_map(|(name, entry)| {
            // One that somebody has removed is not there.
            let live = live.get(name.as_str())?;
            Some((name.clone(), observed(entry, live)))
        });
        let services = services.collect();
        Listing::Known(self.sandbox(document.spec, ours.state, services))
    }

    fn sandbox(
        &self,
        mut spec: SandboxSpec,
        state: SandboxState,
        services: BTreeMap<ServiceName, ObservedService>,
    ) -> ObservedSandbox {
        spec.platform.clone_from(&self.entry);
        ObservedSandbox {
            spec: Arc::new(spec),
            state,
            isolation: Isolation::Strict,
            keeper_pid: None,
            supervisor_pid: None,
            services,
        }
    }
}

fn observed(entry: &Entry, live: &Service) -> ObservedService {
    let mut service = ObservedService::stopped(Arc::new(lay_over(&entry.spec, live)));
    service.goal = entry.goal;
    if entry.spec.kind == ServiceKind::Task {
        let exit = entry
            .exit
            .as_ref()
            .filter(|(of, _)| *of == rev(&entry.spec));
        service.last_exit = exit.map(|(_, exit)| exit.clone());
        service.state = match exit.map(|(_, exit)| exit.code) {
            Some(0) => ServiceState::Completed,
            Some(_) => ServiceState::Failed,
            None if live.status == "running" => ServiceState::Starting,
            None => ServiceState::Stopped,
        };
        return service;
    }
    service.pid = live.pid.filter(|pid| *pid != 0);
    service.started_at = live.started_at;
    service.restarts = live.restart_count.unwrap_or_default();
    service.next_restart_at = live.next_restart_at;
    service.message.clone_from(&live.error);
    service.state = match live.status.as_str() {
        "running" => ServiceState::Running,
        "stopped" => ServiceState::Stopped,
        "failed" if live.next_restart_at.is_some() => ServiceState::BackingOff,
        "failed" => ServiceState::Failed,
        _ => ServiceState::Starting,
    };
    let started = entry.started.as_deref();
    service.stale = service.state.is_up() && started != Some(rev(&entry.spec).as_str());
    // One that was started by hand is as good as one of ours.
    if service.state == ServiceState::Running {
        service.goal = ServiceGoal::Running;
    }
    service
}

#[async_trait]
impl Observe for Iris {
    fn capabilities(&self) -> &'static Capabilities {
        super::capabilities()
    }

    async fn observe(&self) -> Result<BTreeMap<SandboxName, Listing>> {
        let looked = self.look().await?;
        let listings = looked.into_iter().map(async |(name, read)| {
            let listing = match read {
                Ok(ours) => self.listing(ours).await,
                Err(error) => Listing::Unknown {
                    reason: error.to_string(),
                },
            };
            (name, listing)
        });
        let mut found = BTreeMap::new();
        for (name, listing) in join_all(listings).await {
            let listing = match found.remove(&name) {
                None => listing,
                Some(_) => Listing::Unknown {
                    reason: "there are several sandboxes with its mark".to_owned(),
                },
            };
            found.insert(name, listing);
        }
        Ok(found)
    }

    async fn logs(
        &self,
        service: &ServiceAddress,
        query: LogQuery,
    ) -> Result<mpsc::Receiver<LogLine>> {
        self.read_logs(service, query).await
    }

    async fn checkpoints(&self, sandbox: &SandboxName) -> Result<Vec<Checkpoint>> {
        self.list_checkpoints(sandbox).await
    }

    async fn inventory(&self, query: &InventoryQuery) -> Result<Vec<InventoryEntry>> {
        self.list_all(query).await
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
