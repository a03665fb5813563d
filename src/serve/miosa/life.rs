//! Stop, pause, resume and what a sandbox tells of itself meanwhile: protocol page miosa, §3 and §4.

use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::State;
use jiff::Timestamp;
use serde::Deserialize;
use serde_json::json;

use super::problem::{Answer, Problem};
use super::request::{self, Caller, Chosen};
use super::{Miosa, Note, PROTOCOL, identity, processes, sandboxes};
use crate::serve::engine::{Account, Sandbox};

/// What has to be ready before a sandbox runs commands.
const COMPONENTS: [&str; 8] = [
    "command_agent",
    "process_control",
    "resource_contract",
    "clock",
    "identity",
    "durability",
    "filesystem",
    "internal_probe",
];

#[derive(Deserialize)]
struct ExtendBody {
    timeout_sec: Option<u64>,
}

/// The word for what a sandbox is doing.
pub(super) fn state(note: &Note, sandbox: &Sandbox, miosa: &Miosa) -> &'static str {
    match sandbox.is_up() {
        _ if note.paused => "paused",
        true if note.provisioning > 0 => "provisioning",
        true => "running",
        false if miosa.switches().stopped => "stopped",
        false => "paused",
    }
}

/// Changes what is kept about a sandbox.
pub(super) fn note<T>(sandbox: &Sandbox, change: impl FnOnce(&mut Note) -> T) -> Answer<T> {
    Ok(sandbox.update(|record| {
        let mut note: Note = record.extra(PROTOCOL);
        let told = change(&mut note);
        record.set_extra(PROTOCOL, &note);
        told
    })?)
}

/// Counts one look at a sandbox that is still being made.
pub(super) fn looked_at(sandbox: &Sandbox) -> Answer<()> {
    let kept: Note = sandbox.record().extra(PROTOCOL);
    match kept.provisioning {
        0 => Ok(()),
        left => note(sandbox, |note| note.provisioning = left - 1),
    }
}

/// Pauses a sandbox whose time has run out, or removes it if it was not to last.
pub(super) async fn expire(account: &Account, sandbox: &Arc<Sandbox>, miosa: &Miosa) -> Answer<()> {
    let note: Note = sandbox.record().extra(PROTOCOL);
    let over = note.deadline.is_some_and(|at| at <= Timestamp::now());
    if !over || note.always_on || note.paused || !sandbox.is_up() {
        return Ok(());
    }
    match note.ephemeral {
        true => sandboxes::destroy(miosa, account, sandbox).await.map(drop),
        false => hold(sandbox).await,
    }
}

/// Holds every process.
async fn hold(sandbox: &Sandbox) -> Answer<()> {
    signal_all(sandbox, "STOP").await?;
    note(sandbox, |note| note.paused = true)
}

async fn signal_all(sandbox: &Sandbox, signal: &str) -> Answer<()> {
    for service in sandbox.services().await? {
        if service.pid.is_some() {
            let name = crate::serve::engine::service_name(&service.name)?;
            // It may have ended meanwhile.
            let _ = sandbox.signal_service(&name, signal).await;
        }
    }
    Ok(())
}

pub(super) async fn stop(State(miosa): State<Miosa>, Chosen(sandbox): Chosen) -> Answer {
    if sandbox.is_up() {
        // Services are there again after a resume, processes are not.
        processes::clear(&sandbox).await?;
        sandbox.stop().await?;
    }
    let unresumable = miosa.switches().unresumable;
    let kept = note(&sandbox, |note| {
        note.paused = false;
        note.unresumable = unresumable;
        note.clone()
    })?;
    let state = state(&kept, &sandbox, &miosa);
    Ok(miosa.ok(json!({ "id": identity::uuid(sandbox.id()), "state": state })))
}

pub(super) async fn pause(State(miosa): State<Miosa>, Chosen(sandbox): Chosen) -> Answer {
    if sandbox.is_up() {
        hold(&sandbox).await?;
    }
    let unresumable = miosa.switches().unresumable;
    note(&sandbox, |note| note.unresumable = unresumable)?;
    let id = identity::uuid(sandbox.id());
    Ok(miosa.ok(json!({ "id": id, "state": "paused" })))
}

pub(super) async fn resume(State(miosa): State<Miosa>, Chosen(sandbox): Chosen) -> Answer {
    let before: Note = sandbox.record().extra(PROTOCOL);
    if before.unresumable > 0 {
        note(&sandbox, |note| note.unresumable -= 1)?;
        let text = "checkpoint_in_flight";
        return Err(Problem::new(503, "RESTORE_TRANSIENT", text));
    }
    wake(&sandbox).await?;
    let unready = miosa.switches().unready;
    note(&sandbox, |note| note.unready = unready)?;
    let id = identity::uuid(sandbox.id());
    Ok(miosa.ok(json!({ "id": id, "state": "running" })))
}

/// Lets everything go on that was held or stopped.
pub(super) async fn wake(sandbox: &Sandbox) -> Answer<()> {
    let before: Note = sandbox.record().extra(PROTOCOL);
    match sandbox.is_up() {
        true if before.paused => signal_all(sandbox, "CONT").await?,
        true => return Ok(()),
        false => sandbox.start().await?,
    }
    note(sandbox, |note| {
        note.paused = false;
        note.resources = note.resources_later.take().or(note.resources);
        note.deadline = note.timeout_sec.map(sandboxes::deadline);
    })
}

pub(super) async fn extend(
    State(miosa): State<Miosa>,
    Caller(account): Caller,
    Chosen(sandbox): Chosen,
    body: Bytes,
) -> Answer {
    let body: ExtendBody = request::json(&body)?;
    note(&sandbox, |note| {
        note.timeout_sec = body.timeout_sec.or(note.timeout_sec);
        note.deadline = note.timeout_sec.map(sandboxes::deadline);
    })?;
    Ok(miosa.ok(sandboxes::object(&miosa, &account, &sandbox)))
}

pub(super) async fn readiness(State(miosa): State<Miosa>, Chosen(sandbox): Chosen) -> Answer {
    looked_at(&sandbox)?;
    let kept: Note = sandbox.record().extra(PROTOCOL);
    let running = state(&kept, &sandbox, &miosa) == "running";
    let ready = running && kept.unready == 0;
    if running && kept.unready > 0 {
        note(&sandbox, |note| note.unready -= 1)?;
    }
    let word = if ready { "ready" } else { "pending" };
    let components: serde_json::Map<_, _> = COMPONENTS
        .iter()
        .map(|name| ((*name).to_owned(), word.into()))
        .collect();
    Ok(miosa.ok(json!({ "ready": ready, "status": word, "components": components })))
}
