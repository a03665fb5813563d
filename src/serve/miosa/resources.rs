//! The size of a sandbox: protocol page miosa, §4. It is kept and told; here nothing is limited by it.

use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::State;
use axum::http::StatusCode;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::problem::{Answer, Problem};
use super::request::{self, Caller, Chosen};
use super::snapshots::copy_of;
use super::{Miosa, Note, PROTOCOL, Resize, identity, life, sandboxes};
use crate::serve::engine::{Account, Sandbox};

/// Processors, memory and disk (MiB) by size.
const SIZES: [(&str, u32, u32, u32); 5] = [
    ("xs", 1, 2048, 10240),
    ("small", 2, 4096, 10240),
    ("medium", 4, 8192, 20480),
    ("large", 8, 16384, 40960),
    ("xl", 16, 32768, 81920),
];

/// What one has that asks for nothing.
const SMALL: Resources = Resources {
    cpu_count: 2,
    memory_mb: 4096,
    disk_size_mb: 10240,
};

/// What a sandbox has.
#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Resources {
    pub cpu_count: u32,
    pub memory_mb: u32,
    pub disk_size_mb: u32,
}

impl Resources {
    /// Those of a size, if there is one of this name.
    pub(super) fn of_size(size: &str) -> Option<Self> {
        let (_, cpu_count, memory_mb, disk_size_mb) =
            SIZES.into_iter().find(|(name, ..)| *name == size)?;
        Some(Self {
            cpu_count,
            memory_mb,
            disk_size_mb,
        })
    }

    /// Those of a sandbox.
    pub(super) fn of(note: &Note) -> Self {
        let size = note.size.as_deref().and_then(Self::of_size);
        note.resources.or(size).unwrap_or(SMALL)
    }
}

#[derive(Deserialize)]
struct ChangeBody {
    cpu_count: Option<u32>,
    memory_mb: Option<u32>,
}

pub(super) async fn show(State(miosa): State<Miosa>, Chosen(sandbox): Chosen) -> Answer {
    let note: Note = sandbox.record().extra(PROTOCOL);
    Ok(miosa.ok(json!(Resources::of(&note))))
}

pub(super) async fn change(
    State(miosa): State<Miosa>,
    Caller(account): Caller,
    Chosen(sandbox): Chosen,
    body: Bytes,
) -> Answer {
    let body: ChangeBody = request::json(&body)?;
    let note: Note = sandbox.record().extra(PROTOCOL);
    let before = Resources::of(&note);
    let wanted = Resources {
        cpu_count: body.cpu_count.unwrap_or(before.cpu_count),
        memory_mb: body.memory_mb.unwrap_or(before.memory_mb),
        ..before
    };
    if wanted.cpu_count == 0 || wanted.memory_mb == 0 {
        return Err(Problem::invalid("a sandbox needs processors and memory"));
    }
    let way = miosa.switches().resize;
    match way {
        Resize::Live => life::note(&sandbox, |note| note.resources = Some(wanted))?,
        Resize::Restart => life::note(&sandbox, |note| note.resources_later = Some(wanted))?,
        Resize::Never => {}
        Resize::Copy | Resize::Replace => {
            return elsewhere(&miosa, &account, &sandbox, wanted, way == Resize::Replace).await;
        }
    }
    Ok(miosa.ok(json!({
        "applied_live": way == Resize::Live,
        "requires_restart": way == Resize::Restart,
        "changes": wanted,
    })))
}

/// Makes another sandbox of the size.
async fn elsewhere(
    miosa: &Miosa,
    account: &Account,
    sandbox: &Arc<Sandbox>,
    wanted: Resources,
    replace: bool,
) -> Answer {
    let record = sandbox.record();
    let note: Note = record.extra(PROTOCOL);
    let wish = copy_of(sandbox, record.name, note.metadata);
    let made = account.fork(sandbox, None, wish).await?;
    life::note(&made, |note| note.resources = Some(wanted))?;
    if replace {
        sandboxes::destroy(miosa, account, sandbox).await?;
    }
    let body = json!({
        "applied_live": false,
        "requires_restart": true,
        "new_sandbox": { "id": identity::uuid(made.id()) },
    });
    Ok(miosa.reply(StatusCode::ACCEPTED, body))
}
