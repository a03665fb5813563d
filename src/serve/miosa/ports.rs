//! Ports and the addresses under which they are reached: protocol page miosa, §4.

use axum::Json;
use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::IntoResponse;
use serde::Deserialize;
use serde_json::{Value, json};

use super::problem::{Answer, Problem};
use super::request::{self, Chosen, Ready};
use super::{Miosa, Note, PROTOCOL, identity, life};
use crate::serve::engine::Sandbox;

#[derive(Deserialize)]
struct PortBody {
    port: u16,
}

#[derive(Deserialize)]
struct ExposeBody {
    port: Option<u16>,
}

/// Where a port is reached: sandboxes share this machine's network.
pub(super) fn url(port: u16) -> String {
    format!("http://127.0.0.1:{port}")
}

/// The ports that services say they listen on.
pub(super) async fn list(Ready(sandbox): Ready) -> Answer {
    let mut ports = Vec::new();
    for service in sandbox.services().await? {
        let spec = service.definition.iter();
        let declared = spec.flat_map(|spec| spec.all_ports());
        ports.extend(declared.filter(|_| service.pid.is_some()).map(|port| {
            json!({
                "protocol": "tcp", "state": "listen", "address": "127.0.0.1", "port": port,
                "process": { "name": service.name, "pid": service.pid },
            })
        }));
    }
    let id = identity::uuid(sandbox.id());
    let body = json!({ "sandbox_id": id, "count": ports.len(), "ports": ports });
    Ok(Json(body).into_response())
}

fn object(id: &str, port: u16) -> Value {
    json!({ "id": id, "port": port, "url": url(port) })
}

/// The preview of a port, the same whenever it is asked for.
fn add(sandbox: &Sandbox, port: u16) -> Answer<Value> {
    let id = format!("preview-{port}");
    life::note(sandbox, |note| note.previews.insert(id.clone(), port))?;
    Ok(object(&id, port))
}

pub(super) async fn expose(
    State(miosa): State<Miosa>,
    Chosen(sandbox): Chosen,
    body: Bytes,
) -> Answer {
    let ExposeBody { port } = request::json(&body)?;
    let port = port.or_else(|| first(&sandbox));
    let port = port.ok_or_else(|| Problem::invalid("`port` is missing"))?;
    add(&sandbox, port)?;
    Ok(miosa.ok(json!({
        "url": url(port),
        "url_class": "local",
        "stable_for_embedding": false,
        "recommended_next_action": null,
    })))
}

fn kept(sandbox: &Sandbox) -> Note {
    sandbox.record().extra(PROTOCOL)
}

/// The first port that is exposed.
pub(super) fn first(sandbox: &Sandbox) -> Option<u16> {
    kept(sandbox).previews.into_values().next()
}

/// The port of a preview.
pub(super) fn of_preview(sandbox: &Sandbox, id: &str) -> Answer<u16> {
    let port = kept(sandbox).previews.remove(id);
    port.ok_or_else(|| Problem::not_found("preview"))
}

pub(super) async fn previews(Chosen(sandbox): Chosen) -> Answer {
    let previews = kept(&sandbox).previews;
    let all: Vec<_> = previews
        .iter()
        .map(|(id, port)| object(id, *port))
        .collect();
    Ok(Json(json!({ "data": all })).into_response())
}

pub(super) async fn preview(
    State(miosa): State<Miosa>,
    Chosen(sandbox): Chosen,
    body: Bytes,
) -> Answer {
    let PortBody { port } = request::json(&body)?;
    Ok(miosa.reply(StatusCode::CREATED, add(&sandbox, port)?))
}

pub(super) async fn show_preview(
    State(miosa): State<Miosa>,
    Chosen(sandbox): Chosen,
    Path((_, id)): Path<(String, String)>,
) -> Answer {
    let port = of_preview(&sandbox, &id)?;
    Ok(miosa.ok(object(&id, port)))
}

pub(super) async fn remove_preview(
    Chosen(sandbox): Chosen,
    Path((_, id)): Path<(String, String)>,
) -> Answer<StatusCode> {
    let removed = life::note(&sandbox, |note| note.previews.remove(&id))?;
    removed.ok_or_else(|| Problem::not_found("preview"))?;
    sandbox.update(|record| record.shares.remove(&id))?;
    Ok(StatusCode::NO_CONTENT)
}
