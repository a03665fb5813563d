//! What can be told and done about a sandbox while no supervisor runs in it.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::sync::Arc;

use super::store::{Record, Store};
use super::{logs, serve};
use crate::model::{Definition, ObservedService, ServiceKind, ServiceName, ServiceState};
use crate::platforms::{LogLine, LogQuery};

/// The services defined in `dir`, none of which runs.
pub fn stored_services(dir: &Path) -> io::Result<BTreeMap<ServiceName, ObservedService>> {
    let records = Store::at(dir)?.load()?;
    Ok(records
        .into_iter()
        .map(|(name, record)| (name, observed(record)))
        .collect())
}

fn observed(record: Record) -> ObservedService {
    let completed = record.completed == Some(record.revision);
    let state = match record.definition.kind {
        ServiceKind::Task if completed => ServiceState::Completed,
        ServiceKind::Task | ServiceKind::Service => ServiceState::Stopped,
    };
    ObservedService {
        definition: Definition::Echo(Arc::new(record.definition)),
        stale: false,
        state,
        goal: record.goal,
        pid: None,
        started_at: None,
        restarts: 0,
        last_exit: record.last_exit,
        next_restart_at: None,
        message: record.error,
    }
}

/// The stored log lines of a service that `query` asks for, oldest first.
pub fn stored_logs(
    dir: &Path,
    service: &ServiceName,
    query: &LogQuery,
) -> io::Result<Vec<LogLine>> {
    logs::read(dir, service, query)
}

/// Kills what a supervisor that was itself killed has left behind.
pub async fn kill_leftovers(dir: &Path) -> io::Result<()> {
    serve::kill_leftovers(&Store::at(dir)?).await
}
