//! A sandbox as it is wanted.

use std::collections::BTreeMap;
use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{HumanDuration, Need};

/// A sandbox in normal form.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SandboxSpec {
    /// The name of the platform entry that it lives on; `local` by default.
    pub platform: String,
    /// Its name on the platform, where that differs from `<stack>-<sandbox>`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// The image, template or base to create it from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub base: Option<String>,
    /// Free text for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// Labels for people.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub topics: Vec<String>,
    /// A git repository that is cloned when the sandbox starts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub repo: Option<String>,
    /// How long the platform keeps it when idle.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub keep_alive: Option<HumanDuration>,
    /// Virtual processors.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vcpus: Option<u32>,
    /// Memory, in bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory: Option<u64>,
    /// Disk, in bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub disk: Option<u64>,
    /// Environment of everything in it; already merged into each service's `env`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub env: BTreeMap<String, String>,
    /// Digest of each secret that `env` uses, by name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub secrets: BTreeMap<String, String>,
    /// The folder its services run in. Absolute. `None`: a private folder that the platform makes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub workspace: Option<PathBuf>,
    /// The isolation asked for.
    #[serde(default)]
    pub isolation: IsolationWish,
    /// Whether an editor server is exposed.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub vscode: bool,
    /// What must be ready before anything in this sandbox starts.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub needs: Vec<Need>,
    /// Whether deleting it is refused.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub protect: bool,
    /// Whether it should be up.
    #[serde(default)]
    pub state: SandboxGoal,
}

impl Default for SandboxSpec {
    fn default() -> Self {
        Self {
            platform: "local".to_owned(),
            name: None,
            base: None,
            description: None,
            topics: Vec::new(),
            repo: None,
            keep_alive: None,
            vcpus: None,
            memory: None,
            disk: None,
            env: BTreeMap::new(),
            secrets: BTreeMap::new(),
            workspace: None,
            isolation: IsolationWish::default(),
            vscode: false,
            needs: Vec::new(),
            protect: false,
            state: SandboxGoal::default(),
        }
    }
}

/// Whether a sandbox should be up.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum SandboxGoal {
    /// Up, with its services in their own wanted states.
    #[default]
    Running,
    /// Kept, but with nothing running in it.
    Stopped,
}

/// The isolation a manifest asks for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum IsolationWish {
    /// The strongest that the machine can do.
    #[default]
    Auto,
    /// Own process, mount and IPC namespaces; an error where they cannot be had.
    Strict,
    /// Process groups only.
    None,
}
