//! Streams of JSON objects, one on each line: protocol page sprites, §3.

use axum::body::{Body, Bytes};
use axum::http::header;
use axum::response::{IntoResponse, Response};
use futures_util::stream;
use jiff::Timestamp;
use serde_json::{Value, json};
use tokio::sync::mpsc;

use crate::platforms::LogLine;

/// The longest text in one line, in bytes: written as JSON it stays below the 64 KiB that Go reads.
const LONGEST: usize = 8 << 10;

/// Where lines are written to, while the client may still read them.
pub(super) struct Lines(mpsc::Sender<Bytes>);

/// The client does not read any more.
pub(super) struct Gone;

impl Lines {
    /// An answer whose lines are written by `work`, which comes to its end also when nobody reads them.
    pub(super) fn answer<F>(work: impl FnOnce(Self) -> F) -> Response
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let (sender, receiver) = mpsc::channel(64);
        tokio::spawn(work(Self(sender)));
        let lines = stream::unfold(receiver, |mut receiver| async {
            Some((Ok::<_, std::io::Error>(receiver.recv().await?), receiver))
        });
        respond(Body::from_stream(lines))
    }

    /// Returns when nobody reads any more.
    pub(super) async fn gone(&self) {
        self.0.closed().await;
    }

    /// Writes a line.
    pub(super) async fn write(&self, line: Value) -> Result<(), Gone> {
        let line = Bytes::from(written(&line));
        self.0.send(line).await.map_err(|_| Gone)
    }

    /// Writes an event of a service: its `type`, the time, and what else is to be said.
    pub(super) async fn event(&self, kind: &str, more: Value) -> Result<(), Gone> {
        let now = Timestamp::now().as_millisecond();
        let mut line = json!({ "type": kind, "timestamp": now });
        if let (Some(line), Value::Object(more)) = (line.as_object_mut(), more) {
            line.extend(more);
        }
        self.write(line).await
    }

    /// Writes a line of a service's output, in pieces if it is long.
    pub(super) async fn output(&self, line: &LogLine) -> Result<(), Gone> {
        let kind = line.stream.word();
        let text = format!("{}\n", line.text);
        let mut rest = text.as_str();
        while !rest.is_empty() {
            let longest = (0..=LONGEST.min(rest.len())).rev();
            let end = longest.into_iter().find(|end| rest.is_char_boundary(*end));
            let (piece, tail) = rest.split_at(end.unwrap_or(rest.len()));
            let timestamp = line.at.as_millisecond();
            self.write(json!({ "type": kind, "data": piece, "timestamp": timestamp }))
                .await?;
            rest = tail;
        }
        Ok(())
    }
}

/// A time as clients read it: older Pythons understand three digits of a second, or six.
pub(super) fn shown(time: Timestamp) -> String {
    format!("{time:.3}")
}

fn written(line: &Value) -> Vec<u8> {
    let mut text = line.to_string().into_bytes();
    text.push(b'\n');
    text
}

fn respond(body: Body) -> Response {
    ([(header::CONTENT_TYPE, "application/x-ndjson")], body).into_response()
}
