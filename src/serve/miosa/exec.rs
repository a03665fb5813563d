//! Commands that are waited for: protocol page miosa, §4.

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::body::Bytes;
use axum::extract::{FromRequestParts, State};
use axum::http::StatusCode;
use axum::http::request::Parts;
use serde_json::json;

use super::problem::{Answer, Problem};
use super::processes::{StartBody, folder};
use super::reply::Events;
use super::request::{self, Chosen, Ready};
use super::{Miosa, life};
use crate::platforms::LogStream;
use crate::serve::engine::{Ask, Event, Program, Reader, Sandbox};

/// The exit code of a command that has run out of time.
const TIMED_OUT: i32 = 124;

/// The sandbox in the path, which is resumed if it is paused.
pub(super) struct Awake(pub Arc<Sandbox>);

impl FromRequestParts<Miosa> for Awake {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, miosa: &Miosa) -> Answer<Self> {
        let Chosen(sandbox) = Chosen::from_request_parts(parts, miosa).await?;
        life::wake(&sandbox).await?;
        let Ready(sandbox) = Ready::from_request_parts(parts, miosa).await?;
        Ok(Self(sandbox))
    }
}

/// Begins a command; what is left of its time, if that is limited.
async fn begin(sandbox: &Arc<Sandbox>, body: StartBody) -> Answer<(Reader, Option<Duration>)> {
    let program = Program {
        argv: vec!["/bin/sh".to_owned(), "-c".to_owned(), body.command],
        env: body.env.into_iter().collect(),
        dir: folder(body.cwd.as_deref()),
        patience: Some(Duration::ZERO),
        ..Program::default()
    };
    let limit = body
        .timeout
        .and_then(|it| Duration::try_from_secs_f64(it).ok());
    let (exec, reader) = sandbox.exec(program).await?;
    exec.ask(Ask::End);
    Ok((reader, limit))
}

/// The next event, up to the limit.
async fn next(reader: &mut Reader, until: Option<Instant>) -> Event {
    let Some(until) = until else {
        return reader.next().await;
    };
    let next = tokio::time::timeout_at(until.into(), reader.next()).await;
    next.unwrap_or(Event::Exit(TIMED_OUT))
}

pub(super) async fn run(State(miosa): State<Miosa>, Awake(sandbox): Awake, body: Bytes) -> Answer {
    whole(&miosa, &sandbox, request::json(&body)?, StatusCode::OK).await
}

/// Runs a command to its end.
pub(super) async fn whole(
    miosa: &Miosa,
    sandbox: &Arc<Sandbox>,
    body: StartBody,
    status: StatusCode,
) -> Answer {
    let began = Instant::now();
    let (mut reader, limit) = begin(sandbox, body).await?;
    let until = limit.map(|limit| began + limit);
    let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
    let code = loop {
        match next(&mut reader, until).await {
            Event::Output(piece) => match piece.stream {
                LogStream::Stdout => stdout.extend_from_slice(&piece.bytes),
                LogStream::Stderr => stderr.extend_from_slice(&piece.bytes),
            },
            Event::Exit(code) => break code,
        }
    };
    let took = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
    let record = json!({
        "stdout": String::from_utf8_lossy(&stdout),
        "stderr": String::from_utf8_lossy(&stderr),
        "exit_code": code,
        "duration_ms": took,
    });
    Ok(miosa.reply(status, record))
}

pub(super) async fn stream(Awake(sandbox): Awake, body: Bytes) -> Answer {
    let began = Instant::now();
    let (mut reader, limit) = begin(&sandbox, request::json(&body)?).await?;
    let until = limit.map(|limit| began + limit);
    Ok(Events::answer(move |events| async move {
        loop {
            let written = match next(&mut reader, until).await {
                Event::Exit(code) => {
                    let _ = events
                        .write(Some("exit"), &json!({ "exit_code": code }))
                        .await;
                    return;
                }
                Event::Output(piece) => {
                    let name = piece.stream.word();
                    let text = String::from_utf8_lossy(&piece.bytes);
                    events.write(Some(name), &json!({ "line": text })).await
                }
            };
            if written.is_err() {
                return;
            }
        }
    }))
}
