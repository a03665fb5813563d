//! A program that runs beside the services, for as long as somebody waits for it: a probe, an exec, a hook.

use std::io;
use std::os::fd::OwnedFd;

use rustix::process::Signal;

use super::os;
use super::spawn::{Prepared, SpawnError};
use crate::keeper::{Child, End, Keeper, Spawn, Stream, kill_group, signal_group};

/// One such program. When dropped, it is killed with everything in its session.
#[derive(Debug)]
pub(super) struct Aside {
    child: Child,
    start_time: Option<u64>,
}

impl Aside {
    /// Executes it. `given` are the descriptors for the streams that are [`Stream::Given`].
    pub(super) async fn start(
        keeper: &Keeper,
        prepared: &Prepared,
        streams: [Stream; 3],
        given: Vec<OwnedFd>,
    ) -> Result<Self, SpawnError> {
        let request = prepared.spawn(keeper.next_id(), String::new(), streams);
        Self::execute(keeper, prepared, request, given).await
    }

    /// Executes it with a terminal of its own, of so many rows and columns. The other end is that of
    /// stream 1.
    pub(super) async fn start_on_terminal(
        keeper: &Keeper,
        prepared: &Prepared,
        window: (u16, u16),
    ) -> Result<Self, SpawnError> {
        let streams = [Stream::Null; 3];
        let mut request = prepared.spawn(keeper.next_id(), String::new(), streams);
        request.tty = true;
        request.window = Some(window);
        Self::execute(keeper, prepared, request, Vec::new()).await
    }

    async fn execute(
        keeper: &Keeper,
        prepared: &Prepared,
        mut request: Spawn,
        mut given: Vec<OwnedFd>,
    ) -> Result<Self, SpawnError> {
        prepared.enter(&mut request, &mut given)?;
        let spawned = keeper.spawn(request, given).await;
        let child = spawned.map_err(SpawnError::Keeper)??;
        Ok(Self {
            start_time: os::start_time(child.pid),
            child,
        })
    }

    /// Sends a signal to its process group.
    pub(super) fn signal(&self, signal: Signal) {
        signal_group(self.child.pid, signal);
    }

    /// Its number among this machine's processes.
    pub(super) fn pid(&self) -> u32 {
        self.child.pid
    }

    /// Our end of a piped stream; once.
    pub(super) fn end_of(&mut self, stream: usize) -> Option<OwnedFd> {
        self.child.ends.get_mut(stream).and_then(Option::take)
    }

    /// How it ended, once it has. Cancel-safe.
    pub(super) async fn ended(&mut self) -> End {
        self.child.ended().await
    }

    /// Kills what is left of its session, and returns when nothing is.
    pub(super) async fn clear(&self) -> io::Result<()> {
        os::kill_session(self.child.pid, self.start_time).await
    }
}

impl Drop for Aside {
    fn drop(&mut self) {
        kill_group(self.child.pid);
    }
}

/// What a shell calls it: the code, or 128 + the number of the signal.
pub(super) fn code_of(end: End) -> i32 {
    match end {
        End::Exited(code) => code,
        End::Killed(signal) => 128 + signal,
    }
}
