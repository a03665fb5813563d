//! One live process of a service with its session and its output.

use std::io;
use std::os::unix::process::ExitStatusExt;
use std::process::{ExitStatus, Stdio};
use std::time::Instant;

use jiff::Timestamp;
use rustix::process::{Pid, Signal};
use tokio::net::unix::pipe;
use tokio::process::Child;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::logs::{Splitter, Writer, stamp};
use super::os::{self, ExitWatch};
use super::signal;
use super::spawn::{Note, Prepared, SpawnError};
use super::store::Store;
use crate::model::{Exit, ServiceName};
use crate::platforms::LogStream;

/// The most that is read from a pipe before it is written down.
const CHUNK: usize = 64 << 10;

/// The main process of a service, which leads a session of its own.
#[derive(Debug)]
pub(super) struct Process {
    /// Its number; its own until [`Process::finish`] has returned.
    pub pid: u32,
    /// When it was executed.
    pub started: Instant,
    /// The same for people, in whole microseconds as in the log.
    pub started_at: Timestamp,
    child: Child,
    exit: ExitWatch,
    start_time: Option<u64>,
    /// What was seen below it when it was told to stop, in whatever session.
    family: Vec<os::Identity>,
    output: Output,
    _own: os::Own,
}

impl Process {
    /// Executes the program, with its output going to the service's log. `tick` is told of new lines.
    pub(super) fn spawn(
        prepared: &Prepared,
        store: &Store,
        name: &ServiceName,
        looked_for: Option<String>,
        tick: watch::Sender<u64>,
    ) -> Result<Self, SpawnError> {
        let failed = |error| prepared.error(error);
        let writer = Writer::open(store.dir(), name).map_err(failed)?;
        let (stdout, stdout_end) = io::pipe().map_err(failed)?;
        let (stderr, stderr_end) = io::pipe().map_err(failed)?;
        let stdout = pipe::Receiver::from_owned_fd(stdout.into()).map_err(failed)?;
        let stderr = pipe::Receiver::from_owned_fd(stderr.into()).map_err(failed)?;
        let note = match os::boot_id() {
            Ok(boot_id) => {
                let file = store.make_identity_file(name).map_err(SpawnError::Note)?;
                Some(Note { file, boot_id })
            }
            Err(_) => None,
        };
        let mut command = prepared.command(note);
        command
            .stdout(Stdio::from(stdout_end))
            .stderr(Stdio::from(stderr_end))
            .kill_on_drop(true);
        let now = Timestamp::now();
        let child = command.spawn().map_err(failed)?;
        let pid = child.id().unwrap_or_default();
        let own = os::Own::new(pid);
        // The command holds the writing ends; only the service may.
        drop(command);
        let exit = ExitWatch::new(&child).map_err(failed)?;
        Ok(Self {
            pid,
            started: Instant::now(),
            started_at: Timestamp::from_microsecond(now.as_microsecond()).unwrap_or(now),
            child,
            exit,
            start_time: os::start_time(pid),
            family: Vec::new(),
            _own: own,
            output: Output::start(writer, [stdout, stderr], looked_for, tick),
        })
    }

    /// Whether its output has shown the text looked for.
    pub(super) fn seen(&self) -> watch::Receiver<bool> {
        self.output.seen.clone()
    }

    /// Sends a signal to its process group.
    pub(super) fn signal(&self, signal: Signal) {
        if let Some(group) = i32::try_from(self.pid).ok().and_then(Pid::from_raw) {
            // An empty group is one that has just ended.
            let _ = rustix::process::kill_process_group(group, signal);
        }
    }

    /// Notes what is below the main process: once that has ended, nothing tells any more whose a
    /// process in another session is. To be called before a signal that may end it.
    pub(super) fn note_family(&mut self) {
        for member in os::descendants([self.pid]) {
            if !self.family.contains(&member) {
                self.family.push(member);
            }
        }
    }

    /// Returns once the main process has ended; it is not reaped yet. Cancel-safe.
    pub(super) async fn ended(&mut self) {
        if let Err(error) = self.exit.ended(&mut self.child).await {
            tracing::warn!(pid = self.pid, %error, "cannot watch a process, waiting for it instead");
            let _ = self.child.wait().await;
        }
    }

    /// After the main process has ended: kills what is left of the session and
    /// of the family, writes down the last of
    /// the output, reaps. Nothing of the process is left then.
    pub(super) async fn finish(mut self) -> Exit {
        if let Err(error) = os::kill_session(self.pid, self.start_time).await {
            tracing::warn!(pid = self.pid, %error, "cannot look for what is left of a session");
        }
        if let Err(error) = os::kill_family(std::mem::take(&mut self.family)).await {
            tracing::warn!(pid = self.pid, %error, "cannot kill what has left a session");
        }
        let status = self.child.wait().await;
        self.output.finish().await;
        exit_of(status)
    }
}

fn exit_of(status: io::Result<ExitStatus>) -> Exit {
    let at = Timestamp::now();
    let (code, signal) = match status {
        Ok(status) => match (status.code(), status.signal()) {
            (Some(code), _) => (code, None),
            (None, Some(number)) => (128 + number, Some(signal::name_of(number))),
            (None, None) => (-1, None),
        },
        Err(_) => (-1, None),
    };
    Exit { code, signal, at }
}

/// The task that writes the output of one process down.
#[derive(Debug)]
struct Output {
    task: JoinHandle<()>,
    last: CancellationToken,
    seen: watch::Receiver<bool>,
}

impl Output {
    fn start(
        writer: Writer,
        pipes: [pipe::Receiver; 2],
        looked_for: Option<String>,
        tick: watch::Sender<u64>,
    ) -> Self {
        let last = CancellationToken::new();
        let (found, seen) = watch::channel(false);
        let [stdout, stderr] = pipes;
        let pump = Pump {
            writer: Some(writer),
            streams: [
                (Some(stdout), Splitter::new(LogStream::Stdout)),
                (Some(stderr), Splitter::new(LogStream::Stderr)),
            ],
            looked_for: looked_for.map(String::into_bytes),
            found,
            tick,
        };
        Self {
            task: tokio::spawn(pump.run(last.clone())),
            last,
            seen,
        }
    }

    /// Everything that was written is in the pipes by now: takes it from there and ends.
    async fn finish(self) {
        self.last.cancel();
        if let Err(error) = self.task.await {
            tracing::error!(%error, "the output of a service was not read to its end");
        }
    }
}

struct Pump {
    /// Absent only while it is writing.
    writer: Option<Writer>,
    streams: [(Option<pipe::Receiver>, Splitter); 2],
    looked_for: Option<Vec<u8>>,
    found: watch::Sender<bool>,
    tick: watch::Sender<u64>,
}

impl Pump {
    async fn run(mut self, last: CancellationToken) {
        // While a batch is written nothing is read, so a slow disk holds back the service and nobody
        // else.
        while !last.is_cancelled() {
            let [(stdout, _), (stderr, _)] = &self.streams;
            tokio::select! {
                () = readable(stdout.as_ref()) => {}
                () = readable(stderr.as_ref()) => {}
                () = last.cancelled() => break,
            }
            let batch = self.take(|pipe, chunk| pipe.try_read(chunk));
            self.write(batch).await;
        }
        while self.streams.iter().any(|(pipe, _)| pipe.is_some()) {
            let batch = self.take(read_or_end);
            self.write(batch).await;
        }
        let now = stamp(Timestamp::now());
        let mut rest = Vec::new();
        for (_, splitter) in &mut self.streams {
            splitter.flush(&now, &mut rest);
        }
        self.write(rest).await;
    }

    /// Reads once from each pipe; one that is at its end is closed.
    fn take(&mut self, read: impl Fn(&pipe::Receiver, &mut [u8]) -> io::Result<usize>) -> Vec<u8> {
        // On the stack of one thread, not in the memory of each service.
        let mut chunk = [0; CHUNK];
        let now = stamp(Timestamp::now());
        let mut batch = Vec::new();
        for (pipe, splitter) in &mut self.streams {
            let Some(open) = pipe else { continue };
            match read(open, &mut chunk) {
                Ok(0) => *pipe = None,
                Ok(length) => {
                    let from = batch.len();
                    splitter.push(&now, &chunk[..length], &mut batch);
                    let shows = |text: &Vec<u8>| splitter.shows(&now, &batch[from..], text);
                    if self.looked_for.as_ref().is_some_and(shows) {
                        self.looked_for = None;
                        self.found.send_replace(true);
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(_) => *pipe = None,
            }
        }
        batch
    }

    async fn write(&mut self, batch: Vec<u8>) {
        if batch.is_empty() {
            return;
        }
        let Some(mut writer) = self.writer.take() else {
            return;
        };
        let written = tokio::task::spawn_blocking(move || {
            let written = writer.write(&batch);
            (writer, written)
        });
        match written.await {
            Ok((writer, written)) => {
                self.writer = Some(writer);
                if let Err(error) = written {
                    tracing::warn!(%error, "lines of a log are lost");
                }
            }
            Err(error) => tracing::error!(%error, "a log is not written any more"),
        }
        self.tick.send_modify(|tick| *tick += 1);
    }
}

async fn readable(pipe: Option<&pipe::Receiver>) {
    match pipe {
        Some(pipe) if pipe.readable().await.is_ok() => {}
        _ => std::future::pending().await,
    }
}

/// Reads what is in the pipe. An empty one counts as ended: a process that left the session may hold
/// its other end for ever. Asks the kernel, not the runtime, which may not have heard of the bytes yet.
fn read_or_end(pipe: &pipe::Receiver, chunk: &mut [u8]) -> io::Result<usize> {
    match rustix::io::read(pipe, chunk) {
        Err(rustix::io::Errno::AGAIN) => Ok(0),
        other => Ok(other?),
    }
}
