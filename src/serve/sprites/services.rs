//! Services: protocol page sprites, §3.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::body::Bytes;
use axum::extract::FromRequestParts;
use axum::http::StatusCode;
use axum::http::request::Parts;
use axum::response::Response;
use serde::Deserialize;
use serde_json::{Value, json};

use super::problem::{Answer, Problem};
use super::request::{self, Params, Sprite, duration, json, segment};
use super::stream::{Lines, shown};
use super::watching::Watching;
use crate::model::{
    HumanDuration, Need, NeedTarget, Program, ServiceName, ServiceSpec, ServiceState,
};
use crate::platforms::LogQuery;
use crate::serve::engine::{Engine, EngineError, Sandbox, service_name};
use crate::serve::preview::http_port;
use crate::supervisor::ServiceObject;

/// How long a start is watched, where nothing is said about it.
const WATCHED: Duration = Duration::from_secs(5);

/// How long a stop takes at most, where nothing is said about it.
const GRACE: HumanDuration = HumanDuration::from_secs(10);

/// How many lines of a log are told, where nothing is said about it.
const LINES: usize = 100;

#[derive(Deserialize)]
struct Definition {
    cmd: Option<String>,
    args: Option<Vec<String>>,
    env: Option<BTreeMap<String, String>>,
    dir: Option<String>,
    needs: Option<Vec<String>>,
    http_port: Option<u16>,
}

#[derive(Deserialize)]
pub(super) struct WatchQuery {
    duration: Option<String>,
}

#[derive(Deserialize)]
pub(super) struct StopQuery {
    timeout: Option<String>,
}

#[derive(Deserialize)]
pub(super) struct LogsQuery {
    lines: Option<usize>,
    duration: Option<String>,
}

#[derive(Deserialize)]
struct SignalBody {
    name: String,
    signal: Value,
}

/// The service in the path: its sandbox and its name.
pub(super) struct Service(Arc<Sandbox>, ServiceName);

impl FromRequestParts<Engine> for Service {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, engine: &Engine) -> Answer<Self> {
        let Sprite(sandbox) = Sprite::from_request_parts(parts, engine).await?;
        let name = segment(parts, engine, "service").await?;
        Ok(Self(sandbox, service_name(&name)?))
    }
}

impl Definition {
    fn spec(self) -> Answer<ServiceSpec> {
        let cmd = self.cmd.filter(|cmd| !cmd.is_empty());
        let cmd = cmd.ok_or_else(|| Problem::invalid("`cmd` is required"))?;
        let args = self.args.unwrap_or_default();
        let mut spec = ServiceSpec::new(Program::Exec { cmd, args });
        spec.env = self.env.unwrap_or_default();
        spec.working_dir = self.dir.filter(|dir| !dir.is_empty()).map(Into::into);
        spec.http_port = self.http_port;
        spec.stop.grace = GRACE;
        for need in self.needs.unwrap_or_default() {
            spec.needs.push(Need {
                target: NeedTarget::Local(service_name(&need)?),
                condition: Default::default(),
                restart: false,
            });
        }
        Ok(spec)
    }
}

fn object(sandbox: &Sandbox, service: &ServiceObject) -> Value {
    let mut object = json!({
        "name": service.name,
        "cmd": service.cmd,
        "args": service.args,
        "env": sandbox.record().own_env(&service.name, &service.env),
        "needs": service.needs,
        "http_port": http_port(service),
        "state": state(service),
    });
    if let Some(dir) = &service.working_dir {
        object["dir"] = json!(dir);
    }
    object
}

fn state(service: &ServiceObject) -> Value {
    let status = match service.fine_state() {
        ServiceState::Running | ServiceState::Unhealthy => "running",
        ServiceState::Starting => "starting",
        ServiceState::Stopping => "stopping",
        ServiceState::Stopped | ServiceState::Completed => "stopped",
        ServiceState::Failed | ServiceState::BackingOff => "failed",
        // A client takes a missing state for an unknown one.
        ServiceState::Unknown => return Value::Null,
    };
    let mut state = json!({
        "name": service.name,
        "status": status,
        "restart_count": service.restart_count,
    });
    let optional = [
        ("pid", json!(service.pid)),
        ("started_at", json!(service.started_at.map(shown))),
        ("error", json!(service.error)),
        ("next_restart_at", json!(service.next_restart_at.map(shown))),
    ];
    for (key, value) in optional {
        if !value.is_null() {
            state[key] = value;
        }
    }
    state
}

pub(super) async fn list(Sprite(sandbox): Sprite) -> Answer<Json<Value>> {
    let all = sandbox.services().await?;
    Ok(Json(
        all.iter()
            .map(|service| object(&sandbox, service))
            .collect(),
    ))
}

pub(super) async fn show(Service(sandbox, name): Service) -> Answer<Json<Value>> {
    let service = sandbox.service(&name).await?;
    Ok(Json(object(&sandbox, &service)))
}

pub(super) async fn define(
    Service(sandbox, name): Service,
    Params(query): Params<WatchQuery>,
    body: Bytes,
) -> Answer {
    let duration = watched(query)?;
    let spec = json::<Definition>(&body)?.spec()?;
    let wanted = spec.clone();
    let allow = |all: &[ServiceObject]| allowed(&name, &wanted, all);
    sandbox.redefine(&name, spec, allow).await?;
    Ok(started(sandbox, name, duration))
}

/// What Sprites refuses in a definition because of the other services.
fn allowed(
    name: &ServiceName,
    spec: &ServiceSpec,
    all: &[ServiceObject],
) -> Result<(), EngineError> {
    let others = || all.iter().filter(|other| other.name != name.as_str());
    for need in &spec.needs {
        let need = need.target.to_string();
        if need != name.as_str() && others().all(|other| other.name != need) {
            let text = format!("`{name}` needs `{need}`, which does not exist");
            return Err(EngineError::invalid(text));
        }
    }
    if spec.http_port.is_some() && others().any(|other| http_port(other).is_some()) {
        let text = "another service already has an HTTP port configured";
        return Err(EngineError::conflict(text));
    }
    Ok(())
}

pub(super) async fn start(
    Service(sandbox, name): Service,
    Params(query): Params<WatchQuery>,
) -> Answer {
    let duration = watched(query)?;
    sandbox.service(&name).await?;
    Ok(started(sandbox, name, duration))
}

pub(super) async fn restart(
    Service(sandbox, name): Service,
    Params(query): Params<WatchQuery>,
) -> Answer {
    let duration = watched(query)?;
    sandbox.service(&name).await?;
    Ok(Lines::answer(|lines| async move {
        let mut watching = Watching::new(lines, sandbox, name);
        watching.stop(None).await;
        watching.start(duration).await;
        watching.complete().await;
    }))
}

pub(super) async fn stop(
    Service(sandbox, name): Service,
    Params(query): Params<StopQuery>,
) -> Answer {
    let limit = query.timeout.as_deref().map(duration).transpose()?;
    let service = sandbox.service(&name).await?;
    if service.desired == "down" || matches!(service.fine_state(), ServiceState::Stopped) {
        let text = format!("service {name} is not running");
        return Err(Problem::new(409, "not_running", text));
    }
    Ok(Lines::answer(|lines| async move {
        let mut watching = Watching::new(lines, sandbox, name);
        watching.stop(limit).await;
        watching.complete().await;
    }))
}

fn watched(query: WatchQuery) -> Answer<Duration> {
    let asked = query.duration.as_deref().map(duration).transpose()?;
    Ok(asked.unwrap_or(WATCHED))
}

/// Starts a service and tells how it gets on.
fn started(sandbox: Arc<Sandbox>, name: ServiceName, duration: Duration) -> Response {
    Lines::answer(move |lines| async move {
        let mut watching = Watching::new(lines, sandbox, name);
        watching.start(duration).await;
        watching.complete().await;
    })
}

pub(super) async fn logs(
    Service(sandbox, name): Service,
    Params(query): Params<LogsQuery>,
) -> Answer {
    let following = query.duration.as_deref().map(duration).transpose()?;
    let wanted = LogQuery {
        tail: Some(query.lines.unwrap_or(LINES)),
        follow: following.is_some(),
        ..LogQuery::default()
    };
    let mut log = sandbox.logs(&name, &wanted).await?;
    Ok(Lines::answer(move |lines| async move {
        let telling = async {
            while let Some(line) = log.recv().await {
                if lines.output(&line).await.is_err() {
                    return;
                }
            }
        };
        match following {
            None => telling.await,
            // The time being over is how it ends.
            Some(limit) => drop(tokio::time::timeout(limit, telling).await),
        }
    }))
}

pub(super) async fn remove(Service(sandbox, name): Service) -> Answer<StatusCode> {
    sandbox.delete_service(&name).await?;
    Ok(StatusCode::NO_CONTENT)
}

pub(super) async fn signal(Sprite(sandbox): Sprite, body: Bytes) -> Answer<StatusCode> {
    let body: SignalBody = request::json(&body)?;
    let unknown = || Problem::invalid(format!("`{}` is not a signal", body.signal));
    let signal = match &body.signal {
        Value::String(name) => name.clone(),
        Value::Number(number) => {
            let number = number
                .as_i64()
                .and_then(|number| i32::try_from(number).ok());
            crate::supervisor::signal_name(number.ok_or_else(unknown)?)
        }
        _ => return Err(unknown()),
    };
    let name = service_name(&body.name)?;
    sandbox.signal_service(&name, &signal).await?;
    Ok(StatusCode::NO_CONTENT)
}
