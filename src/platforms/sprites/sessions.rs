//! What runs in a sprite beside its services: the sessions of `exec` (§5).

use std::time::Duration;

use super::exec::QUIET;
use super::{Sprites, dialog};
use crate::model::SandboxName;
use crate::platforms::{Observe, PlatformError, Process, Result, Streams};

/// How long a command may ignore a signal until it is killed.
const GRACE: Duration = Duration::from_secs(10);

impl Sprites {
    pub(super) async fn list_sessions(&self, sandbox: &SandboxName) -> Result<Vec<Process>> {
        let seen = self.seen(sandbox).await?;
        let sessions = self.client.sessions(&seen.sprite).await?.into_iter();
        let shown = sessions.map(|session| Process {
            id: session.id,
            command: session.command.unwrap_or_default(),
            dir: session.workdir.filter(|dir| !dir.is_empty()),
            started_at: session.created,
            terminal: session.tty,
        });
        Ok(shown.collect())
    }

    pub(super) async fn join_session(
        &self,
        sandbox: &SandboxName,
        process: &Process,
        streams: Streams,
    ) -> Result<i32> {
        let sprite = self.seen(sandbox).await?.sprite;
        let socket = self.client.session_socket(&sprite, &process.id, QUIET);
        let missing = || self.cannot("join what runs already: what answers has no WebSocket");
        let socket = socket.await?.ok_or_else(missing)?;
        dialog::attend(socket, streams, process.terminal).await
    }

    /// How it ended is judged by the list: a stream may break off.
    pub(super) async fn end_session(
        &self,
        sandbox: &SandboxName,
        id: &str,
        signal: Option<&str>,
    ) -> Result<()> {
        let sprite = self.seen(sandbox).await?.sprite;
        let there = self.client.sessions(&sprite).await?;
        if there.iter().all(|session| session.id != id) {
            return Err(PlatformError::no_process(sandbox, id));
        }
        let signal = signal.unwrap_or("TERM");
        let said = match self.client.kill_session(&sprite, id, signal, GRACE).await {
            Ok(watched) => watched.error,
            Err(error) if error.may_be_done() => Some(error.to_string()),
            Err(error) => return Err(error.into()),
        };
        let left = self.client.sessions(&sprite).await?;
        if left.iter().all(|session| session.id != id) {
            return Ok(());
        }
        let why = said.unwrap_or_else(|| "it still runs".to_owned());
        Err(PlatformError::new(format!("{id} was not ended: {why}")))
    }
}
