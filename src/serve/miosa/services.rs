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
use super::processes::{self, LogsQuery, folder, lines};
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
        let name = service_name(&segment(parts, miosa, "service").await?)?;
        match processes::is_one(&sandbox, name.as_str()) {
            true => Err(Problem::not_found("service")),
            false => Ok(Self(sandbox, name)),
        }
    }
}

/// What a service executes, as it was given.
pub(super) fn command(service: &ServiceObject) -> String {
    match service.definition.as_ref().map(|spec| &spec.program) {
        Some(Program::Shell { command }) => command.clone(),
        _ => std::iter::once(&service.cmd)
            .chain(&service.args)
            .map(String::as_str)
            .collect::<Vec<_>>()
            .join(" "),
    }
}

fn object(miosa: &Miosa, service: &ServiceObject) -> Value {
    let mut object = json!({
        "name": service.name,
        "status": service.fine_state().word(),
    });
    if !miosa.switches().short_services {
        object["command"] = processes::told_command(miosa, command(service)).into();
        object["cwd"] = json!(service.working_dir);
        object["pid"] = json!(service.pid);
        object["exit_code"] = json!(service.exit_code);
        object["started_at"] = json!(service.started_at);
    }
    object
}

/// All of them; what was started as a process is none.
pub(super) async fn list(State(miosa): State<Miosa>, Ready(sandbox): Ready) -> Answer {
    if miosa.switches().no_service_list {
        return Err(Problem::not_found("route"));
    }
    let all = sandbox.services().await?.into_iter();
    let named = all.filter(|service| !processes::is_one(&sandbox, &service.name));
    let named: Vec<_> = named.map(|service| object(&miosa, &service)).collect();
    Ok(Json(json!({ "data": named })).into_response())
}

pub(super) async fn create(
    State(miosa): State<Miosa>,
    Ready(sandbox): Ready,
    body: Bytes,
) -> Answer {
    let body: CreateBody = request::json(&body)?;
    let name = service_name(&body.name)?;
    if let Ok(there) = sandbox.service(&name).await {
        // A process that has ended leaves its name.
        if there.pid.is_some() || !processes::is_one(&sandbox, name.as_str()) {
            let text = format!("there is a service `{name}` already");
            return Err(Problem::new(409, "NAME_TAKEN", text));
        }
        sandbox.delete_service(&name).await?;
    }
    let mut spec = ServiceSpec::new(Program::Shell {
        command: body.command,
    });
    if !miosa.switches().no_service_env {
        spec.env = body.env;
    }
    spec.working_dir = folder(body.cwd.as_deref()).map(Into::into);
    spec.restart = Restart {
        policy: RestartPolicy::Always,
        ..Restart::default()
    };
    sandbox.define(&name, spec).await?;
    let service = sandbox.start_service(&name, Until::Executed).await?;
    Ok(miosa.reply(StatusCode::CREATED, object(&miosa, &service)))
}

pub(super) async fn show(State(miosa): State<Miosa>, Named(sandbox, name): Named) -> Answer {
    Ok(miosa.ok(object(&miosa, &sandbox.service(&name).await?)))
}

pub(super) async fn start(State(miosa): State<Miosa>, Named(sandbox, name): Named) -> Answer {
    let service = sandbox.start_service(&name, Until::Executed).await?;
    Ok(miosa.ok(object(&miosa, &service)))
}

pub(super) async fn stop(State(miosa): State<Miosa>, Named(sandbox, name): Named) -> Answer {
    Ok(miosa.ok(object(&miosa, &sandbox.stop_service(&name).await?)))
}

pub(super) async fn restart(State(miosa): State<Miosa>, Named(sandbox, name): Named) -> Answer {
    Ok(miosa.ok(object(&miosa, &sandbox.restart_service(&name).await?)))
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
