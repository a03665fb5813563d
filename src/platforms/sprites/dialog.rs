//! A command over a WebSocket: it reads, writes and ends, each whenever it likes.

use bytes::Bytes;
use serde::Deserialize;
use serde_json::json;
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::sync::watch;

use super::frames::{self, Frame};
use crate::platforms::cloud::http::{Message, Receiver, Sender, Socket};
use crate::platforms::{LogStream, PlatformError, Result, Streams, TerminalSize};

/// How much input is sent at once, in bytes.
const PIECE: usize = 32 << 10;

/// The proper end of a conversation.
const NORMAL: u16 = 1000;

/// The end of a command that has a terminal, as far as it is told.
#[derive(Deserialize)]
#[serde(tag = "type", rename = "exit")]
struct Exit {
    exit_code: i32,
}

/// Passes on what a command reads and writes, up to its end, and returns its exit code. If it has a `terminal`, what
/// goes either way are the bytes of that; otherwise frames.
pub(super) async fn attend(socket: Socket, mut streams: Streams, terminal: bool) -> Result<i32> {
    let stdin = std::mem::replace(&mut streams.stdin, Box::new(tokio::io::empty()));
    let size = streams.terminal.take();
    let (sender, receiver) = socket.split();
    let feeding = async {
        match terminal {
            true => type_in(stdin, size, sender).await,
            false => feed(stdin, sender).await,
        }
    };
    let listening = async {
        match terminal {
            true => show(receiver, streams).await,
            false => listen(receiver, streams).await,
        }
    };
    let mut listening = std::pin::pin!(listening);
    // A command may end without having read everything.
    tokio::select! {
        ended = &mut listening => ended,
        fed = feeding => {
            fed?;
            listening.await
        }
    }
}

/// Sends its input, until that ends or nobody takes it any more.
async fn feed(mut stdin: impl AsyncRead + Unpin, mut to: Sender) -> Result<()> {
    let mut piece = vec![0; PIECE];
    loop {
        let read = stdin.read(&mut piece).await;
        let length = read.map_err(|error| PlatformError::new(format!("the input: {error}")))?;
        let frame = match &piece[..length] {
            [] => frames::end_of_input(),
            bytes => frames::input(bytes),
        };
        if !to.send(frame).await || length == 0 {
            return Ok(());
        }
    }
}

/// Passes on its output, and returns its exit code.
async fn listen(mut from: Receiver, mut streams: Streams) -> Result<i32> {
    while let Some(message) = from.next().await? {
        let frame = match message {
            Message::Binary(bytes) => Frame::of(&bytes).map_err(PlatformError::new)?,
            // News of the session, and of ports.
            Message::Text(_) => None,
        };
        match frame {
            Some(Frame::Output(stream, bytes)) => streams.pass_on(stream, &bytes).await?,
            Some(Frame::Exit(code)) => return Ok(code),
            None => {}
        }
    }
    Err(super::exec::cut_short())
}

/// Sends what is typed, and the size of the terminal now and whenever it changes. A terminal has no end of its input.
async fn type_in(
    mut stdin: impl AsyncRead + Unpin,
    mut size: Option<watch::Receiver<TerminalSize>>,
    mut to: Sender,
) -> Result<()> {
    let mut piece = vec![0; PIECE];
    if let Some(size) = &mut size {
        size.mark_changed();
    }
    loop {
        let taken = tokio::select! {
            read = stdin.read(&mut piece) => match read {
                Ok(0) => return Ok(()),
                Ok(length) => to.send(Bytes::copy_from_slice(&piece[..length])).await,
                Err(error) => return Err(PlatformError::new(format!("the input: {error}"))),
            },
            TerminalSize { width, height } = next_size(&mut size) => {
                let resize = json!({ "type": "resize", "cols": width, "rows": height });
                to.say(resize.to_string()).await
            }
        };
        if !taken {
            return Ok(());
        }
    }
}

async fn next_size(size: &mut Option<watch::Receiver<TerminalSize>>) -> TerminalSize {
    if let Some(size) = size
        && size.changed().await.is_ok()
    {
        return *size.borrow_and_update();
    }
    std::future::pending().await
}

/// Passes on what the terminal shows, and returns the exit code of the command. Where that is not told, the way in
/// which the conversation ends tells at least whether it went well.
async fn show(mut from: Receiver, mut streams: Streams) -> Result<i32> {
    while let Some(message) = from.next().await? {
        match message {
            Message::Binary(bytes) => streams.pass_on(LogStream::Stdout, &bytes).await?,
            Message::Text(text) => {
                if let Ok(Exit { exit_code }) = serde_json::from_str(&text) {
                    return Ok(exit_code);
                }
            }
        }
    }
    match from.close_code() {
        Some(NORMAL) => Ok(0),
        Some(_) => Ok(1),
        None => Err(super::exec::cut_short()),
    }
}
