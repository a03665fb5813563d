//! Snapshots and forks: protocol page miosa, §4. They are the engine's checkpoints.

use axum::Json;
use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::IntoResponse;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::problem::{Answer, Problem};
use super::request::{self, Caller, Chosen, Ready};
use super::{Miosa, Note, PROTOCOL, identity, sandboxes};
use crate::model::Checkpoint;
use crate::serve::engine::{Sandbox, Wish};

#[derive(Deserialize)]
struct CreateBody {
    comment: Option<String>,
}

#[derive(Deserialize)]
struct ForkBody {
    snapshot_id: Option<String>,
    name: Option<String>,
    metadata: Option<Map<String, Value>>,
}

fn object(sandbox: &Sandbox, checkpoint: &Checkpoint) -> Value {
    json!({
        "id": checkpoint.id,
        "sandbox_id": identity::uuid(sandbox.id()),
        "status": "ready",
        "comment": checkpoint.name,
        "keep": true,
        "created_at": checkpoint.created_at,
    })
}

async fn find(sandbox: &Sandbox, id: &str) -> Answer<Checkpoint> {
    let all = sandbox.checkpoints().await?;
    let found = all.into_iter().find(|checkpoint| checkpoint.id == id);
    found.ok_or_else(|| Problem::not_found("snapshot"))
}

pub(super) async fn list(Chosen(sandbox): Chosen) -> Answer {
    let all = sandbox.checkpoints().await?;
    let all: Vec<_> = all.iter().map(|it| object(&sandbox, it)).collect();
    Ok(Json(json!({ "data": all })).into_response())
}

pub(super) async fn create(
    State(miosa): State<Miosa>,
    Ready(sandbox): Ready,
    body: Bytes,
) -> Answer {
    let CreateBody { comment } = request::json(&body)?;
    let made = sandbox.create_checkpoint(comment.as_deref()).await?;
    Ok(miosa.reply(StatusCode::CREATED, object(&sandbox, &made)))
}

pub(super) async fn show(
    State(miosa): State<Miosa>,
    Chosen(sandbox): Chosen,
    Path((_, id)): Path<(String, String)>,
) -> Answer {
    Ok(miosa.ok(object(&sandbox, &find(&sandbox, &id).await?)))
}

pub(super) async fn remove(
    Chosen(sandbox): Chosen,
    Path((_, id)): Path<(String, String)>,
) -> Answer<StatusCode> {
    find(&sandbox, &id).await?;
    sandbox.delete_checkpoint(&id).await?;
    Ok(StatusCode::NO_CONTENT)
}

pub(super) async fn restore(
    State(miosa): State<Miosa>,
    Caller(account): Caller,
    Ready(sandbox): Ready,
    Path((_, id)): Path<(String, String)>,
) -> Answer {
    find(&sandbox, &id).await?;
    if miosa.switches().restore_elsewhere {
        let name = sandbox.record().name;
        let metadata = sandbox.record().extra::<Note>(PROTOCOL).metadata;
        let wish = copy_of(&sandbox, name, metadata);
        let made = account.fork(&sandbox, Some(id), wish).await?;
        return Ok(miosa.ok(sandboxes::object(&miosa, &account, &made)));
    }
    sandbox.restore_checkpoint(&id).await?;
    Ok(miosa.ok(sandboxes::object(&miosa, &account, &sandbox)))
}

/// A sandbox that has what another one has, but for its addresses.
pub(super) fn copy_of(sandbox: &Sandbox, name: String, metadata: Map<String, Value>) -> Wish {
    let record = sandbox.record();
    let mut note: Note = record.extra(PROTOCOL);
    note.slug = None;
    note.previews.clear();
    note.metadata = metadata;
    let mut wish = Wish {
        unique_name: false,
        ..Wish::named(name)
    };
    wish.record.labels = record.labels;
    wish.record.variables = record.variables;
    wish.record.services = record.services;
    wish.record.set_extra(PROTOCOL, &note);
    wish
}

pub(super) async fn fork(
    State(miosa): State<Miosa>,
    Caller(account): Caller,
    Ready(sandbox): Ready,
    body: Bytes,
) -> Answer {
    let body: ForkBody = request::json(&body)?;
    if let Some(id) = &body.snapshot_id {
        find(&sandbox, id).await?;
    }
    let name = body.name.unwrap_or_else(|| sandbox.record().name);
    let wish = copy_of(&sandbox, name, body.metadata.unwrap_or_default());
    let made = account.fork(&sandbox, body.snapshot_id, wish).await?;
    let object = sandboxes::object(&miosa, &account, &made);
    Ok(miosa.reply(StatusCode::CREATED, object))
}
