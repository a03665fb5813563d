//! Background processes: protocol page miosa, §5.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use axum::Json;
use axum::body::Bytes;
use axum::extract::{FromRequestParts, State};
use axum::http::StatusCode;
use axum::http::request::Parts;
use axum::response::{IntoResponse, Response};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::problem::{Answer, Problem};
use super::reply::Events;
use super::request::{self, Params, Ready, segment};
use super::{LogShape, Miosa, PROTOCOL, services};
use crate::model::{
    Exit, HumanDuration, Program, Restart, RestartPolicy, ServiceName, ServiceSpec,
};
use crate::platforms::LogQuery;
use crate::serve::engine::{Sandbox, service_name};
use crate::supervisor::{ServiceObject, Until};

/// How many lines of a log are told, where nothing is said about it.
const LINES: usize = 200;

/// How long an answer to a stop waits for the end. What takes longer ends later.
const PROMPT: Duration = Duration::from_millis(300);

/// Above every number that the system gives to a process.
const ENDED_AT_ONCE: u64 = 1 << 32;

#[derive(Deserialize)]
pub(super) struct StartBody {
    pub command: String,
    pub cwd: Option<String>,
    #[serde(default)]
    pub env: BTreeMap<String, String>,
    pub name: Option<String>,
    #[serde(alias = "timeout_seconds")]
    pub timeout: Option<f64>,
}

#[derive(Deserialize)]
pub(super) struct LogsQuery {
    pub tail: Option<usize>,
}

#[derive(Deserialize)]
struct StdinBody {
    data: String,
}

/// What is known of a process beside its definition: it was started here.
#[derive(Default, Clone, Serialize, Deserialize)]
#[serde(default)]
struct Started {
    pid: u64,
    name: Option<String>,
    command: String,
    at: Option<Timestamp>,
}

/// One process: a service, and what is known of it.
struct Process {
    service: ServiceObject,
    started: Option<Started>,
}

impl Process {
    fn pid(&self) -> Option<u64> {
        let noted = self.started.as_ref().map(|started| started.pid);
        self.service.pid.map(u64::from).or(noted)
    }

    fn is_live(&self) -> bool {
        self.service.pid.is_some()
    }

    fn command(&self) -> String {
        match &self.started {
            Some(started) => started.command.clone(),
            None => services::command(&self.service),
        }
    }

    fn started_at(&self) -> Option<Timestamp> {
        let noted = self.started.as_ref().and_then(|started| started.at);
        noted.or(self.service.started_at)
    }

    fn object(&self, miosa: &Miosa) -> Value {
        let switches = miosa.switches();
        let pid = self.pid().unwrap_or_default();
        let failed = |exit: &Exit| exit.code != 0;
        let status = match &self.service.last_exit {
            _ if self.is_live() => "running",
            Some(exit) if failed(exit) => "failed",
            _ => "stopped",
        };
        let code = self.service.last_exit.as_ref().filter(|_| !self.is_live());
        let mut object = json!({
            "id": pid.to_string(),
            "pid": if switches.pid_string { json!(pid.to_string()) } else { json!(pid) },
            "command": told_command(miosa, self.command()),
            "exit_code": code.map(|exit| exit.code),
        });
        object[if switches.state_key {
            "state"
        } else {
            "status"
        }] = status.into();
        if !switches.no_started_at {
            object["started_at"] = json!(self.started_at());
        }
        if !switches.no_name {
            let noted = self.started.as_ref().map(|it| it.name.clone());
            object["name"] = json!(noted.unwrap_or_else(|| Some(self.service.name.clone())));
        }
        object
    }

    fn name(&self) -> Answer<ServiceName> {
        Ok(service_name(&self.service.name)?)
    }
}

/// A command, as far as it is told.
pub(super) fn told_command(miosa: &Miosa, mut command: String) -> String {
    if let Some(bytes) = miosa.switches().command_bytes {
        let end = (0..=bytes.min(command.len())).rev();
        let end = end.into_iter().find(|end| command.is_char_boundary(*end));
        command.truncate(end.unwrap_or_default());
    }
    command
}

/// Whether a service of the engine was started here, as a process.
pub(super) fn is_one(sandbox: &Sandbox, name: &str) -> bool {
    let record = sandbox.record();
    let mut notes = record.services.iter();
    let note = notes.find(|(service, _)| service.as_str() == name);
    note.is_some_and(|(_, note)| note.extra::<Option<Started>>(PROTOCOL).is_some())
}

/// Every process of a sandbox, also those that have ended.
async fn all(sandbox: &Sandbox) -> Answer<Vec<Process>> {
    let services = sandbox.services().await?;
    let record = sandbox.record();
    let of = |service: ServiceObject| {
        let note = record
            .services
            .iter()
            .find(|(name, _)| name.as_str() == service.name);
        let started = note.and_then(|(_, note)| note.extra::<Option<Started>>(PROTOCOL));
        Process { service, started }
    };
    Ok(services.into_iter().map(of).collect())
}

/// Removes what was started here: it does not come back with the sandbox.
pub(super) async fn clear(sandbox: &Sandbox) -> Answer<()> {
    for process in all(sandbox).await? {
        if process.started.is_some() {
            sandbox.delete_service(&process.name()?).await?;
        }
    }
    Ok(())
}

/// The process in the path.
pub(super) struct Picked(Arc<Sandbox>, Process);

impl FromRequestParts<Miosa> for Picked {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, miosa: &Miosa) -> Answer<Self> {
        let Ready(sandbox) = Ready::from_request_parts(parts, miosa).await?;
        let pid = segment(parts, miosa, "pid").await?;
        let mut all = all(&sandbox).await?.into_iter();
        let found = all.find(|it| it.pid().is_some_and(|it| it.to_string() == pid));
        let found = found.ok_or_else(|| Problem::not_found("process"))?;
        Ok(Self(sandbox, found))
    }
}

/// A name that no service has: `wanted`, if that will do, or one like it.
async fn free_name(sandbox: &Sandbox, wanted: Option<&str>) -> Answer<ServiceName> {
    let wanted = wanted.filter(|name| service_name(name).is_ok());
    let wanted = wanted.unwrap_or("process");
    let all = all(sandbox).await?;
    for number in 1.. {
        let name = match number {
            1 => wanted.to_owned(),
            _ => format!("{wanted}-{number}"),
        };
        let name = service_name(&name)?;
        match all.iter().find(|it| it.service.name == name.as_str()) {
            None => return Ok(name),
            // One that has ended leaves its name to the next.
            Some(it) if it.started.is_some() && !it.is_live() => {
                sandbox.delete_service(&name).await?;
                return Ok(name);
            }
            Some(_) => {}
        }
    }
    Err(Problem::new(500, "INTERNAL_ERROR", "there is no free name"))
}

/// A folder as the engine takes it: the workspace is called `/workspace` by clients.
pub(super) fn folder(cwd: Option<&str>) -> Option<String> {
    let cwd = cwd?.trim_end_matches('/');
    let inside = cwd.strip_prefix("/workspace");
    let inside = inside.filter(|rest| rest.is_empty() || rest.starts_with('/'));
    let folder = inside.map_or(cwd, |rest| rest.trim_start_matches('/'));
    (!folder.is_empty()).then(|| folder.to_owned())
}

pub(super) async fn start(
    State(miosa): State<Miosa>,
    Ready(sandbox): Ready,
    body: Bytes,
) -> Answer {
    begin(&miosa, sandbox, request::json(&body)?).await
}

/// Starts a process, and answers with its record.
pub(super) async fn begin(miosa: &Miosa, sandbox: Arc<Sandbox>, body: StartBody) -> Answer {
    static NUMBER: AtomicU64 = AtomicU64::new(ENDED_AT_ONCE);
    let mut spec = ServiceSpec::new(Program::Shell {
        command: body.command.clone(),
    });
    spec.env = body.env;
    spec.working_dir = folder(body.cwd.as_deref()).map(Into::into);
    spec.stdin_open = miosa.switches().stdin;
    spec.restart = Restart {
        policy: RestartPolicy::No,
        ..Restart::default()
    };
    let limit = body
        .timeout
        .and_then(|it| Duration::try_from_secs_f64(it).ok());
    spec.timeout = limit.map(HumanDuration);
    let name = {
        // Two starts at a time must not take the same name.
        let _naming = miosa.memory().naming.lock().await;
        let name = free_name(&sandbox, body.name.as_deref()).await?;
        sandbox.define(&name, spec).await?;
        name
    };
    let at = Timestamp::now();
    let started = sandbox.start_service(&name, Until::Executed).await;
    let service = match started {
        Err(error) if error.code != "start_failed" => return Err(error.into()),
        _ => sandbox.service(&name).await?,
    };
    let never = || NUMBER.fetch_add(1, Ordering::Relaxed);
    let started = Started {
        pid: service.pid.map_or_else(never, u64::from),
        name: body.name,
        command: body.command,
        at: Some(service.started_at.unwrap_or(at)),
    };
    sandbox.update(|record| {
        let note = record.services.entry(name.clone()).or_default();
        note.set_extra(PROTOCOL, &started);
    })?;
    if let Some(limit) = limit {
        tokio::spawn(stopped_after(limit, sandbox, name));
    }
    let process = Process {
        service,
        started: Some(started),
    };
    Ok(miosa.reply(StatusCode::CREATED, process.object(miosa)))
}

async fn stopped_after(limit: Duration, sandbox: Arc<Sandbox>, name: ServiceName) {
    tokio::time::sleep(limit).await;
    // It may have ended, or be gone.
    let _ = sandbox.stop_service(&name).await;
}

pub(super) async fn list(State(miosa): State<Miosa>, Ready(sandbox): Ready) -> Answer {
    let keep = miosa.switches().keep_exited;
    let all = all(&sandbox).await?.into_iter();
    let shown = all.filter(|it| it.is_live() || (keep && it.started.is_some()));
    let shown: Vec<_> = shown.map(|process| process.object(&miosa)).collect();
    Ok(Json(json!({ "data": shown })).into_response())
}

pub(super) async fn show(State(miosa): State<Miosa>, Picked(_, process): Picked) -> Answer {
    Ok(miosa.ok(process.object(&miosa)))
}

pub(super) async fn stop(Picked(sandbox, process): Picked) -> Answer<StatusCode> {
    let name = process.name()?;
    let forget = process.started.is_some();
    let ending = tokio::spawn(async move {
        let ended = match forget {
            true => sandbox.delete_service(&name).await,
            false => sandbox.stop_service(&name).await.map(drop),
        };
        if let Err(error) = ended {
            tracing::warn!(%error, "a process was not stopped");
        }
    });
    // It goes on ending if it takes longer.
    let _ = tokio::time::timeout(PROMPT, ending).await;
    Ok(StatusCode::NO_CONTENT)
}

pub(super) async fn logs(
    State(miosa): State<Miosa>,
    Picked(sandbox, process): Picked,
    Params(query): Params<LogsQuery>,
) -> Answer {
    let name = process.name()?;
    let started = process.started.as_ref().and_then(|it| it.at);
    let lines = lines(&sandbox, &name, query.tail, started).await?;
    Ok(told(miosa.switches().logs, &lines))
}

/// The last lines of a log.
pub(super) async fn lines(
    sandbox: &Sandbox,
    name: &ServiceName,
    tail: Option<usize>,
    since: Option<Timestamp>,
) -> Answer<Vec<String>> {
    let query = LogQuery {
        tail: Some(tail.unwrap_or(LINES)),
        since,
        ..LogQuery::default()
    };
    let mut log = sandbox.logs(name, &query).await?;
    let mut lines = Vec::new();
    while let Some(line) = log.recv().await {
        lines.push(line.text);
    }
    Ok(lines)
}

fn told(shape: LogShape, lines: &[String]) -> Response {
    let text: String = lines.iter().map(|line| format!("{line}\n")).collect();
    match shape {
        LogShape::Data => Json(json!({ "data": text })).into_response(),
        LogShape::String => Json(json!(text)).into_response(),
        LogShape::Logs => Json(json!({ "logs": text })).into_response(),
        LogShape::Lines => Json(json!({ "lines": lines })).into_response(),
        LogShape::Text => text.into_response(),
    }
}

pub(super) async fn stream(Picked(sandbox, process): Picked) -> Answer {
    let name = process.name()?;
    let query = LogQuery {
        since: process.started_at(),
        follow: process.is_live(),
        ..LogQuery::default()
    };
    let mut log = sandbox.logs(&name, &query).await?;
    Ok(Events::answer(move |events| async move {
        let ended = ended(&sandbox, &name);
        tokio::pin!(ended);
        loop {
            let line = tokio::select! {
                biased;
                line = log.recv() => line,
                () = &mut ended => break,
            };
            let Some(line) = line else { break };
            let data = json!({ "stream": line.stream, "line": line.text });
            if events.write(None, &data).await.is_err() {
                return;
            }
        }
    }))
}

/// Returns when a process has ended, or is gone.
async fn ended(sandbox: &Sandbox, name: &ServiceName) {
    let mut after = 0;
    while let Ok(service) = sandbox.service_change(name, after).await {
        if service.pid.is_none() {
            return;
        }
        after = service.seq;
    }
}

pub(super) async fn stdin(
    State(miosa): State<Miosa>,
    Picked(sandbox, process): Picked,
    body: Bytes,
) -> Answer {
    if !miosa.switches().stdin {
        return Err(Problem::not_found("route"));
    }
    let StdinBody { data } = request::json(&body)?;
    sandbox.send_stdin(&process.name()?, &data, false).await?;
    Ok(miosa.ok(json!({ "status": "written" })))
}
