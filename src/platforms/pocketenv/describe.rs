//! Sandboxes and their services as anybody may have made them, and how they become a stack's.

use futures_util::future::try_join_all;

use super::api::Stored;
use super::label::{self, Label};
use super::observe::of_url;
use super::sealed_files::FileIds;
use super::wire::{Port, RUNNING, Sandbox, Service};
use super::{Inner, command, ports, volumes};
use crate::model::{
    DesiredSandbox, Program, SandboxGoal, SandboxName, SandboxSpec, ServiceGoal, ServiceKind,
    ServiceSpec,
};
use crate::platforms::cloud::mark::ServiceMark;
use crate::platforms::described::{Described, is_asked_for};
use crate::platforms::{Attachment, PlatformError, Result};

impl Inner {
    pub(super) async fn describe_all(&self, wanted: Option<&str>) -> Result<Vec<Described>> {
        let mut all = self.all().await?;
        all.retain(|it| is_asked_for(wanted, &it.name, &it.id));
        if let (Some(wanted), true) = (wanted, all.is_empty()) {
            let found = self.api.sandbox(wanted).await?;
            let unclaimed = found.filter(is_unclaimed);
            return Ok(unclaimed.map(of_unclaimed).into_iter().collect());
        }
        try_join_all(all.into_iter().map(|it| self.describe_one(it))).await
    }

    async fn describe_one(&self, listed: Sandbox) -> Result<Described> {
        let id = &listed.id;
        let gone = || PlatformError::new(format!("sandbox `{id}` is gone"));
        let sandbox = self.api.sandbox(id).await?.ok_or_else(gone)?;
        let (services, rows) = (self.api.services(id).await?, self.api.ports(id).await?);
        let marked = label::of_sandbox(sandbox.description.as_deref());
        let owner = marked.as_ref().map(|(_, label)| label.mark.owner.clone());
        let mut described = Described::new(id, &sandbox.name, owner);
        let spec = &mut described.spec;
        *spec = match marked {
            Some((text, label)) => SandboxSpec {
                name: Some(sandbox.name),
                description: text,
                topics: sandbox.topics.unwrap_or_default(),
                repo: sandbox.repo.map(of_url),
                ..label.mark.spec
            },
            None => as_told(sandbox),
        };
        // Their contents are not told.
        for secret in std::mem::take(&mut spec.files).values() {
            spec.secrets.remove(secret);
        }
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
        if found.unclaimed {
            self.claim(&found.id).await?;
        }
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
        self.describe(&found.id, sandbox, &wanted.spec, &FileIds::new())
            .await?;
        self.ids().insert(sandbox.clone(), found.id.clone());
        Ok(())
    }
}

/// What somebody has made who is not told. An entry of the catalogue has no owner either, but a record.
fn is_unclaimed(sandbox: &Sandbox) -> bool {
    sandbox.owner.is_none() && sandbox.uri.is_none()
}

fn of_unclaimed(sandbox: Sandbox) -> Described {
    let mut described = Described::new(&sandbox.id, &sandbox.name, None);
    described.unclaimed = true;
    described.spec = as_told(sandbox);
    described.remarks.push(
        "services: Pocketenv tells them only to whoever has claimed the sandbox, as --adopt does"
            .to_owned(),
    );
    described
}

/// A sandbox without a mark, without its services.
fn as_told(sandbox: Sandbox) -> SandboxSpec {
    SandboxSpec {
        state: match sandbox.status.as_deref() {
            Some(RUNNING) => SandboxGoal::Running,
            _ => SandboxGoal::Stopped,
        },
        name: Some(sandbox.name),
        description: sandbox.description.filter(|text| !text.is_empty()),
        topics: sandbox.topics.unwrap_or_default(),
        repo: sandbox.repo.map(of_url),
        ..SandboxSpec::default()
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
