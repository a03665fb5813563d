//! The log of a service: a stream of events with its output.

use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::mpsc;

use super::Sprites;
use super::wire::Event;
use crate::model::{ServiceAddress, ServiceName};
use crate::platforms::cloud::http::Lines;
use crate::platforms::{LogLine, LogQuery, LogStream, Result};

/// How many lines are asked for where all are wanted.
const ALL: usize = 1_000_000;

/// How long a log is followed at most.
const FOLLOWED: Duration = Duration::from_secs(24 * 3600);

impl Sprites {
    pub(super) async fn read_log(
        &self,
        address: &ServiceAddress,
        query: LogQuery,
    ) -> Result<mpsc::Receiver<LogLine>> {
        let (sprite, _) = self.seen_service(address).await?;
        // The lines of one stream, or since a time, cannot be asked for.
        let plain = query.stream.is_none() && query.since.is_none();
        let lines = query.tail.filter(|_| plain).unwrap_or(ALL);
        let name = address.service.as_str();
        let follow = query.follow.then_some(FOLLOWED);
        let stream = self.client.logs(&sprite, name, lines, follow).await?;
        let (sender, receiver) = mpsc::channel(256);
        tokio::spawn(tell(LogReader::new(stream), query, sender));
        Ok(receiver)
    }

    /// The last lines of a service's output since `since`, as evidence.
    pub(super) async fn tail(
        &self,
        sprite: &str,
        service: &ServiceName,
        since: Option<Timestamp>,
    ) -> Vec<String> {
        const SHOWN: usize = 10;
        let mut lines = Vec::new();
        let Ok(stream) = self
            .client
            .logs(sprite, service.as_str(), SHOWN, None)
            .await
        else {
            return lines;
        };
        let mut reader = LogReader::new(stream);
        while let Some(line) = reader.next().await {
            if since.is_none_or(|since| line.at >= since) {
                lines.push(line.text);
            }
        }
        lines
    }
}

/// Sends on what is wanted.
async fn tell(mut reader: LogReader, query: LogQuery, sender: mpsc::Sender<LogLine>) {
    let wanted = |line: &LogLine| {
        query.stream.is_none_or(|stream| line.stream == stream)
            // Times are told in milliseconds.
            && query.since.is_none_or(|since| {
                line.at.as_millisecond() >= since.as_millisecond()
            })
    };
    // The last lines of what is filtered here can only be told at the end, which following has none of.
    let held = query.tail.filter(|_| !query.follow);
    let mut last = std::collections::VecDeque::new();
    while let Some(line) = reader.next().await {
        if !wanted(&line) {
            continue;
        }
        match held {
            Some(tail) => {
                last.push_back(line);
                if last.len() > tail {
                    last.pop_front();
                }
            }
            None => {
                if sender.send(line).await.is_err() {
                    return;
                }
            }
        }
    }
    for line in last {
        if sender.send(line).await.is_err() {
            return;
        }
    }
}

/// Puts the pieces of long lines together.
pub(super) struct LogReader {
    events: Lines,
    /// Text of each stream that had no line end yet.
    open: [String; 2],
    ready: std::collections::VecDeque<LogLine>,
    ended: bool,
}

impl LogReader {
    pub fn new(events: Lines) -> Self {
        Self {
            events,
            open: Default::default(),
            ready: Default::default(),
            ended: false,
        }
    }

    /// The next line; `None` at the end, whether that was reached or the stream broke off.
    pub async fn next(&mut self) -> Option<LogLine> {
        loop {
            if let Some(line) = self.ready.pop_front() {
                return Some(line);
            }
            if self.ended {
                return None;
            }
            match self.events.next().await {
                Ok(Some(line)) => {
                    let event: Event = serde_json::from_str(&line).unwrap_or_default();
                    self.take(&event);
                }
                Ok(None) | Err(_) => {
                    self.ended = true;
                    for stream in [LogStream::Stdout, LogStream::Stderr] {
                        let text = std::mem::take(&mut self.open[slot(stream)]);
                        if !text.is_empty() {
                            self.push(stream, text, Timestamp::now());
                        }
                    }
                }
            }
        }
    }

    fn take(&mut self, event: &Event) {
        let stream = match event.kind.as_str() {
            "stdout" => LogStream::Stdout,
            "stderr" => LogStream::Stderr,
            _ => return,
        };
        let at = event.timestamp.map(Timestamp::from_millisecond);
        let at = at.and_then(Result::ok).unwrap_or_else(Timestamp::now);
        let mut data = event.data.as_deref().unwrap_or_default();
        while let Some((line, rest)) = data.split_once('\n') {
            let mut text = std::mem::take(&mut self.open[slot(stream)]);
            text.push_str(line);
            self.push(stream, text, at);
            data = rest;
        }
        self.open[slot(stream)].push_str(data);
    }

    fn push(&mut self, stream: LogStream, text: String, at: Timestamp) {
        self.ready.push_back(LogLine { at, stream, text });
    }
}

fn slot(stream: LogStream) -> usize {
    match stream {
        LogStream::Stdout => 0,
        LogStream::Stderr => 1,
    }
}
