//! Commands inside the container of a service: iris §4.5.

use std::time::{Duration, Instant};

use axum::Json;
use axum::extract::State;
use schemars::JsonSchema;
use serde::Deserialize;

use super::exec::{Cmd, ExecResult};
use super::openapi::{Operation, Routes};
use super::request::{Name, Payload, fields, find, object, service_name};
use super::{Answer, Shared};
use crate::model::ServiceName;
use crate::supervisor::container::{self, EngineError};
use crate::supervisor::owner::Refusal;

/// How long a command may run, if nobody says; and whoever says (protocol page iris, §4.5, §5).
const DEFAULT_LIMIT: Duration = Duration::from_secs(30);
const LONGEST_LIMIT: Duration = Duration::from_secs(3600);

pub(super) fn add(routes: Routes) -> Routes {
    routes.post(
        "/v1/services/{name}/exec",
        run,
        Operation::new(
            "execInService",
            "services",
            "Run a command in a service's container",
        )
        .text("A command that fails is a success here: see `exit_code`.")
        .body::<ExecInside>()
        .answer::<ExecResult>(200, "It has ended, or was out of time")
        .error(400, "A field is wrong")
        .error(404, "There is no such service")
        .error(409, "`not_a_container`, or `not_running`")
        .error(413, "The body is too large")
        .error(500, "The engine has refused it"),
    )
}

/// A command.
#[derive(Deserialize, JsonSchema)]
struct ExecInside {
    /// An argument vector, or a line for `/bin/sh -c`.
    cmd: Cmd,
    /// After how many seconds it is killed; 30 without it, 3,600 at most.
    timeout_secs: Option<f64>,
}

async fn run(
    State(api): Shared,
    Name(name): Name,
    Payload(body): Payload,
) -> Answer<Json<ExecResult>> {
    let handle = find(&api.sandbox, &name)?;
    let name = service_name(&name)?;
    let ExecInside { cmd, timeout_secs } = fields(object(&body)?)?;
    let argv = cmd.argv();
    if argv.is_empty() || argv.iter().any(|part| part.contains('\0')) {
        return Err(Refusal::invalid("`cmd` must be a list of strings"));
    }
    let limit = match timeout_secs {
        None => DEFAULT_LIMIT,
        Some(seconds) => Duration::try_from_secs_f64(seconds)
            .ok()
            .filter(|limit| !limit.is_zero())
            .ok_or_else(|| Refusal::invalid("`timeout_secs` must be a number above 0"))?,
    };
    let service = handle.object.borrow().clone();
    if !service.container {
        let text = format!("`{name}` does not run in a container");
        return Err(Refusal::new(409, "not_a_container", text));
    }
    if service.running_revision.is_none() {
        return Err(Refusal::not_running(&name));
    }
    let refused = |error| refused(&name, &error);
    let (engine, id) = container::find_running(&api.sandbox.engine, api.sandbox.store.dir(), &name)
        .await
        .map_err(refused)?;
    let begun = Instant::now();
    let ran = container::run(&engine, &id, argv, limit.min(LONGEST_LIMIT))
        .await
        .map_err(refused)?;
    Ok(Json(ExecResult {
        stdout: String::from_utf8_lossy(&ran.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&ran.stderr).into_owned(),
        exit_code: ran.code,
        ok: ran.code == 0,
        duration_ms: u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX),
        timed_out: ran.timed_out,
        truncated: ran.truncated,
    }))
}

fn refused(name: &ServiceName, error: &EngineError) -> Refusal {
    match error {
        // Ended a moment ago, or paused by hand.
        EngineError::Refused {
            status: 404 | 409, ..
        } => Refusal::not_running(name),
        _ => Refusal::internal(error.to_string()),
    }
}
