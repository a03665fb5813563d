//! What goes over the gateway and the data plane, in every shape that the protocol page accepts.

use std::collections::BTreeMap;

use jiff::Timestamp;
use secrecy::SecretString;
use serde::{Deserialize, Deserializer};
use serde_json::Value;

/// A sandbox as the gateway tells it.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct Record {
    pub id: String,
    #[serde(default)]
    pub name: String,
    #[serde(default)]
    pub domain: String,
    #[serde(default)]
    pub state: String,
}

/// Where a sandbox is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stage {
    Creating,
    Running,
    Suspended,
    /// As good as absent.
    Terminated,
    /// On its way, or in a word that nobody knows.
    Unknown,
}

impl Record {
    pub fn stage(&self) -> Stage {
        let word = self.state.to_ascii_lowercase();
        let word = word.strip_prefix("sandbox_").unwrap_or(&word);
        match word.strip_prefix("state_").unwrap_or(word) {
            "creating" | "starting" | "pending" => Stage::Creating,
            "running" => Stage::Running,
            "suspended" => Stage::Suspended,
            "terminated" | "deleted" => Stage::Terminated,
            _ => Stage::Unknown,
        }
    }
}

/// `{"sandbox": {…}}`, with a token where one was made.
#[derive(Debug, Deserialize)]
pub(super) struct Made {
    pub sandbox: Record,
    #[serde(flatten)]
    pub pass: Pass,
}

/// A token for one data plane.
#[derive(Debug, Clone, Default, Deserialize)]
pub(super) struct Pass {
    #[serde(default, alias = "dataPlaneToken", deserialize_with = "secret")]
    pub data_plane_token: Option<SecretString>,
    #[serde(
        default,
        alias = "dataPlaneTokenExpiresAtUnix",
        deserialize_with = "number"
    )]
    pub data_plane_token_expires_at_unix: Option<i64>,
}

/// A page of the list.
#[derive(Debug, Deserialize)]
pub(super) struct Page {
    #[serde(default)]
    pub sandboxes: Vec<Record>,
    #[serde(default, alias = "nextPageToken")]
    pub next_page_token: String,
}

fn secret<'de, D: Deserializer<'de>>(from: D) -> Result<Option<SecretString>, D::Error> {
    Ok(Option::<String>::deserialize(from)?.map(SecretString::from))
}

/// A number, also as text, as 64-bit numbers are in JSON there.
fn number<'de, D: Deserializer<'de>>(from: D) -> Result<Option<i64>, D::Error> {
    Ok(match Option::<Value>::deserialize(from)? {
        Some(Value::Number(number)) => number.as_i64(),
        Some(Value::String(text)) => text.parse().ok(),
        _ => None,
    })
}

/// A service as the data plane tells it; all but the name may be missing.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct Service {
    pub name: String,
    #[serde(default)]
    pub status: String,
    #[serde(default)]
    pub pid: Option<u32>,
    #[serde(default)]
    pub cmd: Option<String>,
    #[serde(default)]
    pub args: Option<Vec<String>>,
    #[serde(default)]
    pub env: Option<BTreeMap<String, String>>,
    #[serde(default)]
    pub working_dir: Option<String>,
    #[serde(default)]
    pub user: Option<String>,
    #[serde(default)]
    pub error: Option<String>,
    #[serde(default)]
    pub exit_code: Option<i32>,
    #[serde(default)]
    pub started_at: Option<Timestamp>,
    #[serde(default)]
    pub restart_count: Option<u32>,
    #[serde(default)]
    pub next_restart_at: Option<Timestamp>,
}

/// A list of services, in any of three shapes.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
pub(super) enum Services {
    Bare(Vec<Service>),
    Named { services: Vec<Service> },
    Data { data: Vec<Service> },
}

impl From<Services> for Vec<Service> {
    fn from(listed: Services) -> Self {
        match listed {
            Services::Bare(services)
            | Services::Named { services }
            | Services::Data { data: services } => services,
        }
    }
}

/// What a command came to.
#[derive(Debug, Deserialize)]
pub(super) struct Ran {
    #[serde(default)]
    pub stdout: String,
    #[serde(default)]
    pub stderr: String,
    pub exit_code: i32,
    #[serde(default)]
    pub truncated: bool,
}

/// A value of the store.
#[derive(Debug, Deserialize)]
pub(super) struct Stored<T> {
    pub value: T,
}

/// A file or folder.
#[derive(Debug, Deserialize)]
pub(super) struct FileRecord {
    pub name: String,
    #[serde(default)]
    pub is_dir: bool,
    #[serde(default)]
    pub size: Option<u64>,
    #[serde(default)]
    pub mode: Option<String>,
    #[serde(default)]
    pub modified_at: Option<Timestamp>,
}

/// What is in a folder.
#[derive(Debug, Deserialize)]
pub(super) struct FilesListed {
    #[serde(default)]
    pub entries: Vec<FileRecord>,
    #[serde(default)]
    pub truncated: bool,
}

/// A checkpoint in a list.
#[derive(Debug, Deserialize)]
pub(super) struct Checkpoint {
    pub id: String,
    #[serde(default)]
    pub name: Option<String>,
    #[serde(default)]
    pub created_at: Option<Timestamp>,
    #[serde(default)]
    pub size_bytes: Option<u64>,
}

/// A list of checkpoints.
#[derive(Debug, Deserialize)]
pub(super) struct Checkpoints {
    #[serde(default)]
    pub checkpoints: Vec<Checkpoint>,
}

/// A checkpoint that was begun.
#[derive(Debug, Deserialize)]
pub(super) struct Begun {
    pub checkpoint_id: String,
}

/// What a restore did.
#[derive(Debug, Default, Deserialize)]
pub(super) struct Restored {
    #[serde(default)]
    pub started_services: Vec<String>,
    #[serde(default)]
    pub stopped_services: Vec<String>,
    #[serde(default)]
    pub failed_services: Vec<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_shape_is_read() {
        for text in [
            r#"{"sandbox":{"id":"sb_1"},"data_plane_token":"t","data_plane_token_expires_at_unix":7}"#,
            r#"{"sandbox":{"id":"sb_1"},"dataPlaneToken":"t","dataPlaneTokenExpiresAtUnix":"7"}"#,
        ] {
            let made: Made = serde_json::from_str(text).unwrap();
            assert_eq!(
                made.pass.data_plane_token_expires_at_unix,
                Some(7),
                "{text}"
            );
            assert!(made.pass.data_plane_token.is_some());
        }
        for text in [
            r#"[{"name":"a"}]"#,
            r#"{"services":[{"name":"a","pid":null}]}"#,
            r#"{"data":[{"name":"a","status":"running","later":1}]}"#,
        ] {
            let listed: Services = serde_json::from_str(text).unwrap();
            assert_eq!(Vec::from(listed)[0].name, "a", "{text}");
        }
        for (state, stage) in [
            ("running", Stage::Running),
            ("SANDBOX_STATE_RUNNING", Stage::Running),
            ("STATE_SUSPENDED", Stage::Suspended),
            ("Deleted", Stage::Terminated),
            ("pending", Stage::Creating),
            ("resuming", Stage::Unknown),
            ("", Stage::Unknown),
        ] {
            let record: Record =
                serde_json::from_value(serde_json::json!({ "id": "x", "state": state })).unwrap();
            assert_eq!(record.stage(), stage, "{state}");
        }
    }
}
