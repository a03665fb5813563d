//! Services: their ledgers, and the ends of their processes.

use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::{Instant, sleep};

use super::Miosa;
use super::command::signal_script;
use super::ledger::{self, Ledger};
use super::wire::{Process, Stage};
use crate::model::{ServiceAddress, ServiceGoal, ServiceSpec};
use crate::platforms::{LogLine, LogQuery, LogStream, PlatformError, Result};

/// How long a process may still be listed after it was ended: the platform kills it after 5 s.
const ENDING: Duration = Duration::from_secs(30);

/// Between two looks at a list.
const PAUSE: Duration = Duration::from_millis(200);

/// How many lines are told where nothing is said about it.
const LINES: usize = 200;

/// More lines than a log has.
const ALL: usize = 100_000;

impl Miosa {
    /// Stores a definition.
    pub(super) async fn define(&self, service: &ServiceAddress, spec: &ServiceSpec) -> Result<()> {
        self.write_ledger(service, |before| {
            Some(match before {
                None => Ledger::new(spec),
                Some(before) => Ledger {
                    spec: spec.clone(),
                    goal: spec.state,
                    ..before
                },
            })
        })
        .await
    }

    /// The processes of a service that run, with its ledger.
    pub(super) async fn running(
        &self,
        service: &ServiceAddress,
    ) -> Result<(Option<Ledger>, Vec<(String, Process)>)> {
        let known = self.get(&service.sandbox).await?;
        let record = self.record(&known).await?;
        let ledger = ledger::service(&record, &service.service);
        let processes = match record.stage() {
            Stage::Running => self.api.processes(&known.id).await?,
            _ => Vec::new(),
        };
        let live = self.live(service, ledger.as_ref(), &processes);
        Ok((ledger, live))
    }

    /// Ends these processes, and waits until they are gone.
    pub(super) async fn end_processes(&self, id: &str, processes: &[Process]) -> Result<()> {
        for process in processes {
            self.api.kill(id, &process.pid).await?;
        }
        let began = Instant::now();
        loop {
            let listed = self.api.processes(id).await?;
            let is_left = |process: &&Process| {
                let same = |it: &&Process| {
                    it.is_live() && it.pid == process.pid && it.started_at == process.started_at
                };
                listed.iter().any(|it| same(&it))
            };
            let Some(left) = processes.iter().find(is_left) else {
                return Ok(());
            };
            if began.elapsed() >= ENDING {
                let text = format!("process {} does not end", left.pid);
                return Err(PlatformError::new(text));
            }
            sleep(PAUSE).await;
        }
    }

    /// Stops a service.
    pub(super) async fn end(&self, service: &ServiceAddress) -> Result<()> {
        let known = self.get(&service.sandbox).await?;
        let (ledger, live) = self.running(service).await?;
        let processes: Vec<_> = live.into_iter().map(|(_, process)| process).collect();
        if !processes.is_empty() {
            self.end_processes(&known.id, &processes).await?;
        }
        match ledger {
            Some(ledger) if ledger.goal != ServiceGoal::Stopped => {
                let stopped = |before: Option<Ledger>| {
                    let goal = ServiceGoal::Stopped;
                    before.map(|before| Ledger {
                        goal,
                        run: None,
                        ..before
                    })
                };
                self.write_ledger(service, stopped).await
            }
            _ => Ok(()),
        }
    }

    /// Stops and removes a service.
    pub(super) async fn forget(&self, service: &ServiceAddress) -> Result<()> {
        if self.find(&service.sandbox).await?.is_none() {
            return Ok(());
        }
        self.end(service).await?;
        self.write_ledger(service, |_| None).await
    }

    /// The newest process of a service.
    pub(super) async fn newest(&self, service: &ServiceAddress) -> Result<(String, Process)> {
        let known = self.get(&service.sandbox).await?;
        let (_, live) = self.running(service).await?;
        let newest = live.into_iter().next().map(|(_, process)| process);
        let newest = newest.ok_or_else(|| PlatformError::new(format!("`{service}` does not run")));
        Ok((known.id.clone(), newest?))
    }

    pub(super) async fn write_stdin(
        &self,
        service: &ServiceAddress,
        data: &str,
        eof: bool,
    ) -> Result<()> {
        if !self.options.stdin {
            let text = "Miosa has no route to write to a process";
            return Err(
                PlatformError::new(text).hint("if yours has, say `stdin: true` in `platforms:`")
            );
        }
        if eof {
            let text = "Miosa cannot end the input of a process";
            return Err(PlatformError::new(text));
        }
        let (id, process) = self.newest(service).await?;
        Ok(self.api.write(&id, &process.pid, data).await?)
    }

    /// Sends a signal by a command in the sandbox: the platform has no other way.
    pub(super) async fn send_signal(&self, service: &ServiceAddress, signal: &str) -> Result<()> {
        let name = signal.strip_prefix("SIG").unwrap_or(signal);
        if name.is_empty() || !name.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
            return Err(PlatformError::new(format!("`{signal}` is not a signal")));
        }
        let (id, _) = self.newest(service).await?;
        let script = signal_script(&self.stack, service, name);
        let ran = self
            .script(&id, &script.into(), Duration::from_secs(30))
            .await?;
        match ran.exit_code {
            0 => Ok(()),
            _ => Err(PlatformError::new(format!("`{service}` was not signalled"))),
        }
    }

    /// The last lines of a service's process, and then those to come.
    pub(super) async fn read_logs(
        &self,
        service: &ServiceAddress,
        query: LogQuery,
    ) -> Result<mpsc::Receiver<LogLine>> {
        if query.since.is_some() {
            let text = "Miosa does not keep the times of log lines";
            return Err(PlatformError::new(text).hint("ask with --tail"));
        }
        let (sender, receiver) = mpsc::channel(64);
        let (known, (ledger, live)) = (
            self.get(&service.sandbox).await?,
            self.running(service).await?,
        );
        let newest = live.into_iter().next().map(|(_, process)| process.pid);
        // One that has ended may still have a log.
        let pid = newest.or_else(|| Some(ledger?.run?.pid));
        let Some(pid) = pid else { return Ok(receiver) };
        let api = self.api.clone();
        if !query.follow {
            let tail = query.tail.unwrap_or(LINES);
            let lines = api.logs(&known.id, &pid, tail).await?;
            let skipped = lines.len().saturating_sub(tail);
            tokio::spawn(async move {
                for text in lines.into_iter().skip(skipped) {
                    if sender.send(line(LogStream::Stdout, text)).await.is_err() {
                        return;
                    }
                }
            });
            return Ok(receiver);
        }
        // The stream begins with the first line.
        let skipped = match query.tail {
            None => 0,
            Some(tail) => {
                let all = api.logs(&known.id, &pid, ALL).await?;
                all.len().saturating_sub(tail)
            }
        };
        let mut events = api.stream(&known.id, &pid).await?;
        tokio::spawn(async move {
            let mut left_out = 0;
            while let Ok(Some(event)) = events.next_event().await {
                let Some((stream, text)) = told(&event.data) else {
                    continue;
                };
                if left_out < skipped {
                    left_out += 1;
                } else if query.stream.is_none_or(|wanted| wanted == stream)
                    && sender.send(line(stream, text)).await.is_err()
                {
                    return;
                }
            }
        });
        Ok(receiver)
    }
}

fn line(stream: LogStream, text: String) -> LogLine {
    let at = jiff::Timestamp::now();
    LogLine { at, stream, text }
}

/// `{"stream":"stdout","line":"…"}`
fn told(data: &str) -> Option<(LogStream, String)> {
    let data: serde_json::Value = serde_json::from_str(data).ok()?;
    let stream = match data["stream"].as_str() {
        Some("stderr") => LogStream::Stderr,
        _ => LogStream::Stdout,
    };
    Some((stream, data["line"].as_str()?.to_owned()))
}
