//! Services: their ledgers, and the ends of their processes.

use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::{Instant, sleep};

use super::Miosa;
use super::command::{Marker, is_cut, signal_script};
use super::ledger::{self, Ledger};
use super::named::follow;
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

    /// What there is of a service, with its ledger.
    pub(super) async fn there(&self, service: &ServiceAddress) -> Result<There> {
        let known = self.get(&service.sandbox).await?;
        let record = self.record(&known).await?;
        let ledger = ledger::service(&record, &service.service);
        let listed = match record.stage() {
            Stage::Running => self.listed_of(&known.id, service, ledger.as_ref()).await?,
            _ => Vec::new(),
        };
        let own = self.own(service, ledger.as_ref(), &listed);
        let is_named = |process: &Process| process.named;
        let taken = listed.iter().any(is_named) && !own.iter().any(|(_, it)| is_named(it));
        Ok(There { ledger, own, taken })
    }

    /// Ends these, and waits until they are gone. Named services are kept, stopped.
    pub(super) async fn end_all(&self, id: &str, processes: &[Process]) -> Result<()> {
        for process in processes {
            match process.path() {
                ["services", name] => self.api.stop_service(id, name).await?,
                _ => self.api.kill(id, process).await?,
            }
        }
        self.until_gone(id, processes, Process::is_live).await
    }

    /// As [`Miosa::end_all`]; named services are removed.
    pub(super) async fn remove_all(&self, id: &str, processes: &[Process]) -> Result<()> {
        for process in processes {
            self.api.kill(id, process).await?;
        }
        self.until_gone(id, processes, |it| it.named || it.is_live())
            .await
    }

    async fn until_gone(
        &self,
        id: &str,
        processes: &[Process],
        counts: fn(&Process) -> bool,
    ) -> Result<()> {
        let began = Instant::now();
        let mut left: Vec<_> = processes.iter().collect();
        while !left.is_empty() {
            let told = self.told_of(id, &left).await?;
            left.retain(|process| told.iter().any(|it| counts(it) && it.is_same(process)));
            let Some(process) = left.first() else { break };
            if began.elapsed() >= ENDING {
                let [_, which] = process.path();
                let what = if process.named { "service" } else { "process" };
                return Err(PlatformError::new(format!("{what} {which} does not end")));
            }
            sleep(PAUSE).await;
        }
        Ok(())
    }

    /// What is told now of these, and perhaps of others.
    async fn told_of(&self, id: &str, processes: &[&Process]) -> Result<Vec<Process>> {
        let mut told = match processes.iter().all(|it| it.named) {
            true => Vec::new(),
            false => self.api.processes(id).await?,
        };
        for named in processes.iter().filter(|it| it.named) {
            let [_, name] = named.path();
            told.extend(self.api.service(id, name).await?);
        }
        Ok(told)
    }

    /// Stops a service.
    pub(super) async fn end(&self, service: &ServiceAddress) -> Result<()> {
        let known = self.get(&service.sandbox).await?;
        let There { ledger, own, .. } = self.there(service).await?;
        let own = own.into_iter().map(|(_, process)| process);
        let live: Vec<_> = own.filter(Process::is_live).collect();
        self.end_all(&known.id, &live).await?;
        match ledger {
            Some(ledger) if ledger.goal != ServiceGoal::Stopped => {
                let stopped = |before: Option<Ledger>| {
                    let goal = ServiceGoal::Stopped;
                    before.map(|before| Ledger {
                        goal,
                        run: None,
                        begun: None,
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
        let known = self.get(&service.sandbox).await?;
        let own = self.there(service).await?.own.into_iter();
        let own: Vec<_> = own.map(|(_, process)| process).collect();
        self.remove_all(&known.id, &own).await?;
        self.write_ledger(service, |_| None).await
    }

    /// The newest process of a service.
    async fn newest(&self, service: &ServiceAddress) -> Result<(String, Process)> {
        let known = self.get(&service.sandbox).await?;
        let own = self.there(service).await?.own;
        let newest = own.into_iter().next().map(|(_, process)| process);
        let newest = newest.filter(Process::is_live);
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
        if process.named {
            let text = format!("Miosa has no route to write to `{service}`, a named service");
            return Err(PlatformError::new(text)
                .hint("with `stdin_open: true` it is a process, which may be written to"));
        }
        Ok(self.api.write(&id, &process.pid, data).await?)
    }

    /// Sends a signal by a command in the sandbox: the platform has no other way.
    pub(super) async fn send_signal(&self, service: &ServiceAddress, signal: &str) -> Result<()> {
        let name = signal.strip_prefix("SIG").unwrap_or(signal);
        if name.is_empty() || !name.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
            return Err(PlatformError::new(format!("`{signal}` is not a signal")));
        }
        let (id, process) = self.newest(service).await?;
        let noted = !process.named && Marker::of(&process).is_none() && !is_cut(&process);
        if noted {
            let text =
                format!("`{service}` was adopted as it ran, without the mark it is found by");
            return Err(PlatformError::new(text).hint("it has one once it was restarted"));
        }
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
            let text =
                "Miosa does not tell when a line was written, so none can be asked for by a time";
            return Err(PlatformError::new(text).hint("ask for the last lines with --tail"));
        }
        let (sender, receiver) = mpsc::channel(64);
        let known = self.get(&service.sandbox).await?;
        let There { ledger, own, .. } = self.there(service).await?;
        let newest = own.into_iter().next().map(|(_, process)| process);
        // One that has ended may still have a log.
        let ended = || Some(Process::numbered(ledger?.run?.pid));
        let Some(process) = newest.or_else(ended) else {
            return Ok(receiver);
        };
        if query.stream.is_some() && (process.named || !query.follow) {
            let text = "Miosa tells the streams of a log apart only while it follows a process";
            return Err(PlatformError::new(text).hint("ask without --stream"));
        }
        let api = self.api.clone();
        if !query.follow {
            let tail = query.tail.unwrap_or(LINES);
            let lines = api.logs(&known.id, process.path(), tail).await?;
            let skipped = lines.len().saturating_sub(tail);
            tokio::spawn(async move {
                for text in lines.into_iter().skip(skipped) {
                    if sender
                        .send(told_line(LogStream::Stdout, text))
                        .await
                        .is_err()
                    {
                        return;
                    }
                }
            });
            return Ok(receiver);
        }
        if process.named {
            tokio::spawn(follow(api, known.id.clone(), process, query.tail, sender));
            return Ok(receiver);
        }
        // The stream begins with the first line.
        let skipped = match query.tail {
            None => 0,
            Some(tail) => {
                let all = api.logs(&known.id, process.path(), ALL).await?;
                all.len().saturating_sub(tail)
            }
        };
        let mut events = api.stream(&known.id, &process.pid).await?;
        tokio::spawn(async move {
            let mut left_out = 0;
            while let Ok(Some(event)) = events.next_event().await {
                let Some((stream, text)) = told(&event.data) else {
                    continue;
                };
                if left_out < skipped {
                    left_out += 1;
                } else if query.stream.is_none_or(|wanted| wanted == stream)
                    && sender.send(told_line(stream, text)).await.is_err()
                {
                    return;
                }
            }
        });
        Ok(receiver)
    }
}

/// What there is of a service.
pub(super) struct There {
    pub ledger: Option<Ledger>,
    /// Its processes that run, and its named service, the newest first; each with the revision that it was
    /// started from.
    pub own: Vec<(String, Process)>,
    /// Whether somebody else has a named service with its name.
    pub taken: bool,
}

/// A line, which comes without the time at which it was written.
pub(super) fn told_line(stream: LogStream, text: String) -> LogLine {
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
