//! Sandboxes and their services as anybody may have made them, and how they become a stack's.

use futures_util::future::try_join_all;

use super::api::Stored;
use super::label::{self, Label};
use super::wire::{Port, RUNNING, Sandbox, Service};
use super::{Inner, command, ports, volumes};
use crate::model::{
    DesiredSandbox, Program, Repo, SandboxGoal, SandboxName, ServiceGoal, ServiceKind, ServiceSpec,
};
use crate::platforms::cloud::mark::ServiceMark;
use crate::platforms::described::{Described, is_asked_for};
use crate::platforms::{Attachment, PlatformError, Result};

impl Inner {
    pub(super) async fn describe_all(&self, wanted: Option<&str>) -> Result<Vec<Described>> {
        let all = self.all().await?.into_iter();
        let asked = all.filter(|it| is_asked_for(wanted, &it.name, &it.id));
        try_join_all(asked.map(|it| self.describe_one(it))).await
    }

    async fn describe_one(&self, listed: Sandbox) -> Result<Described> {
        let id = &listed.id;
        let gone = || PlatformError::new(format!("sandbox `{id}` is gone"));
        let sandbox = self.api.sandbox(id).await?.ok_or_else(gone)?;
        let (services, rows) = (self.api.services(id).await?, self.api.ports(id).await?);
        let marked = label::of_sandbox(sandbox.description.as_deref());
        let owner = marked.as_ref().map(|(_, mark)| mark.owner.clone());
        let mut described = Described::new(id, &sandbox.name, owner);
        let spec = &mut described.spec;
        match marked {
            Some((text, mark)) => {
                *spec = mark.spec;
                spec.description = text;
            }
            None => {
                spec.description = sandbox.description.filter(|text| !text.is_empty());
                if listed.status.as_deref() != Some(RUNNING) {
                    spec.state = SandboxGoal::Stopped;
                }
            }
        }
        spec.name = Some(sandbox.name);
        spec.topics = sandbox.topics.unwrap_or_default();
        spec.repo = sandbox.repo.map(|url| Repo {
            url,
            reference: None,
            depth: None,
        });
        spec.vscode = rows.iter().any(|row| row.port == ports::VSCODE);
        for service in &services {
            let spec = of_service(service, &rows);
            described.services.insert(service.name.clone(), spec);
        }
        let volumes = self.api.attached(id, Attachment::Volume).await?;
        let (volumes, others) = volumes::described(&volumes);
        described.spec.volumes = volumes;
        if !others.is_empty() {
            described.remarks.push(format!(
                "volumes: {}: a manifest cannot have them by these names and paths; they stay",
                others.join(", ")
            ));
        }
        for kind in [Attachment::Variable, Attachment::Secret, Attachment::File] {
            let attached = self.api.attached(id, kind).await?;
            if !attached.is_empty() {
                let names: Vec<_> = attached.iter().map(|it| it.name().to_owned()).collect();
                described.remarks.push(format!(
                    "{}: {}: Pocketenv does not tell their values; services keep them",
                    kind.plural(),
                    names.join(", ")
                ));
            }
        }
        Ok(described)
    }

    /// Marks a sandbox and its services as the stack's; nothing that runs is touched.
    pub(super) async fn take_in(
        &self,
        found: &Described,
        sandbox: &SandboxName,
        wanted: &DesiredSandbox,
    ) -> Result<()> {
        let owner = self.owner(sandbox);
        let services = self.api.services(&found.id).await?;
        for (name, spec) in &wanted.services {
            let there = services.iter().find(|it| it.name == name.as_str());
            let Some(service) = there else { continue };
            let label = Label {
                mark: ServiceMark {
                    owner: owner.clone(),
                    service: name.clone(),
                    spec: ServiceSpec::clone(spec),
                },
                done: label::of_service(service).is_some_and(|(_, before)| before.done),
            };
            let stored = Stored {
                name: service.name.clone(),
                command: match service.is_running() {
                    true => service.command.clone(),
                    // What does not run is kept as we keep it.
                    false => command::IDLE.to_owned(),
                },
                description: label::write(spec.description.as_deref(), &owner, &label),
                ports: None,
            };
            self.update(&found.id, service, &stored).await?;
        }
        // Last: what is half done is not the stack's yet.
        self.describe(&found.id, sandbox, &wanted.spec).await?;
        self.ids().insert(sandbox.clone(), found.id.clone());
        Ok(())
    }
}

fn of_service(service: &Service, rows: &[Port]) -> ServiceSpec {
    let mut spec = match label::of_service(service) {
        Some((text, label)) => ServiceSpec {
            description: text,
            ..label.mark.spec
        },
        None => {
            let command = service.command.clone();
            let mut spec = ServiceSpec::new(Program::Shell { command });
            spec.description = service.description.clone().filter(|text| !text.is_empty());
            spec
        }
    };
    let mine = rows
        .iter()
        .filter(|row| row.service() == Some(service.name.as_str()));
    spec.ports = mine
        .filter(|row| row.preview_url.is_some())
        .map(|row| row.port)
        .collect();
    if !service.is_running() && spec.kind == ServiceKind::Service {
        spec.state = ServiceGoal::Stopped;
    }
    spec
}
