//! One live process of a service with its session and its output.

use std::io;
use std::os::unix::process::ExitStatusExt;
use std::process::{ExitStatus, Stdio};
use std::time::Instant;

use jiff::Timestamp;
use rustix::process::{Pid, Signal};
use tokio::process::Child;
use tokio::sync::watch;

use super::logs::{Attached, Watch};
use super::os::{self, ExitWatch};
use super::sandbox::Sandbox;
use super::signal;
use super::spawn::{Note, Prepared, SpawnError};
use crate::model::{Exit, ServiceName};
use crate::platforms::LogStream;

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
    output: Attached,
    _own: os::Own,
}

impl Process {
    /// Executes the program, with its output going to the service's log. `watch` says what is looked for there.
    pub(super) fn spawn(
        prepared: &Prepared,
        sandbox: &Sandbox,
        name: &ServiceName,
        watch: Watch,
    ) -> Result<Self, SpawnError> {
        let failed = |error| prepared.error(error);
        let (stdout, stdout_end) = io::pipe().map_err(failed)?;
        let (stderr, stderr_end) = io::pipe().map_err(failed)?;
        let streams = vec![
            (LogStream::Stdout, stdout.into()),
            (LogStream::Stderr, stderr.into()),
        ];
        let note = match os::boot_id() {
            Ok(boot_id) => {
                let file = sandbox
                    .store
                    .make_identity_file(name)
                    .map_err(SpawnError::Note)?;
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
            output: sandbox.logs.attach(name, streams, watch),
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
