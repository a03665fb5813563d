//! Starting a service: one process and no second one, whatever becomes of an answer.

use std::collections::BTreeMap;
use std::time::Duration;

use async_trait::async_trait;
use secrecy::SecretString;
use serde_json::json;
use tokio::time::{Instant, sleep};

use super::Miosa;
use super::command::{Marker, first_line, folder, is_cut, line, rev};
use super::ledger::{Begun, Ledger, Run, task_exit};
use super::named;
use super::services::There;
use super::wire::Process;
use crate::event::Failure;
use crate::model::{Secrets, ServiceAddress, ServiceGoal, ServiceKind, ServiceSpec, show_duration};
use crate::platforms::cloud::environment::exposed;
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

/// How many lines are searched for one that a service is ready by.
const LOOKED_AT: usize = 10_000;

/// How many lines a failed start shows.
const TAIL: usize = 10;

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
        let env = secrets.expand_env(spec)?;
        let There { ledger, own, taken } = self.there(service).await?;
        let named = self.is_named(spec);
        if named && taken {
            return Err(named::taken(service));
        }
        let is_current = own.first().is_some_and(|(from, process)| {
            *from == rev(spec) && process.named == named && self.can_go_on(process, spec)
        });
        let mut own = own.into_iter().map(|(_, process)| process);
        let current = if is_current { own.next() } else { None };
        self.remove_all(&known.id, &own.collect::<Vec<_>>()).await?;
        let (process, run) = match current {
            Some(process) => {
                let marked = Marker::of(&process).map(|marker| marker.run);
                let noted = || ledger.as_ref()?.run_of(&process).map(str::to_owned);
                let run = marked.or_else(noted).unwrap_or_default();
                if !process.is_live() {
                    let name = service.service.as_str();
                    self.api.start_service(&known.id, name).await?;
                    self.note_start(service, spec, ledger, &process, &run)
                        .await?;
                }
                (process, run)
            }
            None => {
                let over = self.over(&known.id, service, spec, ledger.as_ref()).await?;
                let (process, run) = match over {
                    Some(over) => over,
                    None => self.launch(&known.id, service, spec, &env).await?,
                };
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
        let says = process.named || Marker::of(process).is_some();
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
                named: before.named.clone().filter(|_| process.named),
                ..before
            })
        };
        // Most starts change nothing, and need not ask.
        let is_task = spec.kind == ServiceKind::Task;
        if !is_task && before.is_some() && after.clone()(before.clone()) == before {
            return Ok(());
        }
        self.write_ledger(service, after).await
    }

    /// The run of a task that was begun and is over, but whose end nobody has noted: the apply that began it
    /// was cut off.
    async fn over(
        &self,
        id: &str,
        service: &ServiceAddress,
        spec: &ServiceSpec,
        ledger: Option<&Ledger>,
    ) -> Result<Option<(Process, String)>> {
        let open = ledger.filter(|ledger| ledger.exit.is_none());
        let begun = open.and_then(|ledger| ledger.begun.as_ref());
        let Some(begun) = begun.filter(|begun| begun.rev == rev(spec)) else {
            return Ok(None);
        };
        let run = begun.run.clone();
        let marker = Marker {
            run: run.clone(),
            ..Marker::new(&self.stack, service, spec)
        };
        let ended = self.has_ended(id, service, &marker).await?;
        Ok(ended.then(|| (Process::ended(line(spec, service, &marker, "")), run)))
    }

    /// Writes down that a task is about to be run.
    async fn note_run(
        &self,
        service: &ServiceAddress,
        spec: &ServiceSpec,
        marker: &Marker,
    ) -> Result<()> {
        let begun = Begun {
            rev: marker.rev.clone(),
            run: marker.run.clone(),
        };
        let after = |before: Option<Ledger>| {
            Some(Ledger {
                begun: Some(begun),
                exit: None,
                ..before.unwrap_or_else(|| Ledger::new(spec))
            })
        };
        self.write_ledger(service, after).await
    }

    /// Starts a process, or makes a named service: where an answer was lost, its marker tells whether it is
    /// there.
    async fn launch(
        &self,
        id: &str,
        service: &ServiceAddress,
        spec: &ServiceSpec,
        env: &BTreeMap<String, SecretString>,
    ) -> Result<(Process, String)> {
        let began = Instant::now();
        let named = self.is_named(spec);
        let marker = Marker::new(&self.stack, service, spec);
        let body = match named {
            true => {
                self.note_named(service, spec, &marker).await?;
                self.named_body(service, spec, env, &marker)
            }
            false => json!({
                "command": line(spec, service, &marker, ""),
                "cwd": folder(spec),
                "env": exposed(env),
                "name": service.service,
            }),
        };
        if spec.kind == ServiceKind::Task {
            self.note_run(service, spec, &marker).await?;
        }
        let mut lost = 0;
        loop {
            let asked = match named {
                true => self.api.create_service(id, &body).await,
                false => self.api.start(id, &body).await,
            };
            let error = match asked {
                Ok(process) => return Ok((process, marker.run)),
                Err(error) => error,
            };
            // A name may be taken by what was asked for before, and has come late.
            let late = named && lost > 0 && error.is_conflict() && !is_early(&error);
            if error.may_be_done() || late {
                if let Some(process) = self.look_for(id, service, &marker, named).await? {
                    return Ok((process, marker.run));
                }
                if spec.kind == ServiceKind::Task && self.has_ended(id, service, &marker).await? {
                    let command = line(spec, service, &marker, "");
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
        named: bool,
    ) -> Result<Option<Process>> {
        let name = service.service.as_str();
        for _ in 0..LOOKS {
            let listed = match named {
                true => self.api.service(id, name).await?.into_iter().collect(),
                false => self.api.processes(id).await?,
            };
            let found = listed
                .into_iter()
                .find(|process| match Marker::of(process) {
                    Some(of_it) => of_it == *marker,
                    // Its command came back shortened: by its name.
                    None => {
                        is_cut(process)
                            && process.is_live()
                            && process.name.as_deref() == Some(name)
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
                self.miosa.end_all(self.id, processes).await?;
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
        Ok(self.now().await?.is_some_and(|it| it.is_live()))
    }

    /// What is told of it now.
    async fn now(&self) -> Result<Option<Process>> {
        let api = &self.miosa.api;
        if let ["services", name] = self.process.path() {
            return Ok(api.service(self.id, name).await?);
        }
        let listed = api.processes(self.id).await?.into_iter();
        let mut same = listed.filter(|it| it.pid == self.process.pid);
        // A number is used again.
        let first = same.next();
        Ok(same.find(Process::is_live).or(first))
    }

    /// An error with the last lines of the service's output.
    async fn with_log(&self, error: PlatformError, secrets: &Secrets) -> PlatformError {
        let logs = self
            .miosa
            .api
            .logs(self.id, self.process.path(), TAIL)
            .await;
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
        let now = self.now().await?;
        if now.as_ref().is_some_and(Process::is_live) {
            return Ok(());
        }
        let code = now.and_then(|it| it.exit_code);
        let code = code.map(|code| format!(" with {code}")).unwrap_or_default();
        Err(PlatformError::new(format!("exited{code}")))
    }

    async fn has_said(&self, text: &str) -> Result<bool> {
        let path = self.process.path();
        let lines = self.miosa.api.logs(self.id, path, LOOKED_AT).await?;
        let mut since = lines.as_slice();
        if self.process.named {
            // Its log may go on from what it said before.
            let first = first_line(self.run);
            let begun = lines.iter().rposition(|line| *line == first);
            let gone = (lines.len() >= LOOKED_AT).then_some(0);
            since = &lines[begun.or(gone).unwrap_or(lines.len())..];
        }
        Ok(since.iter().any(|line| line.contains(text)))
    }
}
