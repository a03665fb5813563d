//! Connections to the ports of a sprite over a WebSocket: protocol page sprites, §6.

use std::future::pending;

use axum::body::Bytes;
use axum::extract::ws::{Message, WebSocket, WebSocketUpgrade};
use axum::response::Response;
use futures_util::{SinkExt, StreamExt};
use serde::Deserialize;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::exec::Upgrade;
use super::problem::{Answer, Problem};
use super::request::Sprite;
use crate::supervisor::connect_to_port;

/// So much is read at a time.
const CHUNK: usize = 16 << 10;

/// What the client says first.
#[derive(Deserialize)]
struct Target {
    host: String,
    port: u16,
}

pub(super) async fn open(Sprite(_): Sprite, upgrade: Upgrade) -> Answer<Response> {
    let refused = |_| Problem::invalid("a port is reached over a WebSocket");
    let upgrade: WebSocketUpgrade = upgrade.map_err(refused)?;
    Ok(upgrade.on_upgrade(serve))
}

async fn serve(mut socket: WebSocket) {
    let target = match socket.recv().await {
        Some(Ok(Message::Text(text))) => serde_json::from_str::<Target>(&text).ok(),
        _ => None,
    };
    let (answer, stream) = match connect(target).await {
        Ok(stream) => (json!({ "status": "connected" }), Some(stream)),
        Err(error) => (json!({ "status": "error", "error": error }), None),
    };
    if socket.send(Message::text(answer.to_string())).await.is_ok()
        && let Some(stream) = stream
    {
        relay(socket, stream).await;
    }
}

async fn connect(target: Option<Target>) -> Result<TcpStream, String> {
    let target = target.ok_or("the first message names `host` and `port`")?;
    // Only the sandboxes' own ports: this is no way to anywhere else.
    if !matches!(target.host.as_str(), "localhost" | "127.0.0.1" | "::1" | "") {
        return Err(format!("`{}` is not the sprite", target.host));
    }
    let port = target.port;
    let connected = connect_to_port(port).await;
    connected.map_err(|error| format!("port {port}: {error}"))
}

/// Carries bytes both ways until either side ends. Neither way waits for the other.
async fn relay(socket: WebSocket, stream: TcpStream) {
    let (mut to_client, mut from_client) = socket.split();
    let (mut from_port, mut to_port) = stream.into_split();
    let out = async {
        let mut chunk = vec![0; CHUNK];
        while let Ok(length @ 1..) = from_port.read(&mut chunk).await {
            let bytes = Bytes::copy_from_slice(&chunk[..length]);
            if to_client.send(Message::Binary(bytes)).await.is_err() {
                return;
            }
        }
        // The client hears of it.
        let _ = to_client.send(Message::Close(None)).await;
    };
    let back = async {
        loop {
            match from_client.next().await {
                Some(Ok(Message::Binary(bytes))) => {
                    if to_port.write_all(&bytes).await.is_err() {
                        // What the port has said before is still on its way.
                        return pending().await;
                    }
                }
                Some(Ok(Message::Ping(_) | Message::Pong(_) | Message::Text(_))) => {}
                Some(Ok(Message::Close(_)) | Err(_)) | None => return,
            }
        }
    };
    tokio::select! {
        () = out => {}
        () = back => {}
    }
}
