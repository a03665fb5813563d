//! Commands in a sandbox.

use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use secrecy::{ExposeSecret, SecretString};
use serde_json::{Value, json};

use super::Miosa;
use super::command::{WORKSPACE, enter, folder};
use super::files::LARGEST;
use super::ledger;
use super::wire::Ran;
use crate::model::{Program, SandboxName, Secrets, ServiceAddress, ServiceSpec};
use crate::platforms::cloud::environment::exposed;
use crate::platforms::cloud::http::HttpError;
use crate::platforms::cloud::supply::shell::command;
use crate::platforms::cloud::transfer::collect;
use crate::platforms::{LogStream, PlatformError, Result, Streams};

/// What a script is handed over in: it may hold secrets, and arguments can be seen.
const SCRIPT: &str = "GABION_SCRIPT";

impl Miosa {
    /// Runs a script with `/bin/sh`, for at most so long.
    pub(super) async fn script(
        &self,
        id: &str,
        script: &SecretString,
        limit: Duration,
    ) -> Result<Ran, HttpError> {
        let seconds = limit.as_secs().max(1);
        let body = json!({
            "command": format!("eval \"${SCRIPT}\""),
            "cwd": WORKSPACE,
            "env": { SCRIPT: script.expose_secret() },
            "timeout": seconds,
        });
        // The answer takes its time, too.
        let limit = limit + Duration::from_secs(30);
        self.api.exec(id, &body, limit).await
    }

    pub(super) async fn exec_plain(
        &self,
        sandbox: &SandboxName,
        argv: &[String],
        secrets: &Secrets,
        streams: Streams,
    ) -> Result<i32> {
        let known = self.get(sandbox).await?;
        let record = self.record(&known).await?;
        let spec = ledger::sandbox_spec(&record).unwrap_or_default();
        let mut around = nothing();
        around.env = spec.env;
        around.secrets = spec.secrets;
        self.exec_with(&known.id, argv, &around, secrets, streams)
            .await
    }

    pub(super) async fn exec_as(
        &self,
        service: &ServiceAddress,
        argv: &[String],
        secrets: &Secrets,
        streams: Streams,
    ) -> Result<i32> {
        let known = self.get(&service.sandbox).await?;
        let record = self.record(&known).await?;
        let ledger = ledger::service(&record, &service.service);
        let ledger =
            ledger.ok_or_else(|| PlatformError::new(format!("there is no service `{service}`")))?;
        self.exec_with(&known.id, argv, &ledger.spec, secrets, streams)
            .await
    }

    /// Runs a command with the environment and in the folder of `around`. What it reads is handed over in a
    /// file: a command that is streamed has no input of its own.
    async fn exec_with(
        &self,
        id: &str,
        argv: &[String],
        around: &ServiceSpec,
        secrets: &Secrets,
        mut streams: Streams,
    ) -> Result<i32> {
        // What is typed at a terminal has no end that could be waited for.
        let input = match streams.terminal {
            Some(_) => Vec::new(),
            None => collect(&mut streams.stdin, LARGEST, "the input of a command").await?,
        };
        let line = format!("{}{}", enter(around), command(argv));
        let line = match input.is_empty() {
            true => line,
            false => {
                let file = format!("/tmp/gabion-input-{:016x}", fastrand::u64(..));
                let content = STANDARD.encode(&input);
                self.api.write_file(id, &file, &content).await?;
                // It is open by then, and its name is needed no more.
                format!("{{ rm -f {file}; {line}; }} <{file}")
            }
        };
        let body = json!({
            "command": line,
            "cwd": folder(around),
            "env": exposed(&secrets.expand_env(around)?),
        });
        let mut events = self.api.exec_stream(id, &body).await?;
        while let Some(event) = events.next_event().await? {
            let data: Value = serde_json::from_str(&event.data).unwrap_or_default();
            let text = data["line"].as_str().unwrap_or_default().as_bytes();
            match event.name.as_str() {
                "stdout" => streams.pass_on(LogStream::Stdout, text).await?,
                "stderr" => streams.pass_on(LogStream::Stderr, text).await?,
                "exit" => {
                    let code = data["exit_code"].as_i64().unwrap_or_default();
                    return Ok(i32::try_from(code).unwrap_or(1));
                }
                _ => {}
            }
        }
        Err(PlatformError::new(
            "the command's output ended without its exit code",
        ))
    }
}

/// A definition of no program.
fn nothing() -> ServiceSpec {
    ServiceSpec::new(Program::Shell {
        command: String::new(),
    })
}
