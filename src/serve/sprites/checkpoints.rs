//! Checkpoints: protocol page sprites, §4. They are numbered `v0`, `v1`, … in the order of their making.

use std::collections::HashMap;
use std::sync::Arc;

use axum::Json;
use axum::body::Bytes;
use axum::extract::FromRequestParts;
use axum::http::StatusCode;
use axum::http::request::Parts;
use jiff::Timestamp;
use serde::Deserialize;
use serde_json::{Value, json};

use super::problem::{Answer, Problem};
use super::request::{self, Sprite, segment};
use super::stream::{Lines, shown};
use super::{PROTOCOL, SpriteNote};
use crate::model::Checkpoint;
use crate::serve::engine::{Engine, Result, Sandbox};

#[derive(Deserialize)]
struct CreateBody {
    comment: Option<String>,
}

/// The checkpoint in the path: its sandbox and itself.
pub(super) struct Found(Arc<Sandbox>, u64, Checkpoint);

impl FromRequestParts<Engine> for Found {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, engine: &Engine) -> Answer<Self> {
        let Sprite(sandbox) = Sprite::from_request_parts(parts, engine).await?;
        let id = segment(parts, engine, "id").await?;
        let all = numbered(&sandbox).await?.into_iter();
        let found = all
            .into_iter()
            .find(|(number, _)| format!("v{number}") == id);
        let missing = || Problem::new(404, "not_found", format!("checkpoint not found: {id}"));
        let (number, checkpoint) = found.ok_or_else(missing)?;
        Ok(Self(sandbox, number, checkpoint))
    }
}

/// Every checkpoint with its number; one that has none yet gets the next.
async fn numbered(sandbox: &Sandbox) -> Result<Vec<(u64, Checkpoint)>> {
    let mut all = sandbox.checkpoints().await?;
    all.sort_by_key(|checkpoint| checkpoint.created_at);
    sandbox.update(|record| {
        let mut note: SpriteNote = record.extra(PROTOCOL);
        note.checkpoints
            .retain(|_, id| all.iter().any(|known| known.id == *id));
        for checkpoint in &all {
            if !note.checkpoints.values().any(|id| *id == checkpoint.id) {
                note.checkpoints
                    .insert(note.next_checkpoint, checkpoint.id.clone());
                note.next_checkpoint += 1;
            }
        }
        record.set_extra(PROTOCOL, &note);
        let mut by_id: HashMap<_, _> = all.into_iter().map(|it| (it.id.clone(), it)).collect();
        let numbers = note.checkpoints.into_iter();
        numbers
            .filter_map(|(number, id)| Some((number, by_id.remove(&id)?)))
            .collect()
    })
}

fn object(number: u64, checkpoint: &Checkpoint) -> Value {
    json!({
        "id": format!("v{number}"),
        "create_time": shown(checkpoint.created_at),
        "comment": checkpoint.name.as_deref().unwrap_or_default(),
        "history": [],
        "is_auto": false,
    })
}

/// A line of a stream: its `type` and its text.
fn line(kind: &str, text: &str) -> Value {
    let key = if kind == "error" { "error" } else { "data" };
    json!({ "type": kind, key: text, "time": shown(Timestamp::now()) })
}

pub(super) async fn create(Sprite(sandbox): Sprite, body: Bytes) -> Answer {
    let CreateBody { comment } = request::json(&body)?;
    Ok(Lines::answer(move |lines| async move {
        let _ = lines.write(line("info", "Creating checkpoint...")).await;
        let comment = comment.filter(|comment| !comment.is_empty());
        let made = async {
            let made = sandbox.create_checkpoint(comment.as_deref()).await?;
            let all = numbered(&sandbox).await?.into_iter();
            Ok::<_, crate::serve::engine::EngineError>(
                all.into_iter().find(|(_, it)| it.id == made.id),
            )
        };
        let last = match made.await {
            Ok(Some((number, _))) => line("complete", &format!("Checkpoint v{number} created")),
            Ok(None) => line("error", "the checkpoint was removed"),
            Err(error) => line("error", &error.message),
        };
        // A client that has gone finds it in the list.
        let _ = lines.write(last).await;
    }))
}

pub(super) async fn list(Sprite(sandbox): Sprite) -> Answer<Json<Value>> {
    let all = numbered(&sandbox).await?;
    Ok(Json(
        all.iter().map(|(number, it)| object(*number, it)).collect(),
    ))
}

pub(super) async fn show(Found(_, number, checkpoint): Found) -> Json<Value> {
    Json(object(number, &checkpoint))
}

pub(super) async fn restore(Found(sandbox, number, checkpoint): Found) -> Answer {
    Ok(Lines::answer(move |lines| async move {
        let begun = line("info", &format!("Restoring checkpoint v{number}..."));
        let _ = lines.write(begun).await;
        let last = match sandbox.restore_checkpoint(&checkpoint.id).await {
            Ok(_) => line("complete", &format!("Restored to v{number}")),
            Err(error) => line("error", &error.message),
        };
        let _ = lines.write(last).await;
    }))
}

pub(super) async fn remove(Found(sandbox, _, checkpoint): Found) -> Answer<StatusCode> {
    sandbox.delete_checkpoint(&checkpoint.id).await?;
    Ok(StatusCode::NO_CONTENT)
}
