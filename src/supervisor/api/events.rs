//! What happens to services, as it happens.

use axum::body::Body;
use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use futures_util::stream;
use schemars::JsonSchema;
use serde::Serialize;
use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::RecvError;
use tokio_util::sync::CancellationToken;

use super::Shared;
use super::openapi::{Operation, Routes};
use crate::supervisor::changes::Change;
use crate::supervisor::wire::ServiceObject;

pub(super) fn add(routes: Routes) -> Routes {
    routes.get(
        "/v1/events",
        events,
        Operation::new(
            "streamEvents",
            "services",
            "What happens to services, as it happens",
        )
        .text(
            "One JSON object per line: first every service as it is, then each change. A \
                client that is too slow is told `lagged` and should list the services again.",
        )
        .answer::<Event>(200, "Newline-delimited JSON, `application/x-ndjson`"),
    )
}

/// One line.
#[derive(Serialize, JsonSchema)]
#[serde(tag = "event", rename_all = "snake_case")]
enum Event<'a> {
    /// A service as it is now.
    Service { service: &'a ServiceObject },
    /// A service is gone.
    Deleted { name: &'a str },
    /// So many events were missed.
    Lagged { missed: u64 },
}

impl Event<'_> {
    fn line(&self) -> Vec<u8> {
        let mut line = serde_json::to_vec(self).unwrap_or_default();
        line.push(b'\n');
        line
    }
}

struct Listening {
    changes: Receiver<Change>,
    closed: CancellationToken,
    /// What there was at the beginning.
    first: Option<Vec<u8>>,
}

async fn events(State(api): Shared) -> Response {
    // Before the list is made, so that nothing is missed in between.
    let changes = api.sandbox.changes.listen();
    let mut first = Vec::new();
    for handle in api.sandbox.handles().values() {
        let service = handle.object.borrow().clone();
        first.extend(Event::Service { service: &service }.line());
    }
    let listening = Listening {
        changes,
        closed: api.sandbox.closed.clone(),
        first: Some(first),
    };
    let kind = [(header::CONTENT_TYPE, "application/x-ndjson")];
    let lines = stream::unfold(listening, |mut listening| async {
        Some((Ok::<_, std::io::Error>(listening.next().await?), listening))
    });
    (kind, Body::from_stream(lines)).into_response()
}

impl Listening {
    async fn next(&mut self) -> Option<Vec<u8>> {
        if let Some(first) = self.first.take().filter(|first| !first.is_empty()) {
            return Some(first);
        }
        let change = tokio::select! {
            change = self.changes.recv() => change,
            () = self.closed.cancelled() => return None,
        };
        match change {
            Ok(Change::Changed(service)) => Some(Event::Service { service: &service }.line()),
            Ok(Change::Deleted(name)) => Some(
                Event::Deleted {
                    name: name.as_str(),
                }
                .line(),
            ),
            Err(RecvError::Lagged(missed)) => Some(Event::Lagged { missed }.line()),
            Err(RecvError::Closed) => None,
        }
    }
}
