//! Backups: protocol page pocketenv, §8. Each is an archive of one folder, kept beside what the sandbox has.
//!
//! What can be backed up is the workspace and what is in it: everything else that a sandbox sees may be this
//! machine's own, and a restore replaces all that is in a folder.

use std::io;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

use super::call::{Call, done, told};
use super::identity;
use super::note::{Backup, CLOUDFLARE, Note};
use super::problem::{Answer, Problem};
use crate::serve::engine::{EngineError, Program, Result, Sandbox};

/// How long one is kept, in seconds, where nothing is said about it: three days.
const KEPT: i64 = 3 * 24 * 3600;

/// The longest that may be asked for.
const LONGEST: i64 = 10 * 365 * 24 * 3600;

/// Replaces what is in a folder by what an archive has.
const RESTORE: &str = r#"mkdir -p -- "$1" && cd -- "$1" &&
find . -mindepth 1 -maxdepth 1 -exec rm -rf -- {} + && exec tar -xpof -"#;

/// Answers at once; the backup is in the list when it is made.
pub(super) async fn create(call: Call) -> Answer {
    let directory = call.input.needed_text("directory")?;
    let description = call.input.text("description")?;
    let ttl = call.input.integer("ttl", 1, LONGEST)?.unwrap_or(KEPT);
    let sandbox = call.own_by("id")?;
    if Note::of(&sandbox).provider() != CLOUDFLARE {
        return Err(Problem::invalid("Sandbox provider does not support backup"));
    }
    let folder = folder(&sandbox, &directory).ok_or_else(Problem::refused)?;
    if !sandbox.is_up() {
        return Err(Problem::refused());
    }
    let created_at = Timestamp::now();
    let backup = Backup {
        id: identity::new_id("bkp"),
        directory,
        description,
        created_at,
        expires_at: created_at + SignedDuration::from_secs(ttl),
    };
    tokio::spawn(async move {
        if let Err(error) = make(&sandbox, &folder, backup).await {
            tracing::warn!(%error, "a backup was not made");
        }
    });
    done()
}

/// The folder that is meant: relative to the workspace, and in it, even if a link leads there. `None`: it is
/// elsewhere.
fn folder(sandbox: &Sandbox, directory: &str) -> Option<PathBuf> {
    let workspace = sandbox.dir().join("workspace");
    let mut folder = PathBuf::new();
    for part in workspace.join(directory).components() {
        match part {
            Component::ParentDir => drop(folder.pop()),
            part => folder.push(part),
        }
    }
    let inside = match (folder.canonicalize(), workspace.canonicalize()) {
        (Ok(folder), Ok(workspace)) => folder.starts_with(workspace),
        _ => folder.starts_with(&workspace),
    };
    inside.then_some(folder)
}

/// Where the archive of a backup is.
fn archive(sandbox: &Sandbox, id: &str) -> PathBuf {
    sandbox.dir().join("backups").join(format!("{id}.tar"))
}

/// Runs a program in the sandbox, which may end with one of the codes up to `worst`.
async fn run(sandbox: &Arc<Sandbox>, argv: &[&str], input: Vec<u8>, worst: i32) -> Result<Vec<u8>> {
    let program = Program {
        argv: argv.iter().map(|it| (*it).to_owned()).collect(),
        ..Program::default()
    };
    let ran = sandbox.run(program, input.into()).await?;
    if ran.code > worst {
        let why = String::from_utf8_lossy(&ran.stderr).trim().to_owned();
        return Err(EngineError::invalid(format!("{}: {why}", ran.code)));
    }
    Ok(ran.stdout)
}

async fn make(sandbox: &Arc<Sandbox>, folder: &Path, backup: Backup) -> Result<()> {
    let folder = folder.to_string_lossy();
    let tar = ["tar", "-C", &folder, "-cf", "-", "."];
    // With 1, something was written to meanwhile.
    let archived = run(sandbox, &tar, Vec::new(), 1).await?;
    let path = archive(sandbox, &backup.id);
    if let Some(above) = path.parent() {
        tokio::fs::create_dir_all(above).await?;
    }
    tokio::fs::write(&path, archived).await?;
    let over = Note::change(sandbox, |note| {
        note.backups.push(backup);
        let all = std::mem::take(&mut note.backups).into_iter();
        let (kept, over) = all.partition(is_kept);
        note.backups = kept;
        over
    })?;
    remove(sandbox, over).await.map_err(EngineError::from)
}

async fn remove(sandbox: &Sandbox, over: Vec<Backup>) -> io::Result<()> {
    for backup in over {
        match tokio::fs::remove_file(archive(sandbox, &backup.id)).await {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    Ok(())
}

fn is_kept(backup: &Backup) -> bool {
    backup.expires_at > Timestamp::now()
}

fn object(backup: &Backup) -> Value {
    json!({
        "id": backup.id,
        "directory": backup.directory,
        "description": backup.description,
        "expiresAt": identity::shown(backup.expires_at),
        "createdAt": identity::shown(backup.created_at),
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
        Some((sandbox, backup))
    });
    let (sandbox, backup) = found.ok_or_else(|| Problem::not_found("Backup"))?;
    let folder = folder(sandbox, &backup.directory).ok_or_else(Problem::refused)?;
    if !sandbox.is_up() {
        return Err(Problem::refused());
    }
    let read = tokio::fs::read(archive(sandbox, &backup.id)).await;
    let archived = read.map_err(EngineError::from)?;
    let folder = folder.to_string_lossy();
    let script = ["/bin/sh", "-c", RESTORE, "restore", &folder];
    run(sandbox, &script, archived, 0).await?;
    done()
}
