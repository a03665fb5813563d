//! What the platform answers: protocol page pocketenv, §4 to §8. Fields that nobody here reads are left
//! out, and all but ids and names may be missing or `null`.

use jiff::Timestamp;
use serde::Deserialize;

use crate::platforms;

/// The word for what runs.
pub(super) const RUNNING: &str = "RUNNING";

/// The word for what does not.
pub(super) const STOPPED: &str = "STOPPED";

/// The word for what its provider is still making, or has failed to make.
pub(super) const INITIALIZING: &str = "INITIALIZING";

/// A page of sandboxes.
#[derive(Debug, Deserialize)]
pub(super) struct Sandboxes {
    pub sandboxes: Vec<Sandbox>,
    /// How many there are on all pages.
    pub total: usize,
}

/// The answer of `getSandbox`.
#[derive(Debug, Deserialize)]
pub(super) struct Found {
    #[serde(default)]
    pub sandbox: Option<Sandbox>,
}

/// A sandbox, in lists without topics, repository and owner.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Sandbox {
    pub id: String,
    pub name: String,
    #[serde(default)]
    pub description: Option<String>,
    #[serde(default)]
    pub topics: Option<Vec<String>>,
    #[serde(default)]
    pub status: Option<String>,
    #[serde(default)]
    pub repo: Option<String>,
    #[serde(default)]
    pub created_at: Option<Timestamp>,
}

/// What a create answers, as far as it can be trusted.
#[derive(Debug, Deserialize)]
pub(super) struct Created {
    pub id: String,
}

/// Who somebody is; nobody in particular where the platform cannot tell.
#[derive(Debug, Deserialize)]
pub(super) struct Profile {
    #[serde(default)]
    pub did: Option<String>,
}

/// The services of a sandbox.
#[derive(Debug, Deserialize)]
pub(super) struct Services {
    pub services: Vec<Service>,
}

/// A service.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct Service {
    pub id: String,
    pub name: String,
    #[serde(default)]
    pub description: Option<String>,
    pub command: String,
    /// What was asked for last, not how it is.
    pub status: String,
}

impl Service {
    pub fn is_running(&self) -> bool {
        self.status == RUNNING
    }
}

/// The backups of a sandbox.
#[derive(Debug, Deserialize)]
pub(super) struct Backups {
    pub backups: Vec<Backup>,
}

/// A copy of one folder, kept for a time.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Backup {
    pub id: String,
    #[serde(default)]
    pub description: Option<String>,
    #[serde(default)]
    pub created_at: Option<Timestamp>,
}

/// The ports of a sandbox.
#[derive(Debug, Deserialize)]
pub(super) struct Ports {
    pub ports: Vec<Port>,
}

/// A port that is exposed, or will be at the next start.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Port {
    pub port: u16,
    #[serde(default)]
    pub description: Option<String>,
    #[serde(default)]
    pub preview_url: Option<String>,
}

impl Port {
    /// The service that it belongs to, by its name.
    pub fn service(&self) -> Option<&str> {
        let description = self.description.as_deref()?;
        let rest = description.strip_prefix("Port ")?;
        let (port, name) = rest.split_once(" for service ")?;
        (port == self.port.to_string()).then_some(name)
    }
}

/// What says that a port belongs to a service.
pub(super) fn port_description(port: u16, service: &str) -> String {
    format!("Port {port} for service {service}")
}

/// The answer of an expose.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Exposed {
    #[serde(default)]
    pub preview_url: Option<String>,
}

/// How a command ended.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Ran {
    #[serde(default)]
    pub stdout: String,
    #[serde(default)]
    pub stderr: String,
    pub exit_code: i32,
}

/// A variable, secret, file or volume, without its value.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct Attached {
    pub id: String,
    /// Files have none.
    name: Option<String>,
    path: Option<String>,
}

impl Attached {
    /// Its name; of a file, its path.
    pub fn name(&self) -> &str {
        let name = self.name.as_deref().or(self.path.as_deref());
        name.unwrap_or_default()
    }

    /// As it is shown.
    pub fn shown(self) -> platforms::Attached {
        match self {
            Self {
                name: Some(name),
                path,
                ..
            } => platforms::Attached { name, path },
            Self { path, .. } => platforms::Attached::named(path.unwrap_or_default()),
        }
    }
}

/// A page of them.
#[derive(Debug, Deserialize)]
pub(super) struct AttachedPage {
    #[serde(
        alias = "variables",
        alias = "secrets",
        alias = "files",
        alias = "volumes"
    )]
    pub items: Vec<Attached>,
    pub total: usize,
}
