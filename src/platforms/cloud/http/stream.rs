//! Answers that are read as they come: blocks, lines (NDJSON), server-sent events.

use std::collections::VecDeque;
use std::pin::Pin;
use std::time::Duration;

use bytes::Bytes;
use futures_util::{Stream, StreamExt};
use reqwest::Response;
use tokio::time::timeout;

use super::HttpError;
use super::request::causes;

/// The longest line that is kept in memory, in bytes.
const LONGEST: usize = 16 << 20;

/// Makes an error of what has gone wrong with an answer that had begun.
pub(super) type Broken = Box<dyn Fn(String) -> HttpError + Send>;

/// The body of an answer, in the pieces that the server wrote: of a chunked one, each is a whole
/// chunk or a part of one, and never more than that.
pub struct Blocks {
    body: Pin<Box<dyn Stream<Item = reqwest::Result<Bytes>> + Send>>,
    idle: Duration,
    broken: Broken,
}

impl Blocks {
    pub(super) fn new(answer: Response, idle: Duration, broken: Broken) -> Self {
        Self {
            body: Box::pin(answer.bytes_stream()),
            idle,
            broken,
        }
    }

    /// The next block; `None` at the proper end.
    pub async fn next(&mut self) -> Result<Option<Bytes>, HttpError> {
        match timeout(self.idle, self.body.next()).await {
            Ok(None) => Ok(None),
            Ok(Some(Ok(block))) => Ok(Some(block)),
            Ok(Some(Err(error))) => {
                let message = format!("the answer broke off: {}", causes(&error.without_url()));
                Err((self.broken)(message))
            }
            Err(_) => {
                let idle = crate::model::show_duration(self.idle);
                Err((self.broken)(format!("no more of the answer for {idle}")))
            }
        }
    }
}

/// The body of an answer, line by line.
pub struct Lines {
    blocks: Blocks,
    rest: Vec<u8>,
    ready: VecDeque<String>,
    ended: bool,
}

/// One server-sent event.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ServerEvent {
    /// `event:`; empty if there was none.
    pub name: String,
    /// `data:`; several lines are joined.
    pub data: String,
}

impl Lines {
    pub(super) fn new(blocks: Blocks) -> Self {
        Self {
            blocks,
            rest: Vec::new(),
            ready: VecDeque::new(),
            ended: false,
        }
    }

    /// The next line without its end, `None` at the end. A last line needs no line end.
    pub async fn next(&mut self) -> Result<Option<String>, HttpError> {
        loop {
            if let Some(line) = self.ready.pop_front() {
                return Ok(Some(line));
            }
            if self.ended {
                return Ok(None);
            }
            match self.blocks.next().await? {
                Some(block) => self.take(&block)?,
                None => {
                    self.ended = true;
                    let rest = std::mem::take(&mut self.rest);
                    if !rest.is_empty() {
                        self.ready.push_back(text(&rest));
                    }
                }
            }
        }
    }

    /// The next server-sent event, `None` at the end. Comments and fields without use are left out.
    pub async fn next_event(&mut self) -> Result<Option<ServerEvent>, HttpError> {
        let mut event = ServerEvent::default();
        let mut any = false;
        while let Some(line) = self.next().await? {
            if line.is_empty() {
                if any {
                    return Ok(Some(event));
                }
                continue;
            }
            let (field, value) = line.split_once(':').unwrap_or((&line, ""));
            let value = value.strip_prefix(' ').unwrap_or(value);
            match field {
                "event" => value.clone_into(&mut event.name),
                "data" if any && !event.data.is_empty() => {
                    event.data.push('\n');
                    event.data.push_str(value);
                }
                "data" => value.clone_into(&mut event.data),
                _ => continue,
            }
            any = true;
        }
        Ok(any.then_some(event))
    }

    fn take(&mut self, block: &[u8]) -> Result<(), HttpError> {
        let mut block = block;
        while let Some(end) = memchr::memchr(b'\n', block) {
            self.rest.extend_from_slice(&block[..end]);
            block = &block[end + 1..];
            let line = std::mem::take(&mut self.rest);
            self.ready.push_back(text(&line));
        }
        self.rest.extend_from_slice(block);
        match self.rest.len() > LONGEST {
            true => Err((self.blocks.broken)(
                "a line of the answer is too long".to_owned(),
            )),
            false => Ok(()),
        }
    }
}

fn text(line: &[u8]) -> String {
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    String::from_utf8_lossy(line).into_owned()
}
