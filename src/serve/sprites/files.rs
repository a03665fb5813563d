//! Files: protocol page sprites, §6.

use std::sync::Arc;

use axum::Json;
use axum::body::Bytes;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use serde_json::{Value, json};

use super::problem::Problem;
use super::request::{Params, Sprite, json as read_json};
use crate::serve::engine::{EngineError, Kind, Program, Sandbox};
use crate::supervisor::FileFound;

/// How deep a recursive listing goes.
const DEEPEST: usize = 64;

/// How the file routes refuse: `{"error","code","path"}`.
pub(super) enum Refused {
    /// Before a file was looked at.
    Plain(Problem),
    /// Because of a file.
    Of { path: String, error: EngineError },
}

impl From<Problem> for Refused {
    fn from(problem: Problem) -> Self {
        Self::Plain(problem)
    }
}

impl IntoResponse for Refused {
    fn into_response(self) -> Response {
        let (path, error) = match self {
            Self::Plain(problem) => return problem.into_response(),
            Self::Of { path, error } => (path, error),
        };
        let code = match error.kind {
            Kind::NotFound => "ENOENT",
            Kind::Denied => "EACCES",
            Kind::Invalid => "EINVAL",
            Kind::Conflict if error.message.contains("not empty") => "ENOTEMPTY",
            Kind::Conflict if error.message.contains("is a folder") => "EISDIR",
            Kind::Conflict if error.message.contains("not a folder") => "ENOTDIR",
            Kind::Conflict => "EEXIST",
            Kind::TooLarge => "EFBIG",
            _ => "EIO",
        };
        let status = Problem::from(error.clone()).status;
        let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let body = json!({ "error": error.message, "code": code, "path": path });
        (status, Json(body)).into_response()
    }
}

type Answer<T = Response> = Result<T, Refused>;

fn of(path: &str) -> impl Fn(EngineError) -> Refused + '_ {
    move |error| Refused::Of {
        path: path.to_owned(),
        error,
    }
}

/// A path and the folder that it is relative to.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct PathQuery {
    path: String,
    working_dir: Option<String>,
    #[serde(default)]
    recursive: bool,
    mode: Option<String>,
    #[serde(default)]
    mkdir_parents: bool,
}

impl PathQuery {
    fn path(&self) -> String {
        absolute(self.working_dir.as_deref(), &self.path)
    }
}

/// The path that is meant: `path` below `folder`, which is `/` where nothing is said.
pub(super) fn absolute(folder: Option<&str>, path: &str) -> String {
    if path.starts_with('/') {
        return path.to_owned();
    }
    let folder = folder.unwrap_or("/").trim_matches('/');
    let parts = [folder, path].into_iter().filter(|part| !part.is_empty());
    parts.fold(String::new(), |path, part| format!("{path}/{part}"))
}

/// `0644`; 644 without it.
fn mode(text: Option<&str>) -> Result<u32, Problem> {
    let Some(text) = text else {
        return Ok(0o644);
    };
    let wrong = || Problem::invalid(format!("`{text}` is not a mode, as 0644"));
    u32::from_str_radix(text, 8)
        .map_err(|_| wrong())
        .and_then(|mode| match mode {
            0..=0o7777 => Ok(mode),
            _ => Err(wrong()),
        })
}

pub(super) async fn read(Sprite(sprite): Sprite, Params(query): Params<PathQuery>) -> Answer {
    let path = query.path();
    let bytes = sprite.read_file(&path).await.map_err(of(&path))?;
    let kind = [(header::CONTENT_TYPE, "application/octet-stream")];
    Ok((kind, bytes).into_response())
}

pub(super) async fn write(
    Sprite(sprite): Sprite,
    Params(query): Params<PathQuery>,
    body: Bytes,
) -> Answer<Json<Value>> {
    let (path, size) = (query.path(), body.len());
    let mode = mode(query.mode.as_deref())?;
    let above = path
        .rsplit_once('/')
        .map(|(above, _)| above)
        .filter(|it| !it.is_empty());
    if let Some(above) = above.filter(|_| !query.mkdir_parents) {
        sprite.stat_file(above).await.map_err(of(&path))?;
    }
    sprite
        .write_file(&path, body, mode)
        .await
        .map_err(of(&path))?;
    Ok(Json(
        json!({ "path": path, "size": size, "mode": format!("{mode:04o}") }),
    ))
}

fn entry(found: &FileFound) -> Value {
    json!({
        "name": found.name,
        "path": found.path,
        "type": if found.is_dir { "directory" } else { "file" },
        "size": found.size,
        "mode": found.mode,
        "modTime": found.modified_at,
        "isDir": found.is_dir,
    })
}

pub(super) async fn list(
    Sprite(sprite): Sprite,
    Params(query): Params<PathQuery>,
) -> Answer<Json<Value>> {
    let path = query.path();
    let found = sprite.stat_file(&path).await.map_err(of(&path))?;
    let entries = match found.is_dir {
        true => {
            let depth = if query.recursive { DEEPEST } else { 1 };
            sprite.list_files(&path, depth).await.map_err(of(&path))?
        }
        // How clients ask about one file.
        false => vec![found],
    };
    let entries: Vec<_> = entries.iter().map(entry).collect();
    let count = entries.len();
    Ok(Json(
        json!({ "path": path, "entries": entries, "count": count }),
    ))
}

pub(super) async fn remove(
    Sprite(sprite): Sprite,
    Params(query): Params<PathQuery>,
) -> Answer<Json<Value>> {
    let path = query.path();
    sprite
        .remove_file(&path, query.recursive)
        .await
        .map_err(of(&path))?;
    Ok(Json(json!({ "path": path, "deleted": true })))
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct MoveBody {
    source: String,
    dest: String,
    working_dir: Option<String>,
}

pub(super) async fn rename(Sprite(sprite): Sprite, body: Bytes) -> Answer<Json<Value>> {
    let body: MoveBody = read_json(&body)?;
    let from = absolute(body.working_dir.as_deref(), &body.source);
    let to = absolute(body.working_dir.as_deref(), &body.dest);
    sprite.move_file(&from, &to).await.map_err(of(&from))?;
    Ok(Json(json!({ "source": from, "dest": to })))
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct CopyBody {
    #[serde(flatten)]
    files: MoveBody,
    #[serde(default)]
    recursive: bool,
    #[serde(default)]
    preserve_attrs: bool,
}

pub(super) async fn copy(Sprite(sprite): Sprite, body: Bytes) -> Answer<Json<Value>> {
    let body: CopyBody = read_json(&body)?;
    let from = absolute(body.files.working_dir.as_deref(), &body.files.source);
    let to = absolute(body.files.working_dir.as_deref(), &body.files.dest);
    let found = sprite.stat_file(&from).await.map_err(of(&from))?;
    if found.is_dir && !body.recursive {
        let error = EngineError::conflict(format!("{from}: it is a folder"));
        return Err(of(&from)(error));
    }
    let options = [(body.recursive, "-r"), (body.preserve_attrs, "-p")];
    let options = options
        .iter()
        .filter(|(wanted, _)| *wanted)
        .map(|(_, option)| *option);
    let argv = ["cp", "-T"]
        .into_iter()
        .chain(options)
        .chain(["--", &from, &to]);
    run(&sprite, &from, argv).await?;
    Ok(Json(json!({ "source": from, "dest": to })))
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ModeBody {
    path: String,
    mode: String,
    working_dir: Option<String>,
    #[serde(default)]
    recursive: bool,
}

pub(super) async fn chmod(Sprite(sprite): Sprite, body: Bytes) -> Answer<Json<Value>> {
    let body: ModeBody = read_json(&body)?;
    let path = absolute(body.working_dir.as_deref(), &body.path);
    let mode = format!("{:04o}", mode(Some(&body.mode))?);
    sprite.stat_file(&path).await.map_err(of(&path))?;
    let options = body.recursive.then_some("-R");
    let argv = ["chmod"]
        .into_iter()
        .chain(options)
        .chain(["--", &mode, &path]);
    run(&sprite, &path, argv).await?;
    Ok(Json(json!({ "path": path, "mode": mode })))
}

/// Has a program of the sandbox do what its supervisor has no route for.
async fn run(sprite: &Arc<Sandbox>, path: &str, argv: impl Iterator<Item = &str>) -> Answer<()> {
    let program = Program {
        argv: argv.map(str::to_owned).collect(),
        ..Program::default()
    };
    let ran = sprite.run(program, Bytes::new()).await.map_err(of(path))?;
    if ran.code == 0 {
        return Ok(());
    }
    let text = String::from_utf8_lossy(&ran.stderr).trim_end().to_owned();
    let kind = match () {
        () if text.contains("Permission denied") => Kind::Denied,
        () if text.contains("Read-only file system") => Kind::Denied,
        () if text.contains("No such file") => Kind::NotFound,
        () => Kind::Failed,
    };
    Err(of(path)(EngineError::new(kind, text)))
}
