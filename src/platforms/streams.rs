//! What goes through a command while it runs.

use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::sync::watch;

use super::{LogStream, Result};

/// The streams of whoever runs a command; nothing but the command line has a terminal.
pub struct Streams {
    /// Its input.
    pub stdin: Box<dyn AsyncRead + Send + Unpin>,
    /// Its output.
    pub stdout: Box<dyn AsyncWrite + Send + Unpin>,
    /// Its error output; unused with a terminal, which has one output only.
    pub stderr: Box<dyn AsyncWrite + Send + Unpin>,
    /// The size of the terminal, and its changes; `None` if the command gets no terminal.
    pub terminal: Option<watch::Receiver<TerminalSize>>,
    /// The kind of that terminal, as `TERM` names it.
    pub term: Option<String>,
}

impl Streams {
    /// Passes on some of a command's output.
    pub async fn pass_on(&mut self, stream: LogStream, bytes: &[u8]) -> Result<()> {
        let to = match stream {
            LogStream::Stdout => &mut self.stdout,
            LogStream::Stderr => &mut self.stderr,
        };
        to.write_all(bytes).await?;
        Ok(to.flush().await?)
    }
}

/// The size of a terminal, in characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TerminalSize {
    /// Columns.
    pub width: u16,
    /// Rows.
    pub height: u16,
}
