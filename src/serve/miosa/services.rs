//! Named services inside a sandbox: protocol page miosa, §6.1. They are the engine's own.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Json;
use axum::body::Bytes;
use axum::extract::{FromRequestParts, State};
use axum::http::StatusCode;
use axum::http::request::Parts;
use axum::response::IntoResponse;
use serde::Deserialize;
use serde_json::{Value, json};

use super::Miosa;
use super::problem::{Answer, Problem};
use super::processes::{LogsQuery, folder, lines};
use super::request::{self, Params, Ready, segment};
use crate::model::{Program, Restart, RestartPolicy, ServiceName, ServiceSpec};
use crate::serve::engine::{Sandbox, service_name};
use crate::supervisor::{ServiceObject, Until};

#[derive(Deserialize)]
struct CreateBody {
    name: String,
    command: String,
    cwd: Option<String>,
    #[serde(default)]
    env: BTreeMap<String, String>,
}

/// The service in the path.
pub(super) struct Named(Arc<Sandbox>, ServiceName);

impl FromRequestParts<Miosa> for Named {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, miosa: &Miosa) -> Answer<Self> {
        let Ready(sandbox) = Ready::from_request_parts(parts, miosa).await?;
        let name = segment(parts, miosa, "service").await?;
        Ok(Self(sandbox, service_name(&name)?))
    }
}

fn object(service: &ServiceObject) -> Value {
    let command = match service.definition.as_ref().map(|spec| &spec.program) {
        Some(Program::Shell { command }) => command.clone(),
        _ => std::iter::once(&service.cmd)
            .chain(&service.args)
            .map(String::as_str)
            .collect::<Vec<_>>()
            .join(" "),
    };
    json!({
        "name": service.name,
        "command": command,
        "cwd": service.working_dir,
        "status": service.fine_state().word(),
        "pid": service.pid,
        "exit_code": service.exit_code,
        "started_at": service.started_at,
    })
}

pub(super) async fn list(Ready(sandbox): Ready) -> Answer {
    let all = sandbox.services().await?;
    let all: Vec<_> = all.iter().map(object).collect();
    Ok(Json(json!({ "data": all })).into_response())
}

pub(super) async fn create(
    State(miosa): State<Miosa>,
    Ready(sandbox): Ready,
    body: Bytes,
) -> Answer {
    let body: CreateBody = request::json(&body)?;
    let name = service_name(&body.name)?;
    let mut spec = ServiceSpec::new(Program::Shell {
        command: body.command,
    });
    spec.env = body.env;
    spec.working_dir = folder(body.cwd.as_deref()).map(Into::into);
    spec.restart = Restart {
        policy: RestartPolicy::Always,
        ..Restart::default()
    };
    sandbox.redefine(&name, spec, |_| Ok(())).await?;
    let service = sandbox.start_service(&name, Until::Executed).await?;
    Ok(miosa.reply(StatusCode::CREATED, object(&service)))
}

pub(super) async fn show(State(miosa): State<Miosa>, Named(sandbox, name): Named) -> Answer {
    Ok(miosa.ok(object(&sandbox.service(&name).await?)))
}

pub(super) async fn start(State(miosa): State<Miosa>, Named(sandbox, name): Named) -> Answer {
    let service = sandbox.start_service(&name, Until::Executed).await?;
    Ok(miosa.ok(object(&service)))
}

pub(super) async fn stop(State(miosa): State<Miosa>, Named(sandbox, name): Named) -> Answer {
    Ok(miosa.ok(object(&sandbox.stop_service(&name).await?)))
}

pub(super) async fn restart(State(miosa): State<Miosa>, Named(sandbox, name): Named) -> Answer {
    Ok(miosa.ok(object(&sandbox.restart_service(&name).await?)))
}

pub(super) async fn remove(Named(sandbox, name): Named) -> Answer<StatusCode> {
    sandbox.delete_service(&name).await?;
    Ok(StatusCode::NO_CONTENT)
}

pub(super) async fn logs(
    State(miosa): State<Miosa>,
    Named(sandbox, name): Named,
    Params(query): Params<LogsQuery>,
) -> Answer {
    let lines = lines(&sandbox, &name, query.tail, None).await?;
    Ok(miosa.ok(json!({ "lines": lines })))
}
