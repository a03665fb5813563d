//! A service from inside of its sandbox: whether it is alive, and what it has written.

use std::time::Duration;

use async_trait::async_trait;
use secrecy::{ExposeSecret, SecretString};

use super::Inner;
use super::command::{Files, surroundings};
use crate::event::Failure;
use crate::model::{ServiceAddress, ServiceSpec};
use crate::platforms::cloud::supply::shell::quote;
use crate::platforms::cloud::supply::{Asked, Inside};
use crate::platforms::{PlatformError, Result};

/// How much of its output is told when a service fails, in lines.
const TAIL: usize = 10;

/// A service in its sandbox.
pub(super) struct Within<'a> {
    pub inner: &'a Inner,
    /// The sandbox's id.
    pub id: &'a str,
    pub at: &'a ServiceAddress,
    pub spec: &'a ServiceSpec,
}

impl Within<'_> {
    pub fn files(&self) -> Files {
        Files::of(&self.inner.owner(&self.at.sandbox), &self.at.service)
    }

    /// Runs a script; its exit code and what it has written.
    pub async fn run(&self, script: &str) -> Result<(i32, String)> {
        let command = format!("/bin/sh -c {}", quote(script));
        let ran = self.inner.api.exec(self.id, &command).await?;
        Ok((ran.exit_code, ran.stdout))
    }

    /// Removes what the last run of a task has left.
    pub async fn forget_exit(&self) -> Result<()> {
        let script = format!("rm -f {}", quote(&self.files().exit));
        self.run(&script).await.map(drop)
    }

    /// A failure with the last lines of output.
    pub async fn failed(&self, message: String) -> PlatformError {
        let script = format!("tail -n {TAIL} {}", quote(&self.files().log));
        let log = self.run(&script).await.map(|(_, said)| said);
        PlatformError(Failure {
            message,
            log_tail: log.unwrap_or_default().lines().map(str::to_owned).collect(),
            hint: None,
        })
    }
}

#[async_trait]
impl Inside for Within<'_> {
    async fn sh(&self, script: &SecretString, limit: Duration) -> Result<Asked> {
        // With the service's own environment; secrets come by their names.
        let own = surroundings(&self.at.service, self.spec);
        let script = format!("{own}{}", script.expose_secret());
        let _ = limit;
        match self.run(&script).await {
            Ok((code, said)) => Ok(Asked::Ran(code, said)),
            Err(error) => Ok(Asked::NotNow(error.to_string())),
        }
    }

    async fn alive(&self) -> Result<()> {
        let pid = quote(&self.files().pid);
        let script = format!("[ ! -e {pid} ] || kill -0 \"$(cat {pid})\"");
        match self.run(&script).await {
            Ok((0, _)) | Err(_) => Ok(()),
            Ok(_) => Err(self.failed("it has ended".to_owned()).await),
        }
    }

    async fn has_said(&self, text: &str) -> Result<bool> {
        let log = quote(&self.files().log);
        let script = format!("grep -qF -e {} {log}", quote(text));
        Ok(self.run(&script).await?.0 == 0)
    }
}
