//! Commands, the newer twin of processes: protocol page miosa, §5. Detached ones are the same processes.

use axum::body::Bytes;
use axum::extract::State;
use axum::http::StatusCode;
use serde::Deserialize;
use serde_json::json;

use super::Miosa;
use super::exec::{self, Awake};
use super::problem::Answer;
use super::processes::{self, Picked, StartBody};
use super::request;

#[derive(Deserialize)]
struct RunBody {
    #[serde(flatten)]
    process: StartBody,
    #[serde(default)]
    detached: bool,
}

pub(super) async fn run(State(miosa): State<Miosa>, Awake(sandbox): Awake, body: Bytes) -> Answer {
    let body: RunBody = request::json(&body)?;
    match body.detached {
        true => processes::begin(&miosa, sandbox, body.process).await,
        false => exec::whole(&miosa, &sandbox, body.process, StatusCode::CREATED).await,
    }
}

pub(super) async fn kill(State(miosa): State<Miosa>, process: Picked) -> Answer {
    processes::stop(process).await?;
    Ok(miosa.ok(json!({ "status": "killed" })))
}
