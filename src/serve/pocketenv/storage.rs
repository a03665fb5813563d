//! Folders in and out of sandboxes: protocol page pocketenv, §9. An archive waits here between the two requests
//! that it takes, for one use.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use axum::body::Bytes;
use axum::extract::{Multipart, Path, State};
use axum::http::{HeaderMap, header};
use axum::response::IntoResponse;
use serde_json::json;

use super::call::{self, Call, Served, done, told};
use super::identity;
use super::problem::{Answer, Problem};
use crate::serve::engine::{Account, Program, Sandbox};

/// The largest archive, in bytes.
pub(super) const LARGEST: usize = 256 << 20;

/// How many archives wait at most; for another one, the oldest goes.
const WAITING: usize = 16;

/// The archives that nobody has taken yet.
#[derive(Default)]
pub(super) struct Storage(Mutex<VecDeque<Waiting>>);

struct Waiting {
    uuid: String,
    account: String,
    archive: Bytes,
}

impl Storage {
    fn waiting(&self) -> MutexGuard<'_, VecDeque<Waiting>> {
        // Whole after every statement, so a panic elsewhere cannot have torn it.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn put(&self, account: &Account, archive: Bytes) -> String {
        let mut waiting = self.waiting();
        if waiting.len() >= WAITING {
            waiting.pop_front();
        }
        let uuid = identity::new_id("cp");
        waiting.push_back(Waiting {
            uuid: uuid.clone(),
            account: account.name().to_owned(),
            archive,
        });
        uuid
    }

    fn take(&self, account: &Account, uuid: &str) -> Option<Bytes> {
        let mut waiting = self.waiting();
        let mut all = waiting.iter();
        let at = all.position(|it| it.uuid == uuid && it.account == account.name())?;
        waiting.remove(at).map(|it| it.archive)
    }
}

fn user(served: &Served, headers: &HeaderMap) -> Answer<Arc<Account>> {
    call::caller(&served.engine, headers)?.ok_or_else(Problem::anonymous)
}

/// `POST /cp`: an archive comes in, as the field `file`.
pub(super) async fn put(
    State(served): State<Served>,
    headers: HeaderMap,
    mut form: Multipart,
) -> Answer {
    let account = user(&served, &headers)?;
    let wrong =
        |error: axum::extract::multipart::MultipartError| Problem::invalid(error.body_text());
    while let Some(field) = form.next_field().await.map_err(wrong)? {
        if field.name() == Some("file") {
            let archive = field.bytes().await.map_err(wrong)?;
            return told(json!({ "uuid": served.storage.put(&account, archive) }));
        }
    }
    Err(Problem::invalid("There is no field \"file\""))
}

/// `GET /cp/{uuid}`: an archive goes out.
pub(super) async fn take(
    State(served): State<Served>,
    headers: HeaderMap,
    Path(uuid): Path<String>,
) -> Answer {
    let account = user(&served, &headers)?;
    let archive = served.storage.take(&account, &uuid);
    let archive = archive.ok_or_else(|| Problem::not_found("File"))?;
    Ok(([(header::CONTENT_TYPE, "application/gzip")], archive).into_response())
}

/// The sandbox and the folder that a request names. Only a sandbox that runs has files.
fn place_in(call: &Call) -> Answer<(Arc<Sandbox>, String)> {
    let id = call.input.needed_text("sandboxId")?;
    let folder = call.input.needed_text("directoryPath")?;
    let sandbox = call.own(&id, call::Keys::IdOrNameOrUri)?;
    let sandbox = sandbox.ok_or_else(|| Problem::not_found("Sandbox"))?;
    match sandbox.is_up() {
        true => Ok((sandbox, folder)),
        false => Err(Problem::invalid("Sandbox is not running")),
    }
}

/// A file in the sandbox that nobody else has.
fn archive_there() -> String {
    format!("/tmp/.pocketenv-{:016x}.tgz", fastrand::u64(..))
}

async fn sh(sandbox: &Arc<Sandbox>, script: &str, args: [&str; 2]) -> Answer<()> {
    let argv = ["/bin/sh", "-c", script, "cp", args[0], args[1]];
    let program = Program {
        argv: argv.map(str::to_owned).into(),
        ..Program::default()
    };
    match sandbox.run(program, Default::default()).await?.code {
        0 => Ok(()),
        _ => Err(Problem::refused()),
    }
}

/// Out of the sandbox, into the storage.
pub(super) async fn push(call: Call) -> Answer {
    let (sandbox, folder) = place_in(&call)?;
    let archive = archive_there();
    let packed = sh(
        &sandbox,
        r#"umask 077; tar -czf "$1" -C "$2" ."#,
        [&archive, &folder],
    )
    .await;
    let read = match packed {
        Ok(()) => sandbox.read_file(&archive).await.map_err(Problem::from),
        Err(problem) => Err(problem),
    };
    sh(&sandbox, r#"rm -f -- "$1""#, [&archive, ""]).await?;
    let uuid = call.storage.put(call.user()?, read?);
    told(json!({ "uuid": uuid }))
}

/// Out of the storage, into the sandbox.
pub(super) async fn pull(call: Call) -> Answer {
    let uuid = call.input.needed_text("uuid")?;
    let (sandbox, folder) = place_in(&call)?;
    let kept = call.storage.take(call.user()?, &uuid);
    let kept = kept.ok_or_else(Problem::no_route)?;
    let archive = archive_there();
    sandbox.write_file(&archive, kept, 0o600).await?;
    let unpack = r#"trap 'rm -f -- "$1"' EXIT; mkdir -p -- "$2" && tar -xozf "$1" -C "$2""#;
    sh(&sandbox, unpack, [&archive, &folder]).await?;
    done()
}
