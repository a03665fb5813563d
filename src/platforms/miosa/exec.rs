//! Commands in a sandbox.

use std::time::Duration;

use secrecy::{ExposeSecret, SecretString};
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;

use super::Miosa;
use super::command::{WORKSPACE, enter, folder};
use super::ledger;
use super::start::{environment, exposed};
use super::wire::Ran;
use crate::model::{Program, SandboxName, Secrets, ServiceAddress, ServiceSpec};
use crate::platforms::cloud::http::HttpError;
use crate::platforms::cloud::supply::shell::command;
use crate::platforms::{PlatformError, Result, Streams};

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

    /// Runs a command with the environment and in the folder of `around`.
    async fn exec_with(
        &self,
        id: &str,
        argv: &[String],
        around: &ServiceSpec,
        secrets: &Secrets,
        mut streams: Streams,
    ) -> Result<i32> {
        let body = json!({
            "command": format!("{}{}", enter(around), command(argv)),
            "cwd": folder(around),
            "env": exposed(&environment(around, secrets)?),
        });
        let mut events = self.api.exec_stream(id, &body).await?;
        while let Some(event) = events.next_event().await? {
            let data: Value = serde_json::from_str(&event.data).unwrap_or_default();
            let text = data["line"].as_str().unwrap_or_default().as_bytes();
            let written = match event.name.as_str() {
                "stdout" => write(&mut streams.stdout, text).await,
                "stderr" => write(&mut streams.stderr, text).await,
                "exit" => {
                    let code = data["exit_code"].as_i64().unwrap_or_default();
                    return Ok(i32::try_from(code).unwrap_or(1));
                }
                _ => Ok(()),
            };
            written.map_err(|error| PlatformError::new(error.to_string()))?;
        }
        Err(PlatformError::new(
            "the command's output ended without its exit code",
        ))
    }
}

async fn write(
    to: &mut (dyn tokio::io::AsyncWrite + Send + Unpin),
    text: &[u8],
) -> std::io::Result<()> {
    to.write_all(text).await?;
    to.flush().await
}

/// A definition of no program.
fn nothing() -> ServiceSpec {
    ServiceSpec::new(Program::Shell {
        command: String::new(),
    })
}
