//! The one event type. The applier and the watcher emit it; terminal lines, progress, `--json`, the
//! journal and test assertions read it. Nothing prints from inside the library.

use std::path::PathBuf;
use std::sync::Arc;

use serde::Serialize;

use crate::manifest::Report;
use crate::model::{Address, SandboxName, Secrets};
use crate::plan::{Plan, StepKind};

/// Something that happened, with the time it happened at.
#[derive(Debug, Clone, Serialize)]
pub struct Event {
    /// When.
    pub at: jiff::Timestamp,
    /// What.
    #[serde(flatten)]
    pub what: What,
}

impl Event {
    /// `what`, happening now.
    pub fn now(what: What) -> Self {
        Self {
            at: jiff::Timestamp::now(),
            what,
        }
    }
}

/// What happened.
#[derive(Debug, Clone, Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum What {
    /// An apply began.
    ApplyStarted {
        /// The stack.
        stack: String,
        /// How many actions the plan has.
        actions: usize,
    },
    /// An action began.
    ActionStarted(ActionRef),
    /// A running action waits for something; sent again when the reason changes.
    ActionWaiting {
        /// The action.
        #[serde(flatten)]
        action: ActionRef,
        /// What for, in words: `port 5432 not open yet`.
        waiting_for: String,
    },
    /// The program of a service was executed; readiness is still to come.
    ServiceExecuted {
        /// The action.
        #[serde(flatten)]
        action: ActionRef,
    },
    /// An action did what it should.
    ActionDone {
        /// The action.
        #[serde(flatten)]
        action: ActionRef,
        /// Seconds since it began.
        seconds: f64,
    },
    /// An action failed.
    ActionFailed {
        /// The action.
        #[serde(flatten)]
        action: ActionRef,
        /// Seconds since it began.
        seconds: f64,
        /// Why.
        failure: Failure,
    },
    /// An action was left where it is, because the user asked to stop at once. What it began may
    /// still go on.
    ActionAbandoned {
        /// The action.
        #[serde(flatten)]
        action: ActionRef,
        /// Seconds since it began.
        seconds: f64,
    },
    /// An action was not tried.
    ActionSkipped {
        /// The action.
        #[serde(flatten)]
        action: ActionRef,
        /// Why not.
        because: SkipReason,
    },
    /// The user asked to stop; running actions are still awaited.
    Interrupted,
    /// An apply ended.
    ApplyFinished(Outcome),
    /// An atomic apply has failed, and a sandbox was put back to what it was before.
    RolledBack {
        /// The sandbox.
        sandbox: SandboxName,
        /// Whether the apply had made it, so that it was removed.
        removed: bool,
        /// What went wrong while it was put back.
        #[serde(skip_serializing_if = "Option::is_none")]
        error: Option<String>,
    },
    /// The watcher saw a reason to look again.
    RoundStarted {
        /// The reasons, in words: `gabion.yaml changed`.
        reasons: Vec<String>,
        /// What is about to be done.
        #[serde(skip)]
        plan: Arc<Plan>,
    },
    /// The watcher has looked for the first time.
    WatchStarted {
        /// What is about to be done.
        #[serde(skip)]
        plan: Arc<Plan>,
        /// The manifest's files, and how many sources.
        files: (Vec<PathBuf>, usize),
    },
    /// The manifest does not validate; nothing was changed.
    ManifestInvalid {
        /// The manifest's file.
        file: String,
        /// How many errors it has.
        errors: usize,
        /// The errors.
        #[serde(skip)]
        report: Arc<Report>,
    },
    /// The manifest validates again.
    ManifestValid {
        /// The manifest's file.
        file: String,
    },
    /// A service was found in a state it should not be in.
    Drift {
        /// The service or sandbox.
        address: Address,
        /// What happened to it, in words: `was killed from outside (signal 9)`.
        found: String,
    },
    /// Deletions were left out of a watch round, because they were not allowed.
    DeletionsHeld {
        /// What would be deleted.
        addresses: Vec<Address>,
    },
}

/// Names one action of the running plan.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ActionRef {
    /// The action's id in the plan, such as `web/api:start`.
    pub action: String,
    /// What it acts on.
    pub address: Address,
    /// What it does.
    pub kind: StepKind,
}

/// Why an action failed, with its evidence.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Failure {
    /// One line, lower case, no final stop: `exited with 1 after 0.3 s`.
    pub message: String,
    /// The last lines that the service wrote, oldest first.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub log_tail: Vec<String>,
    /// What to do next.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
}

impl Failure {
    /// Without the values of secrets: a service may write those that it was given, and a platform may
    /// repeat what it was sent.
    pub fn concealing(mut self, secrets: &Secrets) -> Self {
        self.message = secrets.conceal(&self.message);
        for line in &mut self.log_tail {
            *line = secrets.conceal(line);
        }
        self
    }
}

/// Why an action was not tried.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum SkipReason {
    /// It needs an action that failed or was itself skipped.
    Needs(Address),
    /// The apply was interrupted first.
    Interrupted,
}

/// How an apply ended.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Outcome {
    /// Actions that did what they should.
    pub done: usize,
    /// Actions that failed.
    pub failed: usize,
    /// Actions that were left where they are.
    pub abandoned: usize,
    /// Actions that were not tried.
    pub skipped: usize,
    /// Whether the user interrupted it.
    pub interrupted: bool,
    /// Wall-clock seconds.
    pub seconds: f64,
}

impl Outcome {
    /// Whether everything in the plan was done.
    pub fn is_success(&self) -> bool {
        self.failed == 0 && self.skipped == 0 && !self.interrupted
    }
}
