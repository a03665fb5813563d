//! Sandboxes and their services as anybody may have made them, and how they become a stack's.

use std::collections::BTreeMap;

use futures_util::future::try_join_all;

use super::document::{self, Document, Entry, rev};
use super::services::lay_over;
use super::wire::{Record, Service, Stage};
use super::{Access, Iris};
use crate::model::{
    DesiredSandbox, SandboxGoal, SandboxName, ServiceGoal, ServiceKind, ServiceName, ServiceSpec,
};
use crate::platforms::cloud::mark::Owner;
use crate::platforms::described::{Described, is_asked_for, of_argv};
use crate::platforms::{Observe, PlatformError, Result};

impl Iris {
    pub(super) async fn describe_all(&self, wanted: Option<&str>) -> Result<Vec<Described>> {
        let records = self.records().await?.into_iter();
        let alive = records.filter(|record| record.stage() != Stage::Terminated);
        let asked = alive.filter(|it| is_asked_for(wanted, &it.name, &it.id));
        try_join_all(asked.map(|record| self.describe_one(record))).await
    }

    async fn records(&self) -> Result<Vec<Record>> {
        match &self.access {
            Access::Gateway(gateway) => Ok(gateway.list().await?),
            Access::Direct(_) => Err(self.cannot("list sandboxes without its gateway")),
        }
    }

    async fn describe_one(&self, record: Record) -> Result<Described> {
        let mut described = Described::new(&record.id, &record.name, None);
        described.spec.name = Some(record.name.clone());
        if record.stage() == Stage::Suspended {
            described.spec.state = SandboxGoal::Stopped;
            let remark = "services: they cannot be read while the sandbox is suspended";
            described.remarks.push(remark.to_owned());
            return Ok(described);
        }
        let plane = self.plane_of(&record, None)?;
        let document: Option<Document> = plane.value(document::KEY).await?;
        for service in plane.services().await? {
            let name = ServiceName::new(service.name.as_str()).ok();
            let entry = document.as_ref().zip(name);
            let entry = entry.and_then(|(document, name)| document.services.get(&name));
            let spec = match entry {
                Some(entry) => lay_over(&entry.spec, &service),
                None => of_service(&service),
            };
            described.services.insert(service.name, spec);
        }
        if let Some(document) = document {
            described.owner = Some(document.owner);
            described.spec = document.spec;
            described.spec.name = Some(record.name);
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
        let records = self.records().await?.into_iter();
        let gone = || PlatformError::new(format!("sandbox `{}` is gone", found.name));
        let record = records.into_iter().find(|record| record.id == found.id);
        let plane = self.plane_of(&record.ok_or_else(gone)?, None)?;
        let before: Option<Document> = plane.value(document::KEY).await?;
        let live: BTreeMap<_, _> = plane
            .services()
            .await?
            .into_iter()
            .map(|it| (it.name.clone(), it))
            .collect();
        let entries = wanted.services.iter().filter_map(|(name, spec)| {
            let mut entry = entry_of(spec, live.get(name.as_str())?);
            // A task that has ended is not run again by whoever takes it over.
            let before = before.as_ref().and_then(|it| it.services.get(name));
            entry.exit = before.and_then(|it| it.exit.clone());
            Some((name.clone(), entry))
        });
        let document = Document {
            owner: Owner {
                stack: self.stack.clone(),
                sandbox: sandbox.clone(),
            },
            spec: wanted.spec.as_ref().clone(),
            services: entries.collect(),
        };
        Ok(plane.set_value(document::KEY, &document).await?)
    }
}

/// What is kept about a service that is there as it is wanted.
fn entry_of(spec: &ServiceSpec, live: &Service) -> Entry {
    let runs = matches!(live.status.as_str(), "running" | "starting");
    Entry {
        goal: match runs {
            true => ServiceGoal::Running,
            false => ServiceGoal::Stopped,
        },
        started: runs.then(|| rev(spec)),
        ..Entry::new(spec)
    }
}

fn of_service(service: &Service) -> ServiceSpec {
    let argv: Vec<_> = service
        .cmd
        .iter()
        .chain(service.args.iter().flatten())
        .cloned()
        .collect();
    let mut spec = of_argv(&argv);
    spec.kind = ServiceKind::Service;
    spec.env = service.env.clone().unwrap_or_default();
    let text = |text: &Option<String>| text.clone().filter(|text| !text.is_empty());
    spec.working_dir = text(&service.working_dir).map(Into::into);
    spec.user = text(&service.user);
    if service.status == "stopped" {
        spec.state = ServiceGoal::Stopped;
    }
    spec
}
