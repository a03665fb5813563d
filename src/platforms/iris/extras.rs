//! What is no state: logs, commands, checkpoints, and what there is.

use std::time::Duration;

use jiff::Timestamp;
use serde_json::json;
use tokio::sync::mpsc;

use super::document::{self, Document};
use super::wire::{Ran, Stage};
use super::{Access, Iris, Known};
use crate::model::{
    Checkpoint, Forked, Program, Restored, SandboxName, Secrets, ServiceAddress, ServiceName,
    ServiceSpec,
};
use crate::platforms::cloud::environment::exposed;
use crate::platforms::cloud::transfer::collect;
use crate::platforms::{
    InventoryEntry, InventoryQuery, LogLine, LogQuery, LogStream, Observe, PlatformError, Result,
    Streams,
};

/// The most that a command may read, and the largest file (protocol page iris, §5).
pub(super) const LARGEST: u64 = 1 << 20;

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
                .map(|stream| ("stream", stream.word().to_owned())),
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
        self.only_own(query)?;
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
        ..Checkpoint::default()
    }
}

/// A line as it is served; one without a time has that of its arrival.
pub(super) fn log_line(line: &str) -> LogLine {
    LogLine::parse(line.as_bytes()).unwrap_or_else(|| LogLine {
        at: Timestamp::now(),
        stream: LogStream::Stdout,
        text: line.to_owned(),
    })
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
    let mut body = json!({
        "cmd": argv,
        "env": exposed(&secrets.expand_env(around)?),
        "timeout_ms": u64::try_from(COMMAND.as_millis()).unwrap_or(u64::MAX),
    });
    if let Some(dir) = &around.working_dir {
        body["dir"] = json!(dir);
    }
    // Nobody would know when a terminal has said all.
    if streams.terminal.is_none() {
        let input = collect(&mut streams.stdin, LARGEST, "the input of a command").await?;
        body["stdin"] = String::from_utf8_lossy(&input).into();
    }
    let ran = known.plane.exec(&body, COMMAND).await?;
    write_out(ran, &mut streams).await
}

async fn write_out(ran: Ran, streams: &mut Streams) -> Result<i32> {
    streams
        .pass_on(LogStream::Stdout, ran.stdout.as_bytes())
        .await?;
    streams
        .pass_on(LogStream::Stderr, ran.stderr.as_bytes())
        .await?;
    if ran.truncated {
        let told = b"(the output was cut off)\n";
        streams.pass_on(LogStream::Stderr, told).await?;
    }
    Ok(ran.exit_code)
}
