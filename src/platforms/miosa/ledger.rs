//! What is written into a sandbox's metadata: whose it is, what it was made from, and what each of its
//! services was made from and is asked to do.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::client::Api;
use super::command::{Marker, is_cut, rev};
use super::wire::{Process, Record};
use super::{Known, Miosa};
use crate::model::{
    Exit, Program, SandboxName, SandboxSpec, ServiceAddress, ServiceGoal, ServiceName, ServiceSpec,
};
use crate::platforms::cloud::mark::{Owner, SandboxMark, decode, encode};
use crate::platforms::{PlatformError, Result};

const OWNER: &str = "gabion.owner";
const SPEC: &str = "gabion.spec";
const SERVICE: &str = "gabion.service.";

/// What is known of one service.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Ledger {
    /// The definition that the next start uses.
    pub spec: ServiceSpec,
    /// What was asked for last.
    pub goal: ServiceGoal,
    /// The last start, where its process does not say enough of itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run: Option<Run>,
    /// The run of a task that was begun last: its exit code is kept by this name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub begun: Option<Begun>,
    /// The named service that was made of it, was about to be, or was adopted. There may be none by now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub named: Option<Begun>,
    /// How a task ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exit: Option<TaskExit>,
}

/// A run, which may or may not have come to be. One that others began has no name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Begun {
    pub rev: String,
    pub run: String,
}

/// One start.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Run {
    pub pid: String,
    pub rev: String,
    pub run: String,
    #[serde(default)]
    pub started_at: Option<String>,
}

/// The end of a task, with the revision that ran.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct TaskExit {
    pub rev: String,
    pub exit: Exit,
}

impl Ledger {
    /// One of a definition that nobody has started yet.
    pub(super) fn new(spec: &ServiceSpec) -> Self {
        Self {
            spec: spec.clone(),
            goal: spec.state,
            run: None,
            begun: None,
            named: None,
            exit: None,
        }
    }

    /// One of a process or a named service that others have made, and that is as the definition says.
    pub(super) fn adopted(spec: &ServiceSpec, process: &Process) -> Self {
        let rev = rev(spec);
        let mut ledger = Self::new(spec);
        if process.is_live() {
            ledger.goal = ServiceGoal::Running;
        }
        match process.named {
            true => {
                let run = String::new();
                ledger.named = Some(Begun { rev, run });
            }
            false => {
                ledger.run = Some(Run {
                    pid: process.pid.clone(),
                    rev,
                    run: String::new(),
                    started_at: process.started_at.clone(),
                });
            }
        }
        ledger
    }

    /// The revision that a process of this service was started from; `None` if it is another's.
    pub(super) fn rev_of(&self, process: &Process, name: &ServiceName) -> Option<String> {
        if process.named {
            let made = self.named.as_ref()?;
            let same = process.name.as_deref() == Some(name.as_str());
            let as_noted = match made.run.is_empty() {
                true => self.is_adopted(process),
                false => is_cut(process),
            };
            // What was made of it by hand is of no revision.
            let rev = if as_noted { &made.rev } else { "" };
            return (same && Marker::of(process).is_none()).then(|| rev.to_owned());
        }
        let run = self.run.as_ref()?;
        // Numbers are used again after a restart of the machine.
        let same = run.pid == process.pid && run.started_at == process.started_at;
        let named = process.name.as_deref().is_none_or(|it| it == name.as_str());
        (same && named && Marker::of(process).is_none()).then(|| run.rev.clone())
    }

    /// Whether a named service may be the one that others have made and that became this one.
    fn is_adopted(&self, process: &Process) -> bool {
        let told = process.command.as_ref();
        told.is_none_or(
            |told| matches!(&self.spec.program, Program::Shell { command } if command == told),
        )
    }

    /// The run that a process of this service is, by what is written here.
    pub(super) fn run_of(&self, process: &Process) -> Option<&str> {
        match process.named {
            true => self.named.as_ref().map(|made| made.run.as_str()),
            false => self.run.as_ref().map(|run| run.run.as_str()),
        }
    }

    /// How the present definition ended, if it is a task that has.
    pub(super) fn exit(&self) -> Option<&Exit> {
        let exit = self.exit.as_ref()?;
        (exit.rev == rev(&self.spec)).then_some(&exit.exit)
    }
}

/// What is given as the project of a stack's sandboxes, so that they can be listed alone.
pub(super) fn project(stack: &str) -> String {
    format!("gabion-{stack}")
}

/// The metadata of a new sandbox.
pub(super) fn of_sandbox(
    stack: &str,
    sandbox: &SandboxName,
    spec: &SandboxSpec,
) -> Map<String, Value> {
    let owner = Owner {
        stack: stack.to_owned(),
        sandbox: sandbox.clone(),
    };
    let label = owner.label();
    let mark = SandboxMark {
        owner,
        spec: spec.clone(),
    };
    let mut map = Map::new();
    map.insert(OWNER.to_owned(), label.into());
    map.insert(SPEC.to_owned(), encode(&mark).into());
    map
}

/// The metadata of a fork of a sandbox: what it was made from, and its services, of which none runs.
pub(super) fn of_fork(stack: &str, fork: &SandboxName, source: &Record) -> Map<String, Value> {
    let spec = SandboxSpec {
        name: None,
        ..sandbox_spec(source).unwrap_or_default()
    };
    let mut map = of_sandbox(stack, fork, &spec);
    for (name, ledger) in services(source) {
        let ledger = Ledger {
            run: None,
            named: None,
            ..ledger
        };
        map.insert(format!("{SERVICE}{name}"), encode(&ledger).into());
    }
    map
}

/// Whose a sandbox is, if it is anybody's.
pub(super) fn owner(record: &Record) -> Option<Owner> {
    Owner::from_label(record.metadata.as_ref()?.get(OWNER)?.as_str()?)
}

/// What a sandbox was made from.
pub(super) fn sandbox_spec(record: &Record) -> Option<SandboxSpec> {
    let mark: SandboxMark = decode(record.metadata.as_ref()?.get(SPEC)?.as_str()?)?;
    Some(mark.spec)
}

/// The ledgers of its services. One that cannot be read is left out.
pub(super) fn services(record: &Record) -> impl Iterator<Item = (ServiceName, Ledger)> {
    let all = record.metadata.iter().flatten();
    all.filter_map(|(key, value)| {
        let name = ServiceName::new(key.strip_prefix(SERVICE)?).ok()?;
        Some((name, decode(value.as_str()?)?))
    })
}

/// The ledger of one service.
pub(super) fn service(record: &Record, name: &ServiceName) -> Option<Ledger> {
    let key = format!("{SERVICE}{name}");
    decode(record.metadata.as_ref()?.get(&key)?.as_str()?)
}

impl Miosa {
    /// A sandbox as it is, with its metadata.
    pub(super) async fn record(&self, known: &Known) -> Result<Record> {
        let record = self.api.show(&known.id).await?;
        let gone = || PlatformError::new(format!("sandbox {} is gone", known.id));
        let record = record.ok_or_else(gone)?;
        match owner(&record).is_some_and(|owner| owner.stack == self.stack) {
            true => Ok(record),
            false => Err(PlatformError::new(format!(
                "sandbox {} does not carry this stack's mark any more",
                known.id
            ))),
        }
    }

    /// Changes the ledger of a service; `None` removes it. Nothing is written if nothing changes.
    pub(super) async fn write_ledger(
        &self,
        service: &ServiceAddress,
        change: impl FnOnce(Option<Ledger>) -> Option<Ledger>,
    ) -> Result<()> {
        let known = self.get(&service.sandbox).await?;
        let _writing = known.metadata.lock().await;
        let record = self.record(&known).await?;
        let before = self::service(&record, &service.service);
        let after = change(before.clone());
        if before == after {
            return Ok(());
        }
        let value = after.map_or(Value::Null, |ledger| encode(&ledger).into());
        let mut metadata = record.metadata.unwrap_or_default();
        metadata.insert(format!("{SERVICE}{}", service.service), value);
        write(&self.api, &known.id, metadata).await
    }

    /// Writes the stack's marks on a sandbox that has none.
    pub(super) async fn mark(
        &self,
        record: Record,
        sandbox: &SandboxName,
        spec: &SandboxSpec,
        services: Vec<(&ServiceName, Ledger)>,
    ) -> Result<()> {
        let mut metadata = record.metadata.unwrap_or_default();
        metadata.extend(of_sandbox(&self.stack, sandbox, spec));
        for (name, ledger) in services {
            metadata.insert(format!("{SERVICE}{name}"), encode(&ledger).into());
        }
        write(&self.api, &record.id, metadata).await
    }

    /// Takes the stack's marks off a sandbox that came to carry them as a copy.
    pub(super) async fn disown(&self, id: &str) -> Result<()> {
        let record = self.api.show(id).await?;
        let Some(mut metadata) = record.and_then(|record| record.metadata) else {
            return Ok(());
        };
        for (key, value) in &mut metadata {
            if key == OWNER || key == SPEC || key.starts_with(SERVICE) {
                *value = Value::Null;
            }
        }
        write(&self.api, id, metadata).await
    }

    /// Changes fields of a sandbox, and what is kept about it.
    pub(super) async fn rewrite(
        &self,
        sandbox: &SandboxName,
        known: &Known,
        spec: &SandboxSpec,
        fields: Map<String, Value>,
    ) -> Result<()> {
        let _writing = known.metadata.lock().await;
        let mut metadata = self.record(known).await?.metadata.unwrap_or_default();
        metadata.extend(of_sandbox(&self.stack, sandbox, spec));
        if !fields.is_empty() {
            self.api.update(&known.id, &Value::Object(fields)).await?;
        }
        write(&self.api, &known.id, metadata).await
    }
}

/// Writes all of a sandbox's metadata, because a platform may replace what is there, and sees that it
/// was kept.
async fn write(api: &Api, id: &str, metadata: Map<String, Value>) -> Result<()> {
    let told = api.update(id, &json!({ "metadata": metadata })).await?;
    let kept = match told.get("metadata") {
        Some(Value::Object(kept)) => kept.clone(),
        // The answer may be partial.
        _ => api
            .show(id)
            .await?
            .and_then(|it| it.metadata)
            .unwrap_or_default(),
    };
    let is_kept = |(key, value): (&String, &Value)| match value {
        Value::Null => kept.get(key).is_none_or(Value::is_null),
        value => kept.get(key) == Some(value),
    };
    match metadata.iter().all(is_kept) {
        true => Ok(()),
        false => Err(PlatformError::new(format!(
            "sandbox {id} did not keep the metadata that was written"
        ))),
    }
}

/// A task's end as it is written down.
pub(super) fn task_exit(spec: &ServiceSpec, code: i32) -> TaskExit {
    TaskExit {
        rev: rev(spec),
        exit: Exit {
            code,
            signal: None,
            at: Timestamp::now(),
        },
    }
}
