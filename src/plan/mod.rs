//! `(Desired, Observed) → Plan`: the ordered actions that make the one into the other.
//!
//! Pure and deterministic: no I/O, no clock, nothing that could write to a platform. In: what is
//! wanted and what is. Out: a [`Plan`] that was simulated before it is handed out, and its
//! renderings. Decides everything; the applier decides nothing.

use std::fmt;
use std::sync::Arc;

use serde::Serialize;

use crate::model::{Address, SandboxSpec, ServiceSpec, ServiceState};

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
    /// Services that are already as they should be.
    pub unchanged: usize,
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
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
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
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
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
        /// The needed service.
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
#[derive(Debug, Clone, PartialEq, Serialize)]
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
}

/// Something that keeps a part of the stack from being planned.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Problem {
    /// What cannot be planned.
    pub address: Address,
    /// Why, in words: `cannot be read: connection refused`, `is protected and would be deleted`.
    pub message: String,
}
