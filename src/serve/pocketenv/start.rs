//! Starting and stopping sandboxes, and what comes with a start: protocol page pocketenv, §4.4.

use std::collections::BTreeMap;
use std::sync::Arc;

use futures_util::future::{join_all, try_join_all};
use jiff::Timestamp;
use secrecy::SecretString;
use serde_json::json;

use super::call::{Call, told};
use super::note::Note;
use super::ports;
use super::problem::{Answer, Problem};
use super::seal;
use super::status::{INITIALIZING, status};
use crate::model::{Secrets, ServiceAddress, ServiceName, ServiceSpec, digest};
use crate::serve::engine::{Engine, Program, Result, Sandbox};
use crate::supervisor::Until;

pub(super) async fn start(call: Call) -> Answer {
    let repo = call.input.text("repo")?;
    call.input.flag("keepAlive")?;
    let sandbox = call.own_by_id()?;
    if Note::of(&sandbox).stuck {
        return Err(Problem::refused());
    }
    bring_up(&call.engine, &sandbox, repo).await?;
    Note::change(&sandbox, |note| note.initializing = 0)?;
    told(json!({}))
}

pub(super) async fn stop(call: Call) -> Answer {
    let sandbox = call.own_by_id()?;
    if status(&sandbox) == INITIALIZING {
        return Err(Problem::refused());
    }
    let _defining = sandbox.defining().await;
    if sandbox.is_up() {
        // So that none of them comes back by itself at the next start.
        let known = sandbox.known_services().await?;
        let running = known.iter().filter(|service| service.wanted_up);
        try_join_all(running.map(|service| sandbox.stop_service(&service.name))).await?;
        sandbox.stop().await?;
    }
    told(json!({}))
}

/// Starts a sandbox with everything that is attached to it, and all of its services.
pub(super) async fn bring_up(
    engine: &Engine,
    sandbox: &Arc<Sandbox>,
    repo: Option<String>,
) -> Result<()> {
    let _defining = sandbox.defining().await;
    sandbox.start().await?;
    let note = Note::change(sandbox, |note| {
        note.started_at = Some(Timestamp::now());
        let secrets = note.secrets.iter();
        note.in_effect = secrets
            .map(|secret| (secret.name.clone(), secret.value.clone()))
            .collect();
        if repo.is_some() {
            note.repo = repo;
        }
        note.clone()
    })?;
    let variables = note.variables.iter();
    let variables: BTreeMap<_, _> = variables
        .map(|variable| (variable.name.clone(), variable.value.clone()))
        .collect();
    if !variables.is_empty() || !sandbox.record().variables.is_empty() {
        sandbox.set_variables(variables).await?;
    }
    clone(sandbox, &note);
    place_files(sandbox, &note).await;
    let known = sandbox.known_services().await?;
    let starts = known.into_iter().map(|service| async move {
        define(sandbox, &service.name, service.spec).await?;
        launch(sandbox, &service.name).await
    });
    try_join_all(starts).await?;
    ports::expose_all(engine, sandbox)
}

/// Clones in the background, as the platform does; nobody is told how that ends.
fn clone(sandbox: &Arc<Sandbox>, note: &Note) {
    let Some(repo) = note.repo.clone() else {
        return;
    };
    let sandbox = sandbox.clone();
    tokio::spawn(async move {
        let program = Program {
            argv: ["git", "clone", "--quiet", "--", &repo]
                .map(str::to_owned)
                .into(),
            env: vec![("GIT_TERMINAL_PROMPT".to_owned(), "0".to_owned())],
            ..Program::default()
        };
        match sandbox.run(program, Default::default()).await {
            Ok(ran) if ran.code == 0 => {}
            Ok(ran) => tracing::warn!(code = ran.code, "a repository was not cloned"),
            Err(error) => tracing::warn!(%error, "a repository was not cloned"),
        }
    });
}

/// What cannot be written is left out, as on the platform.
async fn place_files(sandbox: &Sandbox, note: &Note) {
    let files = note.files.iter().map(|file| async {
        let content = seal::open(&file.value);
        sandbox.write_file(&file.name, content.into(), 0o600).await
    });
    let volumes = note
        .volumes
        .iter()
        .filter(|volume| !volume.value.is_empty());
    let volumes = volumes.map(|volume| sandbox.make_folder(&volume.value, true));
    let (files, volumes) = (join_all(files).await, join_all(volumes).await);
    for error in files.into_iter().chain(volumes).filter_map(Result::err) {
        tracing::warn!(%error, "a file or volume is not in its place");
    }
}

/// The secrets that processes get, opened.
pub(super) fn secret_values(note: &Note) -> Vec<(String, String)> {
    let secrets = note.in_effect.iter();
    secrets
        .map(|(name, sealed)| (name.clone(), seal::open(sealed)))
        .collect()
}

/// Those of a sandbox, for its services.
fn secrets(sandbox: &Sandbox) -> Secrets {
    let mut secrets = Secrets::default();
    for (name, value) in secret_values(&Note::of(sandbox)) {
        secrets.insert(name, SecretString::from(value));
    }
    secrets
}

/// Stores a definition that gets the secrets which are in effect.
pub(super) async fn define(sandbox: &Sandbox, name: &ServiceName, spec: ServiceSpec) -> Result<()> {
    let secrets = secrets(sandbox);
    let at = ServiceAddress::new(sandbox.id().clone(), name.clone());
    let mut spec = spec;
    spec.env.clear();
    spec.secrets.clear();
    for (secret, value) in secrets.iter() {
        let placeholder = format!("${{secret.{secret}}}");
        spec.env.insert(secret.to_owned(), placeholder);
        let digest = digest("", &at, secret, value);
        spec.secrets.insert(secret.to_owned(), digest);
    }
    sandbox.define_with(name, spec, &secrets).await.map(drop)
}

/// Starts a service, and does not mind what becomes of it.
pub(super) async fn launch(sandbox: &Sandbox, name: &ServiceName) -> Result<()> {
    if Note::of(sandbox).silent_starts > 0 {
        // Several may be started at once.
        let is_silent = Note::change(sandbox, |note| {
            let left = note.silent_starts.checked_sub(1);
            note.silent_starts = left.unwrap_or_default();
            left.is_some()
        })?;
        if is_silent {
            return Ok(());
        }
    }
    let secrets = secrets(sandbox);
    let started = sandbox
        .start_service_with(name, Until::Executed, &secrets)
        .await;
    if let Err(error) = started {
        tracing::warn!(%error, service = %name, "answered as if it had been started");
    }
    Ok(())
}
