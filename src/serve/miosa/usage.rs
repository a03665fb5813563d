//! What a sandbox has used: protocol page miosa, §4, which tells of routes but not of fields. Here nothing is measured
//! but time.

use axum::extract::State;
use jiff::Timestamp;
use serde_json::json;

use super::problem::Answer;
use super::request::Chosen;
use super::resources::Resources;
use super::{Miosa, Note, PROTOCOL};

pub(super) async fn total(State(miosa): State<Miosa>, Chosen(sandbox): Chosen) -> Answer {
    let lived = Timestamp::now().duration_since(sandbox.record().created_at);
    Ok(miosa.ok(json!({ "runtime_seconds": lived.as_secs() })))
}

pub(super) async fn recent(State(miosa): State<Miosa>, Chosen(sandbox): Chosen) -> Answer {
    let note: Note = sandbox.record().extra(PROTOCOL);
    Ok(miosa.ok(json!({ "resources": Resources::of(&note), "points": [] })))
}
