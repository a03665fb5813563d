//! Starting services and running tasks: written, read again, and awaited.

use std::time::Duration;

use jiff::Timestamp;
use secrecy::SecretString;
use tokio::time::{Instant, sleep};

use super::definition::{End, Mark};
use super::exec::At;
use super::wire::{Definition, Service, Status};
use super::{SeenService, Sprites};
use crate::event::Failure;
use crate::model::{
    Health, Secrets, ServiceAddress, ServiceGoal, ServiceKind, ServiceSpec, show_duration,
};
use crate::platforms::cloud::supply::probe::{NOT_READY, Surroundings};
use crate::platforms::cloud::supply::{Asked, ready, task};
use crate::platforms::{PlatformError, Progress, Result};

/// The pauses between two looks at a service that is on its way: the first, and the longest.
const PAUSES: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(1));

/// How long one script waits for the end of a task.
const SLICE: u64 = 10;

impl Sprites {
    /// Stores a definition as far as that can be done without starting it: what is to run is written by
    /// its start.
    pub(super) async fn keep(
        &self,
        address: &ServiceAddress,
        spec: &ServiceSpec,
        secrets: &Secrets,
    ) -> Result<()> {
        let (sprite, found) = self.seen_service(address).await?;
        let mut mark = Mark::new(&self.stack, address, spec);
        if let Some(found) = &found {
            let known = found.mark.spec_of(&found.service.definition);
            let ended = found.mark.end.as_ref().filter(|end| end.code == 0);
            if spec.kind == ServiceKind::Task
                && ended.is_some()
                && !known.needs_new_process(spec)
                && spec.state == ServiceGoal::Running
            {
                // It has completed with this one as well.
                mark.run.clone_from(&found.mark.run);
                mark.end = ended.cloned();
                return self.write_stopped(&sprite, address, &mark, secrets).await;
            }
            let same_but_state = ServiceSpec {
                state: spec.state,
                ..known
            };
            if spec.state == ServiceGoal::Stopped && same_but_state == *spec {
                return Ok(());
            }
        }
        match spec.state {
            ServiceGoal::Running => Ok(()),
            ServiceGoal::Stopped => self.write_stopped(&sprite, address, &mark, secrets).await,
        }
    }

    /// Writes a definition, which starts it, and stops it.
    async fn write_stopped(
        &self,
        sprite: &str,
        address: &ServiceAddress,
        mark: &Mark,
        secrets: &Secrets,
    ) -> Result<()> {
        let definition = mark.definition(secrets)?;
        self.write(sprite, address, &definition).await?;
        self.stop(sprite, address, mark.spec().stop.grace.0).await
    }

    /// Writes a definition; fails if it is not there afterwards.
    pub(super) async fn write(
        &self,
        sprite: &str,
        address: &ServiceAddress,
        definition: &Definition,
    ) -> Result<(Service, Option<i32>)> {
        let name = address.service.as_str();
        let written = self.client.put_service(sprite, name, definition).await;
        let watched = match written {
            Ok(watched) => watched,
            Err(error) if error.may_be_done() => {
                let found = self.read(sprite, address).await?;
                return match found.filter(|it| it.definition == *definition) {
                    Some(service) => Ok((service, None)),
                    None => Err(error.into()),
                };
            }
            Err(error) => return Err(error.into()),
        };
        match self.read(sprite, address).await? {
            Some(service) => Ok((service, watched.exit)),
            None => {
                let why = watched.error;
                let why = why.unwrap_or_else(|| "it is not there after it was written".to_owned());
                Err(PlatformError::new(why))
            }
        }
    }

    /// Writes a definition and has it run in place of what was live `before`.
    async fn run_instead(
        &self,
        sprite: &str,
        address: &ServiceAddress,
        spec: &ServiceSpec,
        definition: &Definition,
        before: Option<&Service>,
    ) -> Result<(Service, Option<i32>)> {
        let (service, exit) = self.write(sprite, address, definition).await?;
        let mut service = self.settled(sprite, address, service, spec).await?;
        if let Some(before) = before
            && before.definition != *definition
            && service.process().is_some()
            && before.process() == service.process()
        {
            // Whether a PUT replaces a live process is not stated.
            self.restart(sprite, address, spec).await?;
            service = self.reread(sprite, address, spec).await?;
        }
        Ok((service, exit))
    }

    /// Starts a service and awaits it.
    pub(super) async fn start(
        &self,
        address: &ServiceAddress,
        spec: &ServiceSpec,
        secrets: &Secrets,
        progress: &dyn Progress,
    ) -> Result<()> {
        let (sprite, found) = self.seen_service(address).await?;
        let mark = Mark::new(&self.stack, address, spec);
        let definition = mark.definition(secrets)?;
        // Read again: it may have been stopped since.
        let before = match found.filter(|found| found.service.status().is_up()) {
            Some(_) => self.read(&sprite, address).await?,
            None => None,
        };
        let before = before.filter(|before| before.status().is_up());
        let started = self.run_instead(&sprite, address, spec, &definition, before.as_ref());
        let (mut service, exit) = started.await?;
        if service.status() == Status::Stopped && exit.is_none() {
            let name = address.service.as_str();
            match self.client.start_service(&sprite, name).await {
                Err(error) if !error.may_be_done() => return Err(error.into()),
                _ => service = self.reread(&sprite, address, spec).await?,
            }
        }
        if !matches!(service.status(), Status::Running | Status::Unknown) {
            return Err(self.ended(&sprite, address, Some(&service), exit).await);
        }
        progress.executed();
        let Some(health) = &spec.health else {
            return Ok(());
        };
        let at = At {
            sprites: self,
            sprite: &sprite,
            address,
            since: service.state.as_ref().and_then(|state| state.started_at),
        };
        let around = Surroundings {
            env: secrets.expand_env(spec)?,
            dir: definition.dir.clone(),
        };
        match ready(&at, health, &around, secrets, progress).await {
            Ok(()) => Ok(()),
            Err(mut error) => {
                if error.0.log_tail.is_empty() {
                    error.0.log_tail = self.tail(&sprite, &address.service, at.since).await;
                }
                Err(error.hint(format!("gabion logs {address}")))
            }
        }
    }

    /// Stops and starts; older runtimes cannot do it in one.
    async fn restart(
        &self,
        sprite: &str,
        address: &ServiceAddress,
        spec: &ServiceSpec,
    ) -> Result<()> {
        let name = address.service.as_str();
        match self.client.restart_service(sprite, name).await {
            Ok(_) => Ok(()),
            Err(error) if error.is_not_found() || error.may_be_done() => {
                self.stop(sprite, address, spec.stop.grace.0).await?;
                match self.client.start_service(sprite, name).await {
                    Err(error) if !error.may_be_done() => Err(error.into()),
                    // What came of it is read next.
                    _ => Ok(()),
                }
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Runs a task to its end, or awaits the end of one that runs.
    pub(super) async fn run_task(
        &self,
        address: &ServiceAddress,
        spec: &ServiceSpec,
        secrets: &Secrets,
        progress: &dyn Progress,
    ) -> Result<()> {
        let (sprite, found) = self.seen_service(address).await?;
        let began = Instant::now();
        // One whose end nobody has noted: an apply that was cut off has begun it.
        let begun = found.filter(|found| found.mark.end.is_none() && found.mark.spec() == spec);
        let mut mark = match begun {
            Some(found) if found.service.status().is_up() && !found.mark.noted => found.mark,
            begun => self.begin(&sprite, address, spec, begun, secrets).await?,
        };
        progress.executed();
        let code = self.exit_code(&sprite, &mark, address, began).await?;
        let log_tail = match code {
            0 => Vec::new(),
            _ => self.tail(&sprite, &address.service, None).await,
        };
        mark.end = Some(End {
            code,
            at: Timestamp::now(),
        });
        self.write_stopped(&sprite, address, &mark, secrets).await?;
        match code {
            0 => Ok(()),
            _ => Err(PlatformError(Failure {
                message: format!("exited with {code}"),
                log_tail,
                hint: Some(format!("gabion logs {address}")),
            })),
        }
    }

    /// Begins a run of a task: the one that is noted already, or a new one.
    async fn begin(
        &self,
        sprite: &str,
        address: &ServiceAddress,
        spec: &ServiceSpec,
        noted: Option<SeenService>,
        secrets: &Secrets,
    ) -> Result<Mark> {
        let mut mark = Mark::new(&self.stack, address, spec);
        let mut before = None;
        if let Some(noted) = noted {
            mark.run = noted.mark.run;
            before = Some(noted.service);
        }
        if mark.run.is_none() {
            // Noted before it is begun: if this apply is killed, the request that begins it may still be on
            // its way when the next apply looks. That one begins the same run then, which is run once.
            mark.run = Some(format!("{:016x}", fastrand::u64(..)));
            mark.noted = true;
            let definition = mark.definition(secrets)?;
            let (service, _) = self.write(sprite, address, &definition).await?;
            before = Some(self.settled(sprite, address, service, spec).await?);
            mark.noted = false;
        }
        let definition = mark.definition(secrets)?;
        let started = self.run_instead(sprite, address, spec, &definition, before.as_ref());
        let (service, exit) = started.await?;
        match service.status() {
            Status::Running | Status::Unknown => Ok(mark),
            _ => Err(self.ended(sprite, address, Some(&service), exit).await),
        }
    }

    /// Waits for the exit code of a run.
    async fn exit_code(
        &self,
        sprite: &str,
        mark: &Mark,
        address: &ServiceAddress,
        began: Instant,
    ) -> Result<i32> {
        let limit = mark.spec().timeout.map(|it| it.0);
        let mut pause = PAUSES.0;
        loop {
            let left = limit.map(|limit| limit.saturating_sub(began.elapsed()));
            let slice = left.map_or(SLICE, |left| left.as_secs().min(SLICE));
            let script = SecretString::from(task::wait_script(&mark.exit_file(), slice));
            let mut misplaced = false;
            match self.sh(sprite, &script, Duration::from_secs(slice)).await? {
                Asked::Ran(0, said) => {
                    return said.trim().parse().map_err(|_| {
                        PlatformError::new(format!("its exit code is not a number: {said}"))
                    });
                }
                Asked::Ran(NOT_READY, said) => {
                    pause = PAUSES.0;
                    misplaced = !task::has_begun(&said);
                }
                Asked::Ran(..) | Asked::NotNow(_) => {
                    sleep(pause).await;
                    pause = (pause * 2).min(PAUSES.1);
                }
            }
            let found = self.read(sprite, address).await?;
            let up = found
                .as_ref()
                .is_some_and(|it| it.status().is_up() || it.status() == Status::Unknown);
            if !up {
                return Err(self.ended(sprite, address, found.as_ref(), None).await);
            }
            let owner = &mark.mark.owner;
            let now = found.and_then(|found| Mark::of(&found, owner));
            if now.is_none_or(|now| now.run != mark.run) {
                let text = "something else has replaced it while it ran";
                return Err(PlatformError::new(text));
            }
            if let Some(limit) = limit.filter(|limit| began.elapsed() >= *limit) {
                self.stop(sprite, address, mark.spec().stop.grace.0).await?;
                let text = format!("still running after {}: stopped", show_duration(limit));
                return Err(PlatformError::new(text));
            }
            if misplaced {
                // The definition of this run, and the process of an earlier one: an apply was cut off.
                self.restart(sprite, address, mark.spec()).await?;
            }
        }
    }

    /// Stops a service; returns once it is down.
    pub(super) async fn stop(
        &self,
        sprite: &str,
        address: &ServiceAddress,
        grace: Duration,
    ) -> Result<()> {
        let name = address.service.as_str();
        match self.client.stop_service(sprite, name, grace).await {
            Ok(watched) if watched.stopped => {
                self.note_stopped(address);
                return Ok(());
            }
            // The stream ended early: it may be down all the same.
            Ok(_) => {}
            Err(error) if error.may_be_done() => {}
            Err(error) => return Err(error.into()),
        }
        let began = Instant::now();
        let mut pause = PAUSES.0;
        loop {
            let found = self.read(sprite, address).await?;
            let status = found.as_ref().map(Service::status);
            if matches!(status, None | Some(Status::Stopped)) {
                return Ok(());
            }
            if began.elapsed() > grace + PAUSES.1 * 10 {
                return Err(PlatformError::new("it was told to stop, and is still up"));
            }
            sleep(pause).await;
            pause = (pause * 2).min(PAUSES.1);
        }
    }

    /// One service as it is now.
    pub(super) async fn read(
        &self,
        sprite: &str,
        address: &ServiceAddress,
    ) -> Result<Option<Service>> {
        let found = self
            .client
            .service(sprite, address.service.as_str())
            .await?;
        self.note(address, found.as_ref());
        Ok(found)
    }

    async fn reread(
        &self,
        sprite: &str,
        address: &ServiceAddress,
        spec: &ServiceSpec,
    ) -> Result<Service> {
        let gone = || PlatformError::new("it was removed while it was started");
        let found = self.read(sprite, address).await?.ok_or_else(gone)?;
        self.settled(sprite, address, found, spec).await
    }

    /// The service once it is neither starting nor stopping, or has been so for too long.
    async fn settled(
        &self,
        sprite: &str,
        address: &ServiceAddress,
        service: Service,
        spec: &ServiceSpec,
    ) -> Result<Service> {
        let limit = spec.health.as_ref();
        let limit = limit.map_or(Health::default_timeout().0, Health::time_to_ready);
        let began = Instant::now();
        let mut pause = PAUSES.0;
        let mut service = service;
        while service.status().is_passing() && began.elapsed() < limit {
            sleep(pause).await;
            pause = (pause * 2).min(PAUSES.1);
            let gone = || PlatformError::new("it was removed while it was started");
            service = self.read(sprite, address).await?.ok_or_else(gone)?;
        }
        Ok(service)
    }

    /// The error of a service that is not up, with the last that it wrote.
    pub(super) async fn ended(
        &self,
        sprite: &str,
        address: &ServiceAddress,
        service: Option<&Service>,
        exit: Option<i32>,
    ) -> PlatformError {
        let state = service.and_then(|it| it.state.clone()).unwrap_or_default();
        let message = match (exit, state.error, service) {
            (Some(code), ..) => format!("exited with {code}"),
            (None, Some(error), _) => error,
            (None, None, None) => "it was removed".to_owned(),
            (None, None, Some(_)) => match state.status {
                Status::Stopped => "it was stopped".to_owned(),
                status => format!("it is {}", status.word()),
            },
        };
        PlatformError(Failure {
            message,
            log_tail: self.tail(sprite, &address.service, state.started_at).await,
            hint: Some(format!("gabion logs {address}")),
        })
    }
}
