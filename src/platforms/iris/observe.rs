//! Reading: one list, and of every running sandbox its document and, if it is ours, its services.

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use futures_util::future::{join_all, try_join};
use tokio::io::AsyncWrite;
use tokio::sync::mpsc;

use super::document::{self, Document, Entry, rev};
use super::plane::Plane;
use super::services::lay_over;
use super::wire::{Record, Service, Stage};
use super::{Access, Iris, Known};
use crate::model::{
    Capabilities, Checkpoint, Listing, ObservedSandbox, ObservedService, SandboxName, SandboxSpec,
    SandboxState, ServiceAddress, ServiceGoal, ServiceKind, ServiceName, ServiceSpec, ServiceState,
};
use crate::platforms::{
    Described, InventoryEntry, InventoryQuery, LogLine, LogQuery, Observe, Result,
};

/// A sandbox of the stack.
pub(super) struct Ours {
    known: Arc<Known>,
    /// `None`: it is suspended, and ours by its name only.
    document: Option<Document>,
}

/// A sandbox of the stack, by its name in the manifest, or why it cannot be read.
type Found = (SandboxName, Result<Ours>);

impl Iris {
    /// Finds the sandboxes of the stack, with what could be read of each.
    pub(super) async fn look(&self) -> Result<Vec<Found>> {
        match &self.access {
            Access::Direct(plane) => {
                let document = plane.value(document::KEY).await?;
                Ok(self.ours("", plane, document).into_iter().collect())
            }
            Access::Gateway(gateway) => {
                let listed = gateway.list().await?;
                let read = join_all(listed.iter().map(|record| self.read(record))).await;
                Ok(read.into_iter().flatten().collect())
            }
        }
    }

    /// A sandbox whose document says that it is ours.
    fn ours(&self, id: &str, plane: &Arc<Plane>, document: Option<Document>) -> Option<Found> {
        let name = match &document.as_ref()?.owner {
            owner if owner.stack == self.stack => owner.sandbox.clone(),
            _ => return None,
        };
        let known = self.found(&name, id, plane);
        Some((name, Ok(Ours { known, document })))
    }

    /// What one sandbox says of itself; `None` if it is not ours.
    async fn read(&self, record: &Record) -> Option<Found> {
        // Where it cannot be asked its name has to do; what is done to it asks again.
        let by_name = || {
            let rest = record.name.strip_prefix(self.stack.as_str())?;
            SandboxName::new(rest.strip_prefix('-')?).ok()
        };
        let plane = match self.plane_of(record, None) {
            Ok(plane) => plane,
            Err(error) => return Some((by_name()?, Err(error))),
        };
        match record.stage() {
            Stage::Terminated => None,
            Stage::Suspended => {
                let name = by_name()?;
                let known = self.found(&name, &record.id, &plane);
                let document = None;
                Some((name, Ok(Ours { known, document })))
            }
            Stage::Creating | Stage::Running | Stage::Unknown => {
                match plane.value(document::KEY).await {
                    Ok(document) => self.ours(&record.id, &plane, document),
                    Err(error) => Some((by_name()?, Err(error.into()))),
                }
            }
        }
    }

    async fn listing(&self, ours: Ours) -> Listing {
        let Some(document) = ours.document else {
            // It is told whose it is once it goes on, before anything is done to it.
            let (spec, stopped) = (SandboxSpec::default(), SandboxState::Stopped);
            return Listing::Known(ObservedSandbox {
                spec_known: false,
                ..self.sandbox(spec, stopped, BTreeMap::new())
            });
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
        Listing::Known(self.sandbox(document.spec, SandboxState::Running, services))
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
            spec_known: true,
            isolation: None,
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

    /// What gabion notes about services is kept beside.
    fn checkpoints_hold_definitions(&self) -> bool {
        false
    }

    /// What runs in one outlives its suspension.
    fn restarts_sandboxes(&self) -> bool {
        false
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

    async fn foreign_services(
        &self,
        sandbox: &SandboxName,
        wanted: &[(&ServiceName, &ServiceSpec)],
    ) -> Result<Vec<ServiceName>> {
        let known = self.get(sandbox).await?;
        let there = async { Ok(known.plane.services().await?) };
        let (document, there) = try_join(known.marked(), there).await?;
        let foreign = wanted.iter().map(|(name, _)| *name).filter(|name| {
            let is_there = there.iter().any(|it| it.name == name.as_str());
            is_there && !document.services.contains_key(*name)
        });
        Ok(foreign.cloned().collect())
    }

    async fn checkpoints(&self, sandbox: &SandboxName) -> Result<Vec<Checkpoint>> {
        self.list_checkpoints(sandbox).await
    }

    async fn describe(&self, sandbox: Option<&str>) -> Result<Vec<Described>> {
        self.describe_all(sandbox).await
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
