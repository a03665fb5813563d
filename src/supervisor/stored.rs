//! What can be told and done about a sandbox while no supervisor runs in it.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::sync::Arc;

use super::attach::{Attached, attach};
use super::container::{self, EngineError};
use super::store::{Record, Store};
use super::{logs, serve};
use crate::model::{
    Definition, ObservedService, SandboxName, Secrets, ServiceKind, ServiceName, ServiceState,
};
use crate::platforms::{LogLine, LogQuery, Streams};

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

/// Kills what a supervisor that was itself killed has left behind, and removes its containers.
pub async fn kill_leftovers(dir: &Path) -> io::Result<()> {
    let store = Store::at(dir)?;
    serve::kill_leftovers(&store).await?;
    if !store.has_containers() {
        return Ok(());
    }
    match container::clear_all(&serve::engine_settings(), store.dir()).await {
        // An engine that is not there any more runs nothing either.
        Err(error @ EngineError::None(_)) => {
            tracing::warn!(%error, "containers are not looked for");
            Ok(())
        }
        other => other.map_err(io::Error::other),
    }
}

/// Removes the containers of sandboxes of `stack` that are not there any more: `known` are those
/// that are, below `root`. Without an engine there is nothing to be removed.
pub async fn clear_orphans(root: &Path, stack: &str, known: &[SandboxName]) -> io::Result<()> {
    match container::clear_stack(&serve::engine_settings(), root, stack, known).await {
        Err(EngineError::None(_)) => Ok(()),
        other => other.map_err(io::Error::other),
    }
}

/// Runs `argv` as a service would run it: with its user, environment and folder; in its container if
/// it has one. A container's command gets `streams`, any other this process's own. The exit code is
/// as [`attach`] tells it.
pub async fn exec_in_service(
    dir: &Path,
    service: &ServiceName,
    argv: &[String],
    secrets: &Secrets,
    streams: Streams,
) -> io::Result<i32> {
    let store = Store::at(dir)?;
    let record = store.load()?.remove(service);
    let missing = || io::Error::other(format!("there is no service `{service}`"));
    let spec = record.ok_or_else(missing)?.definition;
    if spec.container {
        let settings = serve::engine_settings();
        let ran = container::exec_attached(&settings, store.dir(), service, argv.to_vec(), streams);
        return ran.await.map_err(io::Error::other);
    }
    let secrets = secrets.used_by(&spec).map_err(io::Error::other)?;
    let what = Attached {
        service: Some(service),
        argv,
        secrets: &secrets,
    };
    attach(dir, &what).await
}
