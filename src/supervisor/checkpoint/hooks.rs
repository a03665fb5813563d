//! The commands that a sandbox wants to be run around a checkpoint.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::time::Duration;

use crate::keeper::{End, Stream};
use crate::model::{Program, SandboxSpec, Secrets, ServiceSpec};
use crate::supervisor::aside::Aside;
use crate::supervisor::owner::Refusal;
use crate::supervisor::sandbox::Sandbox;
use crate::supervisor::spawn::Prepared;

/// How long one may run.
const LIMIT: Duration = Duration::from_secs(300);

/// How much of its output is told when it fails.
const TAIL: u64 = 4 << 10;

/// Runs a hook in the sandbox, to its end.
pub(super) async fn run(
    sandbox: &Sandbox,
    spec: &SandboxSpec,
    which: &str,
    argv: &[String],
    secrets: &Secrets,
) -> Result<(), Refusal> {
    let failed = |text: String| {
        let text = format!("the `{which}` command {text}");
        Refusal::new(500, "hook_failed", text)
    };
    let (cmd, args) = argv
        .split_first()
        .ok_or_else(|| failed("is empty".into()))?;
    let mut service = ServiceSpec::new(Program::Exec {
        cmd: cmd.clone(),
        args: args.to_vec(),
    });
    service.env.clone_from(&spec.env);
    service.secrets.clone_from(&spec.secrets);
    let prepared = Prepared::new(&service, secrets, &sandbox.base);
    let prepared = prepared.map_err(|error| failed(format!("cannot be executed: {error}")))?;
    let io = |error: std::io::Error| failed(format!("cannot be executed: {error}"));
    let mut output = tempfile::tempfile().map_err(io)?;
    let given = vec![
        output.try_clone().map_err(io)?.into(),
        output.try_clone().map_err(io)?.into(),
    ];
    let streams = [Stream::Null, Stream::Given, Stream::Given];
    let started = Aside::start(&sandbox.keeper, &prepared, streams, given).await;
    let mut program = started.map_err(|error| failed(format!("cannot be executed: {error}")))?;
    let text = match tokio::time::timeout(LIMIT, program.ended()).await {
        Ok(End::Exited(0)) => return Ok(()),
        Ok(End::Exited(code)) => format!("exited with {code}"),
        Ok(End::Killed(_)) => "was killed".to_owned(),
        Err(_) => format!("did not end within {} s", LIMIT.as_secs()),
    };
    let mut refusal = failed(text);
    refusal.log_tail = tail(&mut output).unwrap_or_default();
    Err(refusal)
}

fn tail(output: &mut File) -> std::io::Result<Vec<String>> {
    let length = output.metadata()?.len();
    output.seek(SeekFrom::Start(length.saturating_sub(TAIL)))?;
    let mut bytes = Vec::new();
    output.take(TAIL).read_to_end(&mut bytes)?;
    let text = String::from_utf8_lossy(&bytes);
    let lines: Vec<_> = text.lines().map(str::to_owned).collect();
    Ok(lines[lines.len().saturating_sub(10)..].to_vec())
}
