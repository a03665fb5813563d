//! The routes of checkpoints (protocol page iris, §6): each in the plural and in the singular, because
//! the page does not say which.

use std::sync::Arc;

use axum::extract::{Query, State};
use axum::routing::{get, post};
use axum::{Json, Router};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::restore::not_found;
use super::store::Shelf;
use super::{blocking, create, finished, restore};
use crate::model::{Checkpoint, Secrets, human_size};
use crate::supervisor::api::{Answer, Name, Payload, Shared, object_body};
use crate::supervisor::owner::Refusal;
use crate::supervisor::sandbox::Sandbox;
use crate::supervisor::wire;

/// The longest name of a checkpoint, in bytes.
const LONGEST: usize = 128;

/// The routes.
pub(in crate::supervisor) fn routes() -> Router<Arc<Sandbox>> {
    let mut router = Router::new();
    for start in ["/v1/checkpoints", "/v1/checkpoint"] {
        let at = |tail: &str| format!("{start}{tail}");
        router = router
            .route(start, get(list).post(make))
            .route(&at("/wait"), post(wait))
            .route(&at("/restore"), post(restore_named))
            .route(&at("/{id}"), get(show).delete(delete))
            .route(&at("/{id}/restore"), post(restore_by_path));
    }
    router
}

/// A checkpoint as it is listed.
fn entry(checkpoint: &Checkpoint) -> Value {
    let mut entry = json!(checkpoint);
    if let Value::Object(entry) = &mut entry {
        let size = human_size(checkpoint.size_bytes);
        entry.insert("size_human".to_owned(), Value::String(size));
        entry.insert("state".to_owned(), json!("complete"));
    }
    entry
}

/// A checkpoint as its creation is answered.
fn made(checkpoint: &Checkpoint) -> Value {
    let mut body = entry(checkpoint);
    if let Value::Object(body) = &mut body {
        body.insert("checkpoint_id".to_owned(), json!(checkpoint.id));
        body.insert("ok".to_owned(), json!(true));
    }
    body
}

/// A body that may be missing.
fn optional_body(body: &[u8]) -> Answer<Map<String, Value>> {
    match body.iter().all(u8::is_ascii_whitespace) {
        true => Ok(Map::new()),
        false => object_body(&body.to_vec().into()),
    }
}

fn name_of(body: &Map<String, Value>) -> Answer<Option<String>> {
    let name = match body.get("name") {
        None | Some(Value::Null) => return Ok(None),
        Some(Value::String(name)) if name.is_empty() => return Ok(None),
        Some(Value::String(name)) => name,
        Some(_) => return Err(Refusal::invalid("`name` must be a string")),
    };
    match name.len() > LONGEST || name.chars().any(char::is_control) {
        true => Err(Refusal::invalid(format!(
            "`name` may have {LONGEST} bytes and no control characters"
        ))),
        false => Ok(Some(name.clone())),
    }
}

#[derive(Deserialize)]
struct MakeQuery {
    wait: Option<bool>,
}

/// Returns at once, as the page has it; with `?wait=true` once it is written.
async fn make(
    State(sandbox): Shared,
    query: Result<Query<MakeQuery>, axum::extract::rejection::QueryRejection>,
    Payload(body): Payload,
) -> Answer<Json<Value>> {
    let Query(query) = query.map_err(|error| Refusal::invalid(error.body_text()))?;
    let mut body = optional_body(&body)?;
    let secrets = wire::take_secrets(&mut body).map_err(Refusal::invalid)?;
    let (id, creation) = create(&sandbox, name_of(&body)?, secrets)?;
    if query.wait == Some(true) {
        return Ok(Json(made(&finished(creation).await?)));
    }
    Ok(Json(json!({
        "checkpoint_id": id,
        "size_bytes": 0,
        "copy_duration_ms": 0,
        "state": "creating",
        "ok": true,
    })))
}

async fn list(State(sandbox): Shared) -> Answer<Json<Value>> {
    let shelf = Shelf::of(sandbox.store.dir());
    let listed = blocking("the checkpoints cannot be read", move || shelf.list()).await?;
    let entries: Vec<_> = listed.iter().map(|meta| entry(&meta.checkpoint)).collect();
    Ok(Json(json!({ "checkpoints": entries })))
}

async fn complete(sandbox: &Sandbox, id: &str) -> Answer<Checkpoint> {
    let (shelf, key) = (Shelf::of(sandbox.store.dir()), id.to_owned());
    let meta = blocking("the checkpoint cannot be read", move || shelf.get(&key)).await?;
    meta.map(|meta| meta.checkpoint)
        .ok_or_else(|| not_found(id))
}

async fn show(State(sandbox): Shared, Name(id): Name) -> Answer<Json<Value>> {
    let going_on = sandbox.checkpoints.made().get(&id).cloned();
    match going_on.map(|made| made.borrow().clone()) {
        Some(None) => Ok(Json(json!({ "id": id, "state": "creating" }))),
        Some(Some(Err(refusal))) => {
            let state = json!({ "id": id, "state": "failed", "error": refusal.message });
            Ok(Json(state))
        }
        Some(Some(Ok(_))) | None => Ok(Json(entry(&complete(&sandbox, &id).await?))),
    }
}

fn id_of(body: &Map<String, Value>) -> Answer<String> {
    let id = body.get("checkpoint_id").or_else(|| body.get("id"));
    let id = id.and_then(Value::as_str).filter(|id| !id.is_empty());
    id.map(str::to_owned)
        .ok_or_else(|| Refusal::invalid("`checkpoint_id` is missing"))
}

/// Answers once a checkpoint is written.
async fn wait(State(sandbox): Shared, Payload(body): Payload) -> Answer<Json<Value>> {
    let id = id_of(&object_body(&body)?)?;
    let going_on = sandbox.checkpoints.made().get(&id).cloned();
    let checkpoint = match going_on {
        Some(creation) => finished(creation).await?,
        None => complete(&sandbox, &id).await?,
    };
    Ok(Json(made(&checkpoint)))
}

async fn restore_named(State(sandbox): Shared, Payload(body): Payload) -> Answer<Json<Value>> {
    let mut body = object_body(&body)?;
    let secrets = wire::take_secrets(&mut body).map_err(Refusal::invalid)?;
    restored(sandbox, id_of(&body)?, secrets).await
}

async fn restore_by_path(
    State(sandbox): Shared,
    Name(id): Name,
    Payload(body): Payload,
) -> Answer<Json<Value>> {
    let mut body = optional_body(&body)?;
    let secrets = wire::take_secrets(&mut body).map_err(Refusal::invalid)?;
    restored(sandbox, id, secrets).await
}

async fn restored(sandbox: Arc<Sandbox>, id: String, secrets: Secrets) -> Answer<Json<Value>> {
    // A task of its own, so that it comes to its end even if the client hangs up.
    let restoring = tokio::spawn(restore::restore(sandbox, id, secrets));
    let restored = restoring
        .await
        .map_err(|error| Refusal::internal(error.to_string()))??;
    let mut body = json!(restored);
    if let Value::Object(body) = &mut body {
        let ok = restored.failed_services.is_empty();
        body.insert("ok".to_owned(), Value::Bool(ok));
    }
    Ok(Json(body))
}

async fn delete(State(sandbox): Shared, Name(id): Name) -> Answer<Json<Value>> {
    let _busy = sandbox.checkpoints.begin()?;
    let (shelf, key) = (Shelf::of(sandbox.store.dir()), id.clone());
    let removed = tokio::spawn(async move {
        blocking("the checkpoint is not removed", move || shelf.delete(&key)).await
    });
    let removed = removed.await;
    match removed.map_err(|error| Refusal::internal(error.to_string()))?? {
        true => Ok(Json(json!({ "deleted": true, "ok": true }))),
        false => Err(not_found(&id)),
    }
}
