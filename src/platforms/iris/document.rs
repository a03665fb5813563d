//! What a sandbox carries of ours: one value of its key-value store.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::model::{Exit, SandboxSpec, ServiceGoal, ServiceName, ServiceSpec};
use crate::platforms::cloud::mark::Owner;

/// The key it is kept under.
pub(super) const KEY: &str = "gabion";

/// Whose a sandbox is, what it was made from, and what is known of its services.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Document {
    #[serde(flatten)]
    pub owner: Owner,
    pub spec: SandboxSpec,
    /// Those of the stack. Others are not touched.
    #[serde(default)]
    pub services: BTreeMap<ServiceName, Entry>,
}

/// One service.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Entry {
    /// Its definition; secrets by digest.
    pub spec: ServiceSpec,
    /// What was asked for last.
    #[serde(default)]
    pub goal: ServiceGoal,
    /// The [`rev`] that was started last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started: Option<String>,
    /// Which run of a task began last: its exit code is kept by this name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run: Option<String>,
    /// How a task ended, with the [`rev`] that did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exit: Option<(String, Exit)>,
}

impl Entry {
    /// A definition that was never started.
    pub fn new(spec: &ServiceSpec) -> Self {
        Self {
            spec: spec.clone(),
            goal: ServiceGoal::Stopped,
            started: None,
            run: None,
            exit: None,
        }
    }

    /// Notes that it is started.
    pub fn start(&mut self, spec: &ServiceSpec) {
        self.goal = ServiceGoal::Running;
        self.started = Some(rev(spec));
    }

    /// Notes that a task is started, and returns which run that is, and whether it has begun before: one
    /// whose end nobody has noted is gone on with, so that it is not run twice.
    pub fn run(&mut self, spec: &ServiceSpec, new: String) -> (String, bool) {
        let open = self.started == Some(rev(spec)) && self.exit.is_none();
        let begun = self.run.take().filter(|_| open);
        let goes_on = begun.is_some();
        let run = begun.unwrap_or(new);
        self.start(spec);
        self.run = Some(run.clone());
        self.exit = None;
        (run, goes_on)
    }
}

/// Tells definitions that need different processes apart.
pub(super) fn rev(spec: &ServiceSpec) -> String {
    let process = serde_json::json!([
        spec.kind,
        spec.program,
        spec.env,
        spec.secrets,
        spec.working_dir,
        spec.user,
        spec.container,
        spec.image,
    ]);
    let digest = Sha256::digest(process.to_string());
    digest[..8]
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}
