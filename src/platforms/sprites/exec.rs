//! Commands in a sprite: those of users over a WebSocket where there is one, so that their output may be anything;
//! scripts of ours over HTTP, which is one request.

use std::collections::BTreeMap;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use secrecy::{ExposeSecret, SecretString};
use tokio::io::AsyncReadExt;

use super::client::Command;
use super::frames::Frame;
use super::wire::Status;
use super::{Sprites, dialog};
use crate::event::Failure;
use crate::model::{SandboxName, Secrets, ServiceAddress, ServiceSpec};
use crate::platforms::cloud::supply::{Asked, Inside, shell};
use crate::platforms::{Observe, PlatformError, Result, Streams};

/// How long a command of a user may write nothing: Sprites sets no limit, and connections do not last.
pub(super) const QUIET: Duration = Duration::from_secs(24 * 3600);

/// The kind of terminal that a command has.
const TERM: &str = "TERM";

/// The longest input that is sent, in bytes.
const LONGEST_INPUT: u64 = 64 << 20;

/// The longest output of a script that is kept, in bytes.
const LONGEST_OUTPUT: usize = 64 << 10;

/// How much longer than it takes the end of a script is awaited.
const ON_THE_WAY: Duration = Duration::from_secs(30);

impl Sprites {
    /// Runs a command with an environment and in a folder, and passes its streams on.
    pub(super) async fn run(
        &self,
        sprite: &str,
        argv: &[String],
        around: &ServiceSpec,
        secrets: &Secrets,
        mut streams: Streams,
    ) -> Result<i32> {
        let env = secrets.expand_env(around)?;
        let (mut open, hidden) = split_env(around, env);
        let terminal = streams.terminal.as_ref().map(|size| *size.borrow());
        if terminal.is_some()
            && !around.env.contains_key(TERM)
            && let Some(term) = streams.term.take()
        {
            open.push((TERM.to_owned(), term));
        }
        let argv = match hidden.is_empty() {
            true => argv.to_vec(),
            false => self.behind_file(sprite, argv, &hidden).await?,
        };
        let dir = around.working_dir.as_ref();
        let dir = dir.map(|dir| dir.to_string_lossy().into_owned());
        let command = Command {
            argv: &argv,
            dir: dir.as_deref(),
            env: &open,
            terminal,
            idle: QUIET,
        };
        match self.client.exec_socket(sprite, &command).await? {
            Some(socket) => return dialog::attend(socket, streams, terminal.is_some()).await,
            None if terminal.is_some() => {
                let error = self.cannot("hand over a terminal: what answers has no WebSocket");
                return Err(error.hint("with `</dev/null`, the command runs without one"));
            }
            None => {}
        }
        let mut input = Vec::new();
        let read = (&mut streams.stdin).take(LONGEST_INPUT);
        let mut read = std::pin::pin!(read);
        read.read_to_end(&mut input)
            .await
            .map_err(|error| PlatformError::new(format!("the input: {error}")))?;
        let mut frames = self.client.exec(sprite, &command, input.into()).await?;
        while let Some(frame) = frames.next().await? {
            let (stream, bytes) = match frame {
                Frame::Exit(code) => return Ok(code),
                Frame::Output(stream, bytes) => (stream, bytes),
            };
            streams.pass_on(stream, &bytes).await?;
        }
        Err(cut_short())
    }

    /// A command that gets variables through a file that is gone once it runs: URLs and arguments can
    /// be seen by others.
    async fn behind_file(
        &self,
        sprite: &str,
        argv: &[String],
        env: &BTreeMap<String, SecretString>,
    ) -> Result<Vec<String>> {
        let file = format!("/tmp/gabion-env-{:016x}", fastrand::u64(..));
        let text = SecretString::from(shell::exports(env));
        self.client.write_file(sprite, &file, &text).await?;
        let script = r#". "$0"; rm -f "$0"; exec "$@""#;
        let head = ["/bin/sh", "-c", script, &file].map(str::to_owned);
        Ok(head.into_iter().chain(argv.iter().cloned()).collect())
    }

    /// Runs a command of the manifest (a hook) to its end.
    pub(super) async fn run_hook(
        &self,
        sandbox: &SandboxName,
        what: &str,
        argv: &[String],
        secrets: &Secrets,
    ) -> Result<()> {
        let seen = self.seen(sandbox).await?;
        let env = secrets.expand_env(&environment(&seen.spec))?;
        let script = format!("{}exec {}\n", shell::exports(&env), shell::command(argv));
        let script = SecretString::from(script);
        match self.sh(&seen.sprite, &script, QUIET).await? {
            Asked::Ran(0, _) => Ok(()),
            Asked::Ran(code, said) => Err(PlatformError(Failure {
                message: format!("{what} exited with {code}"),
                log_tail: said.lines().map(|line| secrets.conceal(line)).collect(),
                hint: None,
            })),
            Asked::NotNow(why) => Err(PlatformError::new(format!("{what}: {why}"))),
        }
    }

    /// Runs a script with `/bin/sh`, which reads it from its input.
    pub(super) async fn sh(
        &self,
        sprite: &str,
        script: &SecretString,
        limit: Duration,
    ) -> Result<Asked> {
        let argv = ["/bin/sh".to_owned()];
        let command = Command {
            argv: &argv,
            dir: None,
            env: &[],
            terminal: None,
            idle: limit.saturating_add(ON_THE_WAY),
        };
        let script = Bytes::from(script.expose_secret().as_bytes().to_vec());
        let ran = match self.client.exec(sprite, &command, script).await {
            Ok(frames) => frames.collect(LONGEST_OUTPUT).await,
            Err(error) => Err(error),
        };
        match ran {
            Ok((Some(code), said)) => Ok(Asked::Ran(code, said)),
            Ok((None, _)) => Ok(Asked::NotNow("the answer broke off".to_owned())),
            Err(error) if error.may_be_done() || error.status.is_none() => {
                Ok(Asked::NotNow(error.to_string()))
            }
            Err(error) => Err(error.into()),
        }
    }
}

/// What is said where a command was not seen to its end.
pub(super) fn cut_short() -> PlatformError {
    PlatformError::new("the connection ended before the command did: how it ended is not known")
}

/// The environment of a sandbox as that of a service.
pub(super) fn environment(spec: &crate::model::SandboxSpec) -> ServiceSpec {
    let program = crate::model::Program::Exec {
        cmd: String::new(),
        args: Vec::new(),
    };
    ServiceSpec {
        env: spec.env.clone(),
        secrets: spec.secrets.clone(),
        ..ServiceSpec::new(program)
    }
}

/// The variables that may be seen, and those that hold a secret.
fn split_env(
    spec: &ServiceSpec,
    env: BTreeMap<String, SecretString>,
) -> (Vec<(String, String)>, BTreeMap<String, SecretString>) {
    let (hidden, open): (BTreeMap<_, _>, BTreeMap<_, _>) =
        env.into_iter().partition(|(name, value)| {
            spec.env
                .get(name)
                .is_none_or(|it| it != value.expose_secret())
        });
    let open = open
        .into_iter()
        .map(|(name, value)| (name, value.expose_secret().to_owned()));
    (open.collect(), hidden)
}

/// A service whose readiness is found out.
pub(super) struct At<'a> {
    pub sprites: &'a Sprites,
    pub sprite: &'a str,
    pub address: &'a ServiceAddress,
    /// Lines before are of an older process.
    pub since: Option<jiff::Timestamp>,
}

#[async_trait]
impl Inside for At<'_> {
    async fn sh(&self, script: &SecretString, limit: Duration) -> Result<Asked> {
        self.sprites.sh(self.sprite, script, limit).await
    }

    async fn alive(&self) -> Result<()> {
        let found = self.sprites.read(self.sprite, self.address).await?;
        match found.as_ref().map(super::wire::Service::status) {
            Some(Status::Running | Status::Starting | Status::Unknown) => Ok(()),
            _ => Err(self
                .sprites
                .ended(self.sprite, self.address, found.as_ref(), None)
                .await),
        }
    }

    async fn has_said(&self, text: &str) -> Result<bool> {
        let name = self.address.service.as_str();
        let stream = self.sprites.client.logs(self.sprite, name, 10_000, None);
        let mut reader = super::logs::LogReader::new(stream.await?);
        while let Some(line) = reader.next().await {
            let now = self
                .since
                .is_none_or(|since| line.at.as_millisecond() >= since.as_millisecond());
            if now && line.text.contains(text) {
                return Ok(true);
            }
        }
        Ok(false)
    }
}
