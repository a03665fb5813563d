//! Processes that are no services, which the supervisor has started for somebody.

use super::{Local, refused};
use crate::model::SandboxName;
use crate::platforms::{Observe, PlatformError, Process, Result};

impl Local {
    pub(super) async fn list_processes(&self, sandbox: &SandboxName) -> Result<Vec<Process>> {
        let all = self.client(sandbox)?.processes().await.map_err(refused)?;
        let running = all.into_iter().filter(|process| process.is_running());
        let shown = running.map(|process| Process {
            id: process.pid.to_string(),
            command: process.command,
            dir: process.cwd,
            started_at: process.started_at,
            terminal: false,
        });
        Ok(shown.collect())
    }

    /// The supervisor kills it if it ignores SIGTERM.
    pub(super) async fn end_process(
        &self,
        sandbox: &SandboxName,
        id: &str,
        signal: Option<&str>,
    ) -> Result<()> {
        self.only_its_own_end(signal)?;
        let client = self.client(sandbox)?;
        let all = client.processes().await.map_err(refused)?;
        let mut running = all.into_iter().filter(|process| process.is_running());
        let found = running.find(|process| process.pid.to_string() == id);
        let found = found.ok_or_else(|| PlatformError::no_process(sandbox, id))?;
        client.stop_process(found.pid).await.map_err(refused)
    }
}
