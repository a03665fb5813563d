//! Services as the platform's own named services inside a sandbox: protocol page miosa, §6, where the entry
//! says `services: named`.
//!
//! The page confirms that they are made, read and restarted by name. Lists, `start`, `stop`, `DELETE` and
//! variables are as those of its other services, so each end is seen to have come before anything goes on.
//! What a named service cannot be stays a process: a task, what is not to start again by itself, and what
//! reads its input.

use std::collections::BTreeMap;
use std::time::Duration;

use futures_util::future::{try_join, try_join_all};
use secrecy::SecretString;
use serde_json::{Value, json};
use tokio::sync::mpsc;

use super::Miosa;
use super::client::Api;
use super::command::{Marker, first_line, folder, line};
use super::ledger::{self, Begun, Ledger};
use super::services::told_line;
use super::wire::{Process, Record};
use crate::model::{
    Probe, RestartPolicy, SandboxName, ServiceAddress, ServiceGoal, ServiceKind, ServiceName,
    ServiceSpec,
};
use crate::platforms::cloud::environment::exposed;
use crate::platforms::cloud::http::HttpError;
use crate::platforms::cloud::supply::shell::exports;
use crate::platforms::{LogLine, LogStream, PlatformError, Result};

/// Between two looks at a log that is followed: there is no stream of it, and requests are counted.
const PAUSE: Duration = Duration::from_secs(2);

/// How many lines each of them sees.
const WINDOW: usize = 2000;

impl Miosa {
    /// Whether a service is kept as a named one.
    pub(super) fn is_named(&self, spec: &ServiceSpec) -> bool {
        self.options.named
            && spec.kind == ServiceKind::Service
            && spec.restart.policy != RestartPolicy::No
            && !spec.stdin_open
            && (self.options.service_env || spec.secrets.is_empty())
    }

    /// Whether what is there of a service can be what it is to be: what does not run is started as it was
    /// made, and its old output must not be taken for new.
    pub(super) fn can_go_on(&self, process: &Process, spec: &ServiceSpec) -> bool {
        process.is_live() || !says_when_ready(spec)
    }

    /// What there is in a sandbox of the stack's services. Only what its ledgers may speak of is asked for.
    pub(super) async fn listed(&self, record: &Record) -> Result<Vec<Process>, HttpError> {
        let ledgers: Vec<_> = ledger::services(record).collect();
        let made = |it: &&(_, Ledger)| it.1.named.is_some();
        let names: Vec<_> = ledgers.iter().filter(made).map(|(name, _)| name).collect();
        let processes = async {
            match self.options.named && names.len() == ledgers.len() {
                true => Ok(Vec::new()),
                false => self.api.processes(&record.id).await,
            }
        };
        let services = async {
            match self.options.lists_services {
                true if self.options.named || !names.is_empty() => {
                    self.api.services(&record.id).await
                }
                true => Ok(Vec::new()),
                false => {
                    let each = names
                        .iter()
                        .map(|it| self.api.service(&record.id, it.as_str()));
                    Ok(try_join_all(each).await?.into_iter().flatten().collect())
                }
            }
        };
        let (processes, services) = try_join(processes, services).await?;
        Ok(services.into_iter().chain(processes).collect())
    }

    /// As [`Miosa::listed`], of one service; and a named service that may be somebody else's.
    pub(super) async fn listed_of(
        &self,
        id: &str,
        service: &ServiceAddress,
        ledger: Option<&Ledger>,
    ) -> Result<Vec<Process>, HttpError> {
        let made = ledger.is_some_and(|ledger| ledger.named.is_some());
        let name = service.service.as_str();
        let processes = async {
            match self.options.named && made {
                true => Ok(Vec::new()),
                false => self.api.processes(id).await,
            }
        };
        let named = async {
            match self.options.named || made {
                true => self.api.service(id, name).await,
                false => Ok(None),
            }
        };
        let (processes, named) = try_join(processes, named).await?;
        Ok(named.into_iter().chain(processes).collect())
    }

    /// Which of these services would be named ones, and cannot be: somebody else has one of that name.
    pub(super) async fn foreign_named(
        &self,
        sandbox: &SandboxName,
        wanted: &[(&ServiceName, &ServiceSpec)],
    ) -> Result<Vec<ServiceName>> {
        let named = wanted.iter().filter(|(_, spec)| self.is_named(spec));
        let names: Vec<_> = named.map(|(name, _)| *name).collect();
        if names.is_empty() {
            return Ok(Vec::new());
        }
        let known = self.get(sandbox).await?;
        let id = &known.id;
        let there = async {
            match self.options.lists_services {
                true => self.api.services(id).await,
                false => {
                    let each = names.iter().map(|it| self.api.service(id, it.as_str()));
                    Ok(try_join_all(each).await?.into_iter().flatten().collect())
                }
            }
        };
        let record = async { self.record(&known).await };
        let there = async { Ok(there.await?) };
        let (record, there): (_, Vec<Process>) = try_join(record, there).await?;
        let foreign = names.into_iter().filter(|name| {
            let is_there = there
                .iter()
                .any(|it| it.name.as_deref() == Some(name.as_str()));
            let address = ServiceAddress::new(sandbox.clone(), (*name).clone());
            let ledger = ledger::service(&record, name);
            is_there && self.own(&address, ledger.as_ref(), &there).is_empty()
        });
        Ok(foreign.cloned().collect())
    }

    /// Writes down that a named service is about to be made: from here on what has its name is ours.
    pub(super) async fn note_named(
        &self,
        service: &ServiceAddress,
        spec: &ServiceSpec,
        marker: &Marker,
    ) -> Result<()> {
        let named = Begun {
            rev: marker.rev.clone(),
            run: marker.run.clone(),
        };
        let after = |before: Option<Ledger>| {
            Some(Ledger {
                goal: ServiceGoal::Running,
                run: None,
                named: Some(named),
                ..before.unwrap_or_else(|| Ledger::new(spec))
            })
        };
        self.write_ledger(service, after).await
    }

    /// What a named service is made of.
    pub(super) fn named_body(
        &self,
        service: &ServiceAddress,
        spec: &ServiceSpec,
        env: &BTreeMap<String, SecretString>,
        marker: &Marker,
    ) -> Value {
        let mut first = String::new();
        if !self.options.service_env {
            first += &exports(env);
        }
        if says_when_ready(spec) {
            first += &format!("echo '{}'; ", first_line(&marker.run));
        }
        let mut body = json!({
            "name": service.service,
            "command": line(spec, service, marker, &first),
            "cwd": folder(spec),
        });
        if self.options.service_env {
            body["env"] = exposed(env);
        }
        body
    }
}

/// Whether a line of its output says that a service is ready.
fn says_when_ready(spec: &ServiceSpec) -> bool {
    spec.health
        .as_ref()
        .is_some_and(|health| matches!(health.probe, Probe::Log { .. }))
}

/// That a name is taken already.
pub(super) fn taken(service: &ServiceAddress) -> PlatformError {
    let (sandbox, name) = (&service.sandbox, &service.service);
    let text = format!("`{sandbox}` has a service `{name}` already that is not of this stack");
    PlatformError::new(text).hint("give yours another name, or remove that one on Miosa")
}

/// The lines that a log has got since `before` was read; its beginning may be gone by now.
fn added<'l>(before: &[String], now: &'l [String]) -> &'l [String] {
    let known = (0..=before.len()).find(|from| now.starts_with(&before[*from..]));
    &now[before.len() - known.unwrap_or(before.len())..]
}

/// Passes on what a named service writes, from its last `tail` lines on.
pub(super) async fn follow(
    api: Api,
    id: String,
    service: Process,
    tail: Option<usize>,
    to: mpsc::Sender<LogLine>,
) {
    let mut before: Option<Vec<String>> = None;
    loop {
        // An answer that does not come is asked for again: the service goes on.
        if let Ok(now) = api.logs(&id, service.path(), WINDOW).await {
            let new = match &before {
                Some(before) => added(before, &now),
                None => &now[now.len().saturating_sub(tail.unwrap_or(WINDOW))..],
            };
            for text in new {
                let line = told_line(LogStream::Stdout, text.clone());
                if to.send(line).await.is_err() {
                    return;
                }
            }
            before = Some(now);
        }
        tokio::select! {
            () = to.closed() => return,
            () = tokio::time::sleep(PAUSE) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::added;

    #[test]
    fn what_is_new_in_a_log_is_what_follows_the_lines_that_were_there() {
        let lines = |text: &str| {
            text.split_whitespace()
                .map(str::to_owned)
                .collect::<Vec<_>>()
        };
        for (before, now, new) in [
            ("", "", ""),
            ("", "a b", "a b"),
            ("a b", "a b", ""),
            ("a b", "a b c", "c"),
            ("a b c", "b c d e", "d e"),
            ("a b", "c d", "c d"),
        ] {
            assert_eq!(
                added(&lines(before), &lines(now)),
                lines(new),
                "{before} -> {now}"
            );
        }
    }
}
