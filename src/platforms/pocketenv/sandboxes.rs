//! Making, naming, starting, stopping and removing sandboxes.

use std::collections::BTreeSet;

use futures_util::try_join;
use tokio::time::{Instant, sleep};

use super::api::Details;
use super::label::SandboxLabel;
use super::ports::VSCODE;
use super::sealed_files::FileIds;
use super::surely::surely;
use super::wire::{INITIALIZING, RUNNING, STOPPED, Sandbox, Service};
use super::{CLOUDFLARE, Inner, PAUSES, label, sealed_files};
use crate::model::{SandboxName, SandboxSpec, Secrets, show_duration};
use crate::platforms::cloud::mark::SandboxMark;
use crate::platforms::{PlatformError, Result};

impl Inner {
    /// What is written on a sandbox.
    fn details(&self, sandbox: &SandboxName, spec: &SandboxSpec, files: &FileIds) -> Details {
        let owner = self.owner(sandbox);
        let label = SandboxLabel {
            mark: SandboxMark {
                owner: owner.clone(),
                spec: spec.clone(),
            },
            files: files.clone(),
        };
        Details {
            name: self.name(sandbox, spec),
            description: label::write(spec.description.as_deref(), &owner, &label),
            topics: spec.topics.clone(),
            repo: spec.repo.as_ref().map(|repo| repo.url.clone()),
        }
    }

    /// Makes a sandbox and marks it. The platform chooses a name when it makes one, so until it is marked
    /// nobody can tell whose it is.
    pub(super) async fn create(
        &self,
        sandbox: &SandboxName,
        spec: &SandboxSpec,
        secrets: &Secrets,
    ) -> Result<()> {
        let _creating = self.creating.lock().await;
        let all = self.all().await?;
        let name = self.name(sandbox, spec);
        let before: BTreeSet<_> = all.iter().map(|it| it.id.clone()).collect();
        let taken = all.iter().any(|it| it.name == name);
        let known = self.ours(all).remove(sandbox);
        let made = known.is_none();
        let (id, is_whole) = match known {
            // Somebody else was faster.
            Some(ours) => {
                let seen = self.as_attached(&ours.sandbox.id, &ours.label).await?;
                (ours.sandbox.id, !seen.needs_restart(spec))
            }
            None if taken => return Err(name_taken(&name)),
            None => {
                let id = self.make(spec, &before).await?;
                if let Err(error) = self.describe(&id, sandbox, spec, &FileIds::new()).await {
                    // Nobody else can know it yet.
                    self.remove(&id).await?;
                    return Err(error);
                }
                (id, spec.volumes.is_empty() && spec.files.is_empty())
            }
        };
        self.ids().insert(sandbox.clone(), id.clone());
        self.is_made(&id).await?;
        if !is_whole {
            // It runs by now, without what is attached to it.
            self.stop(&id).await?;
        }
        if !is_whole || !made {
            self.redescribe(&id, sandbox, spec, secrets).await?;
        }
        if !is_whole || !made || spec.repo.is_some() {
            self.start(&id, spec).await?;
        }
        if spec.vscode {
            self.expose_editor(&id).await?;
        }
        Ok(())
    }

    /// Makes a sandbox, and returns its id. After an error, one that was not there `before` and that
    /// nobody has described is the one that was made.
    async fn make(&self, spec: &SandboxSpec, before: &BTreeSet<String>) -> Result<String> {
        let base = spec.base.as_deref().unwrap_or(&self.base);
        let keep_alive = spec.keep_alive.is_some();
        surely(
            || self.api.create(base, &self.provider, keep_alive),
            || async {
                let new = |it: &Sandbox| !before.contains(&it.id) && it.description.is_none();
                let mut new = self.all().await?.into_iter().filter(new);
                match (new.next(), new.next()) {
                    (None, _) => Ok(None),
                    (Some(one), None) => Ok(Some(one.id)),
                    (Some(_), Some(_)) => Err(PlatformError::new(
                        "it cannot be told which of several new sandboxes was made",
                    )),
                }
            },
        )
        .await
    }

    /// Gives a sandbox another name, mark and other volumes and files. What is not to be there any more is removed
    /// while the mark still says whose it is.
    pub(super) async fn redescribe(
        &self,
        id: &str,
        sandbox: &SandboxName,
        spec: &SandboxSpec,
        secrets: &Secrets,
    ) -> Result<()> {
        let found = self.api.sandbox(id).await?;
        let label = found.and_then(|it| label::of_sandbox(it.description.as_deref()));
        let label = label.map(|(_, label)| (label.mark.spec, label.files));
        let (marked, ids) = label.unwrap_or_default();
        let either = if marked.files.is_empty() {
            spec
        } else {
            &marked
        };
        let files = self.attached_files(id, either).await?;
        sealed_files::none_is_taken(&marked, spec, &files)?;
        self.detach_volumes(id, &marked.volumes, &spec.volumes)
            .await?;
        self.detach_files(id, (&marked, &ids), spec, &files).await?;
        let kept = sealed_files::kept(ids, &marked, spec, &files);
        self.describe(id, sandbox, spec, &kept).await?;
        self.attach_volumes(id, &spec.volumes).await?;
        self.attach_files(id, (sandbox, spec), &kept, &files, secrets)
            .await
    }

    /// The spec in a mark, with those of its volumes and files that are there.
    pub(super) async fn as_attached(&self, id: &str, label: &SandboxLabel) -> Result<SandboxSpec> {
        let mut spec = label.mark.spec.clone();
        let (volumes, files) = try_join!(
            self.volumes(id, &spec.volumes),
            self.attached_files(id, &spec)
        )?;
        spec.volumes = volumes;
        sealed_files::settle(&mut spec, &label.files, &files);
        Ok(spec)
    }

    /// Gives a sandbox its name and mark.
    pub(super) async fn describe(
        &self,
        id: &str,
        sandbox: &SandboxName,
        spec: &SandboxSpec,
        files: &FileIds,
    ) -> Result<()> {
        let details = self.details(sandbox, spec, files);
        let written = surely(
            || self.api.put_details(id, &details),
            || async {
                let found = self.api.sandbox(id).await?;
                let same = |it: &Sandbox| {
                    it.name == details.name
                        && it.description.as_ref() == Some(&details.description)
                        && it.topics.clone().unwrap_or_default() == details.topics
                        && it.repo == details.repo
                };
                Ok(found.filter(same).map(drop))
            },
        );
        let Err(error) = written.await else {
            return Ok(());
        };
        // A name of somebody else's is answered with no more than 500.
        let holder = self.api.sandbox(&details.name).await;
        match holder {
            Ok(Some(other)) if other.id != id => Err(name_taken(&details.name)),
            _ => Err(error),
        }
    }

    /// Makes a sandbox the user's that is nobody's.
    pub(super) async fn claim(&self, id: &str) -> Result<()> {
        let own = self.did().await?;
        surely(
            || self.api.claim(id),
            || async {
                let found = self.api.sandbox(id).await?;
                let owner = found.and_then(|it| it.owner?.did);
                Ok((owner.as_deref() == Some(own)).then_some(()))
            },
        )
        .await
    }

    /// Waits until a sandbox is made. Providers other than `cloudflare` answer before it is, and where they fail
    /// to make it, it stays as it is.
    async fn is_made(&self, id: &str) -> Result<()> {
        if self.provider == CLOUDFLARE {
            return Ok(());
        }
        let began = Instant::now();
        let mut pause = PAUSES[0];
        while self.has_status(id, INITIALIZING).await?.is_some() {
            if began.elapsed() >= self.ready_timeout {
                let (provider, time) = (&self.provider, show_duration(self.ready_timeout));
                let text = format!(
                    "`{provider}` has not brought the sandbox up: it is made and marked as this \
                     stack's, but still `{INITIALIZING}` after {time}"
                );
                return Err(PlatformError::new(text).hint(
                    "apply again to wait for it; what stays so has failed, and can be destroyed",
                ));
            }
            sleep(pause).await;
            pause = (pause * 2).min(PAUSES[1]);
        }
        Ok(())
    }

    /// Starts a sandbox, if it does not run, and returns once it has its volumes and files. What was noted as down
    /// is down again: the platform starts all.
    pub(super) async fn start(&self, id: &str, spec: &SandboxSpec) -> Result<()> {
        self.is_made(id).await?;
        let repo = spec.repo.as_ref().map(|repo| repo.url.as_str());
        surely(
            || self.api.start(id, repo, spec.keep_alive.is_some()),
            || self.has_status(id, RUNNING),
        )
        .await?;
        let down = self.down().remove(id).unwrap_or_default();
        for service in &down {
            self.stop_running(id, service).await?;
        }
        self.await_volumes(id, spec).await?;
        self.await_files(id, spec).await
    }

    pub(super) async fn stop(&self, id: &str) -> Result<()> {
        if self.provider == CLOUDFLARE {
            self.note_down(id).await?;
        }
        surely(|| self.api.stop(id), || self.has_status(id, STOPPED)).await
    }

    /// Notes which services are down, so that they are after the next start, too; returns the ids of the others.
    pub(super) async fn note_down(&self, id: &str) -> Result<Vec<String>> {
        let services = self.api.services(id).await?;
        let (up, down): (Vec<_>, Vec<_>) = services.into_iter().partition(Service::is_running);
        let ids = |services: Vec<Service>| services.into_iter().map(|it| it.id).collect();
        self.down().insert(id.to_owned(), ids(down));
        Ok(ids(up))
    }

    async fn has_status(&self, id: &str, status: &str) -> Result<Option<()>> {
        let found = self.api.sandbox(id).await?;
        let is_so = |it: &Sandbox| it.status.as_deref() == Some(status);
        Ok(found.filter(is_so).map(drop))
    }

    pub(super) async fn remove(&self, id: &str) -> Result<()> {
        surely(
            || self.api.delete(id),
            || async {
                let found = self.api.sandbox(id).await?;
                Ok(found.is_none().then_some(()))
            },
        )
        .await
    }

    /// Exposes the editor, or ends that.
    pub(super) async fn settle_editor(&self, id: &str, wanted: bool) -> Result<()> {
        let rows = self.api.ports(id).await?;
        let there = rows.iter().any(|row| row.port == VSCODE);
        match (wanted, there) {
            (true, false) => self.expose_editor(id).await.map(drop),
            (false, true) => self.unexpose_port(id, VSCODE).await,
            _ => Ok(()),
        }
    }
}

fn name_taken(name: &str) -> PlatformError {
    PlatformError::new(format!("the name `{name}` is taken on Pocketenv"))
        .hint("names are unique among all users: give the sandbox another one with `name:`")
}
