//! What can be told and done about a sandbox while no supervisor runs in it.

use std::collections::BTreeMap;
use std::io;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;

use super::spawn::Prepared;
use super::store::{Record, Store};
use super::{logs, serve};
use crate::model::{
    Definition, ObservedService, Program, SandboxSpec, Secrets, ServiceKind, ServiceName,
    ServiceSpec, ServiceState,
};
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

/// Runs `argv` where the services of the sandbox in `dir` run, with this process's own standard
/// streams and terminal, and returns its exit code: 128 + signal number if it was killed, 127 if it
/// was not found, 126 if it could not be executed (protocol page iris, §5).
pub async fn exec_attached(
    dir: &Path,
    sandbox: &SandboxSpec,
    argv: &[String],
    secrets: &Secrets,
) -> io::Result<i32> {
    let [cmd, args @ ..] = argv else {
        return Err(io::ErrorKind::InvalidInput.into());
    };
    let program = Program::Exec {
        cmd: cmd.clone(),
        args: args.to_vec(),
    };
    let mut spec = ServiceSpec::new(program);
    spec.env.clone_from(&sandbox.env);
    spec.secrets.clone_from(&sandbox.secrets);
    if let Ok(term) = std::env::var("TERM") {
        spec.env.entry("TERM".to_owned()).or_insert(term);
    }
    let base = serve::base(&Store::at(dir)?)?;
    let prepared = Prepared::new(&spec, secrets, &base).map_err(io::Error::other)?;
    let mut command = prepared.attached();
    command.stdin(Stdio::inherit());
    // Ctrl-C reaches the command through the terminal; it decides what that means, not we.
    let _interrupt = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::interrupt())?;
    let status = command.status().await?;
    Ok(status
        .code()
        .unwrap_or_else(|| 128 + status.signal().unwrap_or(0)))
}
