//! Commands that run to their end: iris §5.

use std::collections::BTreeMap;
use std::time::Duration;

use axum::Json;
use axum::extract::State;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use tokio_util::sync::CancellationToken;

use super::openapi::{Operation, Routes};
use super::request::{self, Payload};
use super::{Answer, Api, Shared};
use crate::keeper::Obstacle;
use crate::model::{Secrets, ServiceName, ServiceSpec};
use crate::supervisor::exec::{self, AT_ONCE, Outcome};
use crate::supervisor::owner::Refusal;
use crate::supervisor::spawn::{Prepared, SpawnError};
use crate::supervisor::wire;

/// The limits of iris §5, in milliseconds.
const DEFAULT_LIMIT: u64 = 60_000;
const LONGEST_LIMIT: u64 = 3_600_000;

pub(super) fn add(routes: Routes) -> Routes {
    routes.post(
        "/v1/exec",
        run,
        Operation::new("exec", "exec", "Run a command to its end")
            .text(
                "A command that fails is a success here: see `exit_code`. When this answers, \
                nothing of its tree of processes is left. Hanging up ends it.",
            )
            .body::<ExecBody>()
            .answer::<ExecResult>(200, "It has ended, or was out of time")
            .error(400, "A field is wrong, or there is no such folder or user")
            .error(409, "The value of a secret of the sandbox is not at hand")
            .error(413, "The body is too large")
            .error(
                429,
                "So many commands run that it did not get its turn in time",
            )
            .error(500, "It could not be executed")
            .error(503, "The supervisor is about to end"),
    )
}

/// A command.
#[derive(Deserialize, JsonSchema)]
struct ExecBody {
    /// An argument vector, or a line for `/bin/sh -c`.
    cmd: Cmd,
    /// Where it runs; relative to the workspace, which is the default.
    dir: Option<String>,
    /// Variables over those of the sandbox.
    env: Option<Map<String, Value>>,
    /// After how many milliseconds it is killed; 60,000 without it, 3,600,000 at most.
    timeout_ms: Option<u64>,
    /// What it can read.
    stdin: Option<String>,
    /// Values of the secrets that the sandbox's `env` names.
    #[expect(dead_code, reason = "taken out of the body before")]
    secret_values: Option<BTreeMap<String, String>>,
}

#[derive(Deserialize, JsonSchema)]
#[serde(untagged)]
pub(super) enum Cmd {
    Argv(Vec<String>),
    Line(String),
}

impl Cmd {
    /// What is executed.
    pub(super) fn argv(self) -> Vec<String> {
        match self {
            Self::Argv(argv) => argv,
            Self::Line(line) => vec!["/bin/sh".to_owned(), "-c".to_owned(), line],
        }
    }
}

/// How a command ended.
#[derive(Serialize, JsonSchema)]
pub(super) struct ExecResult {
    /// What it wrote, up to 10 MiB; invalid UTF-8 is replaced.
    pub stdout: String,
    pub stderr: String,
    /// 128 + the number of the signal that killed it, 124 when it was out of time, 127 when it was
    /// not found, 126 when it could not be executed.
    pub exit_code: i32,
    /// Whether `exit_code` is 0.
    pub ok: bool,
    pub duration_ms: u64,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub timed_out: bool,
    /// Whether it wrote more than is shown.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub truncated: bool,
}

async fn run(State(api): Shared, Payload(body): Payload) -> Answer<Json<ExecResult>> {
    let mut body = request::object(&body)?;
    let secrets = wire::take_secrets(&mut body).map_err(Refusal::invalid)?;
    match body.get("cmd") {
        Some(Value::String(_)) => {}
        Some(Value::Array(argv)) if argv.iter().all(Value::is_string) => {}
        _ => {
            return Err(Refusal::invalid(
                "`cmd` must be a string or a list of strings",
            ));
        }
    }
    let body: ExecBody = request::fields(body)?;
    let limit = match body.timeout_ms {
        None | Some(0) => DEFAULT_LIMIT,
        Some(limit) if limit <= LONGEST_LIMIT => limit,
        Some(_) => {
            let text = format!("`timeout_ms` must be at most {LONGEST_LIMIT}");
            return Err(Refusal::invalid(text));
        }
    };
    let mut definition = match body.cmd {
        Cmd::Line(line) => Map::from_iter([("command".to_owned(), line.into())]),
        Cmd::Argv(argv) => definition(argv)?,
    };
    definition.insert("env".to_owned(), json!(body.env));
    definition.insert("working_dir".to_owned(), json!(body.dir));
    let spec = spec_in(&api, definition)?;
    let stdin = body.stdin.unwrap_or_default().into_bytes();
    // A task of its own: it cleans up also when the client hangs up, which drops the guard.
    let hung_up = CancellationToken::new();
    let _guard = hung_up.clone().drop_guard();
    let limit = Duration::from_millis(limit);
    let running = tokio::spawn(in_turn(api, spec, secrets, stdin, limit, hung_up));
    let ran = running.await;
    ran.map_err(|error| Refusal::internal(error.to_string()))?
}

/// The definition of an argument vector.
pub(super) fn definition(argv: Vec<String>) -> Result<Map<String, Value>, Refusal> {
    let Some((cmd, args)) = argv.split_first().filter(|(cmd, _)| !cmd.is_empty()) else {
        return Err(Refusal::invalid("`cmd` must name a program"));
    };
    Ok(Map::from_iter([
        ("cmd".to_owned(), json!(cmd)),
        ("args".to_owned(), json!(args)),
    ]))
}

/// What runs in the sandbox without being a service: checked as a definition is, with the sandbox's
/// own environment below it.
pub(super) fn spec_in(api: &Api, definition: Map<String, Value>) -> Result<ServiceSpec, Refusal> {
    let nobody = ServiceName::of_process(0);
    let mut spec = wire::read_definition(&nobody, definition).map_err(Refusal::invalid)?;
    let sandbox = api.sandbox.store.spec();
    let failed = |error| Refusal::internal(format!("sandbox.json cannot be read: {error}"));
    let sandbox = sandbox.map_err(failed)?;
    let own = std::mem::replace(&mut spec.env, sandbox.env);
    spec.env.extend(own);
    spec.secrets = sandbox.secrets;
    // Not those of variables that are given anew.
    let used = spec.env.values().cloned().collect::<String>();
    let is_used = |name: &String| used.contains(&format!("${{secret.{name}}}"));
    spec.secrets.retain(|name, _| is_used(name));
    Ok(spec)
}

/// Waits for a turn, and runs the command.
async fn in_turn(
    api: Api,
    spec: ServiceSpec,
    secrets: Secrets,
    stdin: Vec<u8>,
    limit: Duration,
    hung_up: CancellationToken,
) -> Answer<Json<ExecResult>> {
    let sandbox = &api.sandbox;
    let turn = tokio::select! {
        biased;
        () = sandbox.closing.cancelled() => return Err(Refusal::closing()),
        turn = sandbox.execs.acquire() => turn.map_err(|_| Refusal::closing())?,
        () = hung_up.cancelled() => return Err(Refusal::closing()),
        () = tokio::time::sleep(limit) => {
            let text = format!("{AT_ONCE} commands run already");
            return Err(Refusal::new(429, "timeout", text));
        }
    };
    let cancelled = hung_up.child_token();
    let _ending = tokio_util::sync::CancellationToken::drop_guard(cancelled.clone());
    let closing = async {
        sandbox.closing.cancelled().await;
        cancelled.cancel();
        std::future::pending().await
    };
    let running = async {
        let prepared = Prepared::new(&spec, &secrets, &sandbox.base)?;
        // One that no service and no process has.
        let mark = sandbox.mark(&ServiceName::of_process(fastrand::u64(1 << 48..)));
        exec::run(&sandbox.keeper, prepared, mark, stdin, limit, &cancelled).await
    };
    let ran = tokio::select! {
        ran = running => ran,
        never = closing => never,
    };
    drop(turn);
    match ran {
        Ok(Some(outcome)) => Ok(Json(shown(outcome))),
        Ok(None) => Err(Refusal::closing()),
        Err(error) => not_run(error),
    }
}

fn shown(outcome: Outcome) -> ExecResult {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    ExecResult {
        stdout: text(&outcome.stdout.bytes),
        stderr: text(&outcome.stderr.bytes),
        exit_code: outcome.exit_code,
        ok: outcome.exit_code == 0,
        duration_ms: u64::try_from(outcome.duration.as_millis()).unwrap_or(u64::MAX),
        timed_out: outcome.timed_out,
        truncated: outcome.stdout.truncated || outcome.stderr.truncated,
    }
}

/// What shells say of a program that cannot be executed; the rest is the request's fault or ours.
fn not_run(error: SpawnError) -> Answer<Json<ExecResult>> {
    let exit_code = match &error {
        SpawnError::Obstacle(Obstacle::NotInPath(_) | Obstacle::NoProgram(_)) => 127,
        SpawnError::Obstacle(Obstacle::Denied(_) | Obstacle::BadFormat(_)) => 126,
        SpawnError::Secret(_) => return Err(Refusal::conflict(error.to_string())),
        SpawnError::Obstacle(
            Obstacle::NoFolder(_) | Obstacle::NotAFolder(_) | Obstacle::NoEntry { .. },
        )
        | SpawnError::NoUser(_) => {
            let text = error.to_string().replace("working_dir", "dir");
            return Err(Refusal::invalid(text));
        }
        _ => return Err(Refusal::start_failed(error.to_string())),
    };
    Ok(Json(ExecResult {
        stdout: String::new(),
        stderr: format!("{error}\n"),
        exit_code,
        ok: false,
        duration_ms: 0,
        timed_out: false,
        truncated: false,
    }))
}
