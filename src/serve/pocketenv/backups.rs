//! Backups: protocol page pocketenv, §8. They are the engine's checkpoints, of the whole workspace.

use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

use super::call::{Call, done, told};
use super::note::{Backup, CLOUDFLARE, Note};
use super::problem::{Answer, Problem};

/// How long one is kept, in seconds, where nothing is said about it: three days.
const KEPT: i64 = 3 * 24 * 3600;

/// The longest that may be asked for.
const LONGEST: i64 = 10 * 365 * 24 * 3600;

/// Answers at once; the backup is in the list when it is made.
pub(super) async fn create(call: Call) -> Answer {
    let directory = call.input.needed_text("directory")?;
    let description = call.input.text("description")?;
    let ttl = call.input.integer("ttl", 1, LONGEST)?.unwrap_or(KEPT);
    let sandbox = call.own_by("id")?;
    if Note::of(&sandbox).provider() != CLOUDFLARE {
        return Err(Problem::invalid("Sandbox provider does not support backup"));
    }
    tokio::spawn(async move {
        let name = description.as_deref().filter(|it| !it.is_empty());
        let made = match sandbox.create_checkpoint(name).await {
            Ok(made) => made,
            Err(error) => return tracing::warn!(%error, "a backup was not made"),
        };
        let backup = Backup {
            id: format!("bkp_{:016x}", fastrand::u64(..)),
            checkpoint: made.id,
            directory,
            description,
            created_at: made.created_at,
            expires_at: made.created_at + SignedDuration::from_secs(ttl),
        };
        if let Err(error) = Note::change(&sandbox, |note| note.backups.push(backup)) {
            tracing::warn!(%error, "a backup was made and not noted");
        }
    });
    done()
}

fn is_kept(backup: &Backup) -> bool {
    backup.expires_at > Timestamp::now()
}

fn object(backup: &Backup) -> Value {
    json!({
        "id": backup.id,
        "directory": backup.directory,
        "description": backup.description,
        "expiresAt": backup.expires_at,
        "createdAt": backup.created_at,
    })
}

pub(super) async fn list(call: Call) -> Answer {
    let sandbox = call.own_by("id")?;
    let backups = Note::of(&sandbox).backups;
    let backups: Vec<_> = backups
        .iter()
        .filter(|it| is_kept(it))
        .map(object)
        .collect();
    told(json!({ "backups": backups }))
}

pub(super) async fn restore(call: Call) -> Answer {
    let id = call.input.needed_text("backupId")?;
    let sandboxes = call.user()?.sandboxes();
    let found = sandboxes.iter().find_map(|sandbox| {
        let mut backups = Note::of(sandbox).backups.into_iter();
        let backup = backups.find(|it| it.id == id && is_kept(it))?;
        Some((sandbox, backup.checkpoint))
    });
    let (sandbox, checkpoint) = found.ok_or_else(|| Problem::not_found("Backup"))?;
    sandbox.restore_checkpoint(&checkpoint).await?;
    done()
}
