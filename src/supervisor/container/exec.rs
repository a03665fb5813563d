//! Commands inside a running container.

use std::path::Path;
use std::pin::Pin;
use std::time::Duration;

use bollard::container::LogOutput;
use bollard::exec::{CreateExecOptions, ResizeExecOptions, StartExecOptions, StartExecResults};
use futures_util::{Stream, StreamExt};
use rustix::process::{Pid, Signal};
use tokio::io::{AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::watch;

use super::engine::{Engine, EngineError};
use super::find::EngineSettings;
use super::place::Place;
use crate::model::ServiceName;
use crate::platforms::{Streams, TerminalSize};
use crate::supervisor::os;

/// The most that is kept of one output stream (protocol page iris, §5).
const OUTPUT_LIMIT: usize = 10 << 20;

/// What a command says when it was ended by its time limit (protocol page iris, §5).
const TIMED_OUT: i32 = 124;

/// The time until an engine that has not noted the end of a command is asked again: it tells the end
/// of the output, but not that of the command.
const RETRY: Duration = Duration::from_millis(5);

/// How often it is asked.
const TRIES: u32 = 400;

/// How a command inside a container went.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::supervisor) struct ExecOutcome {
    /// What it wrote to standard output.
    pub stdout: Vec<u8>,
    /// What it wrote to standard error.
    pub stderr: Vec<u8>,
    /// Its exit code; 124 if it was ended by its time limit.
    pub code: i32,
    /// Whether it was.
    pub timed_out: bool,
    /// Whether it wrote more than is kept.
    pub truncated: bool,
}

type Output = Pin<Box<dyn Stream<Item = Result<LogOutput, bollard::errors::Error>> + Send>>;
type Input = Pin<Box<dyn AsyncWrite + Send>>;

/// Runs `argv` with the environment, folder and user of the container `id`, for at most `limit`.
pub(in crate::supervisor) async fn run(
    engine: &Engine,
    id: &str,
    argv: Vec<String>,
    limit: Duration,
) -> Result<ExecOutcome, EngineError> {
    let mut outcome = ExecOutcome {
        stdout: Vec::new(),
        stderr: Vec::new(),
        code: TIMED_OUT,
        timed_out: false,
        truncated: false,
    };
    let (exec, mut output, _input) = begin(engine, id, argv, false, false).await?;
    let collecting = async {
        while let Some(frame) = output.next().await {
            let (kept, message) = match frame? {
                LogOutput::StdErr { message } => (&mut outcome.stderr, message),
                LogOutput::StdOut { message } | LogOutput::Console { message } => {
                    (&mut outcome.stdout, message)
                }
                LogOutput::StdIn { .. } => continue,
            };
            let room = OUTPUT_LIMIT - kept.len();
            kept.extend_from_slice(&message[..message.len().min(room)]);
            outcome.truncated |= message.len() > room;
        }
        exit_code(engine, &exec).await
    };
    match tokio::time::timeout(limit, collecting).await {
        Ok(code) => outcome.code = code?,
        Err(_) => {
            outcome.timed_out = true;
            kill(engine, id, &exec).await;
        }
    }
    Ok(explain(outcome))
}

/// What the engine itself has to say comes as if the command had said it, with one code for all.
fn explain(mut outcome: ExecOutcome) -> ExecOutcome {
    let text = String::from_utf8_lossy(&outcome.stdout);
    if outcome.code == 126 && text.starts_with("OCI runtime exec failed") {
        if text.contains("not found") || text.contains("no such file") {
            outcome.code = 127;
        }
        outcome.stderr = std::mem::take(&mut outcome.stdout);
    }
    outcome
}

/// Runs `argv` in the container `id` with the caller's streams; its exit code.
async fn attach(
    engine: &Engine,
    id: &str,
    argv: Vec<String>,
    streams: Streams,
) -> Result<i32, EngineError> {
    let Streams {
        mut stdin,
        mut stdout,
        mut stderr,
        terminal,
        ..
    } = streams;
    let (exec, mut output, mut input) = begin(engine, id, argv, true, terminal.is_some()).await?;
    let broken = |error: std::io::Error| EngineError::Broken(error.to_string());
    let writing = async {
        while let Some(frame) = output.next().await {
            let (to, message) = match frame? {
                LogOutput::StdErr { message } => (&mut stderr, message),
                LogOutput::StdOut { message } | LogOutput::Console { message } => {
                    (&mut stdout, message)
                }
                LogOutput::StdIn { .. } => continue,
            };
            to.write_all(&message).await.map_err(broken)?;
            to.flush().await.map_err(broken)?;
        }
        Ok::<_, EngineError>(())
    };
    let reading = async {
        let mut chunk = [0; 8 << 10];
        loop {
            // The command may have closed its input; that ends nothing.
            match stdin.read(&mut chunk).await {
                Ok(0) | Err(_) => break,
                Ok(length) => {
                    let sent = input.write_all(&chunk[..length]).await;
                    if sent.is_err() || input.flush().await.is_err() {
                        break;
                    }
                }
            }
        }
        let _ = input.shutdown().await;
        std::future::pending::<()>().await
    };
    tokio::select! {
        written = writing => written?,
        () = reading => {}
        () = resize(engine, &exec, terminal) => {}
    }
    exit_code(engine, &exec).await
}

/// As [`attach`], in the container of a service in the sandbox kept in `dir`.
pub(in crate::supervisor) async fn exec_attached(
    settings: &EngineSettings,
    dir: &Path,
    service: &ServiceName,
    argv: Vec<String>,
    streams: Streams,
) -> Result<i32, EngineError> {
    let (engine, id) = find_running(settings, dir, service).await?;
    attach(&engine, &id, argv, streams).await
}

/// The engine, and the id of the running container of a service in the sandbox kept in `dir`.
pub(in crate::supervisor) async fn find_running(
    settings: &EngineSettings,
    dir: &Path,
    service: &ServiceName,
) -> Result<(Engine, String), EngineError> {
    let not_running = || EngineError::Refused {
        status: 409,
        message: format!("`{service}` is not running"),
    };
    let place = Place::of(dir).map_err(|error| EngineError::Setting(error.to_string()))?;
    let engine = Engine::connect(settings).await?;
    let found = engine
        .docker
        .inspect_container(&place.container(service), None)
        .await;
    let found = match found.map_err(EngineError::from) {
        Err(error) if error.is_not_found() => return Err(not_running()),
        other => other?,
    };
    let running = found.state.and_then(|state| state.running) == Some(true);
    let id = found.id.filter(|_| running).ok_or_else(not_running)?;
    Ok((engine, id))
}

async fn begin(
    engine: &Engine,
    id: &str,
    argv: Vec<String>,
    stdin: bool,
    tty: bool,
) -> Result<(String, Output, Input), EngineError> {
    let options = CreateExecOptions {
        attach_stdin: Some(stdin),
        attach_stdout: Some(true),
        attach_stderr: Some(true),
        tty: Some(tty),
        cmd: Some(argv),
        ..CreateExecOptions::default()
    };
    let exec = engine.docker.create_exec(id, options).await?.id;
    let options = StartExecOptions {
        detach: false,
        tty,
        output_capacity: None,
    };
    match engine.docker.start_exec(&exec, Some(options)).await? {
        StartExecResults::Attached { output, input } => Ok((exec, output, input)),
        StartExecResults::Detached => Err(EngineError::Broken(
            "it did not attach to a command".to_owned(),
        )),
    }
}

async fn exit_code(engine: &Engine, exec: &str) -> Result<i32, EngineError> {
    for _ in 0..TRIES {
        let found = engine.docker.inspect_exec(exec).await?;
        let code = found.exit_code.filter(|_| found.running != Some(true));
        if let Some(code) = code.and_then(|code| i32::try_from(code).ok()) {
            return Ok(code);
        }
        tokio::time::sleep(RETRY).await;
    }
    Err(EngineError::Broken(
        "it does not tell how a command ended".to_owned(),
    ))
}

/// An engine cannot end a command, so that is done from outside, where the engine's processes are
/// this machine's: a number alone could be anybody's.
async fn kill(engine: &Engine, id: &str, exec: &str) {
    let found = engine.docker.inspect_exec(exec).await.unwrap_or_default();
    let (pid, container) = (
        found.pid.unwrap_or(0),
        found.container_id.unwrap_or_default(),
    );
    let cgroups = std::fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap_or_default();
    let process = i32::try_from(pid).ok().and_then(Pid::from_raw);
    let process = process.filter(|_| !container.is_empty() && cgroups.contains(&container));
    let Some(process) = process else {
        return tracing::warn!(container = %id, "a command that took too long goes on");
    };
    let family = os::descendants([process.as_raw_nonzero().get().unsigned_abs()]);
    // One that has just ended is what is wanted.
    let _ = rustix::process::kill_process(process, Signal::KILL);
    if let Err(error) = os::kill_family(family).await {
        tracing::warn!(container = %id, %error, "what a command has started goes on");
    }
}

/// Passes the size of the terminal on, for as long as it is polled.
async fn resize(engine: &Engine, exec: &str, terminal: Option<watch::Receiver<TerminalSize>>) {
    if let Some(mut terminal) = terminal {
        loop {
            let TerminalSize { width, height } = *terminal.borrow_and_update();
            let options = ResizeExecOptions { height, width };
            if let Err(error) = engine.docker.resize_exec(exec, options).await {
                tracing::debug!(%error, "the terminal keeps its size");
            }
            if terminal.changed().await.is_err() {
                break;
            }
        }
    }
    std::future::pending().await
}
