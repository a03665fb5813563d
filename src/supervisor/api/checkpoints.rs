//! Checkpoints (protocol page iris, §6): each route in the plural and in the singular, because the page
//! does not say which.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::openapi::{Operation, Routes};
use super::request::{Name, Params, Payload, object};
use super::{Answer, Deleted, Shared};
use crate::model::{Checkpoint, Secrets, human_size};
use crate::supervisor::checkpoint::{Shelf, blocking, create, finished, not_found, restore};
use crate::supervisor::owner::Refusal;
use crate::supervisor::sandbox::Sandbox;
use crate::supervisor::wire;

/// The longest name of a checkpoint, in bytes.
const LONGEST: usize = 128;

/// The paths of both spellings, and what their operations are called.
struct Spelling {
    all: &'static str,
    wait: &'static str,
    restore: &'static str,
    one: &'static str,
    restore_one: &'static str,
    ids: [&'static str; 7],
}

const SPELLINGS: [Spelling; 2] = [
    Spelling {
        all: "/v1/checkpoints",
        wait: "/v1/checkpoints/wait",
        restore: "/v1/checkpoints/restore",
        one: "/v1/checkpoints/{id}",
        restore_one: "/v1/checkpoints/{id}/restore",
        ids: [
            "listCheckpoints",
            "createCheckpoint",
            "waitCheckpoint",
            "restore",
            "getCheckpoint",
            "deleteCheckpoint",
            "restoreCheckpoint",
        ],
    },
    Spelling {
        all: "/v1/checkpoint",
        wait: "/v1/checkpoint/wait",
        restore: "/v1/checkpoint/restore",
        one: "/v1/checkpoint/{id}",
        restore_one: "/v1/checkpoint/{id}/restore",
        ids: [
            "listCheckpointsAlias",
            "createCheckpointAlias",
            "waitCheckpointAlias",
            "restoreAlias",
            "getCheckpointAlias",
            "deleteCheckpointAlias",
            "restoreCheckpointAlias",
        ],
    },
];

pub(super) fn add(routes: Routes) -> Routes {
    SPELLINGS.iter().fold(routes, add_spelling)
}

fn add_spelling(routes: Routes, at: &Spelling) -> Routes {
    const TAG: &str = "checkpoints";
    let [
        list_id,
        make_id,
        wait_id,
        restore_id,
        show_id,
        delete_id,
        by_path_id,
    ] = at.ids;
    let absent =
        |id, summary| Operation::new(id, TAG, summary).error(404, "There is no such checkpoint");
    let restores = |id| {
        absent(
            id,
            "Rewind files and definitions, and restart what ran then",
        )
        .text(
            "Each service is in one list at most. A service that fails does not fail the restore.",
        )
        .body::<Restore>()
        .answer::<Restored>(200, "The files are those of the checkpoint")
        .error(400, "A field is wrong")
        .error(409, "Another checkpoint or restore is going on")
        .error(
            500,
            "The files cannot be brought back; they are as they were",
        )
    };
    routes
        .get(
            at.all,
            list,
            Operation::new(list_id, TAG, "Every checkpoint, the oldest first")
                .answer::<Listed>(200, "The checkpoints"),
        )
        .post(
            at.all,
            make,
            Operation::new(
                make_id,
                TAG,
                "Keep the files and the definitions as they are",
            )
            .text("Answers at once, or with `?wait=true` when it is written.")
            .query::<MakeQuery>()
            .body::<Make>()
            .answer::<Made>(200, "It was begun, or is written")
            .error(400, "The name is wrong")
            .error(409, "Another checkpoint or restore is going on")
            .error(500, "It could not be made, or `hook_failed`"),
        )
        .post(
            at.wait,
            wait,
            absent(wait_id, "Wait until a checkpoint is written")
                .body::<Which>()
                .answer::<Made>(200, "It is written")
                .error(400, "`checkpoint_id` is missing")
                .error(500, "It could not be made"),
        )
        .post(at.restore, restore_named, restores(restore_id))
        .get(
            at.one,
            show,
            absent(show_id, "One checkpoint").answer::<Entry>(200, "The checkpoint"),
        )
        .delete(
            at.one,
            delete,
            absent(delete_id, "Remove a checkpoint")
                .answer::<Deleted>(200, "It is gone")
                .error(409, "Another checkpoint or restore is going on"),
        )
        .post(at.restore_one, restore_by_path, restores(by_path_id))
}

/// What to keep.
#[derive(JsonSchema)]
#[expect(dead_code, reason = "describes what `make` reads")]
struct Make {
    /// For people; at most 128 bytes.
    name: Option<String>,
    /// Values of the secrets that the sandbox's hooks need.
    secret_values: Option<std::collections::BTreeMap<String, String>>,
}

/// Which checkpoint.
#[derive(JsonSchema)]
#[expect(dead_code, reason = "describes what `wait` reads")]
struct Which {
    /// Its id.
    checkpoint_id: String,
}

/// What to bring back.
#[derive(JsonSchema)]
#[expect(dead_code, reason = "describes what `restored` reads")]
struct Restore {
    /// Its id, where the path does not say it.
    checkpoint_id: Option<String>,
    /// Values of the secrets that its services need.
    secret_values: Option<std::collections::BTreeMap<String, String>>,
}

/// A checkpoint.
#[derive(JsonSchema)]
#[expect(dead_code, reason = "describes what `entry` makes")]
struct Entry {
    /// Its id.
    id: String,
    /// For people.
    name: Option<String>,
    /// When it was made, as in RFC 3339.
    created_at: Option<String>,
    /// The bytes of its files.
    size_bytes: Option<u64>,
    /// The same for people.
    size_human: Option<String>,
    /// `creating`, `complete` or `failed`.
    state: String,
}

/// Every checkpoint.
#[derive(JsonSchema)]
#[expect(dead_code, reason = "describes what `list` makes")]
struct Listed {
    checkpoints: Vec<Entry>,
}

/// A checkpoint that was made, or begun.
#[derive(JsonSchema)]
#[expect(dead_code, reason = "describes what `made` makes")]
struct Made {
    /// Its id.
    checkpoint_id: String,
    /// The bytes of its files; 0 while it is being made.
    size_bytes: u64,
    /// How long the copy took; 0 while it is being made.
    copy_duration_ms: u64,
    /// `creating` or `complete`.
    state: String,
    /// Always true.
    ok: bool,
}

/// What has become of the services. Each list is sorted; none shares a name with another.
#[derive(JsonSchema)]
#[expect(dead_code, reason = "describes what `restored` makes")]
struct Restored {
    /// Whether every service of the checkpoint runs.
    ok: bool,
    restore_duration_ms: u64,
    /// Ran then, and run now.
    started_services: Vec<String>,
    /// Ran just before, and not then.
    stopped_services: Vec<String>,
    /// Ran then, and do not run now.
    failed_services: Vec<String>,
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
        false => object(&body.to_vec().into()),
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

#[derive(Deserialize, JsonSchema)]
struct MakeQuery {
    /// Whether to answer only when it is written.
    wait: Option<bool>,
}

/// Returns at once, as the page has it; with `?wait=true` once it is written.
async fn make(
    State(api): Shared,
    Params(query): Params<MakeQuery>,
    Payload(body): Payload,
) -> Answer<Json<Value>> {
    let mut body = optional_body(&body)?;
    let secrets = wire::take_secrets(&mut body).map_err(Refusal::invalid)?;
    let (id, creation) = create(&api.sandbox, name_of(&body)?, secrets)?;
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

async fn list(State(api): Shared) -> Answer<Json<Value>> {
    let shelf = Shelf::of(api.sandbox.store.dir());
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

async fn show(State(api): Shared, Name(id): Name) -> Answer<Json<Value>> {
    let going_on = api.sandbox.checkpoints.made().get(&id).cloned();
    match going_on.map(|made| made.borrow().clone()) {
        Some(None) => Ok(Json(json!({ "id": id, "state": "creating" }))),
        Some(Some(Err(refusal))) => {
            let state = json!({ "id": id, "state": "failed", "error": refusal.message });
            Ok(Json(state))
        }
        Some(Some(Ok(_))) | None => Ok(Json(entry(&complete(&api.sandbox, &id).await?))),
    }
}

fn id_of(body: &Map<String, Value>) -> Answer<String> {
    let id = body.get("checkpoint_id").or_else(|| body.get("id"));
    let id = id.and_then(Value::as_str).filter(|id| !id.is_empty());
    id.map(str::to_owned)
        .ok_or_else(|| Refusal::invalid("`checkpoint_id` is missing"))
}

/// Answers once a checkpoint is written.
async fn wait(State(api): Shared, Payload(body): Payload) -> Answer<Json<Value>> {
    let id = id_of(&object(&body)?)?;
    let going_on = api.sandbox.checkpoints.made().get(&id).cloned();
    let checkpoint = match going_on {
        Some(creation) => finished(creation).await?,
        None => complete(&api.sandbox, &id).await?,
    };
    Ok(Json(made(&checkpoint)))
}

async fn restore_named(State(api): Shared, Payload(body): Payload) -> Answer<Json<Value>> {
    let mut body = object(&body)?;
    let secrets = wire::take_secrets(&mut body).map_err(Refusal::invalid)?;
    restored(api.sandbox, id_of(&body)?, secrets).await
}

async fn restore_by_path(
    State(api): Shared,
    Name(id): Name,
    Payload(body): Payload,
) -> Answer<Json<Value>> {
    let mut body = optional_body(&body)?;
    let secrets = wire::take_secrets(&mut body).map_err(Refusal::invalid)?;
    restored(api.sandbox, id, secrets).await
}

async fn restored(sandbox: Arc<Sandbox>, id: String, secrets: Secrets) -> Answer<Json<Value>> {
    // A task of its own, so that it comes to its end even if the client hangs up.
    let restoring = tokio::spawn(restore(sandbox, id, secrets));
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

async fn delete(State(api): Shared, Name(id): Name) -> Answer<Json<Value>> {
    let _busy = api.sandbox.checkpoints.begin()?;
    let (shelf, key) = (Shelf::of(api.sandbox.store.dir()), id.clone());
    let removed = tokio::spawn(async move {
        blocking("the checkpoint is not removed", move || shelf.delete(&key)).await
    });
    let removed = removed.await;
    match removed.map_err(|error| Refusal::internal(error.to_string()))?? {
        true => Ok(Json(json!({ "deleted": true, "ok": true }))),
        false => Err(not_found(&id)),
    }
}
