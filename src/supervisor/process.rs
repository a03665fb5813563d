//! One live process of a service with its session and its output.

use std::time::{Duration, Instant};

use jiff::Timestamp;
use rustix::process::{Pid, Signal};
use tokio::sync::watch;

use super::logs::{Attached, LogEngine, Watch};
use super::os;
use super::signal;
use super::store::Running;
use crate::keeper::{Child, ChildId, End};
use crate::model::{Exit, ServiceName};
use crate::platforms::LogStream;

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
    output: Attached,
}

/// Whether a process was listened to before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Known {
    New,
    /// By an earlier supervisor.
    Before,
}

impl Process {
    /// Takes a process that the keeper has executed, now or for an earlier supervisor.
    pub(super) fn adopt(
        mut child: Child,
        logs: &LogEngine,
        name: &ServiceName,
        mark: Option<String>,
        watch: Watch,
        known: Known,
    ) -> Self {
        let started_at = Timestamp::from_microsecond(child.started_at).unwrap_or(Timestamp::now());
        let [_, stdout, stderr] = &mut child.ends;
        let stdout = stdout.take().map(|end| (LogStream::Stdout, end));
        let stderr = stderr.take().map(|end| (LogStream::Stderr, end));
        let streams = stdout.into_iter().chain(stderr).collect();
        let output = match known {
            Known::New => logs.attach(name, streams, watch),
            Known::Before => logs.adopt(name, streams, watch, started_at),
        };
        let ago = Timestamp::now().duration_since(started_at);
        let ago = Duration::try_from(ago).unwrap_or_default();
        Self {
            pid: child.pid,
            started: Instant::now().checked_sub(ago).unwrap_or(Instant::now()),
            started_at,
            start_time: os::start_time(child.pid),
            parent: os::parent(child.pid),
            family: Vec::new(),
            mark,
            output,
            child,
        }
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
        self.output.seen()
    }

    /// Why its output is being lost, if it is.
    pub(super) fn log_trouble(&self) -> watch::Receiver<Option<String>> {
        self.output.trouble()
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

    /// After the main process has ended: kills what is left of the session, of the family, and of what
    /// bears its mark; writes down the last of the output. Once the child that is returned is dropped,
    /// nothing of the process is left.
    pub(super) async fn finish(mut self) -> (Exit, Child) {
        let end = self.child.ended().await;
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
        self.output.finish().await;
        (exit_of(end), self.child)
    }
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
