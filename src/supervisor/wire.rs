//! What goes over the socket: the service object, the lenient definition body, the error body.
//! The keys and their meaning are those of the protocol page iris, §4; extensions stand beside them.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use jiff::Timestamp;
use schemars::JsonSchema;
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::{Map, Value, json};

use crate::model::{
    Definition, Exit, Health, ObservedService, Probe, Program, Secrets, ServiceGoal, ServiceName,
    ServiceSpec, ServiceState,
};

/// The four status words of iris (§4.4).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// Up and ready.
    Running,
    /// Never started, stopped on request, or done.
    Stopped,
    /// Ended in failure, or waits for the next try.
    Failed,
    /// In transition, or not determinable.
    Unknown,
}

impl From<ServiceState> for Status {
    fn from(state: ServiceState) -> Self {
        match state {
            ServiceState::Running => Self::Running,
            ServiceState::Stopped | ServiceState::Completed => Self::Stopped,
            ServiceState::Failed | ServiceState::BackingOff => Self::Failed,
            ServiceState::Starting
            | ServiceState::Stopping
            | ServiceState::Unhealthy
            | ServiceState::Unknown => Self::Unknown,
        }
    }
}

impl From<Status> for ServiceState {
    fn from(status: Status) -> Self {
        match status {
            Status::Running => Self::Running,
            Status::Stopped => Self::Stopped,
            Status::Failed => Self::Failed,
            Status::Unknown => Self::Unknown,
        }
    }
}

impl<'de> Deserialize<'de> for Status {
    /// Any word that is not listed counts as `unknown` (§4.4).
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        Ok(match String::deserialize(d)?.as_str() {
            "running" => Self::Running,
            "stopped" => Self::Stopped,
            "failed" => Self::Failed,
            _ => Self::Unknown,
        })
    }
}

/// A service as the API shows it (§4.3), with our extensions from `definition` on.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ServiceObject {
    /// Its name.
    pub name: String,
    /// The program; `/bin/sh` for a shell line.
    #[serde(default)]
    pub cmd: String,
    /// The coarse state.
    pub status: Status,
    /// The main process, if there is one.
    #[serde(default)]
    pub pid: Option<u32>,
    /// Whether it runs in a container.
    #[serde(default)]
    pub container: bool,
    /// The program's arguments.
    #[serde(default)]
    pub args: Vec<String>,
    /// Its environment over the base environment; secrets stay placeholders.
    #[serde(default)]
    pub env: BTreeMap<String, String>,
    /// Its working directory, as defined.
    #[serde(default)]
    pub working_dir: Option<PathBuf>,
    /// The Unix user it runs as, as defined.
    #[serde(default)]
    pub user: Option<String>,
    /// The port of a TCP health check.
    #[serde(default)]
    pub health_port: Option<u16>,
    /// The names of what it needs.
    #[serde(default)]
    pub needs: Vec<String>,
    /// The OCI image, as defined.
    #[serde(default)]
    pub image: Option<String>,
    /// The last failure.
    #[serde(default)]
    pub error: Option<String>,
    /// The last exit code.
    #[serde(default)]
    pub exit_code: Option<i32>,
    /// The name of the signal that ended it last, without `SIG`.
    #[serde(default)]
    pub signal: Option<String>,
    /// When the live process was started.
    #[serde(default)]
    pub started_at: Option<Timestamp>,
    /// Restarts since it was last started on request.
    #[serde(default)]
    pub restart_count: u32,
    /// When the next try is due.
    #[serde(default)]
    pub next_restart_at: Option<Timestamp>,
    /// `up` or `down`: what was asked for last.
    #[serde(default)]
    pub desired: String,
    /// Counts the changed definitions.
    #[serde(default)]
    pub revision: u64,
    /// The revision that the live process was started from.
    #[serde(default)]
    pub running_revision: Option<u64>,
    /// The whole definition.
    #[serde(default, deserialize_with = "lenient")]
    #[schemars(with = "Option<Map<String, Value>>")]
    pub definition: Option<ServiceSpec>,
    /// The fine state.
    #[serde(default, deserialize_with = "lenient")]
    pub state: Option<ServiceState>,
    /// Why it is not ready: what it waits for, or the last failure. Of a running one, what it says of
    /// itself, or why it was restarted.
    #[serde(default)]
    pub message: Option<String>,
    /// How the last process ended.
    #[serde(default, deserialize_with = "lenient")]
    pub last_exit: Option<Exit>,
    /// Grows with every change of this object, also over restarts of the supervisor.
    #[serde(default)]
    pub seq: u64,
}

/// `None` for anything that cannot be understood, so that one new word does not hide the object.
fn lenient<'de, D, T>(d: D) -> Result<Option<T>, D::Error>
where
    D: Deserializer<'de>,
    T: serde::de::DeserializeOwned,
{
    Ok(serde_json::from_value(Value::deserialize(d)?).ok())
}

impl ServiceObject {
    /// The keys that follow from the definition alone; everything else is at rest.
    pub(super) fn of_definition(name: &ServiceName, spec: &ServiceSpec) -> Self {
        let (cmd, args) = match &spec.program {
            Program::Exec { cmd, args } => (cmd.clone(), args.clone()),
            Program::Shell { command } => {
                ("/bin/sh".to_owned(), vec!["-c".to_owned(), command.clone()])
            }
        };
        let health_port = match &spec.health {
            Some(Health {
                probe: Probe::Tcp { port },
                ..
            }) => Some(*port),
            _ => None,
        };
        Self {
            name: name.to_string(),
            cmd,
            status: Status::Stopped,
            pid: None,
            container: spec.container,
            args,
            env: spec.env.clone(),
            working_dir: spec.working_dir.clone(),
            user: spec.user.clone(),
            health_port,
            needs: spec.needs.iter().map(|n| n.target.to_string()).collect(),
            image: spec.image.clone(),
            error: None,
            exit_code: None,
            signal: None,
            started_at: None,
            restart_count: 0,
            next_restart_at: None,
            desired: String::new(),
            revision: 0,
            running_revision: None,
            definition: Some(spec.clone()),
            state: Some(ServiceState::Stopped),
            message: None,
            last_exit: None,
            seq: 0,
        }
    }

    /// The fine state, guessed from the coarse one where only that is known.
    pub fn fine_state(&self) -> ServiceState {
        self.state.unwrap_or_else(|| self.status.into())
    }

    /// The object in the words that all platforms share.
    pub fn observed(&self) -> ObservedService {
        ObservedService {
            definition: match &self.definition {
                Some(spec) => Definition::Echo(Arc::new(spec.clone())),
                None => Definition::Unknown,
            },
            stale: self
                .running_revision
                .is_some_and(|running| running != self.revision),
            state: self.fine_state(),
            goal: match self.desired.as_str() {
                "down" => ServiceGoal::Stopped,
                _ => ServiceGoal::Running,
            },
            pid: self.pid.filter(|pid| *pid != 0),
            started_at: self.started_at,
            restarts: self.restart_count,
            last_exit: self.last_exit.clone(),
            next_restart_at: self.next_restart_at,
            message: match self.state {
                Some(_) => self.message.clone(),
                None => self.message.clone().or_else(|| self.error.clone()),
            },
        }
    }
}

impl From<&ServiceObject> for ObservedService {
    fn from(object: &ServiceObject) -> Self {
        object.observed()
    }
}

/// A list in any of the shapes that a server may give it (§4.1).
#[derive(Debug, Deserialize)]
#[serde(untagged)]
pub(super) enum Listing {
    Bare(Vec<ServiceObject>),
    Services { services: Vec<ServiceObject> },
    Data { data: Vec<ServiceObject> },
}

impl From<Listing> for Vec<ServiceObject> {
    fn from(listing: Listing) -> Self {
        match listing {
            Listing::Bare(services) | Listing::Services { services } => services,
            Listing::Data { data } => data,
        }
    }
}

/// The body of every answer that is not a success (§3).
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
pub(super) struct ErrorBody {
    #[serde(default)]
    pub ok: bool,
    #[serde(default)]
    pub error: String,
    #[serde(default)]
    pub code: String,
    /// The last lines of the service's output, where a start failed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub log_tail: Vec<String>,
}

/// One line of a start that tells how it gets on.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "event", rename_all = "snake_case")]
pub(super) enum StartEvent {
    /// The service as it is now.
    Changed { service: Box<ServiceObject> },
    /// The last line: it has come as far as was asked for.
    Done { service: Box<ServiceObject> },
    /// The last line: the error, and the status that it is answered with otherwise.
    Refused { status: u16, body: ErrorBody },
}

/// The body of a start: only secret values.
pub(super) fn start_body(secrets: &Secrets) -> Value {
    json!({ "secret_values": exposed(secrets) })
}

/// The body of a PUT.
pub(super) fn put_body(spec: &ServiceSpec, secrets: &Secrets) -> Result<Value, serde_json::Error> {
    let mut body = serde_json::to_value(spec)?;
    if let Value::Object(body) = &mut body {
        body.insert("secret_values".to_owned(), Value::Object(exposed(secrets)));
    }
    Ok(body)
}

fn exposed(secrets: &Secrets) -> Map<String, Value> {
    let text = |value: &SecretString| Value::String(value.expose_secret().to_owned());
    secrets
        .iter()
        .map(|(name, value)| (name.to_owned(), text(value)))
        .collect()
}

/// Takes `secret_values` out of a body.
pub(super) fn take_secrets(body: &mut Map<String, Value>) -> Result<Secrets, String> {
    let mut secrets = Secrets::default();
    match body.remove("secret_values") {
        None | Some(Value::Null) => {}
        Some(Value::Object(values)) => {
            for (name, value) in values {
                match value {
                    Value::String(value) => secrets.insert(name, SecretString::from(value)),
                    _ => return Err(format!("`secret_values.{name}` must be a string")),
                }
            }
        }
        Some(_) => return Err("`secret_values` must be an object".to_owned()),
    }
    Ok(secrets)
}

/// Reads a definition leniently (§4.2): empty optional fields count as absent, `health_port`, a plain
/// word for `restart` and `true` for `health.notify` are understood, unknown fields are ignored.
pub(super) fn read_definition(
    name: &ServiceName,
    mut body: Map<String, Value>,
) -> Result<ServiceSpec, String> {
    body.retain(|_, value| !is_empty(value));
    for key in ["health", "restart", "stop"] {
        if let Some(Value::Object(fields)) = body.get_mut(key) {
            fields.retain(|_, value| !value.is_null());
        }
    }
    if let Some(Value::Object(health)) = body.get_mut("health") {
        match health.get("notify") {
            Some(Value::Bool(true)) => drop(health.insert("notify".to_owned(), json!({}))),
            Some(Value::Bool(false)) => drop(health.remove("notify")),
            _ => {}
        }
    }
    let health_port = body.remove("health_port");
    if let Some(port) = health_port {
        let port = port
            .as_u64()
            .and_then(|port| u16::try_from(port).ok())
            .ok_or("`health_port` must be a number from 1 to 65535")?;
        body.entry("health")
            .or_insert_with(|| json!({ "tcp": { "port": port } }));
    }
    if let Some(Value::String(policy)) = body.get("restart") {
        let policy = json!({ "policy": policy });
        body.insert("restart".to_owned(), policy);
    }
    check_shapes(&body)?;
    let spec: ServiceSpec =
        serde_json::from_value(Value::Object(body)).map_err(|error| error.to_string())?;
    check_values(name, &spec)?;
    Ok(spec)
}

fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Bool(flag) => !flag,
        Value::Number(number) => number.as_f64() == Some(0.0),
        Value::String(text) => text.is_empty(),
        Value::Array(items) => items.is_empty(),
        Value::Object(fields) => fields.is_empty(),
    }
}

/// The shapes whose own error messages would not name the field.
fn check_shapes(body: &Map<String, Value>) -> Result<(), String> {
    match (body.get("cmd"), body.get("command")) {
        (None, None) => return Err("`cmd` is required".to_owned()),
        (Some(_), Some(_)) => return Err("give `cmd` or `command`, not both".to_owned()),
        (Some(Value::String(_)), None) | (None, Some(Value::String(_))) => {}
        (Some(_), None) => return Err("`cmd` must be a string".to_owned()),
        (None, Some(_)) => return Err("`command` must be a string".to_owned()),
    }
    for key in ["args", "needs"] {
        match body.get(key) {
            None => {}
            Some(Value::Array(items)) if key == "needs" || items.iter().all(Value::is_string) => {}
            Some(_) => return Err(format!("`{key}` must be a list of strings")),
        }
    }
    match body.get("env") {
        None => Ok(()),
        Some(Value::Object(env)) => match env.iter().find(|(_, value)| !value.is_string()) {
            Some((key, _)) => Err(format!("`env.{key}` must be a string")),
            None => Ok(()),
        },
        Some(_) => Err("`env` must be an object of strings".to_owned()),
    }
}

fn check_values(name: &ServiceName, spec: &ServiceSpec) -> Result<(), String> {
    let argv = spec.program.argv();
    if argv.iter().any(|arg| arg.contains('\0')) {
        return Err("`cmd` and `args` must not contain NUL".to_owned());
    }
    let dir = spec.working_dir.as_deref().unwrap_or(Path::new(""));
    if dir.as_os_str().as_encoded_bytes().contains(&0) {
        return Err("`working_dir` must not contain NUL".to_owned());
    }
    if spec.user.as_ref().is_some_and(|user| user.contains('\0')) {
        return Err("`user` must not contain NUL".to_owned());
    }
    if let Some(health) = &spec.health {
        super::probe::check(health)?;
    }
    for (key, value) in &spec.env {
        if key.is_empty() || key.contains(['=', '\0']) {
            return Err(format!(
                "`{}` cannot be the name of a variable",
                key.escape_debug()
            ));
        }
        if value.contains('\0') {
            return Err(format!("`env.{key}` must not contain NUL"));
        }
    }
    if spec.container && spec.image.is_none() {
        return Err("`container` needs an `image`".to_owned());
    }
    if spec.all_ports().any(|port| port == 0) {
        return Err("a port must be a number from 1 to 65535".to_owned());
    }
    if super::signal::by_name(&spec.stop.signal).is_none() {
        return Err(format!(
            "`{}` is not the name of a signal",
            spec.stop.signal
        ));
    }
    if spec
        .needs
        .iter()
        .any(|need| need.target.to_string() == name.as_str())
    {
        return Err(format!("`{name}` needs itself"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(body: Value) -> Result<ServiceSpec, String> {
        let Value::Object(body) = body else {
            panic!("not an object")
        };
        read_definition(&ServiceName::new("web").unwrap(), body)
    }

    #[test]
    fn empty_fields_equal_absent_ones() {
        let plain = read(json!({"cmd": "sh"})).unwrap();
        let padded = json!({
            "cmd": "sh", "args": [], "env": {}, "working_dir": "", "user": null, "health_port": 0,
            "needs": [], "container": false, "image": "", "new_field": 3, "restart": null,
        });
        assert_eq!(read(padded).unwrap(), plain);
    }

    #[test]
    fn sugar_becomes_normal_form() {
        let spec = read(json!({"command": "x", "health_port": 80, "restart": "always"})).unwrap();
        assert_eq!(spec.health, Some(Health::new(Probe::Tcp { port: 80 })));
        assert_eq!(spec.restart.policy, crate::model::RestartPolicy::Always);
    }

    #[test]
    fn bad_bodies_name_the_field() {
        for (body, part) in [
            (json!({}), "`cmd` is required"),
            (json!({"cmd": ""}), "`cmd` is required"),
            (json!({"cmd": 3}), "`cmd` must be"),
            (json!({"cmd": "a", "command": "b"}), "not both"),
            (json!({"cmd": "a", "args": "x"}), "`args`"),
            (json!({"cmd": "a", "env": {"A": 1}}), "`env.A`"),
            (json!({"cmd": "a", "env": {"A=B": "1"}}), "A=B"),
            (json!({"cmd": "a", "health_port": 70000}), "`health_port`"),
            (json!({"cmd": "a", "container": true}), "`image`"),
            (json!({"cmd": "a", "needs": ["web"]}), "needs itself"),
            (json!({"cmd": "a\0"}), "NUL"),
            (json!({"cmd": "a", "working_dir": "b\0"}), "`working_dir`"),
            (json!({"cmd": "a", "user": "b\0"}), "`user`"),
            (
                json!({"cmd": "a", "health": {"exec": {"argv": ["b\0"]}}}),
                "`health.exec.argv`",
            ),
            (
                json!({"cmd": "a", "health": {"http": {"port": 1, "path": "@example.org/"}}}),
                "`health.http.path`",
            ),
            (
                json!({"cmd": "a", "health": {"http": {"port": 1, "path": "/a\r\nb"}}}),
                "`health.http.path`",
            ),
            (json!({"cmd": "a", "stop": {"signal": "NOPE"}}), "NOPE"),
        ] {
            let error = read(body.clone()).unwrap_err();
            assert!(error.contains(part), "{body}: {error}");
        }
    }

    #[test]
    fn a_definition_round_trips_through_the_put_body() {
        let spec = read(json!({
            "command": "x", "health": {"http": {"port": 1, "path": "/"}, "timeout": "2s"},
            "needs": ["db", {"service": "m", "condition": "completed"}], "kind": "task",
            "timeout": "1s", "stop": {"signal": "INT", "grace": "1s"},
        }))
        .unwrap();
        let body = put_body(&spec, &Secrets::default()).unwrap();
        assert_eq!(read(body).unwrap(), spec);
    }

    #[test]
    fn an_object_with_only_the_documented_keys_is_read() {
        let object: ServiceObject = serde_json::from_value(json!({
            "name": "redis", "cmd": "redis-server", "status": "backoff", "pid": 142,
            "container": false, "state": "a-new-word",
        }))
        .unwrap();
        assert_eq!(object.status, Status::Unknown);
        assert_eq!(object.observed().state, ServiceState::Unknown);
        assert_eq!(object.observed().definition, Definition::Unknown);
    }
}
