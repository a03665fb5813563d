//! What is asked of platforms beside the state that a manifest describes: what there is, where it is
//! reached, files and variables.

use jiff::Timestamp;
use serde::Serialize;

use crate::model::ServiceName;

/// What is to be listed of a platform.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct InventoryQuery {
    /// Whose sandboxes, where a platform tells of others' too: a name or an id there. `None`: ours.
    pub actor: Option<String>,
    /// The public catalogue of what sandboxes can be made from, instead of sandboxes.
    pub catalogue: bool,
    /// At most so many. `None`: all.
    pub limit: Option<usize>,
    /// So many are left out at the beginning.
    pub offset: usize,
}

impl InventoryQuery {
    /// The part of `entries` that is asked for, where the platform itself does not count.
    pub fn page<T>(&self, entries: Vec<T>) -> Vec<T> {
        let limit = self.limit.unwrap_or(usize::MAX);
        entries.into_iter().skip(self.offset).take(limit).collect()
    }
}

/// A sandbox as its platform lists it, whoever it belongs to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct InventoryEntry {
    /// What the platform knows it by.
    pub id: String,
    /// Its name on the platform.
    pub name: String,
    /// Its state in the platform's own word.
    pub state: String,
    /// The stack whose mark it carries, if it carries one.
    pub stack: Option<String>,
    /// Free text for people.
    pub description: Option<String>,
    /// Where it is reached.
    pub url: Option<String>,
    /// When it was made.
    pub created_at: Option<Timestamp>,
}

/// A port of a sandbox and where it is reached.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Endpoint {
    /// The port inside the sandbox.
    pub port: u16,
    /// The service that declares it, if one does.
    pub service: Option<ServiceName>,
    /// Where it is reached from outside; `None` if it is not exposed.
    pub url: Option<String>,
}

/// What a sandbox tells its processes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum VariableKind {
    /// Environment variables that may be shown.
    Plain,
    /// Environment variables whose values the platform keeps to itself.
    Secret,
}

impl VariableKind {
    /// `variables` or `secrets`.
    pub fn plural(self) -> &'static str {
        match self {
            Self::Plain => "variables",
            Self::Secret => "secrets",
        }
    }
}
