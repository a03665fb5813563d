//! Storing, starting, stopping and removing services.
//!
//! The platform starts a service as it is added to a sandbox that runs. So one that is to run is added when
//! it is to be started, and not before; one that is not to run is added with a command that does nothing.

use super::api::Stored;
use super::inside::Within;
use super::label::{self, Label};
use super::surely::surely;
use super::wire::Service;
use super::{Inner, command, ports};
use crate::model::{Secrets, ServiceAddress, ServiceGoal, ServiceKind, ServiceSpec};
use crate::platforms::cloud::mark::ServiceMark;
use crate::platforms::cloud::supply::probe::Surroundings;
use crate::platforms::cloud::supply::ready;
use crate::platforms::{PlatformError, Progress, Result};

/// What a service is to be stored with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wanted {
    /// Its own command.
    Live,
    /// A command that does nothing.
    Idle,
    /// The same, because it is a task that has exited 0.
    Done,
}

impl Inner {
    pub(super) fn stored(&self, at: &ServiceAddress, spec: &ServiceSpec, wanted: Wanted) -> Stored {
        let owner = self.owner(&at.sandbox);
        let label = Label {
            mark: ServiceMark {
                owner: owner.clone(),
                service: at.service.clone(),
                spec: spec.clone(),
            },
            done: wanted == Wanted::Done,
        };
        Stored {
            name: at.service.to_string(),
            command: match wanted {
                Wanted::Live => command::stored(&owner, &at.service, spec),
                Wanted::Idle | Wanted::Done => command::IDLE.to_owned(),
            },
            description: label::write(spec.description.as_deref(), &owner, &label),
            ports: None,
        }
    }

    pub(super) async fn upsert(
        &self,
        at: &ServiceAddress,
        spec: &ServiceSpec,
        secrets: &Secrets,
    ) -> Result<()> {
        let id = self.id(&at.sandbox).await?;
        let found = self.service_of(&id, &at.sandbox, &at.service).await?;
        let uses = |label: &Label| !label.mark.spec.secrets.is_empty();
        if !spec.secrets.is_empty() || found.as_ref().is_some_and(|(_, label)| uses(label)) {
            self.settle_secrets(&id, &at.service, spec, secrets).await?;
        }
        let Some((service, label)) = found else {
            return match spec.state {
                ServiceGoal::Running => Ok(()),
                ServiceGoal::Stopped => {
                    let added = self.add(&id, at, spec, Wanted::Idle).await?;
                    self.stop_running(&id, &added.id).await
                }
            };
        };
        self.stop_ended(&id, &service, &label).await?;
        let wanted = match label.done {
            true if !label.mark.spec.needs_new_process(spec) => Wanted::Done,
            false if service.is_running() => Wanted::Live,
            _ => Wanted::Idle,
        };
        self.update(&id, &service, &self.stored(at, spec, wanted))
            .await?;
        let had_ports = ports::exposed(&label.mark.spec).next().is_some();
        if service.is_running() && (had_ports || ports::exposed(spec).next().is_some()) {
            self.settle_ports(&id, &at.service, spec).await?;
        }
        Ok(())
    }

    /// Adds a service, which starts it.
    async fn add(
        &self,
        id: &str,
        at: &ServiceAddress,
        spec: &ServiceSpec,
        wanted: Wanted,
    ) -> Result<Service> {
        let mut stored = self.stored(at, spec, wanted);
        let listed: Vec<_> = ports::exposed(spec).collect();
        stored.ports = (!listed.is_empty()).then_some(listed);
        surely(
            || self.api.add_service(id, &stored),
            // It may be stored in spite of an error, and not be started then.
            || async {
                let found = self.service_of(id, &at.sandbox, &at.service).await?;
                Ok(found.map(drop))
            },
        )
        .await?;
        let found = self.service_of(id, &at.sandbox, &at.service).await?;
        let (service, _) = found
            .ok_or_else(|| PlatformError::new(format!("`{at}` was added and is not there")))?;
        Ok(service)
    }

    /// Stores another definition, if it is another one; what runs goes on.
    pub(super) async fn update(&self, id: &str, service: &Service, stored: &Stored) -> Result<()> {
        if stored.is(service) {
            return Ok(());
        }
        surely(
            || self.api.update_service(&service.id, stored),
            || async {
                let services = self.api.services(id).await?;
                Ok(services.iter().any(|it| stored.is(it)).then_some(()))
            },
        )
        .await
    }

    /// Starts a service, and returns once it is ready; for a task, once it has exited 0.
    pub(super) async fn start_until_ready(
        &self,
        at: &ServiceAddress,
        spec: &ServiceSpec,
        secrets: &Secrets,
        progress: &dyn Progress,
    ) -> Result<()> {
        let id = self.id(&at.sandbox).await?;
        let found = self.service_of(&id, &at.sandbox, &at.service).await?;
        if let Some((service, label)) = &found {
            self.stop_ended(&id, service, label).await?;
        }
        let is_live = |(service, label): &(Service, Label)| service.is_running() && !label.done;
        let awaited = found.as_ref().is_some_and(is_live);
        let within = Within {
            inner: self,
            id: &id,
            at,
            spec,
        };
        if !awaited {
            self.bring_into_effect(&id, &at.service, spec).await?;
            if spec.kind == ServiceKind::Task {
                within.forget_exit().await?;
            }
            let service = match found {
                None => self.add(&id, at, spec, Wanted::Live).await?,
                Some((service, _)) => {
                    let stored = self.stored(at, spec, Wanted::Live);
                    self.update(&id, &service, &stored).await?;
                    service
                }
            };
            // Even what was just added may not run, if the platform has swallowed an error.
            self.run_stored(&id, &service).await?;
            if ports::exposed(spec).next().is_some() {
                self.settle_ports(&id, &at.service, spec).await?;
            }
        }
        progress.executed();
        match spec.kind {
            ServiceKind::Task => self.finish(&within, progress).await,
            ServiceKind::Service => match &spec.health {
                None => Ok(()),
                Some(health) => {
                    let around = Surroundings::default();
                    ready(&within, health, &around, secrets, progress).await
                }
            },
        }
    }

    /// Starts a service that is there, if it is stopped.
    async fn run_stored(&self, id: &str, service: &Service) -> Result<()> {
        if self.is_running(id, &service.id).await? {
            return Ok(());
        }
        surely(
            || self.api.start_service(&service.id),
            || async { Ok(self.is_running(id, &service.id).await?.then_some(())) },
        )
        .await?;
        // An error of the provider's is answered with 200.
        match self.is_running(id, &service.id).await? {
            true => Ok(()),
            false => Err(PlatformError::new("the platform has not started it")),
        }
    }

    async fn is_running(&self, id: &str, service: &str) -> Result<bool> {
        let services = self.api.services(id).await?;
        Ok(services
            .iter()
            .any(|it| it.id == service && it.is_running()))
    }

    /// Stops a service that may run.
    pub(super) async fn stop_running(&self, id: &str, service: &str) -> Result<()> {
        surely(
            || self.api.stop_service(service),
            || async { Ok((!self.is_running(id, service).await?).then_some(())) },
        )
        .await
    }

    /// Stops a task that has exited 0, but could not be stopped then: it is `RUNNING` there until it is.
    async fn stop_ended(&self, id: &str, service: &Service, label: &Label) -> Result<()> {
        match label.done && service.is_running() {
            true => self.stop_running(id, &service.id).await,
            false => Ok(()),
        }
    }

    pub(super) async fn stop_one(&self, at: &ServiceAddress) -> Result<()> {
        let Some(id) = self.find(&at.sandbox).await? else {
            return Ok(());
        };
        let found = self.service_of(&id, &at.sandbox, &at.service).await?;
        match found.filter(|(service, _)| service.is_running()) {
            Some((service, _)) => self.stop_running(&id, &service.id).await,
            None => Ok(()),
        }
    }

    pub(super) async fn delete_one(&self, at: &ServiceAddress) -> Result<()> {
        let Some(id) = self.find(&at.sandbox).await? else {
            return Ok(());
        };
        let found = self.service_of(&id, &at.sandbox, &at.service).await?;
        let Some((service, label)) = found else {
            return Ok(());
        };
        surely(
            || self.api.delete_service(&service.id),
            || async {
                let services = self.api.services(&id).await?;
                let gone = services.iter().all(|it| it.id != service.id);
                Ok(gone.then_some(()))
            },
        )
        .await?;
        let mut spec = label.mark.spec;
        if spec.secrets.is_empty() {
            return Ok(());
        }
        spec.secrets.clear();
        self.settle_secrets(&id, &at.service, &spec, &Secrets::default())
            .await
    }
}
