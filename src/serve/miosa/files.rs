//! Files: protocol page miosa, §4.

use axum::Json;
use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use serde_json::{Value, json};

use super::Miosa;
use super::exec::Awake;
use super::problem::{Answer, Problem};
use super::request::{self, Params};
use crate::serve::engine::Sandbox;
use crate::supervisor::FileFound;

/// What a file is made with.
const MODE: u32 = 0o644;

#[derive(Deserialize)]
pub(super) struct PathQuery {
    path: String,
}

#[derive(Deserialize)]
struct WriteBody {
    path: String,
    content: Option<String>,
    content_base64: Option<String>,
}

#[derive(Deserialize)]
struct WriteManyBody {
    files: Vec<WriteBody>,
}

#[derive(Deserialize)]
struct FolderBody {
    path: String,
    #[serde(default)]
    recursive: bool,
}

/// The path that is meant: clients call the workspace `/workspace`.
fn real(sandbox: &Sandbox, path: &str) -> String {
    let workspace = sandbox.dir().join("workspace");
    let workspace = workspace.display();
    match path.strip_prefix("/workspace") {
        Some(rest) if rest.is_empty() || rest.starts_with('/') => format!("{workspace}{rest}"),
        _ if path.starts_with('/') => path.to_owned(),
        _ => format!("{workspace}/{path}"),
    }
}

fn decoded(text: &str) -> Answer<Bytes> {
    let bytes = STANDARD.decode(text);
    bytes
        .map(Into::into)
        .map_err(|_| Problem::invalid("the content is not base64"))
}

async fn put(sandbox: &Sandbox, file: WriteBody) -> Answer<usize> {
    let bytes = match (file.content, file.content_base64) {
        (_, Some(text)) => decoded(&text)?,
        (Some(text), None) => text.into(),
        (None, None) => return Err(Problem::invalid("`content` is missing")),
    };
    let (path, size) = (real(sandbox, &file.path), bytes.len());
    sandbox.write_file(&path, bytes, MODE).await?;
    Ok(size)
}

pub(super) async fn write(
    State(miosa): State<Miosa>,
    Awake(sandbox): Awake,
    body: Bytes,
) -> Answer {
    let file: WriteBody = request::json(&body)?;
    let path = file.path.clone();
    let size = put(&sandbox, file).await?;
    Ok(miosa.reply(
        StatusCode::CREATED,
        json!({ "path": path, "size_bytes": size }),
    ))
}

/// The older route: its content is base64.
pub(super) async fn write_legacy(
    State(miosa): State<Miosa>,
    Awake(sandbox): Awake,
    body: Bytes,
) -> Answer {
    let mut file: WriteBody = request::json(&body)?;
    file.content_base64 = file.content.take();
    let path = file.path.clone();
    let size = put(&sandbox, file).await?;
    Ok(miosa.reply(
        StatusCode::CREATED,
        json!({ "path": path, "size_bytes": size }),
    ))
}

pub(super) async fn write_many(
    State(miosa): State<Miosa>,
    Awake(sandbox): Awake,
    body: Bytes,
) -> Answer {
    let WriteManyBody { files } = request::json(&body)?;
    let (mut written, mut failed) = (Vec::new(), Vec::new());
    for file in files {
        let path = file.path.clone();
        match put(&sandbox, file).await {
            Ok(_) => written.push(json!(path)),
            Err(problem) => failed.push(json!({ "path": path, "error": problem.message })),
        }
    }
    Ok(miosa.ok(json!({ "written": written, "failed": failed })))
}

pub(super) async fn read(Awake(sandbox): Awake, Params(query): Params<PathQuery>) -> Answer {
    let bytes = sandbox.read_file(&real(&sandbox, &query.path)).await?;
    let content = String::from_utf8_lossy(&bytes);
    Ok(Json(json!({ "path": query.path, "content": content })).into_response())
}

pub(super) async fn download(Awake(sandbox): Awake, Params(query): Params<PathQuery>) -> Answer {
    let bytes = sandbox.read_file(&real(&sandbox, &query.path)).await?;
    let kind = [(header::CONTENT_TYPE, "application/octet-stream")];
    Ok((kind, bytes).into_response())
}

fn entry(found: &FileFound) -> Value {
    json!({
        "name": found.name,
        "type": if found.is_dir { "directory" } else { "file" },
        "size_bytes": found.size,
        "modified_at": found.modified_at,
    })
}

pub(super) async fn list(Awake(sandbox): Awake, Params(query): Params<PathQuery>) -> Answer {
    let found = sandbox.list_files(&real(&sandbox, &query.path), 1).await?;
    let files: Vec<_> = found.iter().map(entry).collect();
    Ok(Json(json!({ "files": files })).into_response())
}

/// The older route.
pub(super) async fn list_legacy(Awake(sandbox): Awake, Params(query): Params<PathQuery>) -> Answer {
    let found = sandbox.list_files(&real(&sandbox, &query.path), 1).await?;
    let entries: Vec<_> = found.iter().map(entry).collect();
    Ok(Json(json!({ "path": query.path, "entries": entries })).into_response())
}

/// The older route.
pub(super) async fn download_legacy(
    Awake(sandbox): Awake,
    Path((_, path)): Path<(String, String)>,
) -> Answer {
    let path = format!("/{}", path.trim_start_matches('/'));
    let query = PathQuery { path };
    download(Awake(sandbox), Params(query)).await
}

pub(super) async fn remove(
    Awake(sandbox): Awake,
    Params(query): Params<PathQuery>,
) -> Answer<StatusCode> {
    sandbox
        .remove_file(&real(&sandbox, &query.path), true)
        .await?;
    Ok(StatusCode::NO_CONTENT)
}

pub(super) async fn make_folder(
    State(miosa): State<Miosa>,
    Awake(sandbox): Awake,
    body: Bytes,
) -> Answer {
    let body: FolderBody = request::json(&body)?;
    let path = real(&sandbox, &body.path);
    sandbox.make_folder(&path, body.recursive).await?;
    Ok(miosa.reply(StatusCode::CREATED, json!({ "path": body.path })))
}

pub(super) async fn stat(State(miosa): State<Miosa>, Awake(sandbox): Awake, body: Bytes) -> Answer {
    let query: PathQuery = request::json(&body)?;
    let found = sandbox.stat_file(&real(&sandbox, &query.path)).await?;
    Ok(miosa.ok(entry(&found)))
}
