//! The services of a sandbox, in the words of its supervisor.

use tokio::sync::mpsc;

use super::{EngineError, Result, Sandbox};
use crate::model::{NAME_RULE, Secrets, ServiceName, ServiceSpec};
use crate::platforms::{LogLine, LogQuery};
use crate::supervisor::{ServiceEvent, ServiceObject, Until};

/// What was there before a definition was stored.
pub struct Defined {
    /// The service as it is now.
    pub service: ServiceObject,
    /// Whether a process that ran was stopped for it.
    pub stopped: bool,
}

/// A service, whether its sandbox is up or not.
pub struct Known {
    /// Its name.
    pub name: ServiceName,
    /// Its definition.
    pub spec: ServiceSpec,
    /// Whether it was asked to run, in a sandbox that is up.
    pub wanted_up: bool,
}

/// A service's name, if it is one.
pub fn service_name(text: &str) -> Result<ServiceName> {
    ServiceName::new(text).map_err(|_| {
        EngineError::invalid(format!(
            "`{text}` cannot be the name of a service: {NAME_RULE}"
        ))
    })
}

impl Sandbox {
    /// Every service, by name.
    pub async fn services(&self) -> Result<Vec<ServiceObject>> {
        Ok(self.awake().await?.list().await?)
    }

    /// Every service by name, without bringing the sandbox up.
    pub async fn known_services(&self) -> Result<Vec<Known>> {
        let Some(client) = self.client_if_up()? else {
            return self.stored_services();
        };
        let listed = match client.list().await {
            Ok(listed) => listed,
            // It was stopped in between.
            Err(error) if error.is_unreachable() && !self.is_up() => return self.stored_services(),
            Err(error) => return Err(error.into()),
        };
        let known = listed.into_iter().filter_map(|service| {
            Some(Known {
                wanted_up: service.desired == "up",
                name: ServiceName::new(service.name).ok()?,
                spec: service.definition?,
            })
        });
        Ok(known.collect())
    }

    fn stored_services(&self) -> Result<Vec<Known>> {
        let stored = crate::supervisor::stored_services(self.dir())?.into_iter();
        let known = stored.filter_map(|(name, service)| {
            let spec = service.spec()?.as_ref().clone();
            Some(Known {
                name,
                spec,
                wanted_up: false,
            })
        });
        Ok(known.collect())
    }

    /// Held by whoever compares definitions and stores some.
    pub async fn defining(&self) -> tokio::sync::MutexGuard<'_, ()> {
        self.defining.lock().await
    }

    /// One service.
    pub async fn service(&self, name: &ServiceName) -> Result<ServiceObject> {
        Ok(self.awake().await?.get(name).await?)
    }

    /// Stores a definition, over the sandbox's variables. A live process goes on as it is.
    pub async fn define(&self, name: &ServiceName, spec: ServiceSpec) -> Result<ServiceObject> {
        self.define_with(name, spec, &Secrets::default()).await
    }

    /// [`Sandbox::define`] with the values of the secrets that it uses.
    pub async fn define_with(
        &self,
        name: &ServiceName,
        spec: ServiceSpec,
        secrets: &Secrets,
    ) -> Result<ServiceObject> {
        let client = self.awake().await?;
        let mut spec = spec;
        let mut record = self.record();
        record.merge_env(name, &mut spec);
        let defined = client.put(name, &spec, secrets).await?;
        let note = record.services.remove(name).unwrap_or_default();
        self.update(|record| record.services.insert(name.clone(), note))?;
        Ok(defined)
    }

    /// Stores a definition so that the next start uses it: a live process of another one is stopped before.
    /// `allow` sees every service of the sandbox and may refuse.
    pub async fn redefine(
        &self,
        name: &ServiceName,
        spec: ServiceSpec,
        allow: impl Fn(&[ServiceObject]) -> Result<()>,
    ) -> Result<Defined> {
        let client = self.awake().await?;
        let mut wanted = spec.clone();
        self.record().merge_env(name, &mut wanted);
        let mut stopped = false;
        loop {
            let defining = self.defining.lock().await;
            let all = client.list().await?;
            allow(&all)?;
            let before = all.iter().find(|service| service.name == name.as_str());
            let same = before.is_some_and(|it| it.definition.as_ref() == Some(&wanted));
            if same || !before.is_some_and(is_live) {
                let service = self.define(name, spec.clone()).await?;
                // Unless somebody started what was there, between the look and the definition.
                if same || !is_live(&service) {
                    return Ok(Defined { service, stopped });
                }
            }
            // Not while others wait: it may take its time. Somebody may start it again meanwhile.
            drop(defining);
            client.stop(name).await?;
            stopped = true;
        }
    }

    /// Starts a service and what it needs.
    pub async fn start_service(&self, name: &ServiceName, until: Until) -> Result<ServiceObject> {
        let none = Secrets::default();
        self.start_service_with(name, until, &none).await
    }

    /// [`Sandbox::start_service`] with the values of the secrets that it uses.
    pub async fn start_service_with(
        &self,
        name: &ServiceName,
        until: Until,
        secrets: &Secrets,
    ) -> Result<ServiceObject> {
        let client = self.awake().await?;
        Ok(client.start(name, secrets, until).await?)
    }

    /// Stops a service; answers once all its processes are gone.
    pub async fn stop_service(&self, name: &ServiceName) -> Result<ServiceObject> {
        Ok(self.awake().await?.stop(name).await?)
    }

    /// Stops and starts a service; answers once it is ready again.
    pub async fn restart_service(&self, name: &ServiceName) -> Result<ServiceObject> {
        let client = self.awake().await?;
        Ok(client.restart(name, &Secrets::default()).await?)
    }

    /// Stops and removes a service; its log stays.
    pub async fn delete_service(&self, name: &ServiceName) -> Result<()> {
        self.awake().await?.delete(name).await?;
        self.update(|record| record.services.remove(name)).map(drop)
    }

    /// Sends a signal, by its name with or without `SIG`, to a service's process group.
    pub async fn signal_service(&self, name: &ServiceName, signal: &str) -> Result<ServiceObject> {
        Ok(self.awake().await?.signal(name, signal).await?)
    }

    /// Writes to a service's standard input, and ends it after that if `eof`.
    pub async fn send_stdin(
        &self,
        name: &ServiceName,
        data: &str,
        eof: bool,
    ) -> Result<ServiceObject> {
        Ok(self.awake().await?.send_stdin(name, data, eof).await?)
    }

    /// A service's log lines, oldest first; the channel closes at the end.
    pub async fn logs(
        &self,
        name: &ServiceName,
        query: &LogQuery,
    ) -> Result<mpsc::Receiver<LogLine>> {
        Ok(self.awake().await?.logs(name, query).await?)
    }

    /// A service as soon as it has changed since its `seq` was `after`.
    pub async fn service_change(&self, name: &ServiceName, after: u64) -> Result<ServiceObject> {
        Ok(self.awake().await?.wait_change(name, after).await?)
    }

    /// Every service as it is, and then each change.
    pub async fn events(&self) -> Result<mpsc::Receiver<ServiceEvent>> {
        Ok(self.awake().await?.events().await?)
    }
}

/// Whether it has a process, or is to have one.
fn is_live(service: &ServiceObject) -> bool {
    service.pid.is_some() || service.desired == "up"
}
