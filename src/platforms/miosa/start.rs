//! Starting a service: one process and no second one, whatever becomes of an answer.

use std::collections::BTreeMap;
use std::time::Duration;

use async_trait::async_trait;
use secrecy::{ExposeSecret, SecretString};
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use super::Miosa;
use super::command::{Marker, folder, line, rev};
use super::ledger::{Ledger, Run, task_exit};
use super::wire::Process;
use crate::event::Failure;
use crate::model::{Secrets, ServiceAddress, ServiceGoal, ServiceKind, ServiceSpec, show_duration};
use crate::platforms::cloud::http::HttpError;
use crate::platforms::cloud::supply::probe::{NOT_READY, Surroundings};
use crate::platforms::cloud::supply::{Asked, Inside, ready, task};
use crate::platforms::{PlatformError, Progress, Result};

/// How often a start is tried whose answer was lost and whose process is not there.
const TRIES: usize = 3;

/// How often it is looked for then, and with which pauses.
const LOOKS: usize = 4;
const PAUSE: Duration = Duration::from_millis(500);

/// How long one command waits for the end of a task, in seconds.
const SLICE: u64 = 5;

/// How many lines a failed start shows.
const TAIL: usize = 10;

/// The environment of a process, secrets put in.
pub(super) fn environment(
    spec: &ServiceSpec,
    secrets: &Secrets,
) -> Result<BTreeMap<String, SecretString>> {
    let expanded = secrets.expand_env(spec);
    expanded.map_err(|missing| PlatformError::new(missing.to_string()))
}

/// An environment as it is sent.
pub(super) fn exposed(env: &BTreeMap<String, SecretString>) -> Value {
    let pairs = env.iter();
    pairs
        .map(|(key, value)| (key.clone(), value.expose_secret().into()))
        .collect::<serde_json::Map<_, _>>()
        .into()
}

impl Miosa {
    /// Starts a service and returns once it is ready; of a task, once it has exited with 0.
    pub(super) async fn run(
        &self,
        service: &ServiceAddress,
        spec: &ServiceSpec,
        secrets: &Secrets,
        progress: &dyn Progress,
    ) -> Result<()> {
        let known = self.get(&service.sandbox).await?;
        let env = environment(spec, secrets)?;
        let (ledger, live) = self.running(service).await?;
        let wanted = rev(spec);
        let is_current = live.first().is_some_and(|(from, _)| *from == wanted);
        let old = live.iter().skip(usize::from(is_current));
        let old: Vec<_> = old.map(|(_, process)| process.clone()).collect();
        if !old.is_empty() {
            self.end_processes(&known.id, &old).await?;
        }
        let (process, run) = match live.into_iter().next().filter(|_| is_current) {
            Some((_, process)) => {
                let marked = Marker::of(&process).map(|marker| marker.run);
                let noted = || ledger.as_ref()?.run.as_ref().map(|run| run.run.clone());
                let run = marked.or_else(noted).unwrap_or_default();
                (process, run)
            }
            None => {
                let (process, run) = self.launch(&known.id, service, spec, &env).await?;
                self.note_start(service, spec, ledger, &process, &run)
                    .await?;
                (process, run)
            }
        };
        progress.executed();
        let started = Started {
            miosa: self,
            id: &known.id,
            service,
            process: &process,
            run: &run,
        };
        let settled = match spec.kind {
            ServiceKind::Task => started.completed(spec).await,
            ServiceKind::Service => {
                let around = Surroundings {
                    env,
                    dir: Some(folder(spec)).filter(|_| spec.working_dir.is_some()),
                };
                match &spec.health {
                    Some(health) => ready(&started, health, &around, secrets, progress).await,
                    None => started.alive().await,
                }
            }
        };
        if let Err(error) = settled {
            return Err(started.with_log(error, secrets).await);
        }
        if let Some(port) = spec.http_port {
            self.api.expose(&known.id, &json!({ "port": port })).await?;
        }
        Ok(())
    }

    /// Writes down that it was started, and what its process does not say itself.
    async fn note_start(
        &self,
        service: &ServiceAddress,
        spec: &ServiceSpec,
        before: Option<Ledger>,
        process: &Process,
        run: &str,
    ) -> Result<()> {
        let says = Marker::of(process).is_some();
        let run = (!says).then(|| Run {
            pid: process.pid.clone(),
            run: run.to_owned(),
            rev: rev(spec),
            started_at: process.started_at.clone(),
        });
        let after = |before: Option<Ledger>| {
            let before = before.unwrap_or_else(|| Ledger::new(spec));
            Some(Ledger {
                goal: ServiceGoal::Running,
                run,
                exit: None,
                ..before
            })
        };
        // Most starts change nothing, and need not ask.
        if before.is_some() && after.clone()(before.clone()) == before {
            return Ok(());
        }
        self.write_ledger(service, after).await
    }

    /// Starts a process: where an answer was lost, its marker tells whether it is there.
    async fn launch(
        &self,
        id: &str,
        service: &ServiceAddress,
        spec: &ServiceSpec,
        env: &BTreeMap<String, SecretString>,
    ) -> Result<(Process, String)> {
        let began = Instant::now();
        let mut lost = 0;
        loop {
            let marker = Marker::new(&self.stack, service, spec);
            let body = json!({
                "command": line(spec, service, &marker),
                "cwd": folder(spec),
                "env": exposed(env),
                "name": service.service,
            });
            let error = match self.api.start(id, &body).await {
                Ok(process) => return Ok((process, marker.run)),
                Err(error) => error,
            };
            if error.may_be_done() {
                if let Some(process) = self.look_for(id, service, &marker).await? {
                    return Ok((process, marker.run));
                }
                if spec.kind == ServiceKind::Task && self.has_ended(id, service, &marker).await? {
                    let command = line(spec, service, &marker);
                    return Ok((Process::ended(command), marker.run));
                }
                lost += 1;
                if lost >= TRIES {
                    return Err(error.into());
                }
                continue;
            }
            if !is_early(&error) || began.elapsed() >= self.options.ready_timeout {
                return Err(error.into());
            }
            // Nothing was started: it is not ready for commands yet.
            self.bring_up(id).await?;
            sleep(PAUSE).await;
        }
    }

    /// The process of a start whose answer was lost.
    async fn look_for(
        &self,
        id: &str,
        service: &ServiceAddress,
        marker: &Marker,
    ) -> Result<Option<Process>> {
        for _ in 0..LOOKS {
            let listed = self.api.processes(id).await?;
            let found = listed
                .into_iter()
                .find(|process| match Marker::of(process) {
                    Some(of_it) => of_it == *marker,
                    // Its command came back shortened: by its name.
                    None => {
                        let command = process.command.as_deref().unwrap_or_default();
                        let short = command.starts_with("env GABION") || command.is_empty();
                        short
                            && process.is_live()
                            && process.name.as_deref() == Some(service.service.as_str())
                    }
                });
            if found.is_some() {
                return Ok(found);
            }
            sleep(PAUSE).await;
        }
        Ok(None)
    }

    /// Whether the run of a task is over, whose process is not listed any more.
    async fn has_ended(&self, id: &str, service: &ServiceAddress, marker: &Marker) -> Result<bool> {
        let file = task::exit_file(&service.service, &marker.run);
        let script = task::wait_script(&file, 0).into();
        let ran = self.script(id, &script, Duration::from_secs(30)).await?;
        Ok(ran.exit_code == 0)
    }
}

fn is_early(error: &HttpError) -> bool {
    error.has_code("SANDBOX_NOT_COMMAND_READY") || error.has_code("SANDBOX_STARTING")
}

/// A service that was started.
struct Started<'a> {
    miosa: &'a Miosa,
    id: &'a str,
    service: &'a ServiceAddress,
    process: &'a Process,
    /// Which start of it.
    run: &'a str,
}

impl Started<'_> {
    /// Waits for the end of a task, and writes down how it ended.
    async fn completed(&self, spec: &ServiceSpec) -> Result<()> {
        let file = task::exit_file(&self.service.service, self.run);
        let began = Instant::now();
        let code = loop {
            let code = self.code_in(&file).await?;
            if let Some(code) = code {
                break code;
            }
            if let Some(limit) = spec.timeout
                && began.elapsed() >= limit.0
            {
                let processes = std::slice::from_ref(self.process);
                self.miosa.end_processes(self.id, processes).await?;
                let time = show_duration(limit.0);
                return Err(PlatformError::new(format!("not completed after {time}")));
            }
        };
        let exit = task_exit(spec, code);
        self.miosa
            .write_ledger(self.service, |before| {
                let before = before.unwrap_or_else(|| Ledger::new(spec));
                let exit = Some(exit);
                Some(Ledger { exit, ..before })
            })
            .await?;
        match code {
            0 => Ok(()),
            code => Err(PlatformError::new(format!("exited with {code}"))),
        }
    }

    /// The exit code in a file, once it is there. An end without one is an error.
    async fn code_in(&self, file: &str) -> Result<Option<i32>> {
        let was_alive = self.is_alive().await?;
        let wait = if was_alive { SLICE } else { 0 };
        let script = task::wait_script(file, wait);
        let limit = Duration::from_secs(wait + 30);
        match self.sh(&script.into(), limit).await? {
            Asked::Ran(0, said) => Ok(said.trim().parse().ok()),
            Asked::Ran(NOT_READY, _) if !was_alive => {
                Err(PlatformError::new("ended without an exit code"))
            }
            Asked::Ran(..) => Ok(None),
            Asked::NotNow(_) => {
                sleep(PAUSE).await;
                Ok(None)
            }
        }
    }

    async fn is_alive(&self) -> Result<bool> {
        let listed = self.miosa.api.processes(self.id).await?;
        Ok(listed
            .iter()
            .any(|it| it.is_live() && it.pid == self.process.pid))
    }

    /// An error with the last lines of the service's output.
    async fn with_log(&self, error: PlatformError, secrets: &Secrets) -> PlatformError {
        let logs = self.miosa.api.logs(self.id, &self.process.pid, TAIL).await;
        let log_tail = logs.unwrap_or_default();
        let log_tail = log_tail.iter().map(|line| secrets.conceal(line)).collect();
        let PlatformError(failure) = error;
        PlatformError(Failure {
            log_tail,
            ..failure
        })
    }
}

#[async_trait]
impl Inside for Started<'_> {
    async fn sh(&self, script: &SecretString, limit: Duration) -> Result<Asked> {
        Ok(match self.miosa.script(self.id, script, limit).await {
            Ok(ran) => Asked::Ran(ran.exit_code, ran.stdout),
            Err(error) if error.is_not_found() => return Err(error.into()),
            Err(error) => Asked::NotNow(error.to_string()),
        })
    }

    async fn alive(&self) -> Result<()> {
        if self.is_alive().await? {
            return Ok(());
        }
        let listed = self.miosa.api.processes(self.id).await?;
        let it = listed.into_iter().find(|it| it.pid == self.process.pid);
        let code = it.and_then(|it| it.exit_code);
        let code = code.map(|code| format!(" with {code}")).unwrap_or_default();
        Err(PlatformError::new(format!("exited{code}")))
    }

    async fn has_said(&self, text: &str) -> Result<bool> {
        let lines = self
            .miosa
            .api
            .logs(self.id, &self.process.pid, 10_000)
            .await?;
        Ok(lines.iter().any(|line| line.contains(text)))
    }
}
