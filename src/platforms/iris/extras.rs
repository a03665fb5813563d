//! What is no state: logs, files, commands, checkpoints, and what there is.

use std::time::Duration;

use bytes::Bytes;
use jiff::Timestamp;
use secrecy::ExposeSecret;
use serde_json::{Value, json};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::mpsc;

use super::document::{self, Document};
use super::wire::{Ran, Stage};
use super::{Access, Iris, Known};
use crate::model::{
    Checkpoint, Forked, Program, Restored, SandboxName, Secrets, ServiceAddress, ServiceName,
    ServiceSpec,
};
use crate::platforms::{
    InventoryEntry, InventoryQuery, LogLine, LogQuery, LogStream, Observe, PlatformError, Result,
    Streams,
};

/// The most that a command may read, and the largest file (protocol page iris, §5).
const LARGEST: u64 = 1 << 20;

/// How long a command may take.
const COMMAND: Duration = Duration::from_secs(3600);

impl Iris {
    pub(super) async fn read_logs(
        &self,
        service: &ServiceAddress,
        query: LogQuery,
    ) -> Result<mpsc::Receiver<LogLine>> {
        let known = self.get(&service.sandbox).await?;
        let mut asked = vec![("follow", query.follow.to_string())];
        asked.extend(query.tail.map(|tail| ("lines", tail.to_string())));
        asked.extend(query.since.map(|since| ("since", since.to_string())));
        asked.extend(
            query
                .stream
                .map(|stream| ("stream", word(stream).to_owned())),
        );
        let mut lines = known.plane.logs(&service.service, &asked).await?;
        let (sender, receiver) = mpsc::channel(256);
        tokio::spawn(async move {
            while let Ok(Some(line)) = lines.next().await {
                if sender.send(log_line(&line)).await.is_err() {
                    return;
                }
            }
        });
        Ok(receiver)
    }

    pub(super) async fn list_all(&self, query: &InventoryQuery) -> Result<Vec<InventoryEntry>> {
        if query.actor.is_some() {
            return Err(self.cannot("list what belongs to others"));
        }
        if query.catalogue {
            return Err(self.cannot("show a catalogue"));
        }
        let Access::Gateway(gateway) = &self.access else {
            return Err(self.cannot("list sandboxes without its gateway"));
        };
        let mut entries = Vec::new();
        for record in query.page(gateway.list().await?) {
            let mut stack = None;
            if record.stage() == Stage::Running {
                let plane = self.plane_of(&record, None)?;
                // One that does not answer is listed all the same.
                let document = plane.value::<Document>(document::KEY).await;
                stack = document.ok().flatten().map(|it| it.owner.stack);
            }
            let url = match record.domain.contains("://") {
                true => record.domain.clone(),
                false => format!("https://{}", record.domain),
            };
            entries.push(InventoryEntry {
                id: record.id,
                name: record.name,
                state: record.state,
                stack,
                description: None,
                url: Some(url),
                created_at: None,
            });
        }
        Ok(entries)
    }

    pub(super) async fn download(
        &self,
        sandbox: &SandboxName,
        path: &str,
        to: &mut (dyn AsyncWrite + Send + Unpin),
    ) -> Result<()> {
        let bytes = self
            .get(sandbox)
            .await?
            .plane
            .read_file(&absolute(path)?)
            .await?;
        let written = async {
            to.write_all(&bytes).await?;
            to.flush().await
        };
        written.await.map_err(failed)
    }

    pub(super) async fn upload(
        &self,
        sandbox: &SandboxName,
        path: &str,
        from: &mut (dyn AsyncRead + Send + Unpin),
        mode: u32,
    ) -> Result<()> {
        let path = absolute(path)?;
        let bytes = Bytes::from(all(from, "a file").await?);
        let known = self.get(sandbox).await?;
        Ok(known.plane.write_file(&path, &bytes, mode).await?)
    }

    pub(super) async fn exec_plain(
        &self,
        sandbox: &SandboxName,
        argv: &[String],
        secrets: &Secrets,
        streams: Streams,
    ) -> Result<i32> {
        let known = self.get(sandbox).await?;
        let mut around = ServiceSpec::new(Program::Shell {
            command: String::new(),
        });
        if let Some(document) = known.read().await? {
            around.env = document.spec.env;
            around.secrets = document.spec.secrets;
        }
        run(&known, argv, &around, secrets, streams).await
    }

    pub(super) async fn exec_as(
        &self,
        service: &ServiceAddress,
        argv: &[String],
        secrets: &Secrets,
        mut streams: Streams,
    ) -> Result<i32> {
        let known = self.get(&service.sandbox).await?;
        let document = known.read().await?;
        let entry = document.and_then(|mut it| it.services.remove(&service.service));
        let missing = || PlatformError::new(format!("there is no service `{service}`"));
        let spec = entry.ok_or_else(missing)?.spec;
        if spec.container {
            let body = json!({ "cmd": argv, "timeout_secs": COMMAND.as_secs() });
            let ran = known
                .plane
                .exec_in(&service.service, &body, COMMAND)
                .await?;
            return write_out(ran, &mut streams).await;
        }
        run(&known, argv, &spec, secrets, streams).await
    }

    pub(super) async fn list_checkpoints(&self, sandbox: &SandboxName) -> Result<Vec<Checkpoint>> {
        let known = self.get(sandbox).await?;
        let listed = known.plane.checkpoints().await?.checkpoints;
        let mut listed: Vec<_> = listed.into_iter().map(checkpoint).collect();
        listed.sort_by_key(|it| it.created_at);
        Ok(listed)
    }

    pub(super) async fn begin(&self, sandbox: &SandboxName, name: Option<&str>) -> Result<String> {
        let known = self.get(sandbox).await?;
        Ok(known.plane.checkpoint(name).await?.checkpoint_id)
    }

    pub(super) async fn await_checkpoint(
        &self,
        sandbox: &SandboxName,
        id: &str,
    ) -> Result<Checkpoint> {
        self.get(sandbox).await?.plane.wait_checkpoint(id).await?;
        let listed = self.list_checkpoints(sandbox).await?;
        let found = listed.into_iter().find(|it| it.id == id);
        found.ok_or_else(|| PlatformError::new(format!("there is no checkpoint `{id}`")))
    }

    /// The document is on the disk, too: it is what it was, like everything else.
    pub(super) async fn rewind(&self, sandbox: &SandboxName, id: &str) -> Result<Restored> {
        let known = self.get(sandbox).await?;
        let restored = known.plane.restore(id).await?;
        Ok(Restored {
            started_services: names(restored.started_services),
            stopped_services: names(restored.stopped_services),
            failed_services: names(restored.failed_services),
            ..Restored::default()
        })
    }

    /// What runs in a fork.
    pub(super) async fn tell_fork(&self, fork: &Known, document: &Document) -> Result<Forked> {
        let live = fork.plane.services().await?;
        let (mut started, mut other) = (Vec::new(), Vec::new());
        for name in document.services.keys() {
            match live.iter().find(|it| it.name == name.as_str()) {
                Some(it) if it.status == "failed" => other.push(name.clone()),
                Some(it) if it.status == "running" => started.push(name.clone()),
                _ => {}
            }
        }
        Ok(Forked {
            started_services: started,
            failed_services: other,
            size_bytes: 0,
        })
    }
}

fn names(names: Vec<String>) -> Vec<ServiceName> {
    let names = names.into_iter();
    names
        .filter_map(|name| ServiceName::new(name).ok())
        .collect()
}

fn checkpoint(it: super::wire::Checkpoint) -> Checkpoint {
    Checkpoint {
        id: it.id,
        name: it.name,
        created_at: it.created_at.unwrap_or(Timestamp::UNIX_EPOCH),
        size_bytes: it.size_bytes.unwrap_or_default(),
        copy_duration_ms: 0,
        running: Vec::new(),
        frozen: false,
    }
}

fn word(stream: LogStream) -> &'static str {
    match stream {
        LogStream::Stdout => "stdout",
        LogStream::Stderr => "stderr",
    }
}

/// Reads `2026-01-05T10:30:00.123Z [stdout] text`; anything else is text of now.
fn log_line(line: &str) -> LogLine {
    let read = || {
        let (at, rest) = line.split_once(' ')?;
        let at = at.parse().ok()?;
        let (stream, text) = match rest.strip_prefix("[stdout] ") {
            Some(text) => (LogStream::Stdout, text),
            None => (LogStream::Stderr, rest.strip_prefix("[stderr] ")?),
        };
        let text = text.to_owned();
        Some(LogLine { at, stream, text })
    };
    read().unwrap_or_else(|| LogLine {
        at: Timestamp::now(),
        stream: LogStream::Stdout,
        text: line.to_owned(),
    })
}

fn absolute(path: &str) -> Result<String> {
    match path.starts_with('/') {
        true => Ok(path.to_owned()),
        false => Err(PlatformError::new(format!(
            "`{path}`: paths on iris begin with `/`"
        ))),
    }
}

fn failed(error: std::io::Error) -> PlatformError {
    PlatformError::new(error.to_string())
}

/// All that there is to read, if that is not too much.
async fn all(from: &mut (dyn AsyncRead + Send + Unpin), what: &str) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let mut from = from.take(LARGEST + 1);
    from.read_to_end(&mut bytes).await.map_err(failed)?;
    match bytes.len() as u64 > LARGEST {
        true => Err(PlatformError::new(format!(
            "iris takes at most 1 MiB for {what}"
        ))),
        false => Ok(bytes),
    }
}

/// Runs a command with the environment of `around`. Its input is sent before it begins, and its output
/// comes when it has ended: the protocol has no streams.
async fn run(
    known: &Known,
    argv: &[String],
    around: &ServiceSpec,
    secrets: &Secrets,
    mut streams: Streams,
) -> Result<i32> {
    let env = secrets.expand_env(around);
    let env = env.map_err(|missing| PlatformError::new(missing.to_string()))?;
    let env: serde_json::Map<String, Value> = env
        .iter()
        .map(|(name, value)| (name.clone(), value.expose_secret().into()))
        .collect();
    let mut body = json!({
        "cmd": argv,
        "env": env,
        "timeout_ms": u64::try_from(COMMAND.as_millis()).unwrap_or(u64::MAX),
    });
    if let Some(dir) = &around.working_dir {
        body["dir"] = json!(dir);
    }
    // Nobody would know when a terminal has said all.
    if streams.terminal.is_none() {
        let input = all(&mut streams.stdin, "the input of a command").await?;
        body["stdin"] = String::from_utf8_lossy(&input).into();
    }
    let ran = known.plane.exec(&body, COMMAND).await?;
    write_out(ran, &mut streams).await
}

async fn write_out(ran: Ran, streams: &mut Streams) -> Result<i32> {
    let written = async {
        streams.stdout.write_all(ran.stdout.as_bytes()).await?;
        streams.stdout.flush().await?;
        streams.stderr.write_all(ran.stderr.as_bytes()).await?;
        if ran.truncated {
            streams
                .stderr
                .write_all(b"(the output was cut off)\n")
                .await?;
        }
        streams.stderr.flush().await
    };
    written.await.map_err(failed)?;
    Ok(ran.exit_code)
}
