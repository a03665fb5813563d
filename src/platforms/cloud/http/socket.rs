//! WebSockets: messages that come whole, however the way there cuts them.

use std::time::Duration;

use bytes::Bytes;
use futures_util::stream::{SplitSink, SplitStream};
use futures_util::{SinkExt, StreamExt};
use reqwest::Upgraded;
use tokio::time::timeout;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message as Raw;
use tokio_tungstenite::tungstenite::protocol::Role;

use super::HttpError;
use super::stream::Broken;

type Stream = WebSocketStream<Upgraded>;

/// What the other side says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Message {
    /// Bytes.
    Binary(Bytes),
    /// Text.
    Text(String),
}

/// A WebSocket to a platform, on which either side speaks when it likes.
pub struct Socket {
    stream: Stream,
    idle: Duration,
    broken: Broken,
}

/// The side of it that speaks.
pub struct Sender(SplitSink<Stream, Raw>);

/// The side of it that listens.
pub struct Receiver {
    stream: SplitStream<Stream>,
    idle: Duration,
    broken: Broken,
    closed: Option<u16>,
}

impl Socket {
    pub(super) async fn new(connection: Upgraded, idle: Duration, broken: Broken) -> Self {
        let stream = WebSocketStream::from_raw_socket(connection, Role::Client, None).await;
        Self {
            stream,
            idle,
            broken,
        }
    }

    /// Both sides of it, which need not wait for each other.
    pub fn split(self) -> (Sender, Receiver) {
        let (sink, stream) = self.stream.split();
        let receiver = Receiver {
            stream,
            idle: self.idle,
            broken: self.broken,
            closed: None,
        };
        (Sender(sink), receiver)
    }
}

impl Sender {
    /// Says something; `false` if the other side does not listen any more.
    pub async fn send(&mut self, bytes: Bytes) -> bool {
        self.0.send(Raw::Binary(bytes)).await.is_ok()
    }

    /// As [`Sender::send`], of text.
    pub async fn say(&mut self, text: String) -> bool {
        self.0.send(Raw::text(text)).await.is_ok()
    }
}

impl Receiver {
    /// What the other side has given as its reason to end, once it has.
    pub fn close_code(&self) -> Option<u16> {
        self.closed
    }

    /// The next message; `None` at the proper end.
    pub async fn next(&mut self) -> Result<Option<Message>, HttpError> {
        loop {
            match timeout(self.idle, self.stream.next()).await {
                Ok(Some(Ok(Raw::Binary(bytes)))) => return Ok(Some(Message::Binary(bytes))),
                Ok(Some(Ok(Raw::Text(text)))) => {
                    return Ok(Some(Message::Text(text.as_str().to_owned())));
                }
                Ok(Some(Ok(Raw::Close(frame)))) => {
                    self.closed = frame.map(|frame| frame.code.into());
                    return Ok(None);
                }
                Ok(None) => return Ok(None),
                Ok(Some(Ok(Raw::Ping(_) | Raw::Pong(_) | Raw::Frame(_)))) => {}
                Ok(Some(Err(error))) => {
                    return Err((self.broken)(format!("the connection broke off: {error}")));
                }
                Err(_) => {
                    let idle = crate::model::show_duration(self.idle);
                    return Err((self.broken)(format!("no word for {idle}")));
                }
            }
        }
    }
}
