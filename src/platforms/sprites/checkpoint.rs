//! Checkpoints: files only, and definitions with them (§4).

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use tokio::time::sleep;

use super::Sprites;
use super::client::Watched;
use super::definition::Mark;
use super::wire::{self, Service, Status};
use crate::model::{Checkpoint, Restored, SandboxName, Secrets, ServiceName};
use crate::platforms::{PlatformError, Result};

/// How long a sprite may take to be back after a restore (§4) or a restart.
const BACK: Duration = Duration::from_secs(120);

/// The pause between two looks at a sprite that is not back yet.
const PAUSE: Duration = Duration::from_millis(250);

impl Sprites {
    pub(super) async fn list_checkpoints(&self, sandbox: &SandboxName) -> Result<Vec<Checkpoint>> {
        let seen = self.seen(sandbox).await?;
        let mut all = self.client.checkpoints(&seen.sprite).await?;
        all.sort_by_key(|it| it.create_time);
        Ok(all.into_iter().map(|it| told(it, Vec::new())).collect())
    }

    pub(super) async fn make_checkpoint(
        &self,
        sandbox: &SandboxName,
        name: Option<&str>,
        secrets: &Secrets,
    ) -> Result<Checkpoint> {
        let hooks = self.seen(sandbox).await?.spec.checkpoint;
        if let Some(argv) = &hooks.before {
            self.run_hook(sandbox, "checkpoint.before", argv, secrets)
                .await?;
        }
        let made = self.copy(sandbox, name.unwrap_or_default()).await;
        let after = match &hooks.after {
            Some(argv) => {
                self.run_hook(sandbox, "checkpoint.after", argv, secrets)
                    .await
            }
            None => Ok(()),
        };
        let made = made?;
        after.map(|()| made)
    }

    /// Makes one and finds out which it is: the stream does not say (§4).
    async fn copy(&self, sandbox: &SandboxName, comment: &str) -> Result<Checkpoint> {
        let sprite = self.seen(sandbox).await?.sprite;
        let ids = |all: &[wire::Checkpoint]| -> BTreeSet<String> {
            all.iter().map(|it| it.id.clone()).collect()
        };
        let before = ids(&self.client.checkpoints(&sprite).await?);
        let running = self.running(sandbox, &sprite).await?;
        let written = self.client.create_checkpoint(&sprite, comment).await;
        let why = refusal(written)?;
        let mut all = self.client.checkpoints(&sprite).await?;
        all.retain(|it| !before.contains(&it.id) && it.comment.as_deref().unwrap_or("") == comment);
        let new = all.into_iter().max_by_key(|it| number(&it.id));
        new.map(|it| told(it, running.into_iter().collect()))
            .ok_or_else(|| {
                let why = why.unwrap_or_else(|| "it is not in the list afterwards".to_owned());
                PlatformError::new(format!("the checkpoint was not made: {why}"))
            })
    }

    pub(super) async fn rewind(&self, sandbox: &SandboxName, id: &str) -> Result<Restored> {
        let sprite = self.seen(sandbox).await?.sprite;
        let began = Instant::now();
        let before = self.running(sandbox, &sprite).await?;
        let written = self.client.restore_checkpoint(&sprite, id).await;
        if let Some(why) = refusal(written)? {
            return Err(PlatformError::new(format!("the restore failed: {why}")));
        }
        let services = self.back(&sprite, began).await?;
        let (ours, up) = self.ours(sandbox, &services);
        let failed = services.iter().filter(|it| it.status() == Status::Failed);
        let failed = failed.filter_map(|it| ServiceName::new(it.name.as_str()).ok());
        self.read_all().await?;
        Ok(Restored {
            restore_duration_ms: u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX),
            stopped_services: before.difference(&up).cloned().collect(),
            failed_services: failed.filter(|it| ours.contains(it)).collect(),
            started_services: up.into_iter().collect(),
        })
    }

    /// The services once a sprite is back: it answers, and nothing is on its way any more.
    pub(super) async fn back(&self, sprite: &str, began: Instant) -> Result<Vec<Service>> {
        loop {
            let late = began.elapsed() > BACK;
            match self.client.services(sprite).await {
                Ok(Some(all)) if late || !all.iter().any(|it| it.status().is_passing()) => {
                    return Ok(all);
                }
                Ok(None) if late => return Err(PlatformError::new("the sprite is gone")),
                Err(error) if late => return Err(error.into()),
                _ => sleep(PAUSE).await,
            }
        }
    }

    async fn running(&self, sandbox: &SandboxName, sprite: &str) -> Result<BTreeSet<ServiceName>> {
        let services = self.client.services(sprite).await?.unwrap_or_default();
        Ok(self.ours(sandbox, &services).1)
    }

    /// The services with our mark, and those of them that run.
    fn ours(
        &self,
        sandbox: &SandboxName,
        services: &[Service],
    ) -> (BTreeSet<ServiceName>, BTreeSet<ServiceName>) {
        let owner = self.owner(sandbox);
        let mut ours = BTreeSet::new();
        let mut up = BTreeSet::new();
        for service in services {
            let Some(mark) = Mark::of(service, &owner) else {
                continue;
            };
            if mark.end.is_none() && service.status() == Status::Running {
                up.insert(mark.mark.service.clone());
            }
            ours.insert(mark.mark.service);
        }
        (ours, up)
    }
}

/// What a stream has said went wrong. What may have been done is no error: the lists tell.
fn refusal(written: super::client::Result<Watched>) -> Result<Option<String>> {
    match written {
        Ok(watched) => Ok(watched.error),
        Err(error) if error.may_be_done() => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// `v12` → 12.
fn number(id: &str) -> u64 {
    id.trim_start_matches('v').parse().unwrap_or(0)
}

/// Neither its size nor what ran is kept with it.
fn told(checkpoint: wire::Checkpoint, running: Vec<ServiceName>) -> Checkpoint {
    Checkpoint {
        id: checkpoint.id,
        name: checkpoint.comment.filter(|it| !it.is_empty()),
        created_at: checkpoint.create_time,
        running,
        ..Checkpoint::default()
    }
}
