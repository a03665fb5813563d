//! Making, naming, starting, stopping and removing sandboxes.

use std::collections::BTreeSet;

use tokio::time::{Instant, sleep};

use super::api::Details;
use super::ports::VSCODE;
use super::surely::surely;
use super::wire::{INITIALIZING, RUNNING, STOPPED, Sandbox};
use super::{CLOUDFLARE, Inner, PAUSES, label};
use crate::model::{SandboxName, SandboxSpec, show_duration};
use crate::platforms::cloud::mark::SandboxMark;
use crate::platforms::{PlatformError, Result};

impl Inner {
    /// What is written on a sandbox.
    fn details(&self, sandbox: &SandboxName, spec: &SandboxSpec) -> Details {
        let owner = self.owner(sandbox);
        let mark = SandboxMark {
            owner: owner.clone(),
            spec: spec.clone(),
        };
        Details {
            name: self.name(sandbox, spec),
            description: label::write(spec.description.as_deref(), &owner, &mark),
            topics: spec.topics.clone(),
            repo: spec.repo.as_ref().map(|repo| repo.url.clone()),
        }
    }

    /// Makes a sandbox and marks it. The platform chooses a name when it makes one, so until it is marked
    /// nobody can tell whose it is.
    pub(super) async fn create(&self, sandbox: &SandboxName, spec: &SandboxSpec) -> Result<()> {
        let _creating = self.creating.lock().await;
        let all = self.all().await?;
        let name = self.name(sandbox, spec);
        let before: BTreeSet<_> = all.iter().map(|it| it.id.clone()).collect();
        let taken = all.iter().any(|it| it.name == name);
        let known = self.ours(all).remove(sandbox);
        let (id, made) = match known {
            Some(ours) => (ours.sandbox.id, false),
            None if taken => return Err(name_taken(&name)),
            None => (self.make(spec, &before).await?, true),
        };
        if let Err(error) = self.describe(&id, sandbox, spec).await {
            if made {
                // Nobody else can know it yet.
                self.remove(&id).await?;
            }
            return Err(error);
        }
        self.ids().insert(sandbox.clone(), id.clone());
        self.is_made(&id).await?;
        self.attach_first(&id, spec).await?;
        if !made || spec.repo.is_some() || !spec.volumes.is_empty() {
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

    /// Gives a sandbox its name and mark.
    pub(super) async fn describe(
        &self,
        id: &str,
        sandbox: &SandboxName,
        spec: &SandboxSpec,
    ) -> Result<()> {
        let details = self.details(sandbox, spec);
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

    /// Starts a sandbox, if it does not run, and returns once it has its volumes.
    pub(super) async fn start(&self, id: &str, spec: &SandboxSpec) -> Result<()> {
        self.is_made(id).await?;
        let repo = spec.repo.as_ref().map(|repo| repo.url.as_str());
        surely(
            || self.api.start(id, repo, spec.keep_alive.is_some()),
            || self.has_status(id, RUNNING),
        )
        .await?;
        self.await_volumes(id, spec).await
    }

    pub(super) async fn stop(&self, id: &str) -> Result<()> {
        surely(|| self.api.stop(id), || self.has_status(id, STOPPED)).await
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
