//! Reading: one list, and the processes of every sandbox of the stack that runs.

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use futures_util::future::join_all;
use tokio::io::AsyncWrite;
use tokio::sync::mpsc;

use super::command::{Marker, key, rev};
use super::ledger::{self, Ledger};
use super::wire::{Process, Record, Stage};
use super::{Miosa, act};
use crate::model::{
    Capabilities, Checkpoint, Definition, Isolation, Listing, ObservedSandbox, ObservedService,
    SandboxName, SandboxSpec, SandboxState, ServiceAddress, ServiceKind, ServiceName, ServiceState,
};
use crate::platforms::{
    Endpoint, InventoryEntry, InventoryQuery, LogLine, LogQuery, Observe, Result, VariableKind,
};

impl Miosa {
    /// Every sandbox of the stack that is not destroyed, with its metadata.
    pub(super) async fn owned(&self) -> Result<Vec<(SandboxName, Record)>> {
        let project = ledger::project(&self.stack);
        let listed = self.api.list(Some(&project)).await?;
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
            true => self.api.processes(&record.id).await,
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
            isolation: Isolation::Strict,
            keeper_pid: None,
            supervisor_pid: None,
            services: self.services(sandbox, record, &processes),
        })
    }

    /// What a sandbox was made from, with what the platform says differently laid over.
    fn echoed(&self, record: &Record) -> SandboxSpec {
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
            services.insert(name, observed(&ledger, &live));
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
        let key = key(&self.stack, service);
        let of_it = |process: &Process| {
            let marked = Marker::of(process).filter(|marker| marker.service == key);
            let noted = || ledger?.rev_of(process, &service.service);
            marked.map(|marker| marker.rev).or_else(noted)
        };
        let live = processes.iter().filter(|process| process.is_live());
        let mut live: Vec<_> = live
            .filter_map(|process| Some((of_it(process)?, process.clone())))
            .collect();
        live.sort_by_key(|(_, process)| std::cmp::Reverse(process.started()));
        live
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

    async fn logs(
        &self,
        service: &ServiceAddress,
        query: LogQuery,
    ) -> Result<mpsc::Receiver<LogLine>> {
        self.read_logs(service, query).await
    }

    async fn checkpoints(&self, sandbox: &SandboxName) -> Result<Vec<Checkpoint>> {
        self.list_snapshots(sandbox).await
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

    async fn variables(&self, sandbox: &SandboxName, kind: VariableKind) -> Result<Vec<String>> {
        self.list_variables(sandbox, kind).await
    }
}
