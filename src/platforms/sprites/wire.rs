//! What goes over the wire: protocol page sprites.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Deserializer, Serialize};

/// A sprite (§2). Entries of a listing may have a name and nothing else.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct Sprite {
    pub name: String,
    /// `None`: this listing does not say.
    #[serde(default)]
    pub labels: Option<Vec<String>>,
    #[serde(default)]
    pub url_settings: Option<UrlSettings>,
    #[serde(default)]
    pub status: Option<String>,
    #[serde(default)]
    pub url: Option<String>,
    #[serde(default)]
    pub created_at: Option<jiff::Timestamp>,
}

/// Who may open the public URL (§2).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct UrlSettings {
    /// `sprite` or `public`.
    pub auth: String,
}

impl UrlSettings {
    const PUBLIC: &str = "public";

    pub fn new(public: bool) -> Self {
        let auth = if public { Self::PUBLIC } else { "sprite" };
        Self {
            auth: auth.to_owned(),
        }
    }

    pub fn is_public(&self) -> bool {
        self.auth == Self::PUBLIC
    }
}

/// How a sprite was found when the platform looked at it (§2).
#[derive(Debug, Deserialize)]
pub(super) struct Check {
    pub status: String,
    #[serde(default)]
    pub reason: Option<String>,
    #[serde(default)]
    pub checked_at: Option<Timestamp>,
}

/// A page of a listing (§2).
#[derive(Debug, Deserialize)]
pub(super) struct Page {
    pub sprites: Vec<Sprite>,
    #[serde(default)]
    pub has_more: bool,
    #[serde(default)]
    pub next_continuation_token: Option<String>,
}

/// The body of `POST /v1/sprites` (§2).
#[derive(Debug, Serialize)]
pub(super) struct CreateSprite {
    pub name: String,
    pub labels: Vec<String>,
    pub url_settings: UrlSettings,
    #[serde(skip_serializing_if = "Config::is_default")]
    pub config: Config,
}

/// The size of a sprite (§2).
#[derive(Debug, Default, PartialEq, Eq, Serialize)]
pub(super) struct Config {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpus: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ram_mb: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub storage_gb: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub region: Option<String>,
}

impl Config {
    fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

/// The body of `PUT /v1/sprites/{name}` (§2).
#[derive(Debug, Serialize)]
pub(super) struct UpdateSprite {
    pub labels: Vec<String>,
    pub url_settings: UrlSettings,
}

/// What a service is defined by (§3): the body of a PUT, and what is echoed. Whole, so that nothing of
/// an older definition stays.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Definition {
    pub cmd: String,
    #[serde(default, deserialize_with = "or_default")]
    pub args: Vec<String>,
    /// May hold secrets, so a definition cannot be printed.
    #[serde(default, deserialize_with = "or_default")]
    pub env: BTreeMap<String, String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dir: Option<String>,
    #[serde(default, deserialize_with = "or_default")]
    pub needs: Vec<String>,
    #[serde(default)]
    pub http_port: Option<u16>,
}

impl Definition {
    /// What is executed.
    pub fn argv(&self) -> Vec<String> {
        std::iter::once(&self.cmd)
            .chain(&self.args)
            .cloned()
            .collect()
    }
}

/// A service (§3).
#[derive(Clone, Deserialize)]
pub(super) struct Service {
    pub name: String,
    #[serde(flatten)]
    pub definition: Definition,
    #[serde(default)]
    pub state: Option<State>,
}

/// `null` and nothing at all are the same.
fn or_default<'de, T: Deserialize<'de> + Default, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<T, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

/// Where a service is in its life (§3).
#[derive(Debug, Clone, Default, Deserialize)]
pub(super) struct State {
    #[serde(default)]
    pub status: Status,
    #[serde(default)]
    pub pid: Option<u32>,
    #[serde(default)]
    pub started_at: Option<Timestamp>,
    #[serde(default)]
    pub error: Option<String>,
    #[serde(default)]
    pub restart_count: Option<u32>,
    #[serde(default)]
    pub next_restart_at: Option<Timestamp>,
}

/// The words of `state.status`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Status {
    Stopped,
    Starting,
    Running,
    Stopping,
    Failed,
    #[default]
    #[serde(other)]
    Unknown,
}

impl Status {
    /// Whether a process is up, or about to be, or about to be gone.
    pub fn is_up(self) -> bool {
        matches!(self, Self::Starting | Self::Running | Self::Stopping)
    }

    /// As it is written.
    pub fn word(self) -> &'static str {
        match self {
            Self::Stopped => "stopped",
            Self::Starting => "starting",
            Self::Running => "running",
            Self::Stopping => "stopping",
            Self::Failed => "failed",
            Self::Unknown => "in an unknown state",
        }
    }

    /// Whether it will soon be another.
    pub fn is_passing(self) -> bool {
        matches!(self, Self::Starting | Self::Stopping | Self::Unknown)
    }
}

impl Service {
    pub fn status(&self) -> Status {
        self.state.as_ref().map_or(Status::Unknown, |it| it.status)
    }

    /// Which process it is: another one has another number, or began at another time.
    pub fn process(&self) -> Option<(Option<u32>, Option<Timestamp>)> {
        let state = self.state.as_ref()?;
        (state.pid.is_some() || state.started_at.is_some()).then_some((state.pid, state.started_at))
    }
}

/// A list, which some servers wrap (§3).
#[derive(Deserialize)]
#[serde(untagged)]
pub(super) enum Services {
    Bare(Vec<Service>),
    Wrapped { services: Vec<Service> },
}

/// A line of a stream of a service (§3), or of its log.
#[derive(Debug, Default, Deserialize)]
pub(super) struct Event {
    /// `started`, `stdout`, `stderr`, `exit`, `error`, `stopping`, `stopped`, `complete`; empty for
    /// anything else.
    #[serde(default, rename = "type")]
    pub kind: String,
    #[serde(default)]
    pub data: Option<String>,
    #[serde(default)]
    pub exit_code: Option<i32>,
    /// Milliseconds since 1970.
    #[serde(default)]
    pub timestamp: Option<i64>,
    /// Of checkpoints, what went wrong (§4).
    #[serde(default)]
    pub error: Option<String>,
}

/// The commands that run (§5).
#[derive(Deserialize)]
pub(super) struct Sessions {
    pub sessions: Vec<Session>,
}

/// A command that runs (§5).
#[derive(Deserialize)]
pub(super) struct Session {
    pub id: String,
    #[serde(default)]
    pub command: Option<String>,
    #[serde(default)]
    pub workdir: Option<String>,
    #[serde(default)]
    pub created: Option<Timestamp>,
    #[serde(default)]
    pub tty: bool,
}

/// What is in a folder (§6).
#[derive(Deserialize)]
pub(super) struct FsList {
    #[serde(default)]
    pub entries: Vec<FsEntry>,
}

/// A file or folder (§6).
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct FsEntry {
    pub name: String,
    #[serde(default)]
    pub path: Option<String>,
    #[serde(default)]
    pub is_dir: bool,
    #[serde(default)]
    pub size: Option<u64>,
    #[serde(default)]
    pub mode: Option<String>,
    #[serde(default)]
    pub mod_time: Option<Timestamp>,
}

/// A checkpoint (§4).
#[derive(Debug, Clone, Deserialize)]
pub(super) struct Checkpoint {
    pub id: String,
    pub create_time: Timestamp,
    #[serde(default)]
    pub comment: Option<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn services_are_read_however_they_are_written() {
        let full = r#"{"name":"web","cmd":"python3","args":["-m"],"needs":["db"],"http_port":3000,
            "env":{"A":"b"},"dir":"/x","state":{"name":"web","status":"running","pid":7353,
            "started_at":"2026-01-05T10:30:00.5Z","restart_count":0},"more":1}"#;
        let sparse = r#"{"name":"db","cmd":"db","args":null,"needs":[],"http_port":null}"#;
        for text in [
            format!("[{full},{sparse}]"),
            format!("{{\"services\":[{full},{sparse}]}}"),
        ] {
            let (Services::Bare(all) | Services::Wrapped { services: all }) =
                serde_json::from_str(&text).unwrap();
            assert_eq!(all[0].status(), Status::Running);
            assert_eq!(all[0].process().unwrap().0, Some(7353));
            assert_eq!(all[0].definition.argv(), ["python3", "-m"]);
            assert_eq!(all[1].status(), Status::Unknown);
            assert!(all[1].process().is_none() && all[1].definition.args.is_empty());
        }
        let odd: State = serde_json::from_str(r#"{"status":"hibernating"}"#).unwrap();
        assert_eq!(odd.status, Status::Unknown);
    }
}
