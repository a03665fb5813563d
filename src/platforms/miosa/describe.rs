//! Sandboxes, their named services and processes as anybody may have made them.

use futures_util::future::{try_join, try_join_all};

use super::command::Marker;
use super::ledger::Ledger;
use super::wire::{Process, Record, Stage};
use super::{Miosa, act, ledger};
use crate::model::{DesiredSandbox, Program, SandboxGoal, SandboxName, ServiceGoal, ServiceSpec};
use crate::platforms::cloud::http::HttpError;
use crate::platforms::described::{Described, is_asked_for};
use crate::platforms::{Observe, PlatformError, Result};

impl Miosa {
    pub(super) async fn describe_all(&self, wanted: Option<&str>) -> Result<Vec<Described>> {
        let all = self.api.list(None).await?.into_iter();
        let alive = all.filter(|it| it.stage() != Stage::Destroyed);
        let asked =
            alive.filter(|it| is_asked_for(wanted, it.name.as_deref().unwrap_or(&it.id), &it.id));
        let described = try_join_all(asked.map(|it| self.describe_one(it.id))).await?;
        Ok(described.into_iter().flatten().collect())
    }

    async fn describe_one(&self, id: String) -> Result<Option<Described>> {
        let Some(record) = self.api.show(&id).await? else {
            return Ok(None);
        };
        let name = record.name.clone().unwrap_or_else(|| id.clone());
        let mut described = Described::new(&id, name, ledger::owner(&record));
        described.spec = ledger::sandbox_spec(&record).unwrap_or_default();
        act::lay_over(&mut described.spec, &record);
        described.spec.name.clone_from(&record.name);
        if described.spec.base.is_none() {
            described.spec.base.clone_from(&record.template_id);
        }
        for (service, ledger) in ledger::services(&record) {
            described.services.insert(service.to_string(), ledger.spec);
        }
        self.describe_processes(&record, &mut described).await?;
        Ok(Some(described))
    }

    /// Named services and processes that are no services of a stack, which a manifest can start again.
    async fn describe_processes(&self, record: &Record, described: &mut Described) -> Result<()> {
        if !record.is_ready() {
            described.spec.state = SandboxGoal::Stopped;
            let remark = "services: their processes cannot be read while the sandbox is down";
            described.remarks.push(remark.to_owned());
            return Ok(());
        }
        if self.options.named && !self.options.lists_services {
            let remark = "services: named ones cannot be listed, as the entry says";
            described.remarks.push(remark.to_owned());
        }
        for process in self.unmarked(&record.id).await? {
            let Some(spec) = spec_of(&process) else {
                continue;
            };
            let name = name_of(&process);
            if described.services.insert(name.clone(), spec).is_none() {
                let remark = format!(
                    "{name}: Miosa does not tell the folder and the environment of a process"
                );
                described.remarks.push(remark);
            }
        }
        Ok(())
    }

    /// The named services that nobody has marked, where services are kept as such, and the processes that run and
    /// are no services.
    async fn unmarked(&self, id: &str) -> Result<Vec<Process>, HttpError> {
        let named = async {
            match self.options.named && self.options.lists_services {
                true => self.api.services(id).await,
                false => Ok(Vec::new()),
            }
        };
        let (mut all, processes) = try_join(named, self.api.processes(id)).await?;
        // A named service may be listed among the processes, too.
        let is_named = |it: &Process| it.name.is_some() && all.iter().any(|of| of.name == it.name);
        let others = processes
            .into_iter()
            .filter(|it| it.is_live() && !is_named(it));
        let others: Vec<_> = others.collect();
        all.extend(others);
        all.retain(|it| Marker::of(it).is_none());
        Ok(all)
    }

    /// Marks a sandbox that others have made as the stack's, and writes down which of its named services and
    /// processes are the wanted services: by their names and numbers, so nothing that runs is touched.
    pub(super) async fn take_in(
        &self,
        found: &Described,
        sandbox: &SandboxName,
        wanted: &DesiredSandbox,
    ) -> Result<()> {
        if !self.options.lists_account {
            let cannot = self.cannot(
                "adopt what others have made: a stack's sandboxes are listed by their project, which is given \
                 once, when one is made",
            );
            return Err(cannot.hint(
                "with `lists_account: true` in `platforms:` the whole account is listed instead",
            ));
        }
        if found.owner.is_some() {
            let cannot = self.cannot(
                "take a sandbox over from another stack, whose mark its processes carry in their commands",
            );
            return Err(cannot);
        }
        let gone = || PlatformError::new(format!("sandbox `{}` is gone", found.name));
        let record = self.api.show(&found.id).await?.ok_or_else(gone)?;
        let processes = match record.is_ready() {
            true => self.unmarked(&record.id).await?,
            false => Vec::new(),
        };
        let mut services = Vec::new();
        for (name, spec) in &wanted.services {
            let process = processes.iter().find(|it| name_of(it) == name.as_str());
            if let Some((process, there)) = process.and_then(|it| Some((it, spec_of(it)?))) {
                // What runs otherwise is told as it is, and changed by an apply.
                let spec = match there.program == spec.program {
                    true => spec,
                    false => &there,
                };
                services.push((name, Ledger::adopted(spec, process)));
            }
        }
        self.mark(record, sandbox, &wanted.spec, services).await?;
        self.found(sandbox, &found.id);
        Ok(())
    }
}

/// What a process is called, also if nobody has given it a name.
fn name_of(process: &Process) -> String {
    let unnamed = || format!("process-{}", process.pid);
    process.name.clone().unwrap_or_else(unnamed)
}

/// A process as a definition, as far as it is told.
fn spec_of(process: &Process) -> Option<ServiceSpec> {
    let command = process.command.clone()?;
    let mut spec = ServiceSpec::new(Program::Shell { command });
    if !process.is_live() {
        spec.state = ServiceGoal::Stopped;
    }
    Some(spec)
}
