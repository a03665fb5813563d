//! The HTTP API of one sandbox: the iris `/v1` data plane (protocol page iris, §3–§7), Miosa's
//! processes (protocol page miosa, §5), and our extensions.
//!
//! In: requests. Out: what owners, files and the key-value store say. One file per group of routes;
//! every route is added with its description, of which `openapi` makes the document. No logic of
//! its own about services, and no route without a description.

mod auth;
mod checkpoints;
mod events;
mod exec;
mod files;
mod inside;
mod logs;
mod openapi;
mod processes;
mod request;
mod services;
mod start;
mod store;

use std::path::PathBuf;
use std::sync::Arc;

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::{Json, Router};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use self::openapi::{Operation, Routes};
use self::request::Payload;
use super::client::HealthReport;
use super::files::Root;
use super::keyvalue::KeyValues;
use super::owner::Refusal;
use super::sandbox::Sandbox;
use crate::model::Isolation;

pub(super) use self::auth::{Token, guarded};
pub use self::openapi::document;

/// What the handlers work on.
#[derive(Clone)]
pub(super) struct Api {
    pub sandbox: Arc<Sandbox>,
    /// What `/` means to the file routes.
    pub root: Arc<Root>,
    pub values: Arc<KeyValues>,
}

type Shared = State<Api>;
type Answer<T = Response> = Result<T, Refusal>;

/// The API of a sandbox, for whatever it is served on. `root` is what `/` means to the file routes.
pub(super) fn router(sandbox: Arc<Sandbox>, root: Root) -> Router {
    let values = KeyValues::kept_in(sandbox.store.dir());
    let api = Api {
        sandbox,
        root: Arc::new(root),
        values: Arc::new(values),
    };
    routes()
        .into_router()
        .fallback(|| async { Refusal::new(404, "not_found", "there is no such route") })
        .method_not_allowed_fallback(|| async {
            Refusal::new(405, "method_not_allowed", "this route has other methods")
        })
        .with_state(api)
}

/// Every route.
fn routes() -> Routes {
    let routes = own(Routes::default());
    let routes = services::add(routes);
    let routes = logs::add(routes);
    let routes = events::add(routes);
    let routes = exec::add(routes);
    let routes = inside::add(routes);
    let routes = checkpoints::add(routes);
    let routes = processes::add(routes);
    let routes = files::add(routes);
    store::add(routes)
}

/// The routes about the supervisor itself.
fn own(routes: Routes) -> Routes {
    routes
        .get(
            "/v1/health",
            health,
            Operation::new("health", "supervisor", "Whether the supervisor serves")
                .text("Needs no token; without one only `ok` is told.")
                .answer::<HealthReport>(200, "It does"),
        )
        .post(
            "/v1/shutdown",
            shutdown,
            Operation::new("shutdown", "supervisor", "Stop every service and end")
                .answer::<Done>(200, "Every service is down; the supervisor ends"),
        )
        .post(
            "/v1/upgrade",
            upgrade,
            Operation::new("upgrade", "supervisor", "Let another program supervise the sandbox")
                .text("The services go on as they are. Should the program not come up, this one does again.")
                .body::<Upgrade>()
                .answer::<Done>(200, "This supervisor is about to end")
                .error(400, "The program cannot be executed"),
        )
        .get(
            "/v1/openapi.json",
            || async { Json(document()) },
            Operation::new("openapi", "supervisor", "This document")
                .answer::<Value>(200, "An OpenAPI 3.1 document"),
        )
}

/// The program that is to supervise the sandbox from now on.
#[derive(Deserialize, JsonSchema)]
struct Upgrade {
    /// The path of its file, absolute.
    program: PathBuf,
}

async fn upgrade(State(api): Shared, Payload(body): Payload) -> Answer<Json<Done>> {
    let Upgrade { program } = serde_json::from_slice(&body)
        .map_err(|error| Refusal::invalid(format!("the body: {error}")))?;
    let executable = rustix::fs::access(&program, rustix::fs::Access::EXEC_OK).is_ok();
    if !program.is_absolute() || !program.is_file() || !executable {
        let shown = program.display();
        return Err(Refusal::invalid(format!(
            "`{shown}` is not the path of a program"
        )));
    }
    api.sandbox.hand_over(program);
    Ok(DONE)
}

/// What a change without anything to show is answered with.
#[derive(Serialize, JsonSchema)]
struct Done {
    /// Always true.
    ok: bool,
}

/// What a removal is answered with.
#[derive(Serialize, JsonSchema)]
struct Deleted {
    /// Always true.
    deleted: bool,
    /// Always true.
    ok: bool,
}

const DONE: Json<Done> = Json(Done { ok: true });
const DELETED: Json<Deleted> = Json(Deleted {
    deleted: true,
    ok: true,
});

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        (status, Json(self.body())).into_response()
    }
}

async fn health(State(api): Shared) -> Json<HealthReport> {
    let hello = &api.sandbox.hello;
    Json(HealthReport {
        ok: true,
        version: crate::keeper::version().to_owned(),
        pid: std::process::id(),
        keeper_pid: Some(hello.pid),
        isolation: Some(match hello.strict {
            true => Isolation::Strict,
            false => Isolation::None,
        }),
        isolation_reason: hello.reason.clone(),
    })
}

/// Answers once every service is down; the supervisor ends right after.
async fn shutdown(State(api): Shared) -> Json<Value> {
    // A task of its own, so that it comes to its end even if the client hangs up.
    let halting = tokio::spawn(async move {
        api.sandbox.halt().await;
        api.sandbox.closed.cancel();
    });
    Json(json!({ "ok": halting.await.is_ok() }))
}
