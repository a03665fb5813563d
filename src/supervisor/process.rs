//! One live process of a service with its session and its output.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use rustix::process::{Pid, Signal};
use tokio::net::unix::pipe;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::cgroup::Cgroup;
use super::logs::{Splitter, Writer, stamp};
use super::os;
use super::signal;
use super::store::{Running, Store};
use crate::keeper::{Child, ChildId, End};
use crate::model::{Exit, ServiceName};
use crate::platforms::LogStream;

/// The most that is read from a pipe before it is written down.
const CHUNK: usize = 64 << 10;

/// The main process of a service, which leads a session of its own.
#[derive(Debug)]
pub(super) struct Process {
    /// Its number; its own until [`Process::finish`] has returned, and its result was dropped.
    pub pid: u32,
    /// When it was executed.
    pub started: Instant,
    /// The same for people, in whole microseconds as in the log.
    pub started_at: Timestamp,
    child: Child,
    start_time: Option<u64>,
    /// Who takes its orphans in.
    parent: Option<u32>,
    /// What was seen below it when it was told to stop, in whatever session.
    family: Vec<os::Identity>,
    /// What is in the environment of all that it starts.
    mark: Option<String>,
    /// What it and everything that it starts is in.
    cgroup: Option<Arc<Cgroup>>,
    output: Output,
}

/// What is left of a process that has ended.
#[derive(Debug)]
pub(super) struct Ended {
    /// How it ended.
    pub exit: Exit,
    /// The kernel has killed it, or something that it started, for want of memory.
    pub out_of_memory: bool,
    /// Nothing of the process is left once this is dropped.
    pub child: Child,
}

/// What a process is watched for.
pub(super) struct Watched {
    /// A text in its output.
    pub looked_for: Option<String>,
    /// Told of new lines.
    pub tick: watch::Sender<u64>,
    /// The group that it was executed in.
    pub cgroup: Option<Arc<Cgroup>>,
}

impl Process {
    /// Takes a process that the keeper has executed, now or for an earlier supervisor.
    pub(super) fn adopt(
        mut child: Child,
        store: &Store,
        name: &ServiceName,
        mark: Option<String>,
        watched: Watched,
    ) -> io::Result<Self> {
        let writer = Writer::open(store.dir(), name)?;
        let [_, stdout, stderr] = &mut child.ends;
        let receiver = |end: &mut Option<OwnedFd>| end.take().map(receiver).transpose();
        let pipes = [receiver(stdout)?, receiver(stderr)?];
        let Watched {
            looked_for,
            tick,
            cgroup,
        } = watched;
        let output = Output::start(writer, pipes, looked_for, tick);
        let started_at = Timestamp::from_microsecond(child.started_at).unwrap_or(Timestamp::now());
        let ago = Timestamp::now().duration_since(started_at);
        let ago = Duration::try_from(ago).unwrap_or_default();
        Ok(Self {
            pid: child.pid,
            started: Instant::now().checked_sub(ago).unwrap_or(Instant::now()),
            started_at,
            start_time: os::start_time(child.pid),
            parent: os::parent(child.pid),
            family: Vec::new(),
            mark,
            cgroup,
            output,
            child,
        })
    }

    /// What the keeper knows it by.
    pub(super) fn id(&self) -> ChildId {
        self.child.id()
    }

    /// What finds it again, and what it leaves behind.
    pub(super) fn running(&self) -> Option<Running> {
        Some(Running {
            boot_id: os::boot_id().ok()?,
            pid: self.pid,
            start_time: self.start_time,
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
        self.child.ended().await;
    }

    /// After the main process has ended: kills what is left of its group, or else of the session, of the
    /// family, and of what bears its mark; writes down the last of the output.
    pub(super) async fn finish(mut self) -> Ended {
        let end = self.child.ended().await;
        let out_of_memory = match self.clear_group().await {
            Some(out_of_memory) => out_of_memory,
            None => {
                self.clear().await;
                false
            }
        };
        self.output.finish().await;
        if let Some(cgroup) = &self.cgroup {
            cgroup.remove();
        }
        Ended {
            exit: exit_of(end),
            out_of_memory,
            child: self.child,
        }
    }

    /// Kills what is left in its group, and tells whether memory has run out there. `None` if there is no
    /// group, or it cannot be cleared.
    async fn clear_group(&self) -> Option<bool> {
        let cgroup = self.cgroup.as_ref()?;
        match cgroup.kill_all().await {
            Ok(()) => Some(cgroup.oom_kills() > 0),
            Err(error) => {
                tracing::warn!(pid = self.pid, %error, "cannot clear a control group");
                None
            }
        }
    }

    async fn clear(&mut self) {
        if let Err(error) = os::kill_session(self.pid, self.start_time).await {
            tracing::warn!(pid = self.pid, %error, "cannot look for what is left of a session");
        }
        let mut family = std::mem::take(&mut self.family);
        if let (Some(parent), Some(mark)) = (self.parent, &self.mark) {
            family.extend(os::marked_orphans(parent, mark));
        }
        if let Err(error) = os::kill_family(family).await {
            tracing::warn!(pid = self.pid, %error, "cannot kill what has left a session");
        }
    }
}

/// A pipe, or a terminal, which is read in the same way.
fn receiver(end: OwnedFd) -> io::Result<pipe::Receiver> {
    if rustix::termios::isatty(&end) {
        let flags = rustix::fs::fcntl_getfl(&end)?;
        rustix::fs::fcntl_setfl(&end, flags | rustix::fs::OFlags::NONBLOCK)?;
        return pipe::Receiver::from_owned_fd_unchecked(end);
    }
    pipe::Receiver::from_owned_fd(end)
}

fn exit_of(end: End) -> Exit {
    let at = Timestamp::now();
    match end {
        End::Exited(code) => Exit {
            code,
            signal: None,
            at,
        },
        End::Killed(number) => Exit {
            code: 128 + number,
            signal: Some(signal::name_of(number)),
            at,
        },
    }
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
        pipes: [Option<pipe::Receiver>; 2],
        looked_for: Option<String>,
        tick: watch::Sender<u64>,
    ) -> Self {
        let last = CancellationToken::new();
        let (found, seen) = watch::channel(false);
        let [stdout, stderr] = pipes;
        let pump = Pump {
            writer: Some(writer),
            streams: [
                (stdout, Splitter::new(LogStream::Stdout)),
                (stderr, Splitter::new(LogStream::Stderr)),
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
