//! Backups, which are what checkpoints are here: of one folder, made some time after they were asked for,
//! and removed by the platform when their time is over (protocol page pocketenv, §8).

use std::collections::BTreeSet;
use std::time::Duration;

use jiff::Timestamp;
use tokio::time::{Instant, sleep};

use super::super::cloud::supply::shell::quote;
use super::wire::Backup;
use super::{Inner, PAUSES};
use crate::model::{Checkpoint, Restored, SandboxName};
use crate::platforms::{PlatformError, Result};

/// How long a backup may take to be in the list.
const MADE_WITHIN: Duration = Duration::from_secs(300);

/// How long one is looked for that may or may not have been asked for.
const ON_ITS_WAY: Duration = Duration::from_secs(60);

impl Inner {
    pub(super) async fn list_backups(&self, sandbox: &SandboxName) -> Result<Vec<Checkpoint>> {
        let all = self.api.backups(&self.id(sandbox).await?).await?;
        let mut all: Vec<_> = all.into_iter().map(checkpoint).collect();
        all.sort_by_key(|it| it.created_at);
        Ok(all)
    }

    /// Backs up the folder that commands run in, or the one that the platform's entry names. It is kept for
    /// this time, or as long as the platform keeps those of which nothing is said.
    pub(super) async fn back_up(
        &self,
        sandbox: &SandboxName,
        name: Option<&str>,
        time: Option<Duration>,
    ) -> Result<Checkpoint> {
        let id = self.id(sandbox).await?;
        let folder = self.backed_up_folder(&id).await?;
        let before = self.api.backups(&id).await?;
        let before: BTreeSet<_> = before.into_iter().map(|it| it.id).collect();
        let asked = self
            .api
            .create_backup(&id, &folder, name.unwrap_or_default(), time);
        let limit = match asked.await {
            Ok(()) => MADE_WITHIN,
            // Not asked for twice: it is made later, so whether one is on its way is not known at once.
            Err(error) if error.may_be_done() => ON_ITS_WAY,
            Err(error) => return Err(error.into()),
        };
        let made = self.appears(&id, &before, name, limit).await?;
        made.map(checkpoint).ok_or_else(|| {
            PlatformError::new("the backup was asked for, and is not there yet")
                .hint(format!("gabion checkpoint list {sandbox}"))
        })
    }

    /// The path of the folder that backups are of. The platform would not tell that there is none.
    async fn backed_up_folder(&self, id: &str) -> Result<String> {
        let Some(folder) = &self.backup_directory else {
            return Ok(self.api.exec(id, "pwd").await?.stdout.trim().to_owned());
        };
        let script = format!("cd -- {} >/dev/null && pwd", quote(folder));
        let ran = self.api.exec(id, &script).await?;
        match ran.exit_code {
            0 => Ok(ran.stdout.trim().to_owned()),
            _ => {
                let text = format!("there is no folder `{folder}` in the sandbox");
                Err(PlatformError::new(text)
                    .hint("`backup_directory` of the platform's entry names what is backed up"))
            }
        }
    }

    /// Waits for a backup that was not there `before`.
    async fn appears(
        &self,
        id: &str,
        before: &BTreeSet<String>,
        name: Option<&str>,
        limit: Duration,
    ) -> Result<Option<Backup>> {
        let began = Instant::now();
        let mut pause = PAUSES[0];
        loop {
            let mut all = self.api.backups(id).await?;
            let named = |it: &Backup| {
                it.description.as_deref().unwrap_or_default() == name.unwrap_or_default()
            };
            all.retain(|it| !before.contains(&it.id) && named(it));
            let newest = all.into_iter().max_by_key(|it| it.created_at);
            if newest.is_some() || began.elapsed() >= limit {
                return Ok(newest);
            }
            sleep(pause).await;
            pause = (pause * 2).min(PAUSES[1]);
        }
    }

    /// Brings the folder back. What the platform does to services meanwhile, it does not tell.
    pub(super) async fn bring_back(&self, backup: &str) -> Result<Restored> {
        let began = Instant::now();
        self.api.restore_backup(backup).await?;
        let took = began.elapsed().as_millis();
        Ok(Restored {
            restore_duration_ms: took.try_into().unwrap_or(u64::MAX),
            ..Restored::default()
        })
    }
}

/// A backup in our words; the platform tells neither its size nor what ran.
fn checkpoint(backup: Backup) -> Checkpoint {
    Checkpoint {
        id: backup.id,
        name: backup.description.filter(|it| !it.is_empty()),
        created_at: backup.created_at.unwrap_or(Timestamp::UNIX_EPOCH),
        expires_at: backup.expires_at,
        directory: backup.directory,
        ..Checkpoint::default()
    }
}
