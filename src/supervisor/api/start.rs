//! Starting a service: the one act of which it is told how it gets on.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use futures_util::stream;
use schemars::JsonSchema;
use serde::Deserialize;
use tokio::sync::watch;

use super::openapi::{Operation, Routes};
use super::request::{self, Name, Params, Payload, find};
use super::services::{SecretsBody, shown};
use super::{Answer, Shared};
use crate::supervisor::owner::{Await, Control, Origin, Refusal};
use crate::supervisor::sandbox::Handle;
use crate::supervisor::wire::{ServiceObject, StartEvent};

pub(super) fn add(
    routes: Routes,
    about_one: &impl Fn(&'static str, &'static str) -> Operation,
) -> Routes {
    routes.post(
        "/v1/services/{name}/start",
        start,
        about_one("startService", "Start a service and what it needs")
            .text(
                "With `progress`, the answer is 200 at once and newline-delimited JSON, \
                 `application/x-ndjson`: a line for each change of the service, and a last one with what \
                 would be the answer otherwise.",
            )
            .query::<StartQuery>()
            .body::<SecretsBody>()
            .answer::<ServiceObject>(200, "It has come as far as was asked for")
            .error(
                409,
                "`dependency_not_found`, `dependency_cycle`, `dependency_failed`, or it was stopped meanwhile",
            )
            .error(500, "`start_failed`, with the last lines of its output")
            .error(503, "The supervisor is about to end")
            .error(504, "`health_timeout`, or `timeout` after `timeout_ms`"),
    )
}

#[derive(Deserialize, JsonSchema)]
struct StartQuery {
    /// `settled` (ready; for a task, exited with 0), which is the default, or `executed`.
    until: Option<String>,
    /// How long it is awaited. No limit without it.
    timeout_ms: Option<u64>,
    /// Whether each change is told as it happens.
    progress: Option<bool>,
}

async fn start(
    State(api): Shared,
    Name(name): Name,
    Params(query): Params<StartQuery>,
    Payload(body): Payload,
) -> Answer<Response> {
    let handle = find(&api.sandbox, &name)?;
    let until = match query.until.as_deref() {
        None | Some("settled") => Await::Settled,
        Some("executed") => Await::Accepted,
        Some(other) => {
            let text = format!("`until` is `executed` or `settled`, not `{other}`");
            return Err(Refusal::invalid(text));
        }
    };
    let secrets = request::secrets(&body)?;
    let limit = query.timeout_ms.map(Duration::from_millis);
    let object = handle.object.clone();
    let starting = async move {
        let asking = handle.ask(|reply| Control::Start {
            until,
            origin: Origin::Request,
            secrets,
            reply,
        });
        match limit {
            None => asking.await?,
            Some(limit) => match tokio::time::timeout(limit, asking).await {
                Ok(answer) => answer?,
                Err(_) => return Err(not_settled(&handle)),
            },
        }
        Ok(handle)
    };
    if query.progress != Some(true) {
        return Ok(shown(&starting.await?).into_response());
    }
    let progress = Progress {
        object,
        starting: Some(Box::pin(starting)),
    };
    let lines = stream::unfold(progress, |mut progress| async {
        Some((Ok::<_, std::io::Error>(progress.next().await?), progress))
    });
    let kind = [(header::CONTENT_TYPE, "application/x-ndjson")];
    Ok((kind, Body::from_stream(lines)).into_response())
}

fn not_settled(handle: &Handle) -> Refusal {
    let waits = handle.object.borrow().message.clone();
    let text = waits.unwrap_or_else(|| "not settled yet".to_owned());
    Refusal::new(504, "timeout", text)
}

/// A start and what is told of it.
struct Progress<F> {
    object: watch::Receiver<Arc<ServiceObject>>,
    /// `None` once it has ended.
    starting: Option<Pin<Box<F>>>,
}

impl<F: Future<Output = Result<Handle, Refusal>>> Progress<F> {
    async fn next(&mut self) -> Option<Vec<u8>> {
        let starting = self.starting.as_mut()?;
        let event = tokio::select! {
            // The end first: what has changed by then is part of it.
            biased;
            started = starting => {
                self.starting = None;
                match started {
                    Ok(handle) => StartEvent::Done { service: as_it_is(&handle.object) },
                    Err(refusal) => StartEvent::Refused {
                        status: refusal.status,
                        body: refusal.body(),
                    },
                }
            }
            Ok(()) = self.object.changed() => {
                self.object.mark_unchanged();
                StartEvent::Changed { service: as_it_is(&self.object) }
            }
        };
        let mut line = serde_json::to_vec(&event).unwrap_or_default();
        line.push(b'\n');
        Some(line)
    }
}

fn as_it_is(object: &watch::Receiver<Arc<ServiceObject>>) -> Box<ServiceObject> {
    Box::new((**object.borrow()).clone())
}
