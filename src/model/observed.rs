//! What is: the state of sandboxes and services as a platform reports it.

use std::collections::BTreeMap;
use std::sync::Arc;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Reference, SandboxName, SandboxSpec, ServiceGoal, ServiceName, ServiceSpec, Url};

/// Everything that carries one stack's owner mark, on all platforms.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Observed {
    /// By name. A sandbox that is not in the map does not exist.
    pub sandboxes: BTreeMap<SandboxName, Listing>,
    /// The fields of sandboxes that their platforms cannot change.
    pub fixed: BTreeMap<SandboxName, Vec<&'static str>>,
    /// The URLs that the manifest names. One that is not in the map does not exist yet.
    pub urls: BTreeMap<Reference, Url>,
    /// What sandboxes are to get and cannot, because somebody else's is in its place.
    pub taken: BTreeMap<SandboxName, Vec<Taken>>,
}

/// What somebody else has made in a sandbox where the manifest wants its own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Taken {
    /// A service of that name.
    Service {
        /// The name.
        name: ServiceName,
    },
    /// A file.
    File {
        /// Its path.
        path: String,
    },
    /// A volume.
    Volume {
        /// Its name.
        name: String,
        /// Where it is mounted.
        path: String,
    },
}

impl Observed {
    /// The sandbox, if it exists and could be read.
    pub fn known(&self, name: &SandboxName) -> Option<&ObservedSandbox> {
        match self.sandboxes.get(name)? {
            Listing::Known(sandbox) => Some(sandbox),
            Listing::Unknown { .. } => None,
        }
    }
}

/// One sandbox, or the fact that it could not be read. Unknown is never absent.
#[derive(Debug, Clone, PartialEq)]
pub enum Listing {
    /// Read in full.
    Known(ObservedSandbox),
    /// It exists, or may exist, but could not be read.
    Unknown {
        /// Why, in words for people.
        reason: String,
    },
}

/// A sandbox as it is.
#[derive(Debug, Clone, PartialEq)]
pub struct ObservedSandbox {
    /// What it was created with.
    pub spec: Arc<SandboxSpec>,
    /// Whether that could be read. If not, only its platform is right, and the rest is compared once the
    /// sandbox is up.
    pub spec_known: bool,
    /// Whether it is up.
    pub state: SandboxState,
    /// The isolation from this machine that it really has. `None`: it is elsewhere.
    pub isolation: Option<Isolation>,
    /// The keeper's process, which holds the sandbox together, where there is one.
    pub keeper_pid: Option<u32>,
    /// The supervisor's process, where there is one.
    pub supervisor_pid: Option<u32>,
    /// Its services. Complete: a service that is not in the map does not exist.
    pub services: BTreeMap<ServiceName, ObservedService>,
}

/// Whether a sandbox is up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SandboxState {
    /// Its supervisor answers.
    Running,
    /// It exists, but nothing runs in it.
    Stopped,
}

/// The isolation that a sandbox has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Isolation {
    /// Own namespaces.
    Strict,
    /// Process groups only.
    None,
}

/// What is known of the definition that a platform holds for a service.
#[derive(Debug, Clone, PartialEq)]
pub enum Definition {
    /// The platform echoes it whole.
    Echo(Arc<ServiceSpec>),
    /// As [`Definition::Echo`], on a platform that cannot store another one while this one runs.
    Fixed(Arc<ServiceSpec>),
    /// Nothing is known: an upsert is planned.
    Unknown,
}

/// A service as it is.
#[derive(Debug, Clone, PartialEq)]
pub struct ObservedService {
    /// The definition that the next start would use.
    pub definition: Definition,
    /// Whether the live process was started from an older definition.
    pub stale: bool,
    /// Where it is in its life.
    pub state: ServiceState,
    /// What the platform was asked for last. A service that is down although it was asked to run
    /// ended by itself, and its restart policy decided what became of it.
    pub goal: ServiceGoal,
    /// The main process, if there is one.
    pub pid: Option<u32>,
    /// When the live process was started.
    pub started_at: Option<jiff::Timestamp>,
    /// Restarts since it was last started on request.
    pub restarts: u32,
    /// How the last process ended.
    pub last_exit: Option<Exit>,
    /// When the next try is due, while [`ServiceState::BackingOff`].
    pub next_restart_at: Option<jiff::Timestamp>,
    /// Why it is not ready: the probe's last answer, or the last failure. Of a running one, what it says
    /// of itself, or why its supervisor has restarted it.
    pub message: Option<String>,
}

impl ObservedService {
    /// A service that was defined and never started.
    pub fn stopped(spec: Arc<ServiceSpec>) -> Self {
        Self {
            definition: Definition::Echo(spec),
            stale: false,
            state: ServiceState::Stopped,
            goal: ServiceGoal::Stopped,
            pid: None,
            started_at: None,
            restarts: 0,
            last_exit: None,
            next_restart_at: None,
            message: None,
        }
    }

    /// Whether it ended by itself, and its restart policy says what becomes of it.
    pub fn ended_by_itself(&self) -> bool {
        self.goal == ServiceGoal::Running
            && self.last_exit.is_some()
            && matches!(
                self.state,
                ServiceState::Stopped | ServiceState::BackingOff | ServiceState::Failed
            )
    }

    /// The echoed definition, if there is one.
    pub fn spec(&self) -> Option<&Arc<ServiceSpec>> {
        match &self.definition {
            Definition::Echo(spec) | Definition::Fixed(spec) => Some(spec),
            Definition::Unknown => None,
        }
    }
}

/// Where a service is in its life. The iris status words are coarser: see `supervisor`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ServiceState {
    /// Never started, stopped on request, or exited 0 with no restart wanted.
    Stopped,
    /// Executed, not ready yet; for a task: running.
    Starting,
    /// Up and ready.
    Running,
    /// Was ready; its health check fails now.
    Unhealthy,
    /// Told to stop, not gone yet.
    Stopping,
    /// A task that exited 0.
    Completed,
    /// Waits for the next try after a failure.
    BackingOff,
    /// Ended in failure; no further try.
    Failed,
    /// Not determinable.
    Unknown,
}

impl ServiceState {
    /// Whether a process is up.
    pub fn is_up(self) -> bool {
        matches!(
            self,
            Self::Starting | Self::Running | Self::Unhealthy | Self::Stopping
        )
    }

    /// The word for people and for JSON.
    pub fn word(self) -> &'static str {
        match self {
            Self::Stopped => "stopped",
            Self::Starting => "starting",
            Self::Running => "running",
            Self::Unhealthy => "unhealthy",
            Self::Stopping => "stopping",
            Self::Completed => "completed",
            Self::BackingOff => "backing off",
            Self::Failed => "failed",
            Self::Unknown => "unknown",
        }
    }
}

/// How a process ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Exit {
    /// The exit code; 128 + signal number if it was killed.
    pub code: i32,
    /// The signal's name without `SIG`, if it was killed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signal: Option<String>,
    /// When.
    pub at: jiff::Timestamp,
}

impl std::fmt::Display for Exit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.signal {
            Some(signal) => write!(f, "{} ({signal})", self.code),
            None => write!(f, "{}", self.code),
        }
    }
}
