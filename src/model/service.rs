//! A service as it is wanted.
//!
//! The JSON of a [`ServiceSpec`] is a superset of the iris service definition (protocol page iris,
//! §4.2).

use std::collections::BTreeMap;
use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Health, HumanDuration, Limits, Need, Reference};

/// A service or task in normal form.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceSpec {
    /// Long-running service, or task that runs once.
    #[serde(default)]
    pub kind: ServiceKind,
    /// What is executed.
    #[serde(flatten)]
    pub program: Program,
    /// Environment over the sandbox's base environment. `${secret.name}` stays as written.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub env: BTreeMap<String, String>,
    /// Digest of each secret that `env` uses, by name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub secrets: BTreeMap<String, String>,
    /// The URLs in `env` and the program that are not known yet, by what is written there between
    /// `${` and `}`. A definition that a platform holds has none.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub references: BTreeMap<String, Reference>,
    /// Working directory; relative to the workspace. `None`: the workspace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub working_dir: Option<PathBuf>,
    /// The Unix user it runs as. `None`: the supervisor's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// What it may use at most, with everything it starts.
    #[serde(default, skip_serializing_if = "Limits::is_none")]
    pub limits: Limits,
    /// Whether its standard streams are a pseudo-terminal.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub tty: bool,
    /// Whether its standard input stays open, for others to write to.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub stdin_open: bool,
    /// TCP ports it listens on.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ports: Vec<u16>,
    /// The port that the sandbox's public URL leads to; one service of a sandbox has it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub http_port: Option<u16>,
    /// How readiness is found out. `None`: ready once its program was executed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub health: Option<Health>,
    /// What must be up before it starts.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub needs: Vec<Need>,
    /// Whether it runs in a container.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub container: bool,
    /// The OCI image, when `container` is set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image: Option<String>,
    /// Free text for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// What happens when it exits by itself.
    #[serde(default)]
    pub restart: Restart,
    /// How it is stopped.
    #[serde(default)]
    pub stop: Stop,
    /// How long a task may run. `None`: no limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout: Option<HumanDuration>,
    /// Whether it should run.
    #[serde(default)]
    pub state: ServiceGoal,
}

impl ServiceSpec {
    /// A spec with every default, for `program`.
    pub fn new(program: Program) -> Self {
        Self {
            kind: ServiceKind::Service,
            program,
            env: BTreeMap::new(),
            secrets: BTreeMap::new(),
            references: BTreeMap::new(),
            working_dir: None,
            user: None,
            limits: Limits::default(),
            tty: false,
            stdin_open: false,
            ports: Vec::new(),
            http_port: None,
            health: None,
            needs: Vec::new(),
            container: false,
            image: None,
            description: None,
            restart: Restart::default(),
            stop: Stop::default(),
            timeout: None,
            state: ServiceGoal::Running,
        }
    }

    /// Every port it takes: the declared ones, the public one, and the one its probe connects to.
    pub fn all_ports(&self) -> impl Iterator<Item = u16> {
        let probed = self.health.as_ref().and_then(|health| health.probe.port());
        let public = self.http_port.filter(|port| !self.ports.contains(port));
        let known = move |port: &u16| public == Some(*port) || self.ports.contains(port);
        let declared = self.ports.iter().copied().chain(public);
        declared.chain(probed.filter(move |port| !known(port)))
    }

    /// Whether a live process of `self` must be replaced to become `other`. Fields that only the
    /// supervisor reads (policies, texts, ordering, the wanted state) are taken over in place.
    pub fn needs_new_process(&self, other: &Self) -> bool {
        let process = |spec: &Self| {
            (
                spec.kind,
                spec.program.clone(),
                spec.env.clone(),
                (spec.secrets.clone(), spec.references.clone()),
                spec.working_dir.clone(),
                spec.user.clone(),
                (spec.limits, spec.tty, spec.stdin_open),
                spec.container,
                spec.image.clone(),
                spec.health.as_ref().and_then(Health::notifies),
            )
        };
        process(self) != process(other)
    }
}

/// A long-running service, or a task.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ServiceKind {
    /// Runs until it is stopped.
    #[default]
    Service,
    /// Runs once and must exit 0.
    Task,
}

/// What is executed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Program {
    /// A program and its arguments, executed without a shell.
    Exec {
        /// The program; looked up in `PATH` if it has no slash.
        cmd: String,
        /// Its arguments.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        args: Vec<String>,
    },
    /// A line for `/bin/sh -c`.
    Shell {
        /// The line, as the user wrote it.
        command: String,
    },
}

impl Program {
    /// The argument vector that is executed.
    pub fn argv(&self) -> Vec<String> {
        match self {
            Self::Exec { cmd, args } => std::iter::once(cmd).chain(args).cloned().collect(),
            Self::Shell { command } => vec!["/bin/sh".into(), "-c".into(), command.clone()],
        }
    }
}

/// What happens when a service exits by itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Restart {
    /// When it is started again.
    #[serde(default)]
    pub policy: RestartPolicy,
    /// Delay before the second restart in a row; the first is at once, each further one doubles it.
    #[serde(default = "Restart::default_backoff")]
    pub backoff: HumanDuration,
    /// Upper bound of the delay.
    #[serde(default = "Restart::default_max_backoff")]
    pub max_backoff: HumanDuration,
    /// Restarts before it counts as failed for good. `None`: no limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_restarts: Option<u32>,
    /// The time within which `max_restarts` restarts are too many. `None`: those in a row count.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub within: Option<HumanDuration>,
    /// How long it has to be ready until earlier restarts are forgotten.
    #[serde(
        default = "Restart::default_reset_after",
        skip_serializing_if = "is_default_reset_after"
    )]
    pub reset_after: HumanDuration,
}

fn is_default_reset_after(value: &HumanDuration) -> bool {
    *value == Restart::default_reset_after()
}

impl Restart {
    /// 100 ms.
    pub const fn default_backoff() -> HumanDuration {
        HumanDuration::from_millis(100)
    }

    /// 30 s (protocol page iris, §4.5).
    pub const fn default_max_backoff() -> HumanDuration {
        HumanDuration::from_secs(30)
    }

    /// 30 s (protocol page iris, §4.5).
    pub const fn default_reset_after() -> HumanDuration {
        HumanDuration::from_secs(30)
    }
}

impl Default for Restart {
    fn default() -> Self {
        Self {
            policy: RestartPolicy::default(),
            backoff: Self::default_backoff(),
            max_backoff: Self::default_max_backoff(),
            max_restarts: None,
            within: None,
            reset_after: Self::default_reset_after(),
        }
    }
}

/// When a service is started again after it exited by itself.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum RestartPolicy {
    /// Never.
    No,
    /// When it exited with a code other than 0 or was killed.
    #[default]
    OnFailure,
    /// Always.
    Always,
}

/// How a service is stopped.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stop {
    /// The signal's name without `SIG`, in upper case.
    #[serde(default = "Stop::default_signal")]
    pub signal: String,
    /// Time between the signal and SIGKILL.
    #[serde(default = "Stop::default_grace")]
    pub grace: HumanDuration,
}

impl Stop {
    fn default_signal() -> String {
        "TERM".to_owned()
    }

    /// 5 s (protocol page iris, §4.5).
    pub const fn default_grace() -> HumanDuration {
        HumanDuration::from_secs(5)
    }
}

impl Default for Stop {
    fn default() -> Self {
        Self {
            signal: Self::default_signal(),
            grace: Self::default_grace(),
        }
    }
}

/// Whether a service should run.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ServiceGoal {
    /// Running (or, for a task, completed).
    #[default]
    Running,
    /// Defined, but not running.
    Stopped,
}
