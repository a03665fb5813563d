//! Processes that are no services: what somebody has started beside them (§5).

use super::command::{Marker, is_cut};
use super::wire::Process;
use super::{Miosa, ledger};
use crate::model::{SandboxName, ServiceAddress};
use crate::platforms::{Observe, PlatformError, Process as Beside, Result};

impl Miosa {
    pub(super) async fn list_processes(&self, sandbox: &SandboxName) -> Result<Vec<Beside>> {
        let (_, processes) = self.beside(sandbox).await?;
        let shown = processes.into_iter().map(|process| Beside {
            started_at: process.started(),
            terminal: false,
            command: process.command.unwrap_or_default(),
            dir: None,
            id: process.pid,
        });
        Ok(shown.collect())
    }

    /// The platform kills it if it ignores SIGTERM.
    pub(super) async fn end_process(
        &self,
        sandbox: &SandboxName,
        id: &str,
        signal: Option<&str>,
    ) -> Result<()> {
        self.only_its_own_end(signal)?;
        let (machine, processes) = self.beside(sandbox).await?;
        let found = processes.into_iter().find(|process| process.pid == id);
        let found = found.ok_or_else(|| PlatformError::no_process(sandbox, id))?;
        self.end_all(&machine, &[found]).await
    }

    /// The id of a sandbox, and what runs in it that is of no service.
    async fn beside(&self, sandbox: &SandboxName) -> Result<(String, Vec<Process>)> {
        let known = self.get(sandbox).await?;
        let record = self.record(&known).await?;
        if !record.is_ready() {
            // Whoever asks what is paused wakes it up.
            return Ok((known.id.clone(), Vec::new()));
        }
        let mut processes = self.api.processes(&known.id).await?;
        let of_services: Vec<_> = ledger::services(&record)
            .flat_map(|(name, ledger)| {
                let address = ServiceAddress::new(sandbox.clone(), name);
                self.live(&address, Some(&ledger), &processes)
            })
            .collect();
        processes.retain(|process| {
            // Those of a service whose ledger is gone are marked all the same.
            let marked = Marker::of(process).is_some() || is_cut(process);
            let owned = || of_services.iter().any(|(_, it)| it.is_same(process));
            process.is_live() && !marked && !owned()
        });
        Ok((known.id.clone(), processes))
    }
}
