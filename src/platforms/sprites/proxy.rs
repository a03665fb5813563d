//! Connections to ports of a sprite, each over a WebSocket of its own (§6).

use std::future::pending;
use std::time::Duration;

use bytes::Bytes;
use serde::Deserialize;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::watch;

use super::Sprites;
use crate::model::SandboxName;
use crate::platforms::cloud::http::{Message, Receiver, Sender};
use crate::platforms::{Observe, PlatformError, Result};

/// How long a connection may be silent.
const QUIET: Duration = Duration::from_secs(24 * 3600);

/// How long the sprite may be silent once nothing more comes from here: a WebSocket has no half that is closed, so
/// it is not told.
const LINGER: Duration = Duration::from_secs(60);

/// So much is read at a time.
const CHUNK: usize = 16 << 10;

/// What the server may say before the bytes of the connection.
#[derive(Deserialize)]
struct Status {
    #[serde(default)]
    error: Option<String>,
}

impl Sprites {
    pub(super) async fn carry(
        &self,
        sandbox: &SandboxName,
        port: u16,
        from: TcpStream,
    ) -> Result<()> {
        let seen = self.seen(sandbox).await?;
        let socket = self.client.proxy_socket(&seen.sprite, QUIET).await?;
        let missing = || self.cannot("carry connections to ports: what answers has no proxy");
        let (mut sender, receiver) = socket.ok_or_else(missing)?.split();
        let target = json!({ "host": "localhost", "port": port });
        if !sender.say(target.to_string()).await {
            return Err(PlatformError::new("the connection broke off"));
        }
        let (read, mut write) = from.into_split();
        let (ended, has_ended) = watch::channel(false);
        let there = async {
            pass_on(read, sender).await;
            ended.send_replace(true);
            pending().await
        };
        // Neither waits for the other: both may have more to say than fits on the way.
        let received = tokio::select! {
            received = receive(receiver, &mut write, has_ended) => received,
            never = there => never,
        };
        if !matches!(received, Ok(true)) {
            reset(write);
        }
        received.map(|_| ())
    }
}

/// Passes on what comes from here, until nothing more comes or nobody listens.
async fn pass_on(mut from: OwnedReadHalf, mut to: Sender) {
    let mut chunk = vec![0; CHUNK];
    while let Ok(length @ 1..) = from.read(&mut chunk).await {
        if !to.send(Bytes::copy_from_slice(&chunk[..length])).await {
            return;
        }
    }
}

/// Passes on what comes from the sprite, and returns whether that was all.
async fn receive(
    mut from: Receiver,
    to: &mut OwnedWriteHalf,
    ended: watch::Receiver<bool>,
) -> Result<bool> {
    let mut connected = false;
    loop {
        let message = tokio::select! {
            message = from.next() => message?,
            () = silence(ended.clone()) => return Ok(false),
        };
        match message {
            // Whoever has left here does not miss it.
            Some(Message::Binary(bytes)) if to.write_all(&bytes).await.is_err() => return Ok(true),
            Some(Message::Binary(_)) => {}
            Some(Message::Text(text)) => {
                let status = serde_json::from_str::<Status>(&text);
                if let Ok(Status { error: Some(error) }) = status {
                    return Err(PlatformError::new(error));
                }
            }
            None if connected => return Ok(true),
            None => return Err(PlatformError::new("closed before it was connected")),
        }
        connected = true;
    }
}

/// Returns when the other side has been silent for long enough once this one has ended.
async fn silence(mut ended: watch::Receiver<bool>) {
    // One that is dropped has ended, too.
    let _ = ended.wait_for(|ended| *ended).await;
    tokio::time::sleep(LINGER).await;
}

/// Whoever still waits for more is to hear that it is missing, not a proper end.
fn reset(write: OwnedWriteHalf) {
    // It ends without that, too.
    let _ = write.as_ref().set_zero_linger();
    write.forget();
}
