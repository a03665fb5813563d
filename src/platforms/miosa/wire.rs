//! What Miosa answers, in all the shapes that its clients have to accept: protocol page miosa, §2 to §5.

use jiff::Timestamp;
use secrecy::SecretString;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer};
use serde_json::{Map, Value};

use crate::model::ServiceName;

/// The record under `data`, or the body itself.
pub(super) fn unwrapped(body: Value) -> Value {
    match body {
        Value::Object(mut body) if body.contains_key("data") => {
            body.remove("data").unwrap_or_default()
        }
        body => body,
    }
}

/// The list in a body: under one of these keys, or the body itself.
pub(super) fn listed(body: Value, keys: &[&str]) -> Vec<Value> {
    match body {
        Value::Array(list) => list,
        Value::Object(mut body) => {
            let found = keys.iter().find_map(|key| match body.remove(*key) {
                Some(Value::Array(list)) => Some(list),
                _ => None,
            });
            found.unwrap_or_default()
        }
        _ => Vec::new(),
    }
}

/// A value as a type; the error shows none of it.
pub(super) fn read<T: DeserializeOwned>(value: Value) -> Result<T, String> {
    serde_json::from_value(value).map_err(|_| "the answer cannot be understood".to_owned())
}

/// A file or folder.
#[derive(Debug, Deserialize)]
pub(super) struct FileRecord {
    #[serde(default)]
    pub name: Option<String>,
    #[serde(default, rename = "type")]
    kind: Option<String>,
    #[serde(default)]
    pub size_bytes: Option<u64>,
    #[serde(default)]
    pub modified_at: Option<Timestamp>,
}

impl FileRecord {
    /// Which words there are for a folder is assumed.
    pub fn is_folder(&self) -> bool {
        matches!(self.kind.as_deref(), Some("directory" | "dir" | "folder"))
    }
}

/// A sandbox.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct Record {
    pub id: String,
    #[serde(default)]
    pub name: Option<String>,
    #[serde(default)]
    state: Option<String>,
    #[serde(default)]
    status: Option<String>,
    #[serde(default)]
    pub ready: Option<bool>,
    #[serde(default)]
    pub template_id: Option<String>,
    #[serde(default)]
    pub cpu_count: Option<u32>,
    #[serde(default)]
    pub memory_mb: Option<u64>,
    #[serde(default)]
    pub disk_size_mb: Option<u64>,
    #[serde(default)]
    pub always_on: Option<bool>,
    #[serde(default)]
    pub timeout_sec: Option<u64>,
    #[serde(default)]
    pub preview_url: Option<String>,
    #[serde(default)]
    pub checkpoint_pending: Option<bool>,
    #[serde(default)]
    pub metadata: Option<Map<String, Value>>,
    #[serde(default, deserialize_with = "lenient")]
    pub created_at: Option<Timestamp>,
}

/// How far a sandbox is, from its state word (§3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stage {
    /// Up.
    Running,
    /// Kept; a resume brings it up.
    Down,
    /// On its way to something.
    Moving,
    /// Broken.
    Error,
    /// Gone for good.
    Destroyed,
}

impl Record {
    /// Its state in the platform's own word.
    pub(super) fn word(&self) -> &str {
        let word = self.state.as_deref().or(self.status.as_deref());
        word.unwrap_or_default()
    }

    pub(super) fn stage(&self) -> Stage {
        match self.word() {
            "running" => Stage::Running,
            "paused" | "stopped" => Stage::Down,
            "error" => Stage::Error,
            "destroyed" => Stage::Destroyed,
            _ => Stage::Moving,
        }
    }

    /// Whether commands may be run in it, as far as it says so itself.
    pub(super) fn is_ready(&self) -> bool {
        self.stage() == Stage::Running && self.ready != Some(false)
    }

    /// Why it is broken.
    pub(super) fn last_error(&self) -> String {
        let error = self.metadata.as_ref().and_then(|it| it.get("last_error"));
        let reason = error.and_then(|error| error.get("reason").or(Some(error)));
        let reason = reason.and_then(Value::as_str);
        let id = &self.id;
        match reason {
            Some(reason) => format!("sandbox {id} is in state `error`: {reason}"),
            None => format!("sandbox {id} is in state `error`"),
        }
    }
}

/// A background process, or a named service.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct Process {
    /// A number, or a text; empty for a named service that does not tell it.
    #[serde(deserialize_with = "text")]
    pub pid: String,
    /// Whether it is a named service, which has its name instead of a number.
    #[serde(skip)]
    pub named: bool,
    #[serde(default)]
    pub name: Option<String>,
    #[serde(default)]
    pub command: Option<String>,
    #[serde(default)]
    pub status: Option<String>,
    #[serde(default)]
    pub state: Option<String>,
    #[serde(default)]
    pub exit_code: Option<i32>,
    #[serde(default)]
    pub started_at: Option<String>,
}

impl Process {
    /// One of which only its number is known.
    pub(super) fn numbered(pid: String) -> Self {
        Self {
            pid,
            named: false,
            name: None,
            command: None,
            status: None,
            state: None,
            exit_code: None,
            started_at: None,
        }
    }

    /// One that has ended, of which nothing is told any more.
    pub(super) fn ended(command: String) -> Self {
        Self {
            command: Some(command),
            status: Some("exited".to_owned()),
            ..Self::numbered(String::new())
        }
    }

    /// A named service of which no more is known.
    pub(super) fn service(name: &ServiceName) -> Self {
        Self {
            named: true,
            name: Some(name.to_string()),
            ..Self::numbered(String::new())
        }
    }

    /// Where it is found below its sandbox.
    pub(super) fn path(&self) -> [&str; 2] {
        match self.named {
            true => ["services", self.name.as_deref().unwrap_or_default()],
            false => ["processes", &self.pid],
        }
    }

    /// Whether this is told of the same process. Numbers are used again, names are not.
    pub(super) fn is_same(&self, other: &Self) -> bool {
        self.path() == other.path() && (self.named || self.started_at == other.started_at)
    }

    /// Whether it runs. A named service is started again, and may tell how it ended before.
    pub(super) fn is_live(&self) -> bool {
        let word = self.status.as_deref().or(self.state.as_deref());
        let over = [
            "stopped",
            "failed",
            "exited",
            "killed",
            "completed",
            "error",
        ];
        let runs = self.named || self.exit_code.is_none();
        runs && !word.is_some_and(|word| over.contains(&word))
    }

    /// When it was started.
    pub(super) fn started(&self) -> Option<Timestamp> {
        self.started_at.as_deref()?.parse().ok()
    }
}

/// What came of another size (§4).
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Resized {
    /// It has it, or will have it once it is resumed.
    InPlace,
    /// Another sandbox was made that has it.
    Elsewhere(String),
    /// Nothing was changed.
    Not,
}

/// An answer that says nothing is taken for a yes: the status was one.
pub(super) fn resized(body: &Value) -> Resized {
    let other = &body["new_sandbox"];
    if let Some(id) = other.as_str().or(other["id"].as_str()) {
        return Resized::Elsewhere(id.to_owned());
    }
    let says = |key: &str| body[key].as_bool();
    match (says("applied_live"), says("requires_restart")) {
        (Some(false), Some(false)) => Resized::Not,
        _ => Resized::InPlace,
    }
}

/// A link that lets others in (§4). Its address is not to be shown: it holds a token.
pub(super) struct Shared {
    pub id: Option<String>,
    pub url: Option<SecretString>,
    pub expires_at: Option<Timestamp>,
    pub scope: Option<String>,
}

/// A link, whatever its fields are called.
pub(super) fn shared(body: &Value) -> Shared {
    let text = |keys: &[&str]| keys.iter().find_map(|key| body[*key].as_str());
    Shared {
        id: text(&["share_id", "id"]).map(str::to_owned),
        url: text(&["share_url", "url", "preview_url"]).map(SecretString::from),
        expires_at: text(&["expires_at"]).and_then(|at| at.parse().ok()),
        scope: text(&["scope"]).map(str::to_owned),
    }
}

/// A named service (§6), of which perhaps nothing but its state is told; `name` is what was asked for.
pub(super) fn named(mut body: Value, name: Option<&str>) -> Result<Process, String> {
    if let Value::Object(body) = &mut body {
        let pid = body.entry("pid").or_insert(Value::Null);
        if pid.is_null() {
            *pid = String::new().into();
        }
    }
    let told: Process = read(body)?;
    let name = told.name.or_else(|| name.map(str::to_owned));
    Ok(Process {
        named: true,
        name,
        ..told
    })
}

/// What a command left.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct Ran {
    #[serde(default)]
    pub stdout: String,
    #[serde(default)]
    pub exit_code: i32,
}

/// Whether a sandbox can run commands (§4).
pub(super) fn says_ready(body: &Value) -> bool {
    if body["ready"].as_bool() == Some(true) {
        return true;
    }
    let components = [
        &body["components"],
        &body["readiness"]["components"],
        &body["readiness_components"],
    ];
    let components = components.into_iter().find_map(Value::as_object);
    components.is_some_and(|components| {
        COMPONENTS.iter().all(|name| {
            let status = components.get(*name);
            let status = status.map(|it| it.get("status").unwrap_or(it));
            status.and_then(Value::as_str) == Some("ready")
        })
    })
}

const COMPONENTS: [&str; 8] = [
    "command_agent",
    "process_control",
    "resource_contract",
    "clock",
    "identity",
    "durability",
    "filesystem",
    "internal_probe",
];

/// The lines of a log (§5).
pub(super) fn log_lines(body: &[u8]) -> Vec<String> {
    let whole = || String::from_utf8_lossy(body).into_owned();
    let text = match serde_json::from_slice(body) {
        Ok(Value::String(text)) => text,
        Ok(Value::Object(body)) => {
            let inner = body.get("data").and_then(Value::as_object).unwrap_or(&body);
            if let Some(Value::Array(lines)) = inner.get("lines") {
                let lines = lines.iter().filter_map(Value::as_str);
                return lines.map(str::to_owned).collect();
            }
            let text = ["data", "logs", "output"];
            let text = text.iter().find_map(|key| inner.get(*key)?.as_str());
            text.unwrap_or_default().to_owned()
        }
        _ => whole(),
    };
    text.lines().map(str::to_owned).collect()
}

fn text<'de, D: Deserializer<'de>>(d: D) -> Result<String, D::Error> {
    match Value::deserialize(d)? {
        Value::String(text) => Ok(text),
        Value::Number(number) => Ok(number.to_string()),
        _ => Err(serde::de::Error::custom("neither a number nor a text")),
    }
}

fn lenient<'de, D: Deserializer<'de>>(d: D) -> Result<Option<Timestamp>, D::Error> {
    let value = Value::deserialize(d)?;
    Ok(value.as_str().and_then(|text| text.parse().ok()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn every_shape_of_a_process_is_read() {
        for (shape, pid, live) in [
            (json!({"data": {"pid": 7, "status": "running"}}), "7", true),
            (
                json!({"pid": "7", "state": "running", "exit_code": null}),
                "7",
                true,
            ),
            (json!({"data": {"pid": 7, "status": "exited"}}), "7", false),
            (
                json!({"pid": 7, "status": "odd", "exit_code": 0}),
                "7",
                false,
            ),
            (json!({"pid": 7}), "7", true),
        ] {
            let process: Process = read(unwrapped(shape)).unwrap();
            assert_eq!((process.pid.as_str(), process.is_live()), (pid, live));
        }
        assert!(read::<Process>(json!({"pid": null})).is_err());
    }

    #[test]
    fn of_a_named_service_its_state_is_enough() {
        let told = json!({"name": "api", "status": "running", "pid": null, "exit_code": 1});
        for (shape, live) in [
            (json!({"status": "running"}), true),
            (json!({"status": "stopped"}), false),
            (told, true),
        ] {
            let service = named(shape, Some("api")).unwrap();
            assert_eq!(service.path(), ["services", "api"]);
            assert_eq!((service.pid.as_str(), service.is_live()), ("", live));
        }
        assert!(named(json!("running"), Some("api")).is_err());
    }

    #[test]
    fn every_shape_of_a_log_is_read() {
        let lines = vec!["a".to_owned(), "b".to_owned()];
        for shape in [
            "\"a\\nb\\n\"",
            r#"{"data":"a\nb\n"}"#,
            r#"{"logs":"a\nb"}"#,
            r#"{"data":{"lines":["a","b"]}}"#,
            r#"{"lines":["a","b"]}"#,
            "a\nb\n",
        ] {
            assert_eq!(log_lines(shape.as_bytes()), lines, "{shape}");
        }
    }

    #[test]
    fn readiness_is_said_in_two_ways() {
        assert!(says_ready(&json!({"ready": true})));
        let all = |status: Value| {
            let all = COMPONENTS
                .iter()
                .map(|name| ((*name).to_owned(), status.clone()));
            json!({"readiness": {"components": all.collect::<Map<_, _>>()}})
        };
        assert!(says_ready(&all(json!("ready"))));
        assert!(says_ready(&all(json!({"status": "ready"}))));
        assert!(!says_ready(&all(json!("pending"))));
        assert!(!says_ready(&json!({"ready": false})));
    }
}
