//! Snapshots of sandboxes, and forks. A snapshot has files; of what ran, the platform says nothing.

use std::collections::BTreeSet;
use std::time::Instant;

use jiff::Timestamp;
use serde_json::{Value, json};

use super::command::{Marker, is_cut};
use super::ledger::Ledger;
use super::wire::{Process, Record};
use super::{Miosa, ledger};
use crate::model::{
    Checkpoint, Forked, NeedTarget, Restored, SandboxName, Secrets, ServiceAddress, ServiceGoal,
    ServiceKind, ServiceName, ServiceSpec,
};
use crate::platforms::{ForkOptions, PlatformError, Progress, Result};

/// Tells nobody.
struct Quiet;

impl Progress for Quiet {
    fn executed(&self) {}
    fn waiting(&self, _: &str) {}
}

impl Miosa {
    pub(super) async fn list_snapshots(&self, sandbox: &SandboxName) -> Result<Vec<Checkpoint>> {
        let known = self.get(sandbox).await?;
        let all = self.api.snapshots(&known.id).await?;
        let mut all: Vec<_> = all.iter().filter_map(checkpoint).collect();
        all.sort_by_key(|checkpoint| checkpoint.created_at);
        Ok(all)
    }

    pub(super) async fn snapshot(
        &self,
        sandbox: &SandboxName,
        name: Option<&str>,
    ) -> Result<Checkpoint> {
        let known = self.get(sandbox).await?;
        let made = self.api.create_snapshot(&known.id, name).await?;
        checkpoint(&made).ok_or_else(|| PlatformError::new("the snapshot that was made has no id"))
    }

    /// Rewinds a sandbox. What ends by that is started by the next apply.
    pub(super) async fn rewind(&self, sandbox: &SandboxName, snapshot: &str) -> Result<Restored> {
        let began = Instant::now();
        let known = self.get(sandbox).await?;
        let record = self.record(&known).await?;
        let before = self.names_of_live(sandbox, &record).await?;
        let told = self.api.restore(&known.id, snapshot).await?;
        if let Some(other) = told["id"].as_str().filter(|id| *id != known.id) {
            self.disown(other).await?;
            let text = format!(
                "Miosa has made another sandbox of it, {other}, and left `{sandbox}` as it is"
            );
            return Err(PlatformError::new(text).hint(
                "take from it what you need, and remove it on Miosa: it is not of this stack",
            ));
        }
        self.bring_up(&known.id).await?;
        let record = self.record(&known).await?;
        self.doubt_named(sandbox, &record).await?;
        let now = self.names_of_live(sandbox, &record).await?;
        Ok(Restored {
            restore_duration_ms: began.elapsed().as_millis().try_into().unwrap_or(u64::MAX),
            stopped_services: before.difference(&now).cloned().collect(),
            started_services: now.into_iter().collect(),
            failed_services: Vec::new(),
        })
    }

    /// Writes down that it is not known what the named services of a sandbox were made of, where they do not
    /// say so: they are those of the snapshot.
    async fn doubt_named(&self, sandbox: &SandboxName, record: &Record) -> Result<()> {
        let listed = self.listed(record).await?;
        let silent = listed.iter().filter(|it| it.named && is_cut(it));
        let silent: BTreeSet<_> = silent.filter_map(|it| it.name.as_deref()).collect();
        for (name, _) in ledger::services(record) {
            if silent.contains(name.as_str()) {
                let address = ServiceAddress::new(sandbox.clone(), name);
                let doubted = |before: Option<Ledger>| {
                    let mut ledger = before?;
                    if let Some(made) = &mut ledger.named {
                        made.rev.clear();
                    }
                    Some(ledger)
                };
                self.write_ledger(&address, doubted).await?;
            }
        }
        Ok(())
    }

    /// The services that have a process.
    async fn names_of_live(
        &self,
        sandbox: &SandboxName,
        record: &Record,
    ) -> Result<BTreeSet<ServiceName>> {
        if !record.is_ready() {
            return Ok(BTreeSet::new());
        }
        let processes = self.listed(record).await?;
        let runs = |(name, ledger): (ServiceName, ledger::Ledger)| {
            let address = ServiceAddress::new(sandbox.clone(), name);
            let live = self.live(&address, Some(&ledger), &processes);
            (!live.is_empty()).then_some(address.service)
        };
        Ok(ledger::services(record).filter_map(runs).collect())
    }

    /// Makes another sandbox of the stack with the files of one, and starts in it what is to run there.
    pub(super) async fn copy(
        &self,
        source: &SandboxName,
        fork: &SandboxName,
        options: &ForkOptions,
        secrets: &Secrets,
    ) -> Result<Forked> {
        if self.find(fork).await?.is_some() {
            return Err(PlatformError::taken(fork));
        }
        let known = self.get(source).await?;
        let record = self.record(&known).await?;
        let mut body = json!({
            "name": format!("{}-{fork}", self.stack),
            "metadata": ledger::of_fork(&self.stack, fork, &record),
        });
        if let Some(snapshot) = &options.from {
            body["snapshot_id"] = snapshot.as_str().into();
        }
        let made = self.api.fork(&known.id, &body).await?.id;
        let owned = self.owned().await?;
        if !owned.iter().any(|(name, it)| name == fork && it.id == made) {
            let text = format!("Miosa has made {made}, and does not list it with this stack");
            return Err(PlatformError::new(text).hint("remove it there by hand"));
        }
        self.found(fork, &made);
        self.bring_up(&made).await?;
        // What came with the files, and carries the source's marks.
        let theirs = format!("{}/{source}/", self.stack);
        for process in self.api.processes(&made).await? {
            let marker = Marker::of(&process).filter(|_| process.is_live());
            if marker.is_some_and(|marker| marker.service.starts_with(&theirs)) {
                self.api.kill(&made, &process).await?;
            }
        }
        let named = ledger::services(&record).filter(|(_, ledger)| ledger.named.is_some());
        let named: Vec<_> = named.map(|(name, _)| Process::service(&name)).collect();
        self.remove_all(&made, &named).await?;
        let mut forked = Forked::default();
        if options.stopped {
            return Ok(forked);
        }
        let to_run = ledger::services(&record).filter(|(_, ledger)| {
            ledger.goal == ServiceGoal::Running && ledger.spec.kind == ServiceKind::Service
        });
        let to_run = to_run.map(|(name, ledger)| (name, ledger.spec)).collect();
        for (name, spec) in in_order(to_run) {
            let address = ServiceAddress::new(fork.clone(), name);
            let outcome = match self.run(&address, &spec, secrets, &Quiet).await {
                Ok(()) => &mut forked.started_services,
                Err(_) => &mut forked.failed_services,
            };
            outcome.push(address.service);
        }
        forked.started_services.sort();
        forked.failed_services.sort();
        Ok(forked)
    }
}

/// Each after those that it needs.
fn in_order(mut left: Vec<(ServiceName, ServiceSpec)>) -> Vec<(ServiceName, ServiceSpec)> {
    let mut ordered = Vec::new();
    while !left.is_empty() {
        let waits = |spec: &ServiceSpec| {
            let mut needs = spec.needs.iter();
            needs.any(|need| match &need.target {
                NeedTarget::Local(name) => left.iter().any(|(other, _)| other == name),
                _ => false,
            })
        };
        let next = left.iter().position(|(_, spec)| !waits(spec));
        ordered.push(left.remove(next.unwrap_or(0)));
    }
    ordered
}

/// A snapshot in our words; the platform tells neither its size nor what ran.
fn checkpoint(snapshot: &Value) -> Option<Checkpoint> {
    let text = |key: &str| snapshot[key].as_str().map(str::to_owned);
    let created_at = text("created_at").and_then(|text| text.parse().ok());
    Some(Checkpoint {
        id: text("id")?,
        name: text("comment").filter(|comment| !comment.is_empty()),
        created_at: created_at.unwrap_or_else(Timestamp::now),
        frozen: true,
        ..Checkpoint::default()
    })
}
