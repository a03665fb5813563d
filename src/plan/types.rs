//! The plan as data: what the renderers and the applier read.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::model::{Address, Isolation, SandboxName, SandboxSpec, ServiceSpec, ServiceState};

/// Ordered actions, and what was found on the way.
#[derive(Debug, Clone, PartialEq)]
pub struct Plan {
    /// The stack planned for.
    pub stack: String,
    /// The names of the platforms it touches or looked at, sorted.
    pub platforms: Vec<String>,
    /// The actions. Each one's `after` points only to earlier ones.
    pub actions: Vec<Action>,
    /// What could not be planned; the plan is for the rest.
    pub problems: Vec<Problem>,
    /// Sandboxes wanted.
    pub sandboxes: usize,
    /// Services wanted.
    pub services: usize,
    /// Services that are already as they should be: no action touches them, and no problem is known.
    pub unchanged: usize,
    /// What keeps each wanted sandbox apart from the machine it is on, where that is known. The planner
    /// does not know platforms: whoever does fills it in.
    pub isolation: BTreeMap<SandboxName, Isolation>,
}

/// One step, with everything that is needed to carry it out.
#[derive(Debug, Clone, PartialEq)]
pub struct Action {
    /// What it acts on.
    pub address: Address,
    /// What it does.
    pub step: Step,
    /// Why.
    pub cause: Cause,
    /// Field-level differences, for steps that write a definition.
    pub changes: Vec<Change>,
    /// What has to be done first.
    pub after: Vec<After>,
}

/// A plan in numbers. The first six count addresses, each once.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Summary {
    /// Created.
    pub add: usize,
    /// Given a new definition, in place or by a restart.
    pub change: usize,
    /// Restarted with the same definition.
    pub restart: usize,
    /// Started or run.
    pub start: usize,
    /// Stopped.
    pub stop: usize,
    /// Deleted.
    pub delete: usize,
    /// All actions.
    pub actions: usize,
}

/// What a plan does with one address, all its actions taken together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Deed {
    /// It is created.
    Add,
    /// It gets a new definition.
    Change,
    /// It is restarted with the same definition.
    Restart,
    /// It is started, run, or awaited.
    Start,
    /// It is stopped.
    Stop,
    /// It is deleted, by itself or with its sandbox.
    Delete,
}

impl Plan {
    /// Whether there is nothing to do.
    pub fn is_empty(&self) -> bool {
        self.actions.is_empty()
    }

    /// The actions of each address, as indexes, in order of address.
    pub fn by_address(&self) -> BTreeMap<&Address, Vec<usize>> {
        let mut groups: BTreeMap<&Address, Vec<usize>> = BTreeMap::new();
        for (at, action) in self.actions.iter().enumerate() {
            groups.entry(&action.address).or_default().push(at);
        }
        groups
    }

    /// What is done with one address, from its actions (as [`Plan::by_address`] gives them).
    pub fn deed(&self, group: &[usize]) -> Deed {
        let actions: Vec<&Action> = group
            .iter()
            .filter_map(|at| self.actions.get(*at))
            .collect();
        let has = |kind| actions.iter().any(|action| action.step.kind() == kind);
        let starts = has(StepKind::Start) || has(StepKind::Run);
        let added = actions
            .iter()
            .any(|it| it.step.kind() == StepKind::Upsert && it.cause == Cause::Added);
        let gone = actions.iter().any(|it| {
            it.step.kind() == StepKind::Stop
                && matches!(it.cause, Cause::Removed | Cause::Destroyed)
        });
        if has(StepKind::Create) || added {
            Deed::Add
        } else if has(StepKind::Delete) || gone {
            Deed::Delete
        } else if has(StepKind::Upsert) || has(StepKind::Update) {
            Deed::Change
        } else if starts && has(StepKind::Stop) {
            Deed::Restart
        } else if starts {
            Deed::Start
        } else {
            Deed::Stop
        }
    }

    /// The plan in numbers.
    pub fn summary(&self) -> Summary {
        let mut summary = Summary {
            actions: self.actions.len(),
            ..Summary::default()
        };
        for group in self.by_address().values() {
            *match self.deed(group) {
                Deed::Add => &mut summary.add,
                Deed::Change => &mut summary.change,
                Deed::Restart => &mut summary.restart,
                Deed::Start => &mut summary.start,
                Deed::Stop => &mut summary.stop,
                Deed::Delete => &mut summary.delete,
            } += 1;
        }
        summary
    }
}

impl Action {
    /// Unique in its plan and the same in every plan: `web/api:start`.
    pub fn id(&self) -> String {
        format!("{}:{}", self.address, self.step.kind().word())
    }
}

/// An earlier action that has to have come so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct After {
    /// Index into [`Plan::actions`].
    pub action: usize,
    /// How far.
    pub until: Until,
}

/// How far an earlier action has to have come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Until {
    /// The service's program was executed (for needs with `condition: started`).
    Executed,
    /// The action is done: for a start, the service is ready; for a task, it exited 0.
    Done,
}

/// What an action does. Services' steps carry the spec, so that a platform can resupply what a
/// restarted supervisor has lost.
#[derive(Debug, Clone, PartialEq)]
pub enum Step {
    /// Create a sandbox and bring it up.
    CreateSandbox(Arc<SandboxSpec>),
    /// Store a new sandbox spec; what runs in it goes on.
    UpdateSandbox(Arc<SandboxSpec>),
    /// Bring an existing sandbox up.
    StartSandbox(Arc<SandboxSpec>),
    /// Stop everything in a sandbox and keep it.
    StopSandbox,
    /// Remove a sandbox and its data.
    DeleteSandbox,
    /// Store a service's definition; a live process goes on.
    UpsertService(Arc<ServiceSpec>),
    /// Start a service and wait until it is ready. A service that is starting already is awaited.
    StartService(Arc<ServiceSpec>),
    /// Stop a service and wait until its processes are gone.
    StopService,
    /// Remove a service's definition; stops it first.
    DeleteService,
    /// Run a task and wait until it has exited 0. A task that is running already is awaited.
    RunTask(Arc<ServiceSpec>),
}

impl Step {
    /// The step without its data.
    pub fn kind(&self) -> StepKind {
        match self {
            Self::CreateSandbox(_) => StepKind::Create,
            Self::UpdateSandbox(_) => StepKind::Update,
            Self::StartSandbox(_) | Self::StartService(_) => StepKind::Start,
            Self::StopSandbox | Self::StopService => StepKind::Stop,
            Self::DeleteSandbox | Self::DeleteService => StepKind::Delete,
            Self::UpsertService(_) => StepKind::Upsert,
            Self::RunTask(_) => StepKind::Run,
        }
    }
}

/// The word for a step; with the address it says what is done.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum StepKind {
    /// Create a sandbox.
    Create,
    /// Update a sandbox in place.
    Update,
    /// Start a sandbox or service.
    Start,
    /// Stop a sandbox or service.
    Stop,
    /// Delete a sandbox or service.
    Delete,
    /// Write a service's definition.
    Upsert,
    /// Run a task.
    Run,
}

impl StepKind {
    /// As in JSON and in action ids.
    pub fn word(self) -> &'static str {
        match self {
            Self::Create => "create",
            Self::Update => "update",
            Self::Start => "start",
            Self::Stop => "stop",
            Self::Delete => "delete",
            Self::Upsert => "upsert",
            Self::Run => "run",
        }
    }
}

impl fmt::Display for StepKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.word())
    }
}

/// Why an action is in the plan.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "reason", rename_all = "snake_case")]
pub enum Cause {
    /// In the manifest, but not there yet.
    Added,
    /// There, but with another definition.
    DefinitionChanged,
    /// The definition that the platform holds cannot be read.
    DefinitionUnknown,
    /// The live process was started from an older definition.
    RunsOldDefinition,
    /// It should run and does not.
    NotRunning {
        /// What it was found as.
        #[schemars(with = "String")]
        state: ServiceState,
    },
    /// It was started and is not ready yet.
    NotReady,
    /// A task that has not exited 0 with this definition.
    NotCompleted,
    /// The sandbox should be up and is not.
    SandboxDown,
    /// The manifest wants it stopped.
    WantedStopped,
    /// There, but no longer in the manifest.
    Removed,
    /// The whole stack is being destroyed.
    Destroyed,
    /// A service that it needs with `restart: true` is stopped or replaced.
    DependencyRestarted {
        /// The needed service, or the sandbox itself if that is stopped and started.
        #[schemars(with = "String")]
        dependency: Address,
    },
    /// The user asked for it.
    Requested,
    /// A file under one of its `watch` paths changed.
    FileChanged {
        /// The file.
        path: String,
    },
}

/// One field that differs.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct Change {
    /// The path of the field: `args`, `env.LOG_LEVEL`, `health.http.port`.
    pub field: String,
    /// The value that is there; `null` if none is.
    pub old: serde_json::Value,
    /// The value that is wanted; `null` if none is.
    pub new: serde_json::Value,
    /// The values are secret: only the fact of the change is told.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub secret: bool,
    /// `new` names a URL that is known once what it leads to is started.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub known_after_apply: bool,
}

/// Something that keeps a part of the stack from being planned.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Problem {
    /// What cannot be planned.
    #[schemars(with = "String")]
    pub address: Address,
    /// Why, in words: `cannot be read: connection refused`, `is protected and would be deleted`.
    pub message: String,
}
