//! Reading: one list, and the processes of every sandbox of the stack that runs.

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use futures_util::future::join_all;
use tokio::io::AsyncWrite;
use tokio::sync::mpsc;

use super::command::{Marker, key, rev};
use super::ledger::{self, Ledger};
use super::size::RESIZED;
use super::wire::{Process, Record, Stage};
use super::{Miosa, act};
use crate::model::{
    Capabilities, Checkpoint, Definition, Listing, ObservedSandbox, ObservedService, SandboxName,
    SandboxSpec, SandboxState, ServiceAddress, ServiceKind, ServiceName, ServiceSpec, ServiceState,
};
use crate::platforms::{
    Attached, Attachment, Described, Endpoint, InventoryEntry, InventoryQuery, Link, LogLine,
    LogQuery, Observe, Process as Beside, Result, Usage,
};

impl Miosa {
    /// Every sandbox of the stack that is not destroyed, with its metadata.
    pub(super) async fn owned(&self) -> Result<Vec<(SandboxName, Record)>> {
        let project = ledger::project(&self.stack);
        let project = Some(project.as_str()).filter(|_| !self.options.lists_account);
        let listed = self.api.list(project).await?;
        let alive = listed
            .into_iter()
            .filter(|it| it.stage() != Stage::Destroyed);
        let whole = alive.map(async |record| match record.metadata {
            Some(_) => Ok(Some(record)),
            // Lists may leave it out.
            None => self.api.show(&record.id).await,
        });
        let mut owned = Vec::new();
        for record in join_all(whole).await {
            let Some(record) = record? else { continue };
            let owner = ledger::owner(&record).filter(|owner| owner.stack == self.stack);
            if let Some(owner) = owner.filter(|_| record.stage() != Stage::Destroyed) {
                owned.push((owner.sandbox, record));
            }
        }
        Ok(owned)
    }

    async fn listing(&self, sandbox: &SandboxName, record: &Record) -> Listing {
        self.found(sandbox, &record.id);
        if record.stage() == Stage::Error {
            let reason = record.last_error();
            return Listing::Unknown { reason };
        }
        let processes = match record.is_ready() {
            true => self.listed(record).await,
            // Whoever asks what is paused wakes it up.
            false => Ok(Vec::new()),
        };
        let processes = match processes {
            Ok(processes) => processes,
            Err(error) => {
                let reason = error.to_string();
                return Listing::Unknown { reason };
            }
        };
        let state = match record.is_ready() {
            true => SandboxState::Running,
            false => SandboxState::Stopped,
        };
        Listing::Known(ObservedSandbox {
            spec: Arc::new(self.echoed(record)),
            state,
            spec_known: true,
            isolation: None,
            keeper_pid: None,
            supervisor_pid: None,
            services: self.services(sandbox, record, &processes),
        })
    }

    /// What a sandbox was made from, with what the platform says differently laid over.
    pub(super) fn echoed(&self, record: &Record) -> SandboxSpec {
        let mut spec = ledger::sandbox_spec(record).unwrap_or_default();
        spec.platform.clone_from(&self.entry);
        act::lay_over(&mut spec, record);
        spec
    }

    fn services(
        &self,
        sandbox: &SandboxName,
        record: &Record,
        processes: &[Process],
    ) -> BTreeMap<ServiceName, ObservedService> {
        let address = |name: &ServiceName| ServiceAddress::new(sandbox.clone(), name.clone());
        let mut services = BTreeMap::new();
        for (name, ledger) in ledger::services(record) {
            let live = self.live(&address(&name), Some(&ledger), processes);
            let mut service = observed(&ledger, &live);
            // The entry may have said otherwise when it was started.
            let named = self.is_named(&ledger.spec);
            service.stale |= live.iter().any(|(_, process)| process.named != named);
            services.insert(name, service);
        }
        // What carries our marker and is in no ledger: somebody has changed the metadata.
        let prefix = format!("{}/{sandbox}/", self.stack);
        for process in processes.iter().filter(|process| process.is_live()) {
            let name = Marker::of(process)
                .and_then(|marker| ServiceName::new(marker.service.strip_prefix(&prefix)?).ok());
            if let Some(name) = name.filter(|name| !services.contains_key(name)) {
                services.insert(name, without_ledger(process));
            }
        }
        services
    }

    /// The processes of a service that run, the newest first, each with the revision that it was
    /// started from.
    pub(super) fn live(
        &self,
        service: &ServiceAddress,
        ledger: Option<&Ledger>,
        processes: &[Process],
    ) -> Vec<(String, Process)> {
        let mut live = self.own(service, ledger, processes);
        live.retain(|(_, process)| process.is_live());
        live
    }

    /// As [`Miosa::live`], with its named service even if that does not run.
    pub(super) fn own(
        &self,
        service: &ServiceAddress,
        ledger: Option<&Ledger>,
        processes: &[Process],
    ) -> Vec<(String, Process)> {
        let key = key(&self.stack, service);
        let made = ledger.and_then(|ledger| ledger.named.as_ref());
        let of_it = |process: &Process| {
            let marker = Marker::of(process).filter(|marker| marker.service == key);
            let Some(marker) = marker else {
                return ledger?.rev_of(process, &service.service);
            };
            // A named service may be listed among the processes, too.
            let twice = !process.named && made.is_some_and(|made| made.run == marker.run);
            (!twice).then_some(marker.rev)
        };
        let there = processes.iter().filter(|it| it.named || it.is_live());
        let mut own: Vec<_> = there
            .filter_map(|process| Some((of_it(process)?, process.clone())))
            .collect();
        own.sort_by_key(|(_, process)| std::cmp::Reverse((process.is_live(), process.started())));
        own
    }
}

fn observed(ledger: &Ledger, live: &[(String, Process)]) -> ObservedService {
    let mut service = ObservedService::stopped(Arc::new(ledger.spec.clone()));
    service.goal = ledger.goal;
    let task = ledger.spec.kind == ServiceKind::Task;
    match live.first() {
        Some((from, process)) => {
            service.state = if task {
                ServiceState::Starting
            } else {
                ServiceState::Running
            };
            // A second one is to go, too.
            service.stale = *from != rev(&ledger.spec) || live.len() > 1;
            service.pid = process.pid.parse().ok();
            service.started_at = process.started();
        }
        None if task => {
            service.last_exit = ledger.exit().cloned();
            service.state = match ledger.exit().map(|exit| exit.code) {
                Some(0) => ServiceState::Completed,
                Some(_) => ServiceState::Failed,
                None => ServiceState::Stopped,
            };
        }
        None => {}
    }
    service
}

fn without_ledger(process: &Process) -> ObservedService {
    ObservedService {
        definition: Definition::Unknown,
        stale: true,
        state: ServiceState::Running,
        goal: Default::default(),
        pid: process.pid.parse().ok(),
        started_at: process.started(),
        restarts: 0,
        last_exit: None,
        next_restart_at: None,
        message: None,
    }
}

#[async_trait]
impl Observe for Miosa {
    fn capabilities(&self) -> &'static Capabilities {
        super::capabilities()
    }

    fn fixed_fields(&self) -> Vec<&'static str> {
        let resized = |field: &&str| self.options.resizes_in_place && RESIZED.contains(field);
        let fixed = self.capabilities().fixed();
        fixed.filter(|field| !resized(field)).collect()
    }

    /// What gabion notes about services is kept beside.
    fn checkpoints_hold_definitions(&self) -> bool {
        false
    }

    async fn observe(&self) -> Result<BTreeMap<SandboxName, Listing>> {
        let owned = self.owned().await?;
        let listings = owned
            .iter()
            .map(|(name, record)| self.listing(name, record));
        let listings = join_all(listings).await;
        let mut found = BTreeMap::new();
        for ((name, record), listing) in owned.iter().zip(listings) {
            let listing = match found.remove(name) {
                None => listing,
                Some(_) => Listing::Unknown {
                    reason: format!(
                        "there are several sandboxes with its mark, {} among them",
                        record.id
                    ),
                },
            };
            found.insert(name.clone(), listing);
        }
        Ok(found)
    }

    fn dates_lines(&self) -> bool {
        false
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
        self.foreign_named(sandbox, wanted).await
    }

    async fn checkpoints(&self, sandbox: &SandboxName) -> Result<Vec<Checkpoint>> {
        self.list_snapshots(sandbox).await
    }

    async fn describe(&self, sandbox: Option<&str>) -> Result<Vec<Described>> {
        self.describe_all(sandbox).await
    }

    async fn inventory(&self, query: &InventoryQuery) -> Result<Vec<InventoryEntry>> {
        self.list_all(query).await
    }

    async fn endpoints(&self, sandbox: &SandboxName) -> Result<Vec<Endpoint>> {
        self.list_endpoints(sandbox).await
    }

    async fn usage(&self, sandbox: &SandboxName) -> Result<Option<Usage>> {
        self.tell_usage(sandbox).await.map(Some)
    }

    async fn links(&self, sandbox: &SandboxName) -> Result<Vec<Link>> {
        self.list_links(sandbox).await
    }

    async fn processes(&self, sandbox: &SandboxName) -> Result<Vec<Beside>> {
        self.list_processes(sandbox).await
    }

    async fn read_file(
        &self,
        sandbox: &SandboxName,
        path: &str,
        to: &mut (dyn AsyncWrite + Send + Unpin),
    ) -> Result<()> {
        self.download(sandbox, path, to).await
    }

    async fn attached(&self, sandbox: &SandboxName, kind: Attachment) -> Result<Vec<Attached>> {
        self.list_variables(sandbox, kind).await
    }
}
