//! The variables of a sandbox: protocol page miosa, §4.

use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use serde::Deserialize;
use serde_json::{Value, json};

use super::Miosa;
use super::problem::Answer;
use super::request::{self, Chosen};
use crate::serve::engine::Sandbox;

#[derive(Deserialize)]
struct SetBody {
    vars: Vec<Variable>,
}

#[derive(Deserialize)]
struct Variable {
    key: String,
    value: String,
}

/// Names, and values that cannot be read.
fn object(sandbox: &Sandbox) -> Value {
    let record = sandbox.record();
    let shown = |(key, value): (&String, &String)| {
        let signs: Vec<_> = value.chars().collect();
        let preview = match signs.as_slice() {
            [a, b, .., y, z] if signs.len() > 8 => format!("{a}{b}...{y}{z}"),
            _ => "...".to_owned(),
        };
        json!({ "name": key, "key": key, "preview": preview, "updated_at": record.updated_at })
    };
    record.variables.iter().map(shown).collect()
}

pub(super) async fn list(State(miosa): State<Miosa>, Chosen(sandbox): Chosen) -> Answer {
    Ok(miosa.ok(object(&sandbox)))
}

/// Replaces all.
pub(super) async fn set(
    State(miosa): State<Miosa>,
    Chosen(sandbox): Chosen,
    body: Bytes,
) -> Answer {
    let SetBody { vars } = request::json(&body)?;
    let variables = vars.into_iter().map(|it| (it.key, it.value));
    sandbox.set_variables(variables.collect()).await?;
    Ok(miosa.ok(object(&sandbox)))
}

pub(super) async fn remove(
    Chosen(sandbox): Chosen,
    Path((_, key)): Path<(String, String)>,
) -> Answer<StatusCode> {
    let mut variables = sandbox.record().variables;
    if variables.remove(&key).is_some() {
        sandbox.set_variables(variables).await?;
    }
    Ok(StatusCode::NO_CONTENT)
}

pub(super) async fn sync(State(miosa): State<Miosa>, Chosen(sandbox): Chosen) -> Answer {
    let keys: Vec<_> = sandbox.record().variables.into_keys().collect();
    Ok(miosa.ok(json!({ "status": "synced", "env_keys": keys })))
}
