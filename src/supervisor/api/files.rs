//! The files: iris §5. Raw bytes in and out, and what is known about them.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::{HeaderMap, header};
use axum::response::{IntoResponse, Response};
use rustix::fs::RawMode;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::openapi::{Operation, Routes};
use super::request::{self, Params, Payload};
use super::{Answer, DELETED, Deleted, Shared};
use crate::supervisor::files::{Found, LIMIT, Listed, Root, Wanted};
use crate::supervisor::owner::Refusal;

/// How deep a listing goes at most.
const DEEPEST: usize = 64;

fn operation(id: &'static str, summary: &'static str) -> Operation {
    Operation::new(id, "files", summary)
        .error(400, "A path is not absolute, or a field is wrong")
        .error(403, "Permission denied, or the file system is read-only")
        .error(404, "There is no such file")
        .error(500, "The file system failed")
}

pub(super) fn add(routes: Routes) -> Routes {
    let routes = routes
        .get(
            "/v1/files",
            read,
            operation("readFile", "The bytes of a file")
                .query::<PathQuery>()
                .raw_answer("application/octet-stream", "Its bytes")
                .error(409, "It is a folder")
                .error(413, "It is larger than 1 MiB"),
        )
        .post(
            "/v1/files",
            write,
            operation("writeFile", "Write a file, with the folders above it")
                .text("It is replaced as a whole. A link is replaced, not followed.")
                .query::<PathQuery>()
                .header("x-file-mode", "Its permissions in octal; 644 without it")
                .raw_body()
                .answer::<Written>(200, "It is written")
                .error(409, "It is a folder")
                .error(413, "It is larger than 1 MiB")
                .error(507, "No space is left"),
        )
        .delete(
            "/v1/files",
            remove,
            operation("deleteFile", "Remove a file or folder")
                .query::<RemoveQuery>()
                .answer::<Deleted>(200, "It is gone")
                .error(
                    409,
                    "The folder is not empty, and `recursive` was not asked for",
                ),
        );
    add_folders(routes)
}

fn add_folders(routes: Routes) -> Routes {
    routes
        .get(
            "/v1/files/list",
            list,
            operation("listFiles", "What is in a folder")
                .query::<ListQuery>()
                .answer::<Listed>(200, "Its entries, by name"),
        )
        .get(
            "/v1/files/stat",
            stat,
            operation("statFile", "What is known about a file or folder")
                .query::<PathQuery>()
                .answer::<Found>(200, "It is there"),
        )
        .post(
            "/v1/files/mkdir",
            mkdir,
            operation("makeFolder", "Make a folder")
                .body::<MkdirBody>()
                .answer::<Made>(200, "It is there")
                .error(409, "It exists already"),
        )
        .post(
            "/v1/files/move",
            rename,
            operation("moveFile", "Move a file or folder; a file is replaced")
                .body::<MoveBody>()
                .answer::<Moved>(200, "It is moved")
                .error(
                    409,
                    "There is a folder, or a folder would go to another file system",
                ),
        )
}

#[derive(Deserialize, JsonSchema)]
struct PathQuery {
    /// Absolute.
    path: String,
}

#[derive(Deserialize, JsonSchema)]
struct RemoveQuery {
    /// Absolute.
    path: String,
    /// Whether a folder goes with all that is in it.
    #[serde(default)]
    recursive: bool,
}

#[derive(Deserialize, JsonSchema)]
struct ListQuery {
    /// Absolute.
    path: String,
    /// How many levels; 1 without it.
    depth: Option<usize>,
}

#[derive(Deserialize, JsonSchema)]
struct MkdirBody {
    /// Absolute.
    path: String,
    /// Whether to make those above it, and to take one that is there.
    #[serde(default)]
    parents: bool,
}

#[derive(Deserialize, JsonSchema)]
struct MoveBody {
    /// Absolute.
    source: String,
    /// Absolute; the new name, not the folder to move to.
    destination: String,
}

#[derive(Serialize, JsonSchema)]
struct Written {
    /// Always true.
    ok: bool,
    path: String,
    /// In bytes.
    size: usize,
}

#[derive(Serialize, JsonSchema)]
struct Made {
    /// Always true.
    ok: bool,
    path: String,
}

#[derive(Serialize, JsonSchema)]
struct Moved {
    /// Always true.
    ok: bool,
    source: String,
    destination: String,
}

/// Does what blocks where it may.
async fn blocking<T: Send + 'static>(
    root: Arc<Root>,
    work: impl FnOnce(&Root) -> Result<T, Refusal> + Send + 'static,
) -> Result<T, Refusal> {
    let done = tokio::task::spawn_blocking(move || work(&root)).await;
    done.map_err(|error| Refusal::internal(error.to_string()))?
}

async fn read(
    State(api): Shared,
    Params(PathQuery { path }): Params<PathQuery>,
) -> Answer<Response> {
    let bytes = blocking(api.root, move |root| root.read(Wanted::new(&path)?)).await?;
    let kind = [(header::CONTENT_TYPE, "application/octet-stream")];
    Ok((kind, bytes).into_response())
}

async fn write(
    State(api): Shared,
    Params(PathQuery { path }): Params<PathQuery>,
    headers: HeaderMap,
    Payload(body): Payload,
) -> Answer<Json<Written>> {
    let mode = mode(&headers)?;
    if body.len() > LIMIT {
        let text = format!("{path}: larger than {LIMIT} bytes");
        return Err(Refusal::new(413, "too_large", text));
    }
    let size = body.len();
    let work = move |root: &Root| {
        root.write(Wanted::new(&path)?, &body, mode)?;
        Ok(path)
    };
    let path = blocking(api.root, work).await?;
    let ok = true;
    Ok(Json(Written { ok, path, size }))
}

/// `755` or `0755`; 644 without the header.
fn mode(headers: &HeaderMap) -> Result<RawMode, Refusal> {
    let Some(text) = headers.get("x-file-mode") else {
        return Ok(0o644);
    };
    let text = text.to_str().unwrap_or("");
    match RawMode::from_str_radix(text, 8) {
        Ok(mode) if mode <= 0o7777 => Ok(mode),
        _ => Err(Refusal::invalid("`x-file-mode` must be octal, as 644")),
    }
}

async fn remove(State(api): Shared, Params(query): Params<RemoveQuery>) -> Answer<Json<Deleted>> {
    let RemoveQuery { path, recursive } = query;
    blocking(api.root, move |root| {
        root.remove(Wanted::new(&path)?, recursive)
    })
    .await?;
    Ok(DELETED)
}

async fn list(State(api): Shared, Params(query): Params<ListQuery>) -> Answer<Json<Listed>> {
    let depth = query.depth.unwrap_or(1).min(DEEPEST);
    let work = move |root: &Root| root.list(Wanted::new(&query.path)?, depth);
    Ok(Json(blocking(api.root, work).await?))
}

async fn stat(
    State(api): Shared,
    Params(PathQuery { path }): Params<PathQuery>,
) -> Answer<Json<Found>> {
    let found = blocking(api.root, move |root| root.stat(Wanted::new(&path)?)).await?;
    Ok(Json(found))
}

async fn mkdir(State(api): Shared, Payload(body): Payload) -> Answer<Json<Made>> {
    let MkdirBody { path, parents } = request::shape(&body)?;
    let work = move |root: &Root| {
        root.make_folder(Wanted::new(&path)?, parents)?;
        Ok(path)
    };
    let path = blocking(api.root, work).await?;
    Ok(Json(Made { ok: true, path }))
}

async fn rename(State(api): Shared, Payload(body): Payload) -> Answer<Json<Moved>> {
    let MoveBody {
        source,
        destination,
    } = request::shape(&body)?;
    let work = move |root: &Root| {
        root.rename(Wanted::new(&source)?, Wanted::new(&destination)?)?;
        Ok((source, destination))
    };
    let (source, destination) = blocking(api.root, work).await?;
    let ok = true;
    Ok(Json(Moved {
        ok,
        source,
        destination,
    }))
}
