//! Processes that are not services: the operations of Miosa (protocol page miosa, §5).

use std::collections::BTreeMap;
use std::time::Duration;

use axum::Json;
use axum::body::Body;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use futures_util::stream;
use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::exec::{definition, spec_in};
use super::logs::Log;
use super::openapi::{Operation, Routes};
use super::request::{self, Name, Params, Payload};
use super::services::StdinBody;
use super::{Answer, Api, DONE, Done, Shared};
use crate::model::{HumanDuration, ServiceSpec, ServiceState};
use crate::platforms::{LogLine, LogQuery};
use crate::supervisor::owner::{Control, Refusal};
use crate::supervisor::processes::{Entry, Wanted};
use crate::supervisor::wire;

/// How many lines of a log are shown where nothing is said about it.
const TAIL: usize = 200;

fn about_one(id: &'static str, summary: &'static str) -> Operation {
    Operation::new(id, "processes", summary).error(404, "There is no such process")
}

pub(super) fn add(routes: Routes) -> Routes {
    routes
        .get(
            "/v1/processes",
            list,
            Operation::new("listProcesses", "processes", "Every process, oldest first")
                .text("Those that have ended too, until there are 100 newer ones.")
                .answer::<Vec<Process>>(200, "The processes"),
        )
        .post(
            "/v1/processes",
            start,
            Operation::new(
                "startProcess",
                "processes",
                "Start a process in the background",
            )
            .text("It is not a service: nothing restarts it, and no plan sees it.")
            .body::<StartBody>()
            .answer::<Process>(201, "It was executed")
            .error(400, "A field is wrong")
            .error(429, "Too many processes run")
            .error(500, "`start_failed`")
            .error(503, "The supervisor is about to end"),
        )
        .get(
            "/v1/processes/{pid}",
            show,
            about_one("getProcess", "One process").answer::<Process>(200, "The process"),
        )
        .delete(
            "/v1/processes/{pid}",
            stop,
            about_one(
                "stopProcess",
                "Stop a process: SIGTERM, and SIGKILL after 5 s",
            )
            .answer::<Process>(200, "It has ended, with all that it started"),
        )
        .get(
            "/v1/processes/{pid}/logs",
            logs,
            about_one("getProcessLogs", "The last lines that a process wrote")
                .query::<LogsQuery>()
                .answer::<Text>(200, "The lines of both streams"),
        )
        .get(
            "/v1/processes/{pid}/stream",
            stream_lines,
            about_one("streamProcess", "What a process writes, as it writes it")
                .text(
                    "From its first line on, until it has ended. Each event's data is a JSON \
                    object with `stream` and `line`.",
                )
                .raw_answer("text/event-stream", "Server-sent events"),
        )
        .post(
            "/v1/processes/{pid}/stdin",
            stdin,
            about_one("writeProcessStdin", "Write to a process's standard input")
                .body::<StdinBody>()
                .answer::<Done>(200, "The pipe has it all")
                .error(409, "It has ended, or has closed its input")
                .error(429, "It does not read what it was given before"),
        )
}

/// What to start: `command`, or `cmd` and `args`.
#[derive(Deserialize, JsonSchema)]
struct StartBody {
    /// A line for `/bin/sh -c`.
    command: Option<String>,
    /// A program.
    cmd: Option<String>,
    /// Its arguments.
    args: Option<Vec<String>>,
    /// Where it runs; relative to the workspace, which is the default.
    cwd: Option<String>,
    /// Variables over those of the sandbox.
    env: Option<Map<String, Value>>,
    /// A name for people; not unique.
    name: Option<String>,
    /// After how many seconds it is stopped. No limit without it.
    timeout: Option<f64>,
    /// Values of the secrets that the sandbox's `env` names.
    #[expect(dead_code, reason = "taken out of the body before")]
    secret_values: Option<BTreeMap<String, String>>,
}

/// A process.
#[derive(Serialize, JsonSchema)]
struct Process {
    /// Its number, also when it has ended.
    pid: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<String>,
    command: String,
    status: Status,
    started_at: Option<Timestamp>,
    /// 128 + the number of the signal that killed it.
    exit_code: Option<i32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    cwd: Option<String>,
    /// Why it failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
}

#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum Status {
    Running,
    /// Exited with 0, or stopped on request.
    Stopped,
    /// Ended otherwise.
    Failed,
}

#[derive(Deserialize, JsonSchema)]
struct LogsQuery {
    /// Only the last so many lines; 200 without it.
    tail: Option<usize>,
}

#[derive(Serialize, JsonSchema)]
struct Text {
    /// The lines, each with its line end.
    data: String,
}

fn shown(entry: &Entry) -> Option<Process> {
    let object = entry.handle.object.borrow().clone();
    let running = entry.is_running();
    let status = match object.fine_state() {
        _ if running => Status::Running,
        ServiceState::Stopped | ServiceState::Completed => Status::Stopped,
        _ => Status::Failed,
    };
    Some(Process {
        pid: object.pid?,
        name: entry.name.clone(),
        command: entry.command.clone(),
        status,
        started_at: object.started_at,
        exit_code: object.exit_code.filter(|_| !running),
        cwd: entry.cwd.clone(),
        error: object.error.clone(),
    })
}

fn find(api: &Api, pid: &str) -> Result<Entry, Refusal> {
    let missing = || Refusal::new(404, "not_found", format!("there is no process {pid}"));
    let pid = pid.parse().map_err(|_| missing())?;
    api.sandbox.processes.find(pid).ok_or_else(missing)
}

fn one(entry: &Entry) -> Result<Json<Process>, Refusal> {
    shown(entry).map(Json).ok_or_else(Refusal::gone)
}

async fn list(State(api): Shared) -> Json<Vec<Process>> {
    let all = api.sandbox.processes.all();
    Json(all.iter().filter_map(shown).collect())
}

async fn start(State(api): Shared, Payload(body): Payload) -> Answer<Response> {
    let mut body = request::object(&body)?;
    let secrets = wire::take_secrets(&mut body).map_err(Refusal::invalid)?;
    let body: StartBody = request::fields(body)?;
    let (name, cwd) = (body.name.clone(), body.cwd.clone());
    let (command, spec) = spec(&api, body)?;
    let wanted = Wanted {
        name,
        command,
        cwd,
        spec,
        secrets,
    };
    // A task of its own, so that a process is never without an entry.
    let starting = tokio::spawn(async move { api.sandbox.start_process(wanted).await });
    let started = starting.await;
    let entry = started.map_err(|error| Refusal::internal(error.to_string()))??;
    Ok((StatusCode::CREATED, one(&entry)?).into_response())
}

/// The command as it is shown, and what is executed.
fn spec(api: &Api, body: StartBody) -> Result<(String, ServiceSpec), Refusal> {
    let (command, mut fields) = match (body.command, body.cmd) {
        (Some(command), None) if !command.is_empty() && body.args.is_none() => {
            let fields = Map::from_iter([("command".to_owned(), json!(command))]);
            (command, fields)
        }
        (None, Some(cmd)) => {
            let argv: Vec<_> = std::iter::once(cmd)
                .chain(body.args.unwrap_or_default())
                .collect();
            (argv.join(" "), definition(argv)?)
        }
        _ => return Err(Refusal::invalid("give `command`, or `cmd` and `args`")),
    };
    fields.insert("env".to_owned(), json!(body.env));
    fields.insert("working_dir".to_owned(), json!(body.cwd));
    let mut spec = spec_in(api, fields)?;
    spec.timeout = match body.timeout {
        None => None,
        Some(seconds) => {
            let limit = Duration::try_from_secs_f64(seconds).ok();
            let wrong = || Refusal::invalid("`timeout` must be a number of seconds above 0");
            let limit = limit.filter(|limit| !limit.is_zero()).ok_or_else(wrong)?;
            Some(HumanDuration(limit))
        }
    };
    Ok((command, spec))
}

async fn show(State(api): Shared, Name(pid): Name) -> Answer<Json<Process>> {
    one(&find(&api, &pid)?)
}

async fn stop(State(api): Shared, Name(pid): Name) -> Answer<Json<Process>> {
    let entry = find(&api, &pid)?;
    if entry.is_running() {
        entry.handle.ask(Control::Stop).await?;
    }
    one(&entry)
}

async fn stdin(State(api): Shared, Name(pid): Name, Payload(body): Payload) -> Answer<Json<Done>> {
    let entry = find(&api, &pid)?;
    let given = request::shape::<StdinBody>(&body)?.given();
    if !entry.is_running() {
        let text = format!("process {pid} has ended");
        return Err(Refusal::new(409, "not_running", text));
    }
    let give = |reply| Control::Input { given, reply };
    entry.handle.ask(give).await?;
    Ok(DONE)
}

async fn logs(
    State(api): Shared,
    Name(pid): Name,
    Params(query): Params<LogsQuery>,
) -> Answer<Json<Text>> {
    let entry = find(&api, &pid)?;
    let query = LogQuery {
        tail: Some(query.tail.unwrap_or(TAIL)),
        ..LogQuery::default()
    };
    let mut log = Log::open(api.sandbox, &entry.key, &entry.handle, query).await?;
    let mut data = String::new();
    while let Some(lines) = log.next().await {
        let failed = |error| Refusal::internal(format!("the log cannot be read: {error}"));
        for line in lines.map_err(failed)? {
            data.push_str(&line.text);
            data.push('\n');
        }
    }
    Ok(Json(Text { data }))
}

async fn stream_lines(State(api): Shared, Name(pid): Name) -> Answer<Response> {
    let entry = find(&api, &pid)?;
    let query = LogQuery {
        follow: true,
        ..LogQuery::default()
    };
    let log = Log::open(api.sandbox, &entry.key, &entry.handle, query).await?;
    let log = log.ends_with(&entry.handle);
    let events = stream::unfold(log, |mut log| async {
        Some((log.next().await?.map(|lines| events(&lines)), log))
    });
    let kind = [
        (header::CONTENT_TYPE, "text/event-stream"),
        (header::CACHE_CONTROL, "no-cache"),
    ];
    Ok((kind, Body::from_stream(events)).into_response())
}

/// One server-sent event for each line.
fn events(lines: &[LogLine]) -> Vec<u8> {
    let mut events = Vec::new();
    for line in lines {
        let data = json!({ "stream": line.stream.word(), "line": line.text });
        events.extend_from_slice(format!("data: {data}\n\n").as_bytes());
    }
    events
}
