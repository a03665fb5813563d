//! The iris `/v1` API of one sandbox (protocol page iris, §3, §4) and our extensions.
//!
//! Every route asks the owner of the service and shows what it published. No logic of its own.

use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::{FromRequest, FromRequestParts, Path, Query, Request, State};
use axum::http::request::Parts;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use futures_util::stream;
use serde::Deserialize;
use serde_json::{Map, Value, json};
use tokio::sync::watch;

use super::checkpoint;
use super::logs::{Follower, show_line};
use super::owner::{Await, Control, Origin, Refusal};
use super::sandbox::{Handle, Sandbox};
use super::{signal, wire};
use crate::model::{Isolation, Secrets, ServiceName};
use crate::platforms::LogQuery;

pub(super) type Shared = State<Arc<Sandbox>>;
pub(super) type Answer<T = Response> = Result<T, Refusal>;

/// The routes.
pub(super) fn router(sandbox: Arc<Sandbox>) -> Router {
    Router::new()
        .route("/v1/health", get(health))
        .route("/v1/shutdown", post(shutdown))
        .route("/v1/services", get(list))
        .route("/v1/services/{name}", get(show).put(define).delete(delete))
        .route("/v1/services/{name}/start", post(start))
        .route("/v1/services/{name}/stop", post(stop))
        .route("/v1/services/{name}/restart", post(restart))
        .route("/v1/services/{name}/signal", post(send_signal))
        .route("/v1/services/{name}/logs", get(logs))
        .merge(checkpoint::routes())
        .fallback(|| async { Refusal::new(404, "not_found", "there is no such route") })
        .method_not_allowed_fallback(|| async {
            Refusal::new(405, "method_not_allowed", "this route has other methods")
        })
        .with_state(sandbox)
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        (status, Json(self.body())).into_response()
    }
}

/// The name in a path; one that cannot be read is refused in our own shape.
pub(super) struct Name(pub String);

impl<S: Send + Sync> FromRequestParts<S> for Name {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Refusal> {
        match Path::<String>::from_request_parts(parts, state).await {
            Ok(Path(name)) => Ok(Self(name)),
            Err(error) => Err(rejected(error.status(), error.body_text())),
        }
    }
}

/// A whole body; one that is too large is refused in our own shape.
pub(super) struct Payload(pub Bytes);

impl<S: Send + Sync> FromRequest<S> for Payload {
    type Rejection = Refusal;

    async fn from_request(request: Request, state: &S) -> Result<Self, Refusal> {
        match Bytes::from_request(request, state).await {
            Ok(body) => Ok(Self(body)),
            Err(error) => Err(rejected(error.status(), error.body_text())),
        }
    }
}

fn rejected(status: StatusCode, text: String) -> Refusal {
    Refusal::new(status.as_u16(), "invalid_request", text)
}

async fn health(State(sandbox): Shared) -> Json<Value> {
    let hello = &sandbox.hello;
    let isolation = match hello.strict {
        true => Isolation::Strict,
        false => Isolation::None,
    };
    Json(json!({
        "ok": true,
        "version": env!("CARGO_PKG_VERSION"),
        "pid": std::process::id(),
        "keeper_pid": hello.pid,
        "isolation": isolation,
        "isolation_reason": hello.reason,
    }))
}

/// Answers once every service is down; the supervisor ends right after.
async fn shutdown(State(sandbox): Shared) -> Json<Value> {
    // A task of its own, so that it comes to its end even if the client hangs up.
    let halting = tokio::spawn(async move {
        sandbox.halt().await;
        sandbox.closed.cancel();
    });
    Json(json!({ "ok": halting.await.is_ok() }))
}

async fn list(State(sandbox): Shared) -> Json<Value> {
    let handles = sandbox.handles();
    let objects: Vec<_> = handles
        .values()
        .map(|h| h.object.borrow().clone())
        .collect();
    Json(json!(
        objects.iter().map(|object| &**object).collect::<Vec<_>>()
    ))
}

#[derive(Deserialize)]
struct Poll {
    after: Option<u64>,
    timeout_ms: Option<u64>,
}

/// With `after`, answers once the sequence number is greater, or with what there is at the timeout.
async fn show(
    State(sandbox): Shared,
    Name(name): Name,
    poll: Result<Query<Poll>, axum::extract::rejection::QueryRejection>,
) -> Answer<Json<Value>> {
    let mut handle = find(&sandbox, &name)?;
    let Query(poll) = poll.map_err(|error| Refusal::invalid(error.body_text()))?;
    if let Some(after) = poll.after {
        let limit = Duration::from_millis(poll.timeout_ms.unwrap_or(30_000));
        tokio::select! {
            changed = handle.object.wait_for(|object| object.seq > after) => {
                changed.map_err(|_| Refusal::not_found(&name))?;
            }
            () = tokio::time::sleep(limit) => {}
            () = sandbox.closed.cancelled() => {}
        }
    }
    let object = handle.object.borrow().clone();
    Ok(Json(json!(*object)))
}

async fn define(
    State(sandbox): Shared,
    Name(name): Name,
    Payload(body): Payload,
) -> Answer<Json<Value>> {
    let name = service_name(&name)?;
    let mut body = object_body(&body)?;
    let secrets = wire::take_secrets(&mut body).map_err(Refusal::invalid)?;
    let spec = wire::read_definition(&name, body).map_err(Refusal::invalid)?;
    // A task of its own, so that a definition is never stored without an owner.
    let defining = tokio::spawn(async move { sandbox.define(&name, spec, secrets).await });
    let defined = defining
        .await
        .map_err(|e| Refusal::internal(e.to_string()))?;
    let handle = defined?;
    Ok(shown(&handle))
}

async fn delete(State(sandbox): Shared, Name(name): Name) -> Answer<Json<Value>> {
    find(&sandbox, &name)?.ask(Control::Delete).await?;
    Ok(Json(json!({ "deleted": true, "ok": true })))
}

#[derive(Deserialize)]
struct StartQuery {
    until: Option<String>,
    timeout_ms: Option<u64>,
}

async fn start(
    State(sandbox): Shared,
    Name(name): Name,
    query: Result<Query<StartQuery>, axum::extract::rejection::QueryRejection>,
    Payload(body): Payload,
) -> Answer<Json<Value>> {
    let handle = find(&sandbox, &name)?;
    let Query(query) = query.map_err(|error| Refusal::invalid(error.body_text()))?;
    let until = match query.until.as_deref() {
        None | Some("settled") => Await::Settled,
        Some("executed") => Await::Accepted,
        Some(other) => {
            let text = format!("`until` is `executed` or `settled`, not `{other}`");
            return Err(Refusal::invalid(text));
        }
    };
    let secrets = secrets_of(&body)?;
    let asking = handle.ask(|reply| Control::Start {
        until,
        origin: Origin::Request,
        secrets,
        reply,
    });
    match query.timeout_ms.map(Duration::from_millis) {
        None => asking.await?,
        Some(limit) => match tokio::time::timeout(limit, asking).await {
            Ok(answer) => answer?,
            Err(_) => {
                let waits = handle.object.borrow().message.clone();
                let text = waits.unwrap_or_else(|| "not settled yet".to_owned());
                return Err(Refusal::new(504, "timeout", text));
            }
        },
    }
    Ok(shown(&handle))
}

async fn stop(State(sandbox): Shared, Name(name): Name) -> Answer<Json<Value>> {
    let handle = find(&sandbox, &name)?;
    handle.ask(Control::Stop).await?;
    Ok(shown(&handle))
}

async fn restart(
    State(sandbox): Shared,
    Name(name): Name,
    Payload(body): Payload,
) -> Answer<Json<Value>> {
    let handle = find(&sandbox, &name)?;
    let secrets = secrets_of(&body)?;
    let restart = |reply| Control::Restart { secrets, reply };
    handle.ask(restart).await?;
    Ok(shown(&handle))
}

async fn send_signal(
    State(sandbox): Shared,
    Name(name): Name,
    Payload(body): Payload,
) -> Answer<Json<Value>> {
    let handle = find(&sandbox, &name)?;
    let body = object_body(&body)?;
    let name = body.get("signal").and_then(Value::as_str).unwrap_or("");
    let unknown = || Refusal::invalid(format!("`{name}` is not the name of a signal"));
    let signal = signal::by_name(name).ok_or_else(unknown)?;
    let send = |reply| Control::Signal { signal, reply };
    handle.ask(send).await?;
    Ok(shown(&handle))
}

#[derive(Deserialize)]
struct LogsQuery {
    lines: Option<usize>,
    follow: Option<bool>,
    since: Option<jiff::Timestamp>,
    stream: Option<crate::platforms::LogStream>,
}

/// What a stream of log lines needs to go on.
struct Lines {
    follower: Follower,
    /// Told of new lines; `None` if only what there is was asked for.
    tick: Option<watch::Receiver<u64>>,
    /// Whether only lines are told that have an end.
    whole: bool,
    sandbox: Arc<Sandbox>,
}

async fn logs(
    State(sandbox): Shared,
    Name(name): Name,
    query: Result<Query<LogsQuery>, axum::extract::rejection::QueryRejection>,
) -> Answer {
    let handle = find(&sandbox, &name)?;
    let name = service_name(&name)?;
    let Query(query) = query.map_err(|error| Refusal::invalid(error.body_text()))?;
    let follow = query.follow.unwrap_or(false);
    let query = LogQuery {
        tail: query.lines,
        since: query.since,
        stream: query.stream,
        follow,
    };
    let dir = sandbox.store.dir().to_owned();
    let follower = tokio::task::spawn_blocking(move || Follower::open(&dir, &name, &query)).await;
    let follower = follower
        .map_err(std::io::Error::other)
        .and_then(|follower| follower)
        .map_err(|error| Refusal::internal(format!("the log cannot be read: {error}")))?;
    let stream = Lines {
        follower,
        tick: follow.then_some(handle.tick),
        // Of a process that lives the rest of the line is still to come.
        whole: handle.object.borrow().pid.is_some(),
        sandbox,
    };
    let body = Body::from_stream(stream::unfold(stream, next_lines));
    let kind = [(header::CONTENT_TYPE, "text/plain; charset=utf-8")];
    Ok((kind, body).into_response())
}

/// The next lines of a log; waits for them if they are followed.
async fn next_lines(mut stream: Lines) -> Option<(std::io::Result<Vec<u8>>, Lines)> {
    loop {
        if let Some(tick) = &mut stream.tick {
            tick.mark_unchanged();
        }
        let mut follower = stream.follower;
        let finish = stream.tick.is_none() && !stream.whole;
        let read = tokio::task::spawn_blocking(move || {
            let mut read = follower.read();
            if let Ok(lines) = &mut read
                && lines.is_empty()
                && finish
            {
                *lines = follower.unfinished();
            }
            let text = read.map(|lines| {
                let mut text = Vec::new();
                lines.iter().for_each(|line| show_line(line, &mut text));
                text
            });
            (follower, text)
        });
        let (follower, text) = read.await.ok()?;
        stream.follower = follower;
        match text {
            Ok(text) if text.is_empty() => {}
            text => return Some((text, stream)),
        }
        let tick = stream.tick.as_mut()?;
        tokio::select! {
            changed = tick.changed() => if changed.is_err() {
                // The service is gone: what it wrote last is still read.
                (stream.tick, stream.whole) = (None, false);
            },
            () = stream.sandbox.closed.cancelled() => {
                (stream.tick, stream.whole) = (None, false);
            }
        }
    }
}

fn service_name(text: &str) -> Result<ServiceName, Refusal> {
    ServiceName::new(text).map_err(|_| {
        let rule = crate::model::NAME_RULE;
        Refusal::invalid(format!("`{text}` cannot be the name of a service: {rule}"))
    })
}

fn find(sandbox: &Sandbox, name: &str) -> Result<Handle, Refusal> {
    let name = service_name(name)?;
    sandbox
        .handle(&name)
        .ok_or_else(|| Refusal::not_found(name.as_str()))
}

pub(super) fn object_body(body: &Bytes) -> Result<Map<String, Value>, Refusal> {
    match serde_json::from_slice(body) {
        Ok(Value::Object(body)) => Ok(body),
        Ok(_) => Err(Refusal::invalid("the body must be a JSON object")),
        Err(error) => Err(Refusal::invalid(format!("the body is not JSON: {error}"))),
    }
}

fn secrets_of(body: &Bytes) -> Result<Secrets, Refusal> {
    if body.iter().all(u8::is_ascii_whitespace) {
        return Ok(Secrets::default());
    }
    wire::take_secrets(&mut object_body(body)?).map_err(Refusal::invalid)
}

/// What the owner published, with the `ok` that every change is answered with.
fn shown(handle: &Handle) -> Json<Value> {
    let mut body = json!(**handle.object.borrow());
    if let Value::Object(body) = &mut body {
        body.insert("ok".to_owned(), Value::Bool(true));
    }
    Json(body)
}
