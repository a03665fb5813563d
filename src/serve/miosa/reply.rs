//! What answers look like: envelope, request id, server-sent events.

use axum::Json;
use axum::body::{Body, Bytes};
use axum::extract::{Request, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use futures_util::stream;
use serde_json::{Value, json};
use tokio::sync::mpsc;

use super::Miosa;
use super::problem::Problem;

impl Miosa {
    /// A record, in the envelope that records have here.
    pub(super) fn reply(&self, status: StatusCode, record: Value) -> Response {
        let body = match self.switches().bare {
            true => record,
            false => json!({ "data": record }),
        };
        (status, Json(body)).into_response()
    }

    /// [`Miosa::reply`] with 200.
    pub(super) fn ok(&self, record: Value) -> Response {
        self.reply(StatusCode::OK, record)
    }
}

/// Every answer has a number; every refusal the shape that is wanted.
pub(super) async fn finished(State(miosa): State<Miosa>, request: Request, next: Next) -> Response {
    let mut response = next.run(request).await;
    if let Some(problem) = response.extensions_mut().remove::<Problem>() {
        response = problem.shaped(miosa.switches().flat_errors);
    }
    let number = format!("req_{:016x}", fastrand::u64(..));
    if let Ok(number) = HeaderValue::try_from(number) {
        response.headers_mut().insert("x-request-id", number);
    }
    response
}

/// Where server-sent events are written to, while the client may still read them.
pub(super) struct Events(mpsc::Sender<Bytes>);

/// The client does not read any more.
pub(super) struct Gone;

impl Events {
    /// An answer whose events are written by `work`.
    pub(super) fn answer<F>(work: impl FnOnce(Self) -> F) -> Response
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let (sender, receiver) = mpsc::channel(64);
        tokio::spawn(work(Self(sender)));
        let events = stream::unfold(receiver, |mut receiver| async {
            Some((Ok::<_, std::io::Error>(receiver.recv().await?), receiver))
        });
        let kind = [(header::CONTENT_TYPE, "text/event-stream")];
        (kind, Body::from_stream(events)).into_response()
    }

    /// Writes an event; one without a name is a plain message.
    pub(super) async fn write(&self, name: Option<&str>, data: &Value) -> Result<(), Gone> {
        let name = name.map(|name| format!("event: {name}\n"));
        let text = format!("{}data: {data}\n\n", name.unwrap_or_default());
        self.0.send(text.into()).await.map_err(|_| Gone)
    }
}
