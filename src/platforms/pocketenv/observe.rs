//! What is there: one list of all sandboxes, and for each of ours its topics, repository and services, and its
//! ports, volumes and files where its definition has any.

use std::collections::BTreeMap;
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use futures_util::future::join_all;
use futures_util::try_join;
use serde_json::Value;

use super::api::age;
use super::label::{self, Label, SandboxLabel};
use super::wire::{INITIALIZING, Port, RUNNING, STOPPED, Sandbox, Service};
use super::{Inner, command, ports};
use crate::model::{
    Definition, Listing, ObservedSandbox, ObservedService, Program, Repo, SandboxName, SandboxSpec,
    SandboxState, ServiceGoal, ServiceKind, ServiceName, ServiceSpec, ServiceState,
};
use crate::platforms::{PlatformError, Result};

/// The user that a token was made for: the claim `did` of its payload.
pub(crate) fn did_of_token(token: &str) -> Option<String> {
    let payload = token.split('.').nth(1)?;
    let claims = URL_SAFE_NO_PAD.decode(payload.trim_end_matches('=')).ok()?;
    let claims: Value = serde_json::from_slice(&claims).ok()?;
    let did = claims["did"].as_str()?;
    did.starts_with("did:").then(|| did.to_owned())
}

/// A repository, of which the platform knows no more.
pub(super) fn of_url(url: String) -> Repo {
    Repo {
        url,
        reference: None,
        depth: None,
    }
}

/// A sandbox of ours.
pub(super) struct Ours {
    pub sandbox: Sandbox,
    pub label: SandboxLabel,
    /// Its description for people.
    pub text: Option<String>,
}

impl Inner {
    /// Who the user is.
    pub(super) async fn did(&self) -> Result<&str> {
        let did = self.did.get_or_try_init(|| async {
            if let Some(own) = &self.own {
                return Ok(own.clone());
            }
            let profile = self.api.profile().await.map_err(|error| {
                let internal = error.status == Some(500);
                let error = PlatformError::from(error);
                match internal {
                    // A wrong token is no 401 there.
                    true => error.hint("the token is probably not valid"),
                    false => error,
                }
            })?;
            profile.did.ok_or_else(|| {
                PlatformError::new("Pocketenv does not tell whose the token is")
                    .hint("use a token that names its user, as `pocketenv login` makes it")
            })
        });
        did.await.map(String::as_str)
    }

    /// Every sandbox of the user.
    pub(super) async fn all(&self) -> Result<Vec<Sandbox>> {
        Ok(self.api.actor_sandboxes(self.did().await?).await?)
    }

    /// Those of the stack. Of two with the same mark, the older one is meant.
    pub(super) async fn list(&self) -> Result<BTreeMap<SandboxName, Ours>> {
        let ours = self.ours(self.all().await?);
        let ids = ours
            .iter()
            .map(|(name, it)| (name.clone(), it.sandbox.id.clone()));
        *self.ids() = ids.collect();
        Ok(ours)
    }

    /// The sandboxes of the stack among these.
    pub(super) fn ours(&self, mut all: Vec<Sandbox>) -> BTreeMap<SandboxName, Ours> {
        all.sort_by(|one, other| age(one).cmp(&age(other)));
        let mut ours = BTreeMap::new();
        for sandbox in all {
            let found = label::of_sandbox(sandbox.description.as_deref());
            if let Some((text, label)) = found.filter(|(_, it)| it.mark.owner.stack == self.stack) {
                let name = label.mark.owner.sandbox.clone();
                let it = Ours {
                    sandbox,
                    label,
                    text,
                };
                ours.entry(name).or_insert(it);
            }
        }
        ours
    }

    pub(super) async fn observe_all(&self) -> Result<BTreeMap<SandboxName, Listing>> {
        let reads = self.list().await?.into_iter().map(|(name, ours)| async {
            let listing = match self.observe_one(ours).await {
                Ok(sandbox) => Listing::Known(sandbox),
                Err(error) => Listing::Unknown {
                    reason: error.to_string(),
                },
            };
            (name, listing)
        });
        Ok(join_all(reads).await.into_iter().collect())
    }

    async fn observe_one(&self, ours: Ours) -> Result<ObservedSandbox> {
        let Ours {
            sandbox,
            label,
            text,
        } = ours;
        let mark = &label.mark;
        let state = match sandbox.status.as_deref() {
            Some(RUNNING) => SandboxState::Running,
            // What is still being made is awaited by its start.
            Some(STOPPED | INITIALIZING) => SandboxState::Stopped,
            other => {
                let status = other.unwrap_or("unknown").to_lowercase();
                let text = format!("its status is `{status}`");
                return Err(PlatformError::new(text));
            }
        };
        // Lists leave out topics and repository.
        let (services, whole, spec) = try_join!(
            async { Ok::<_, PlatformError>(self.api.services(&sandbox.id).await?) },
            async { Ok(self.api.sandbox(&sandbox.id).await?) },
            self.as_attached(&sandbox.id, &label),
        )?;
        let sandbox = whole.ok_or_else(|| PlatformError::new("it is gone"))?;
        let labels = services.iter().map(label::of_service);
        let labelled: Vec<_> = services
            .iter()
            .zip(labels)
            .filter_map(|(service, found)| {
                let (text, label) = found?;
                (label.mark.owner == mark.owner).then_some((service, text, label))
            })
            .collect();
        let has_ports = |spec: &ServiceSpec| ports::exposed(spec).next().is_some();
        let wants_ports = mark.spec.vscode || labelled.iter().any(|it| has_ports(&it.2.mark.spec));
        let rows = match wants_ports {
            true => self.api.ports(&sandbox.id).await?,
            false => Vec::new(),
        };
        let mut observed = BTreeMap::new();
        for (service, text, label) in labelled {
            let name = label.mark.service.clone();
            observed.insert(name, self.service(service, text, &label, &rows, state));
        }
        let spec = self.sandbox_spec(&sandbox, spec, &mark.owner.sandbox, text, &rows);
        Ok(ObservedSandbox {
            spec: Arc::new(spec),
            state,
            spec_known: true,
            isolation: None,
            keeper_pid: None,
            supervisor_pid: None,
            services: observed,
        })
    }

    /// What a sandbox was made from, with what is otherwise now.
    fn sandbox_spec(
        &self,
        sandbox: &Sandbox,
        mut spec: SandboxSpec,
        name: &SandboxName,
        text: Option<String>,
        rows: &[Port],
    ) -> SandboxSpec {
        spec.description = text;
        if sandbox.name != self.name(name, &spec) {
            spec.name = Some(sandbox.name.clone());
        }
        spec.vscode &= rows.iter().any(|row| row.port == ports::VSCODE);
        spec.topics = sandbox.topics.clone().unwrap_or_default();
        spec.repo = sandbox.repo.clone().map(of_url);
        spec
    }

    fn service(
        &self,
        service: &Service,
        text: Option<String>,
        label: &Label,
        rows: &[Port],
        sandbox: SandboxState,
    ) -> ObservedService {
        let mark = &label.mark;
        // A task that has ended is `RUNNING` there until it is stopped.
        let running = service.is_running() && sandbox == SandboxState::Running && !label.done;
        let mut spec = mark.spec.clone();
        spec.description = text;
        let idle = !running && service.command == command::IDLE;
        if !idle && service.command != command::stored(&mark.owner, &mark.service, &mark.spec) {
            spec.program = Program::Shell {
                command: service.command.clone(),
            };
        }
        spec.ports = ports::observed(&spec, &service.name, rows);
        let definition = match service.name == mark.service.as_str() {
            true => Definition::Echo(Arc::new(spec)),
            // Renamed by hand.
            false => Definition::Unknown,
        };
        let task = mark.spec.kind == ServiceKind::Task;
        let (state, goal) = match (running, task) {
            (true, false) => (ServiceState::Running, ServiceGoal::Running),
            (true, true) => (ServiceState::Starting, ServiceGoal::Running),
            (false, true) if label.done => (ServiceState::Completed, ServiceGoal::Running),
            (false, _) => (ServiceState::Stopped, ServiceGoal::Stopped),
        };
        ObservedService {
            definition,
            state,
            goal,
            ..ObservedService::stopped(Arc::new(mark.spec.clone()))
        }
    }

    /// The service with the mark of this one, among those of a sandbox.
    pub(super) async fn service_of(
        &self,
        id: &str,
        sandbox: &SandboxName,
        name: &ServiceName,
    ) -> Result<Option<(Service, Label)>> {
        let services = self.api.services(id).await?;
        let owner = self.owner(sandbox);
        let found = label::find(&services, &owner, name);
        if found.is_none() && services.iter().any(|it| it.name == name.as_str()) {
            let text =
                format!("there is a service `{name}` in `{sandbox}` that gabion has not made");
            return Err(PlatformError::new(text).hint("rename or remove one of the two"));
        }
        Ok(found.map(|(service, label)| (service.clone(), label)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_tell_their_user() {
        let claims = URL_SAFE_NO_PAD.encode(r#"{"did":"did:plc:abc","iat":1}"#);
        let token = format!("x.{claims}.y");
        assert_eq!(did_of_token(&token).as_deref(), Some("did:plc:abc"));
        for other in ["", "plain-token", "a.b.c", "a.e30.c"] {
            assert_eq!(did_of_token(other), None, "{other}");
        }
    }
}
