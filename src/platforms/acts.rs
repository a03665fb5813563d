//! What is asked of platforms beside the state that a manifest describes: what there is, where it is
//! reached, and what is attached to sandboxes; and how acts are done.

use jiff::Timestamp;
use secrecy::SecretString;
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

/// How a platform finds a sandbox.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Check {
    /// The platform's own word.
    pub status: String,
    /// Why, where it is not well.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// When it looked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub checked_at: Option<Timestamp>,
}

/// What a sandbox has used, in the words of its platform.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Usage {
    /// Since it was made.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub total: Option<serde_json::Value>,
    /// Within the last hour.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_hour: Option<serde_json::Value>,
}

/// Something that runs in a sandbox and is no service: a command, or a process that somebody has started.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Process {
    /// What the platform knows it by.
    pub id: String,
    /// What runs, as far as the platform tells.
    pub command: String,
    /// The folder that it was started in.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dir: Option<String>,
    /// When it was started.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub started_at: Option<Timestamp>,
    /// Whether it has a terminal.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub terminal: bool,
}

/// What a link lets others into.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LinkTo {
    /// What the sandbox exposes.
    Sandbox,
    /// One port, which is exposed.
    Port(u16),
    /// What the sandbox exposes, by a link that is in no list: it cannot be taken back, and ends by itself.
    Passing,
}

/// Which link is to be taken back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LinkId {
    /// The one with this id.
    Listed(String),
    /// That to a port.
    Port(u16),
}

/// A link that lets others in, without its secret.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Link {
    /// What it is taken back by; `None` if it cannot be, or by its port.
    pub id: Option<String>,
    /// What it lets others do, in the platform's own word.
    pub scope: Option<String>,
    /// When it ends; `None` if it does not, or the platform does not tell.
    pub expires_at: Option<Timestamp>,
}

/// What can be attached to a sandbox itself, beside its services.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Attachment {
    /// An environment variable that may be shown.
    Variable,
    /// An environment variable whose value the platform keeps to itself.
    Secret,
    /// A file that the platform writes when it starts the sandbox. Its name is its path.
    File,
    /// A disk that outlives the sandbox's processes. Its value is the path that it is mounted at.
    Volume,
}

/// What is attached to a sandbox, without what may be secret.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Attached {
    /// Its name; of a file, its path.
    pub name: String,
    /// Where a volume is mounted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
}

impl Attached {
    /// What has no more than a name.
    pub fn named(name: String) -> Self {
        Self { name, path: None }
    }
}

impl Attachment {
    /// `variables`, `secrets`, `files` or `volumes`.
    pub fn plural(self) -> &'static str {
        match self {
            Self::Variable => "variables",
            Self::Secret => "secrets",
            Self::File => "files",
            Self::Volume => "volumes",
        }
    }
}

/// What a key of a sandbox is for. A sandbox has one of each kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum KeyKind {
    /// It logs in to SSH servers with it.
    Ssh,
    /// It joins a tailnet with it.
    Tailscale,
}

/// A key that a sandbox has, without what is secret of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Key {
    /// What it is for.
    pub kind: KeyKind,
    /// Its public half, if it has one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub public: Option<String>,
    /// Its secret half with stars in place of all but its ends.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub redacted: Option<String>,
    /// When it was set.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub set_at: Option<Timestamp>,
}

/// A key that a sandbox is to have.
#[derive(Debug)]
pub enum NewKey {
    /// Both halves of a key pair.
    Ssh {
        /// A line as it is in `authorized_keys`.
        public: String,
        /// The file that holds the other half.
        private: SecretString,
    },
    /// An auth key.
    Tailscale(SecretString),
}

/// The versions before and after an upgrade.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Upgraded {
    /// What has supervised the sandbox.
    pub from: String,
    /// What supervises it now.
    pub to: String,
}

/// How a sandbox is forked.
#[derive(Debug, Clone, Default)]
pub struct ForkOptions {
    /// The id of the checkpoint to fork from; the present state if there is none.
    pub from: Option<String>,
    /// Whether its services are left stopped.
    pub stopped: bool,
}

/// Where a long action tells how far it has come.
pub trait Progress: Send + Sync {
    /// The program was executed.
    fn executed(&self);
    /// It is not ready yet, because of this: `port 5432 not open yet`.
    fn waiting(&self, waiting_for: &str);
}
