//! A command over a WebSocket: it reads, writes and ends, each whenever it likes.

use tokio::io::{AsyncRead, AsyncReadExt};

use super::frames::{self, Frame};
use crate::platforms::cloud::http::{Message, Receiver, Sender, Socket};
use crate::platforms::{PlatformError, Result, Streams};

/// How much input is sent at once, in bytes.
const PIECE: usize = 32 << 10;

/// Passes on what a command reads and writes, up to its end.
pub(super) async fn attend(socket: Socket, mut streams: Streams) -> Result<i32> {
    let stdin = std::mem::replace(&mut streams.stdin, Box::new(tokio::io::empty()));
    let (sender, receiver) = socket.split();
    let mut listening = std::pin::pin!(listen(receiver, streams));
    // A command may end without having read everything.
    tokio::select! {
        ended = &mut listening => ended,
        fed = feed(stdin, sender) => {
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
