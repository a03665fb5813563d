//! What only Pocketenv knows about a sandbox and its services.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::PROTOCOL;
use crate::serve::engine::{Record, Result, Sandbox};

/// The provider that runs services; also of sandboxes that other protocols made.
pub(super) const CLOUDFLARE: &str = "cloudflare";

/// What only Pocketenv knows about a sandbox.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Note {
    pub base: Option<String>,
    pub provider: Option<String>,
    pub repo: Option<String>,
    pub started_at: Option<Timestamp>,
    pub ports: Vec<Port>,
    pub variables: Vec<Attached>,
    pub secrets: Vec<Attached>,
    pub files: Vec<Attached>,
    pub volumes: Vec<Attached>,
    pub backups: Vec<Backup>,
    pub ssh_key: Option<StoredKey>,
    pub tailscale_key: Option<StoredKey>,
    /// The secrets that processes are started with, still sealed: those of the last start.
    pub in_effect: BTreeMap<String, String>,
    /// How often it is still to be told as `INITIALIZING`.
    pub initializing: u32,
    /// Whether it stays `INITIALIZING`.
    pub stuck: bool,
    /// How many starts of services are still to be answered and not done.
    pub silent_starts: u32,
}

/// A port that is exposed, or is to be at the next start.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Port {
    pub port: u16,
    pub description: Option<String>,
    pub url: Option<String>,
    /// The id of the service that has brought it.
    pub service: Option<String>,
}

/// A variable, secret, file or volume.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Attached {
    pub id: String,
    /// A name, or the path of a file.
    pub name: String,
    /// A value or content, sealed or not; the path of a volume.
    pub value: String,
    pub created_at: Timestamp,
    pub updated_at: Timestamp,
}

/// A key of a sandbox.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct StoredKey {
    pub id: String,
    /// The half that everybody may see, if there is one.
    pub public: Option<String>,
    /// The other one, sealed or not.
    pub secret: String,
    /// What is shown in its place.
    pub redacted: Option<String>,
    pub created_at: Timestamp,
}

/// A backup of one folder.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Backup {
    pub id: String,
    /// As it was asked for.
    pub directory: String,
    pub description: Option<String>,
    pub created_at: Timestamp,
    pub expires_at: Timestamp,
}

/// What only Pocketenv knows about a service.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct ServiceRow {
    pub id: String,
    pub created_at: Option<Timestamp>,
}

impl Note {
    pub fn of(sandbox: &Sandbox) -> Self {
        sandbox.record().extra(PROTOCOL)
    }

    /// Changes the note of a sandbox.
    pub fn change<T>(sandbox: &Sandbox, change: impl FnOnce(&mut Self) -> T) -> Result<T> {
        sandbox.update(|record| Self::change_in(record, change))
    }

    /// Changes the note in a record.
    pub fn change_in<T>(record: &mut Record, change: impl FnOnce(&mut Self) -> T) -> T {
        let mut note: Self = record.extra(PROTOCOL);
        let told = change(&mut note);
        record.set_extra(PROTOCOL, &note);
        told
    }

    pub fn provider(&self) -> &str {
        self.provider.as_deref().unwrap_or(CLOUDFLARE)
    }
}
