//! A service that is stopped and started while a client watches: protocol page sprites, §3, "Streams".

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use serde_json::json;

use super::feed::Feed;
use super::stream::{Gone, Lines};
use crate::model::{Exit, ServiceName, ServiceState};
use crate::platforms::{LogLine, LogQuery};
use crate::serve::engine::{EngineError, Sandbox};
use crate::supervisor::{ServiceObject, Until};

/// What is told as the exit code of a program that could not be executed, as shells say it.
const NOT_EXECUTED: i32 = 127;

/// Tells a client how a service gets on. What is to be done is done also when the client has gone.
pub(super) struct Watching {
    lines: Lines,
    sandbox: Arc<Sandbox>,
    name: ServiceName,
    /// What the service wrote and how it ended before is not told.
    since: Timestamp,
    /// How many lines of its output were told.
    told: usize,
    /// The end that was told last.
    end: Option<Timestamp>,
}

impl Watching {
    /// What happens from now on is told.
    pub(super) fn new(lines: Lines, sandbox: Arc<Sandbox>, name: ServiceName) -> Self {
        Self {
            lines,
            sandbox,
            name,
            since: Timestamp::now(),
            told: 0,
            end: None,
        }
    }

    /// Stops the service; kills it after `limit`, if that is shorter than what its definition says.
    pub(super) async fn stop(&mut self, limit: Option<Duration>) {
        let _ = self.lines.event("stopping", json!({})).await;
        let stopping = self.sandbox.stop_service(&self.name);
        tokio::pin!(stopping);
        let killing = async {
            tokio::time::sleep(limit.unwrap_or(Duration::MAX)).await;
            // It may be gone already.
            let _ = self.sandbox.signal_service(&self.name, "KILL").await;
            std::future::pending::<Infallible>().await
        };
        let stopped = tokio::select! {
            stopped = &mut stopping => stopped,
            never = killing => match never {},
        };
        let _ = match stopped {
            Ok(_) => {
                // That it ended is told, and not to be told as an end by itself.
                self.since = Timestamp::now();
                self.lines.event("stopped", json!({})).await
            }
            Err(error) => self.fail(&error).await,
        };
    }

    /// Starts the service and tells for `duration` what it writes and whether it ends.
    pub(super) async fn start(&mut self, duration: Duration) {
        // From before the start on, so that no end is missed.
        let events = self.sandbox.events().await;
        let started = self
            .sandbox
            .start_service(&self.name, Until::Executed)
            .await;
        // A client that has gone is not told any more.
        let _ = match events {
            Ok(events) => {
                let feed = Feed::new(events, self.name.clone());
                self.tell(started, feed, duration).await
            }
            Err(error) => self.fail(&error).await,
        };
    }

    /// The last line.
    pub(super) async fn complete(&self) {
        let file = format!("/.sprite/logs/services/{}.log", self.name);
        let files = json!({ "combined": file, "stdout": file, "stderr": file });
        let _ = self
            .lines
            .event("complete", json!({ "log_files": files }))
            .await;
    }

    async fn fail(&self, error: &EngineError) -> Result<(), Gone> {
        self.lines
            .event("error", json!({ "data": error.message }))
            .await
    }

    async fn tell(
        &mut self,
        started: Result<ServiceObject, EngineError>,
        mut feed: Feed,
        duration: Duration,
    ) -> Result<(), Gone> {
        let started = match started {
            Ok(service) => self.executed(service).await,
            Err(error) => Err(error),
        };
        match started {
            Err(error) if error.code != "start_failed" => return self.fail(&error).await,
            _ => self.lines.event("started", json!({})).await?,
        }
        let (sandbox, name) = (self.sandbox.clone(), self.name.clone());
        if let Err(error) = started {
            let service = sandbox.service(&name).await;
            // Of one that was executed and has ended, that is told below.
            if service.is_ok_and(|service| self.new_end(&service).is_none()) {
                self.fail(&error).await?;
                self.exit(NOT_EXECUTED).await?;
            }
        }
        let Ok(mut log) = sandbox.logs(&name, &self.output(true)).await else {
            return Ok(());
        };
        let over = tokio::time::sleep(duration);
        tokio::pin!(over);
        let mut heard = 0;
        loop {
            tokio::select! {
                biased;
                Some(service) = feed.next() => self.tell_end(&service, &mut feed).await?,
                Some(line) = log.recv() => {
                    heard += 1;
                    // It may be one of the next process already.
                    while let Some(service) = feed.waiting().filter(|_| heard > self.told) {
                        self.tell_end(&service, &mut feed).await?;
                    }
                    self.tell_line(heard, &line).await?;
                }
                () = &mut over => return Ok(()),
            }
        }
    }

    /// Waits while a service waits for what it needs.
    async fn executed(&self, mut service: ServiceObject) -> Result<ServiceObject, EngineError> {
        while service.pid.is_none() && service.fine_state() == ServiceState::Starting {
            service = self.sandbox.service_change(&self.name, service.seq).await?;
        }
        Ok(service)
    }

    /// Tells that the process has ended, if it has and that was not told yet, after all that it wrote.
    async fn tell_end(&mut self, service: &ServiceObject, feed: &mut Feed) -> Result<(), Gone> {
        let Some(exit) = self.new_end(service) else {
            return Ok(());
        };
        self.end = Some(exit.at);
        self.tell_rest(&exit, feed).await?;
        self.exit(exit.code).await
    }

    /// How the process has ended, if it has and that was not told yet.
    fn new_end(&self, service: &ServiceObject) -> Option<Exit> {
        let exit = service.last_exit.clone()?;
        let is_new = exit.at >= self.since && self.end.is_none_or(|end| exit.at > end);
        is_new.then_some(exit)
    }

    async fn exit(&self, code: i32) -> Result<(), Gone> {
        self.lines.event("exit", json!({ "exit_code": code })).await
    }

    fn output(&self, follow: bool) -> LogQuery {
        LogQuery {
            since: Some(self.since),
            follow,
            ..LogQuery::default()
        }
    }

    /// Tells what an ended process wrote and was not told yet: all of it is in the log.
    async fn tell_rest(&mut self, exit: &Exit, feed: &mut Feed) -> Result<(), Gone> {
        let Ok(mut log) = self.sandbox.logs(&self.name, &self.output(false)).await else {
            return Ok(());
        };
        let mut lines = Vec::new();
        while let Some(line) = log.recv().await {
            lines.push(line);
        }
        // Asked after the log was read: what the next process wrote is not taken for this one's.
        let next = match self.sandbox.service(&self.name).await {
            Ok(now) => feed.next_start(exit.at, &now).await,
            Err(_) => None,
        };
        for (number, line) in (1..).zip(&lines) {
            if next.is_some_and(|start| line.at >= start) {
                break;
            }
            self.tell_line(number, line).await?;
        }
        Ok(())
    }

    /// Tells the line with this number, counted from 1, unless it was told.
    async fn tell_line(&mut self, number: usize, line: &LogLine) -> Result<(), Gone> {
        if number > self.told {
            self.told = number;
            self.lines.output(line).await?;
        }
        Ok(())
    }
}
