//! One live process of a service with its session and its output.

use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use rustix::process::Signal;
use tokio::sync::watch;

use super::cgroup::Cgroup;
use super::input::Input;
use super::logs::{Attached, LogEngine, Watch};
use super::os;
use super::signal;
use super::store::Running;
use crate::keeper::{Child, ChildId, End, signal_group};
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
    /// What it and everything that it starts is in.
    cgroup: Option<Arc<Cgroup>>,
    output: Attached,
    /// Its standard input, where that is open.
    input: Option<Input>,
}

/// How everything is found that a process starts.
pub(super) struct Bounds {
    /// What is in the environment of all of it.
    pub mark: Option<String>,
    /// The control group that all of it is in.
    pub cgroup: Option<Arc<Cgroup>>,
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
        Bounds { mark, cgroup }: Bounds,
        watch: Watch,
        input: Option<Input>,
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
            cgroup,
            output,
            input,
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

    /// Its standard input, where that is open.
    pub(super) fn input(&self) -> Option<&Input> {
        self.input.as_ref()
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
        signal_group(self.pid, signal);
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
