//! What runs in a sandbox: definitions, starts and stops.

use std::time::Duration;

use async_trait::async_trait;
use jiff::Timestamp;
use secrecy::{ExposeSecret, SecretString};
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use super::document::{Entry, rev};
use super::extras::log_line;
use super::wire::Service;
use super::{Iris, Known};
use crate::event::Failure;
use crate::model::{
    Condition, Exit, Health, NeedTarget, Probe, Program, Secrets, ServiceAddress, ServiceGoal,
    ServiceKind, ServiceSpec, show_duration,
};
use crate::platforms::cloud::environment::exposed;
use crate::platforms::cloud::supply::probe::{NOT_READY, Surroundings};
use crate::platforms::cloud::supply::{Asked, Inside, ready, task};
use crate::platforms::{LogLine, PlatformError, Progress, Result};

/// The pauses between two looks at a service: from the first on, up to the second.
const PAUSES: [Duration; 2] = [Duration::from_millis(50), Duration::from_secs(2)];

/// How long one command waits for the end of a task, in seconds.
const SLICE: u64 = 5;

/// How many lines a failed start shows.
const TAIL: usize = 10;

/// The port that the platform itself asks at, where that is all there is to a health check.
fn health_port(spec: &ServiceSpec) -> Option<u16> {
    match &spec.health {
        Some(Health {
            probe: Probe::Tcp { port, .. },
            ..
        }) => Some(*port),
        _ => None,
    }
}

/// A definition as it is stored there (protocol page iris, §4.2).
fn definition(spec: &ServiceSpec, argv: &[String], secrets: &Secrets) -> Result<Value> {
    let needs = spec
        .needs
        .iter()
        .filter(|need| need.condition != Condition::Completed);
    let needs: Vec<_> = needs
        .filter_map(|need| match &need.target {
            NeedTarget::Local(name) => Some(name.as_str()),
            _ => None,
        })
        .collect();
    let mut body = json!({
        "cmd": argv.first(),
        "args": argv.get(1..).unwrap_or_default(),
        "env": exposed(&secrets.expand_env(spec)?),
        "needs": needs,
        "container": spec.container,
    });
    let optional = [
        (
            "working_dir",
            spec.working_dir.as_ref().map(|dir| json!(dir)),
        ),
        ("user", spec.user.as_ref().map(|user| json!(user))),
        ("health_port", health_port(spec).map(|port| json!(port))),
        ("image", spec.image.as_ref().map(|image| json!(image))),
    ];
    for (name, value) in optional {
        if let Some(value) = value {
            body[name] = value;
        }
    }
    Ok(body)
}

/// What the platform says of a definition, laid over ours: it may have been changed by hand. What it does
/// not say is as we stored it; values that secrets are part of are not compared.
pub(super) fn lay_over(spec: &ServiceSpec, live: &Service) -> ServiceSpec {
    let mut spec = spec.clone();
    // What runs a task is our own script.
    if spec.kind == ServiceKind::Service
        && let Some(cmd) = live.cmd.as_ref().filter(|cmd| !cmd.is_empty())
    {
        let mut there = vec![cmd.clone()];
        let ours = spec.program.argv();
        there.extend(live.args.clone().unwrap_or_else(|| ours[1..].to_vec()));
        if there != ours {
            let args = there.split_off(1);
            let cmd = cmd.clone();
            spec.program = Program::Exec { cmd, args };
        }
    }
    if let Some(env) = &live.env {
        let sealed = |value: &String| value.contains("${secret.");
        spec.env
            .retain(|name, value| sealed(value) || env.contains_key(name));
        for (name, value) in env {
            if spec.env.get(name).is_none_or(|ours| !sealed(ours)) {
                spec.env.insert(name.clone(), value.clone());
            }
        }
    }
    if let Some(dir) = live.working_dir.as_ref().filter(|dir| !dir.is_empty()) {
        spec.working_dir = Some(dir.into());
    }
    if let Some(user) = live.user.as_ref().filter(|user| !user.is_empty()) {
        spec.user = Some(user.clone());
    }
    spec
}

impl Iris {
    pub(super) async fn upsert(
        &self,
        service: &ServiceAddress,
        spec: &ServiceSpec,
        secrets: &Secrets,
    ) -> Result<()> {
        let known = self.get(&service.sandbox).await?;
        let name = &service.service;
        let body = definition(spec, &spec.program.argv(), secrets)?;
        let is_ours = known.marked().await?.services.contains_key(name);
        if !is_ours && known.plane.service(name).await?.is_some() {
            let text = format!("`{service}` is there, and is not of this stack");
            return Err(PlatformError::new(text).hint("give one of the two another name"));
        }
        // Noted first: what is there without a note is somebody else's.
        known
            .change(|document| {
                let entry = document.services.entry(name.clone());
                entry.or_insert_with(|| Entry::new(spec)).spec = spec.clone();
            })
            .await?;
        // What executes a task is another program for each run.
        if spec.kind == ServiceKind::Service || known.plane.service(name).await?.is_none() {
            known.plane.put(name, &body).await?;
        }
        Ok(())
    }

    pub(super) async fn run(
        &self,
        service: &ServiceAddress,
        spec: &ServiceSpec,
        secrets: &Secrets,
        progress: &dyn Progress,
    ) -> Result<()> {
        let known = self.get(&service.sandbox).await?;
        let started = Started {
            known: &known,
            service,
            secrets,
        };
        let ended = match spec.kind {
            ServiceKind::Task => started.complete(spec, progress).await,
            ServiceKind::Service => started.come_up(spec, progress).await,
        };
        match ended {
            Ok(()) => Ok(()),
            Err(error) => Err(started.with_log(error).await),
        }
    }

    pub(super) async fn halt(&self, service: &ServiceAddress) -> Result<()> {
        let Some(known) = self.find(&service.sandbox).await? else {
            return Ok(());
        };
        let name = &service.service;
        known
            .change(|document| {
                if let Some(entry) = document.services.get_mut(name) {
                    entry.goal = ServiceGoal::Stopped;
                }
            })
            .await?;
        known.plane.stop(name).await?;
        Ok(())
    }

    pub(super) async fn remove(&self, service: &ServiceAddress) -> Result<()> {
        let Some(known) = self.find(&service.sandbox).await? else {
            return Ok(());
        };
        let ours = known.marked().await?;
        if !ours.services.contains_key(&service.service) {
            return Ok(());
        }
        known.plane.stop(&service.service).await?;
        known.plane.delete(&service.service).await?;
        // Forgotten last: until then it is known whose it is.
        known
            .change(|document| drop(document.services.remove(&service.service)))
            .await
    }
}

/// A service that is being started.
struct Started<'a> {
    known: &'a Known,
    service: &'a ServiceAddress,
    secrets: &'a Secrets,
}

impl Started<'_> {
    /// Starts a service and returns once it is ready.
    async fn come_up(&self, spec: &ServiceSpec, progress: &dyn Progress) -> Result<()> {
        let name = &self.service.service;
        self.note(spec, |entry| entry.start(spec)).await?;
        self.known.plane.start(name).await?;
        self.settled().await?;
        progress.executed();
        match &spec.health {
            Some(health) if health_port(spec).is_none() => {
                let around = Surroundings {
                    env: self.secrets.expand_env(spec)?,
                    dir: spec
                        .working_dir
                        .as_ref()
                        .map(|dir| dir.display().to_string()),
                };
                ready(self, health, &around, self.secrets, progress).await
            }
            _ => Ok(()),
        }
    }

    /// Changes what is known of the service.
    async fn note(&self, spec: &ServiceSpec, note: impl FnOnce(&mut Entry)) -> Result<()> {
        let name = self.service.service.clone();
        let note = |document: &mut super::Document| {
            let entry = document.services.entry(name);
            note(entry.or_insert_with(|| Entry::new(spec)));
        };
        self.known.change(note).await
    }

    /// Waits until it runs, or does not.
    async fn settled(&self) -> Result<()> {
        let mut pause = PAUSES[0];
        loop {
            let service = self.look().await?;
            match service.status.as_str() {
                "running" => return Ok(()),
                "failed" | "stopped" => return Err(why(&service)),
                _ => {}
            }
            sleep(pause).await;
            pause = (pause * 2).min(PAUSES[1]);
        }
    }

    async fn look(&self) -> Result<Service> {
        let found = self.known.plane.service(&self.service.service).await?;
        found.ok_or_else(|| PlatformError::new("it was removed"))
    }

    /// Runs a task once, by a script that keeps its exit code.
    async fn complete(&self, spec: &ServiceSpec, progress: &dyn Progress) -> Result<()> {
        let name = &self.service.service;
        let began = Instant::now();
        let new = format!("{:x}", Timestamp::now().as_nanosecond());
        let (mut run, mut goes_on) = (String::new(), false);
        self.note(spec, |entry| (run, goes_on) = entry.run(spec, new))
            .await?;
        let file = task::exit_file(name, &run);
        let body = definition(
            spec,
            &task::argv(&file, Some(&spec.program.argv())),
            self.secrets,
        )?;
        if !goes_on {
            self.known.plane.stop(name).await?;
        }
        self.known.plane.put(name, &body).await?;
        self.known.plane.start(name).await?;
        progress.executed();
        let script = SecretString::from(task::wait_script(&file, SLICE));
        let code = loop {
            match self.sh(&script, Duration::from_secs(SLICE + 30)).await? {
                Asked::Ran(0, said) => match said.trim().parse::<i32>() {
                    Ok(code) => break code,
                    Err(_) => return Err(PlatformError::new("ended without an exit code")),
                },
                Asked::Ran(NOT_READY, said) if task::has_begun(&said) => self.alive().await?,
                Asked::Ran(NOT_READY, _) => {
                    // The process of an earlier run: an apply was cut off before it stopped that.
                    self.alive().await?;
                    self.known.plane.stop(name).await?;
                    self.known.plane.start(name).await?;
                }
                Asked::Ran(..) | Asked::NotNow(_) => sleep(PAUSES[1]).await,
            }
            if let Some(limit) = spec.timeout
                && began.elapsed() >= limit.0
            {
                self.known.plane.stop(name).await?;
                let time = show_duration(limit.0);
                return Err(PlatformError::new(format!("not completed after {time}")));
            }
        };
        self.known.plane.stop(name).await?;
        let exit = Exit {
            code,
            signal: None,
            at: Timestamp::now(),
        };
        self.note(spec, |entry| entry.exit = Some((rev(spec), exit)))
            .await?;
        match code {
            0 => Ok(()),
            code => Err(PlatformError::new(format!("exited with {code}"))),
        }
    }

    /// An error with the last lines of the service's output, where the platform tells them.
    async fn with_log(&self, error: PlatformError) -> PlatformError {
        let PlatformError(failure) = error;
        let log_tail = self.tail(TAIL).await.unwrap_or_default();
        let log_tail = log_tail
            .iter()
            .map(|line| self.secrets.conceal(&line.text))
            .collect();
        PlatformError(Failure {
            log_tail,
            ..failure
        })
    }

    /// The last lines of its output.
    async fn tail(&self, most: usize) -> Result<Vec<LogLine>> {
        let query = [("lines", most.to_string())];
        let mut lines = self.known.plane.logs(&self.service.service, &query).await?;
        let mut tail = Vec::new();
        while let Some(line) = lines.next().await? {
            tail.push(log_line(&line));
        }
        Ok(tail)
    }
}

/// Why a service does not run.
fn why(service: &Service) -> PlatformError {
    let code = service.exit_code.map(|code| format!("exited with {code}"));
    let why = service.error.clone().or(code);
    PlatformError::new(why.unwrap_or_else(|| format!("it is {}", service.status)))
}

#[async_trait]
impl Inside for Started<'_> {
    async fn sh(&self, script: &SecretString, limit: Duration) -> Result<Asked> {
        // Not an argument: it may hold secrets.
        let body = json!({
            "cmd": ["/bin/sh", "-s"],
            "stdin": script.expose_secret(),
            "timeout_ms": u64::try_from(limit.as_millis()).unwrap_or(u64::MAX),
        });
        Ok(match self.known.plane.exec(&body, limit).await {
            Ok(ran) => Asked::Ran(ran.exit_code, ran.stdout),
            Err(error) if error.is_not_found() => return Err(error.into()),
            Err(error) => Asked::NotNow(error.to_string()),
        })
    }

    async fn alive(&self) -> Result<()> {
        let service = self.look().await?;
        match service.status.as_str() {
            "failed" | "stopped" => Err(why(&service)),
            _ => Ok(()),
        }
    }

    async fn has_said(&self, text: &str) -> Result<bool> {
        let service = self.look().await?;
        if service.status != "running" {
            // All there is are the words of processes that have ended.
            return Ok(false);
        }
        let since = service.started_at;
        let lines = self.tail(10_000).await?;
        // A log goes on from one process of the service to the next.
        let mut own = lines.iter().filter(|line| Some(line.at) >= since);
        Ok(own.any(|line| line.text.contains(text)))
    }
}
