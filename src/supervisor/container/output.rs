//! The output of a container: from the engine's log into the service's log.
//!
//! The engine keeps every line with the time at which it took it. That time is the stamp in the
//! service's log, too, so the log itself tells how far it was written: after the death of a supervisor
//! the next one goes on right behind the last stored line.

use std::io;
use std::path::Path;
use std::time::Duration;

use bollard::container::LogOutput;
use bollard::query_parameters::LogsOptions;
use bytes::Bytes;
use futures_util::StreamExt;
use jiff::Timestamp;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::engine::{Engine, EngineError};
use crate::model::ServiceName;
use crate::platforms::LogStream;
use crate::supervisor::logs::{self, Piece, StampedLog};

/// Frames that are written down at once, where as many have come.
const BATCH: usize = 64;

/// The time until a broken connection is tried again: nothing tells when an engine is back.
const RETRY: Duration = Duration::from_millis(250);

/// Where the output of a container goes.
pub(super) struct Sink {
    /// Absent only while it is written.
    log: Option<StampedLog>,
    streams: [Stream; 2],
    looked_for: Option<Vec<u8>>,
    found: watch::Sender<bool>,
    trouble: watch::Sender<Option<String>>,
    tick: watch::Sender<u64>,
}

/// What is told of the output of a container.
#[derive(Debug, Clone)]
pub(super) struct Told {
    /// Whether it has shown the text looked for.
    pub seen: watch::Receiver<bool>,
    /// Why output is being lost, if it is.
    pub trouble: watch::Receiver<Option<String>>,
}

/// One of the two streams.
#[derive(Debug, Default)]
struct Stream {
    /// Whether a line stands open.
    open: bool,
    /// What is stored.
    stored: Mark,
    /// What is to be left out, because it is stored already.
    skip: Option<Mark>,
}

/// A place in a stream: so many pieces of this microsecond, and everything before.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Mark {
    at: i64,
    pieces: usize,
}

impl Mark {
    fn add(&mut self, at: i64) {
        match self.at == at {
            true => self.pieces += 1,
            false => *self = Self { at, pieces: 1 },
        }
    }
}

impl Stream {
    /// Whether a piece of this time was stored by an earlier reader.
    fn is_old(&mut self, at: i64) -> bool {
        let Some(skip) = &mut self.skip else {
            return false;
        };
        if at < skip.at {
            return true;
        }
        if at == skip.at && skip.pieces > 0 {
            skip.pieces -= 1;
            return true;
        }
        self.skip = None;
        false
    }
}

impl Sink {
    /// The log of a service in the sandbox kept in `dir`.
    pub(super) fn new(
        dir: &Path,
        name: &ServiceName,
        looked_for: Option<String>,
        tick: watch::Sender<u64>,
    ) -> (Self, Told) {
        let (found, seen) = watch::channel(false);
        let (lost, trouble) = watch::channel(None);
        let sink = Self {
            log: Some(StampedLog::new(dir, name)),
            streams: Default::default(),
            looked_for: looked_for.map(String::into_bytes),
            found,
            trouble: lost,
            tick,
        };
        (sink, Told { seen, trouble })
    }

    /// Goes on behind what an earlier supervisor has stored of a container that was started at
    /// `started`.
    pub(super) fn resume(
        &mut self,
        dir: &Path,
        name: &ServiceName,
        started: Timestamp,
    ) -> io::Result<()> {
        let started = started.as_microsecond();
        let mut oldest = None;
        logs::pieces(dir, name, |piece| {
            let at = piece.at.as_microsecond();
            // What is older than the oldest was stored, and put aside since.
            let oldest = *oldest.get_or_insert_with(|| {
                let floor = Mark {
                    at: at.max(started),
                    pieces: 0,
                };
                self.streams
                    .iter_mut()
                    .for_each(|stream| stream.stored = floor);
                at
            });
            if at < started.max(oldest) {
                return;
            }
            let stream = &mut self.streams[index(piece.stream)];
            stream.stored.add(at);
            self.look(piece.text);
        })
    }

    fn look(&mut self, text: &[u8]) {
        let shows = |wanted: &Vec<u8>| memchr::memmem::find(text, wanted).is_some();
        if self.looked_for.as_ref().is_some_and(shows) {
            self.looked_for = None;
            self.found.send_replace(true);
        }
    }

    /// Leaves out what is stored, of what another reader tells from the start; the time from which it
    /// is needed.
    fn rewind(&mut self) -> i64 {
        for stream in &mut self.streams {
            stream.skip = Some(stream.stored);
        }
        let times = self.streams.iter().map(|stream| stream.stored.at);
        times.min().unwrap_or(0)
    }

    /// Takes frames as they come from the engine: a line each, or a part of a long one.
    async fn take(&mut self, frames: Vec<LogOutput>) {
        let mut batch = Vec::new();
        for frame in frames {
            let (name, message) = match frame {
                LogOutput::StdErr { message } => (LogStream::Stderr, message),
                LogOutput::StdOut { message } | LogOutput::Console { message } => {
                    (LogStream::Stdout, message)
                }
                LogOutput::StdIn { .. } => continue,
            };
            let (at, text) = split_time(&message);
            for text in text.split_inclusive(|byte| *byte == b'\n') {
                let stream = &mut self.streams[index(name)];
                let continues = stream.open;
                stream.open = !text.ends_with(b"\n");
                if stream.is_old(at.as_microsecond()) {
                    continue;
                }
                stream.stored.add(at.as_microsecond());
                let piece = Piece {
                    at,
                    stream: name,
                    continues,
                    text,
                };
                piece.write(&mut batch);
                self.look(text);
            }
        }
        self.write(batch).await;
    }

    /// Ends lines that stand open.
    async fn finish(&mut self) {
        let mut rest = Vec::new();
        for (stream, name) in self.streams.iter_mut().zip(STREAMS) {
            if std::mem::take(&mut stream.open) {
                let at = Timestamp::from_microsecond(stream.stored.at).unwrap_or_default();
                logs::write_end(at, name, &mut rest);
            }
        }
        self.write(rest).await;
    }

    async fn write(&mut self, batch: Vec<u8>) {
        if batch.is_empty() {
            return;
        }
        let Some(mut log) = self.log.take() else {
            return;
        };
        let written = tokio::task::spawn_blocking(move || {
            let trouble = log.write(&batch);
            (log, trouble)
        });
        match written.await {
            Ok((log, trouble)) => {
                self.log = Some(log);
                self.trouble.send_if_modified(|told| {
                    let changed = *told != trouble;
                    *told = trouble;
                    changed
                });
            }
            Err(error) => tracing::error!(%error, "a log is not written any more"),
        }
        self.tick.send_modify(|tick| *tick += 1);
    }
}

const STREAMS: [LogStream; 2] = [LogStream::Stdout, LogStream::Stderr];

fn index(stream: LogStream) -> usize {
    match stream {
        LogStream::Stdout => 0,
        LogStream::Stderr => 1,
    }
}

/// Takes the engine's time off a frame.
fn split_time(frame: &Bytes) -> (Timestamp, &[u8]) {
    let time = frame.iter().position(|byte| *byte == b' ').and_then(|end| {
        let time: Timestamp = std::str::from_utf8(&frame[..end]).ok()?.parse().ok()?;
        Some((time, &frame[end + 1..]))
    });
    time.unwrap_or_else(|| (Timestamp::now(), frame))
}

/// The task that writes the output of one container down.
#[derive(Debug)]
pub(super) struct Output {
    task: JoinHandle<()>,
    ended: CancellationToken,
}

impl Output {
    /// Follows the log of the container from where `sink` has come to.
    pub(super) fn start(engine: Engine, id: String, sink: Sink) -> Self {
        let ended = CancellationToken::new();
        let task = tokio::spawn(follow(engine, id, sink, ended.clone()));
        Self { task, ended }
    }

    /// The container has ended: takes the rest of its output.
    pub(super) async fn finish(mut self) {
        self.ended.cancel();
        if let Err(error) = (&mut self.task).await {
            tracing::error!(%error, "the output of a container was not read to its end");
        }
    }
}

impl Drop for Output {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn follow(engine: Engine, id: String, mut sink: Sink, ended: CancellationToken) {
    while !ended.is_cancelled() {
        if let Err(error) = read(&engine, &id, &mut sink, Some(&ended)).await {
            tracing::warn!(container = %id, %error, "its output is not read for now");
        }
        tokio::select! {
            () = ended.cancelled() => {}
            () = tokio::time::sleep(RETRY) => {}
        }
    }
    // Read anew from the last stored line: a reader that follows may have missed the end.
    match read(&engine, &id, &mut sink, None).await {
        // Somebody has removed it: nothing is left to be read.
        Err(error) if !error.is_not_found() => {
            tracing::warn!(container = %id, %error, "its last output is lost");
        }
        _ => {}
    }
    sink.finish().await;
}

/// Reads what there is, and with `ended` goes on until then.
async fn read(
    engine: &Engine,
    id: &str,
    sink: &mut Sink,
    ended: Option<&CancellationToken>,
) -> Result<(), EngineError> {
    let since = sink.rewind().div_euclid(1_000_000);
    let options = LogsOptions {
        follow: ended.is_some(),
        stdout: true,
        stderr: true,
        timestamps: true,
        since: i32::try_from(since).unwrap_or(0),
        tail: "all".to_owned(),
        ..LogsOptions::default()
    };
    let frames = engine.docker.logs(id, Some(options)).ready_chunks(BATCH);
    let mut frames = std::pin::pin!(frames);
    loop {
        let chunk = tokio::select! {
            chunk = frames.next() => chunk,
            () = cancelled(ended) => return Ok(()),
        };
        let Some(chunk) = chunk else { return Ok(()) };
        let mut good = Vec::with_capacity(chunk.len());
        let mut broken = None;
        for frame in chunk {
            match frame {
                Ok(frame) => good.push(frame),
                Err(error) => {
                    broken = Some(error);
                    break;
                }
            }
        }
        sink.take(good).await;
        if let Some(error) = broken {
            return Err(error.into());
        }
    }
}

async fn cancelled(token: Option<&CancellationToken>) {
    match token {
        Some(token) => token.cancelled().await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::platforms::LogQuery;

    fn frame(micros: i64, text: &str) -> LogOutput {
        let at = Timestamp::from_microsecond(micros).unwrap();
        // An engine tells nanoseconds.
        let time = at.strftime("%Y-%m-%dT%H:%M:%S.%6f").to_string();
        LogOutput::StdOut {
            message: format!("{time}789Z {text}").into(),
        }
    }

    struct Rig {
        dir: tempfile::TempDir,
        name: ServiceName,
    }

    impl Rig {
        fn new() -> Self {
            let dir = tempfile::tempdir().unwrap();
            std::fs::create_dir(dir.path().join("logs")).unwrap();
            let name = ServiceName::new("web").unwrap();
            Self { dir, name }
        }

        fn sink(&self, looked_for: Option<&str>) -> (Sink, Told) {
            let looked_for = looked_for.map(str::to_owned);
            Sink::new(self.dir.path(), &self.name, looked_for, watch::channel(0).0)
        }

        fn file(&self) -> std::path::PathBuf {
            self.dir.path().join("logs/web.log")
        }

        fn texts(&self) -> Vec<String> {
            let all = LogQuery::default();
            let lines = logs::read(self.dir.path(), &self.name, &all).unwrap();
            lines.into_iter().map(|line| line.text).collect()
        }
    }

    /// Whatever number of bytes was written when a supervisor died, its successor stores the rest.
    #[tokio::test]
    async fn no_line_is_lost_or_doubled_by_a_successor() {
        let all = || {
            vec![
                frame(1_000_000, "a\n"),
                frame(1_000_000, "b\n"),
                frame(1_000_001, "long "),
                frame(1_000_002, "line\n"),
                frame(1_000_002, "c\n"),
                frame(1_000_009, "\n"),
                frame(1_000_009, "d\n"),
            ]
        };
        let whole = Rig::new();
        let (mut sink, _) = whole.sink(None);
        sink.take(all()).await;
        let stored = std::fs::read(whole.file()).unwrap();
        for length in 0..=stored.len() {
            let rig = Rig::new();
            std::fs::write(rig.file(), &stored[..length]).unwrap();
            let (mut sink, told) = rig.sink(Some("line"));
            let started = Timestamp::from_microsecond(999_999).unwrap();
            sink.resume(rig.dir.path(), &rig.name, started).unwrap();
            sink.rewind();
            sink.take(all()).await;
            sink.finish().await;
            assert_eq!(
                rig.texts(),
                ["a", "b", "long line", "c", "", "d"],
                "{length}"
            );
            assert!(*told.seen.borrow(), "{length}");
        }
    }

    #[tokio::test]
    async fn a_broken_connection_costs_nothing() {
        let rig = Rig::new();
        let (mut sink, _) = rig.sink(None);
        sink.take(vec![frame(5, "a\n"), frame(6, "half")]).await;
        assert_eq!(sink.rewind(), 0);
        sink.take(vec![frame(5, "a\n"), frame(6, "half"), frame(7, " done")])
            .await;
        sink.finish().await;
        assert_eq!(rig.texts(), ["a", "half done"]);
    }
}
