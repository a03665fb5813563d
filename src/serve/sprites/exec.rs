//! Commands over HTTP and WebSocket: protocol page sprites, §5.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::body::{Body, Bytes};
use axum::extract::FromRequestParts;
use axum::extract::ws::rejection::WebSocketUpgradeRejection;
use axum::extract::ws::{CloseFrame, Message, WebSocket, WebSocketUpgrade};
use axum::http::header;
use axum::http::request::Parts;
use axum::response::{IntoResponse, Response};
use futures_util::stream;
use jiff::Timestamp;
use serde::Deserialize;
use serde_json::{Value, json};

use super::problem::{Answer, Problem};
use super::request::{Params, Sprite, duration, json as read_json, segment};
use super::stream::{Lines, shown};
use crate::platforms::{LogStream, TerminalSize};
use crate::serve::engine::{Ask, Engine, Event, Exec, Program, Reader};

/// How long a session that is told to end is given, where nothing is said about it.
const GRACE: Duration = Duration::from_secs(10);

/// The time between two frames over HTTP, and about how large they are.
const BETWEEN_FRAMES: Duration = Duration::from_millis(5);
const FRAME: usize = 16 << 10;

/// The bytes that frames begin with.
mod frame {
    pub const STDIN: u8 = 0;
    pub const STDOUT: u8 = 1;
    pub const STDERR: u8 = 2;
    pub const EXIT: u8 = 3;
    pub const STDIN_EOF: u8 = 4;
}

/// What is asked for behind the `?`.
pub(super) struct Asked {
    program: Program,
    stdin: bool,
}

impl Asked {
    /// `cmd` and `env` repeat.
    fn read(pairs: Vec<(String, String)>) -> Answer<Self> {
        let mut program = Program {
            patience: Some(Duration::ZERO),
            ..Program::default()
        };
        let (mut stdin, mut tty, mut detachable) = (false, false, false);
        let mut size = TerminalSize {
            width: 80,
            height: 24,
        };
        let number = |text: &str| {
            text.parse()
                .map_err(|_| Problem::invalid(format!("`{text}` is not a number")))
        };
        for (key, value) in pairs {
            match key.as_str() {
                "cmd" => program.argv.push(value),
                "env" => {
                    let wrong = || Problem::invalid(format!("`env` is NAME=VALUE, not `{value}`"));
                    let (name, value) = value.split_once('=').ok_or_else(wrong)?;
                    program.env.push((name.to_owned(), value.to_owned()));
                }
                "dir" => program.dir = Some(value),
                "stdin" => stdin = value == "true",
                "tty" => tty = value == "true",
                "rows" => size.height = number(&value)?,
                "cols" => size.width = number(&value)?,
                "detachable" => detachable = value == "true",
                "max_run_after_disconnect" => program.patience = Some(duration(&value)?),
                // `path` is the program once more.
                _ => {}
            }
        }
        if program.argv.is_empty() {
            return Err(Problem::invalid("`cmd` is required"));
        }
        program.terminal = tty.then_some(size);
        if detachable {
            program.patience = None;
        }
        Ok(Self { program, stdin })
    }
}

/// The running command in the path.
pub(super) struct Session(Arc<Exec>);

impl FromRequestParts<Engine> for Session {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, engine: &Engine) -> Answer<Self> {
        let Sprite(sandbox) = Sprite::from_request_parts(parts, engine).await?;
        let id = segment(parts, engine, "session").await?;
        let mut all = sandbox.execs().into_iter();
        let found = all.find(|exec| exec.number.to_string() == id);
        let missing = || Problem::new(404, "not_found", format!("session not found: {id}"));
        found.map(Self).ok_or_else(missing)
    }
}

/// The request for a WebSocket, if it is one.
pub(super) type Upgrade = Result<WebSocketUpgrade, WebSocketUpgradeRejection>;

/// Over a WebSocket, runs a command; otherwise lists those that run.
pub(super) async fn list_or_run(
    Sprite(sprite): Sprite,
    Params(pairs): Params<Vec<(String, String)>>,
    upgrade: Upgrade,
) -> Answer {
    let Ok(upgrade) = upgrade else {
        let sessions = sprite.execs();
        let sessions: Vec<_> = sessions.iter().map(|exec| session(exec)).collect();
        return Ok(Json(json!({ "sessions": sessions })).into_response());
    };
    let asked = Asked::read(pairs)?;
    let (exec, reader) = sprite.exec(asked.program).await?;
    if !asked.stdin {
        exec.ask(Ask::End);
    }
    Ok(upgrade.on_upgrade(move |socket| attend(socket, exec, reader)))
}

/// Joins a command that runs.
pub(super) async fn attach(Session(exec): Session, upgrade: Upgrade) -> Answer {
    let upgrade = upgrade.map_err(|_| Problem::invalid("a session is joined over a WebSocket"))?;
    let reader = exec.reader();
    Ok(upgrade.on_upgrade(move |socket| attend(socket, exec, reader)))
}

fn session(exec: &Exec) -> Value {
    json!({
        "id": exec.number.to_string(),
        "command": exec.command,
        "workdir": exec.dir.as_deref().unwrap_or_default(),
        "created": shown(exec.started_at),
        "bytes_per_second": 0,
        "is_active": true,
        "last_activity": shown(Timestamp::now()),
        "tty": exec.terminal,
    })
}

/// Between a client and a command, until either has had enough.
async fn attend(mut socket: WebSocket, exec: Arc<Exec>, mut reader: Reader) {
    let info = json!({
        "type": "session_info",
        "session_id": exec.number.to_string(),
        "command": exec.command,
        "created": shown(exec.started_at),
        "tty": exec.terminal,
        "is_owner": true,
    });
    if socket.send(Message::text(info.to_string())).await.is_err() {
        return;
    }
    loop {
        tokio::select! {
            event = reader.next() => {
                let told = match event {
                    Event::Output(piece) if exec.terminal => Message::Binary(piece.bytes),
                    Event::Output(piece) => Message::Binary(framed(stream_byte(piece.stream), &piece.bytes)),
                    Event::Exit(code) => return end(socket, &exec, code).await,
                };
                if socket.send(told).await.is_err() {
                    return;
                }
            }
            heard = socket.recv() => match heard {
                Some(Ok(Message::Binary(bytes))) => given(&exec, bytes),
                Some(Ok(Message::Text(text))) => told(&exec, &text),
                Some(Ok(Message::Ping(_) | Message::Pong(_))) => {}
                Some(Ok(Message::Close(_)) | Err(_)) | None => return,
            },
        }
    }
}

/// Tells the exit code and closes.
async fn end(mut socket: WebSocket, exec: &Exec, code: i32) {
    let last = match exec.terminal {
        false => Message::Binary(framed(frame::EXIT, &[exit_byte(code)])),
        true => Message::text(json!({ "type": "exit", "exit_code": code }).to_string()),
    };
    // Some clients take any other code than 1000 for a failed command.
    let close = CloseFrame {
        code: if code == 0 { 1000 } else { 4000 },
        reason: "".into(),
    };
    if socket.send(last).await.is_ok() && socket.send(Message::Close(Some(close))).await.is_ok() {
        // The client closes its side, or goes.
        while let Some(Ok(_)) = socket.recv().await {}
    }
}

/// A binary message of the client.
fn given(exec: &Exec, bytes: Bytes) {
    if exec.terminal {
        return exec.ask(Ask::Input(bytes));
    }
    match bytes.first() {
        Some(&frame::STDIN) => exec.ask(Ask::Input(bytes.slice(1..))),
        Some(&frame::STDIN_EOF) => exec.ask(Ask::End),
        _ => {}
    }
}

#[derive(Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
enum Told {
    Resize { cols: u16, rows: u16 },
    Signal { signal: String },
}

/// A text message of the client; what is not understood is ignored.
fn told(exec: &Exec, text: &str) {
    match serde_json::from_str(text) {
        Ok(Told::Resize { cols, rows }) => exec.ask(Ask::Resize(TerminalSize {
            width: cols,
            height: rows,
        })),
        Ok(Told::Signal { signal }) => exec.ask(Ask::Signal(signal)),
        Err(_) => {}
    }
}

fn stream_byte(stream: LogStream) -> u8 {
    match stream {
        LogStream::Stdout => frame::STDOUT,
        LogStream::Stderr => frame::STDERR,
    }
}

fn framed(kind: u8, bytes: &[u8]) -> Bytes {
    let mut framed = Vec::with_capacity(bytes.len() + 1);
    framed.push(kind);
    framed.extend_from_slice(bytes);
    framed.into()
}

fn exit_byte(code: i32) -> u8 {
    u8::try_from(code & 0xff).unwrap_or(u8::MAX)
}

/// Runs a command with the body as its input; every chunk of the answer is one frame.
pub(super) async fn run(
    Sprite(sprite): Sprite,
    Params(pairs): Params<Vec<(String, String)>>,
    body: Bytes,
) -> Answer {
    let asked = Asked::read(pairs)?;
    let (exec, reader) = sprite.exec(asked.program).await?;
    if asked.stdin {
        exec.ask(Ask::Input(body));
    }
    exec.ask(Ask::End);
    let frames = stream::unfold(Some(reader), |reader| async {
        let (frame, reader) = next_frame(reader?).await;
        Some((Ok::<_, std::io::Error>(frame), reader))
    });
    let kind = [(header::CONTENT_TYPE, "application/octet-stream")];
    Ok((kind, Body::from_stream(frames)).into_response())
}

/// The next frame, and the reader if another one follows.
///
/// Frames tell no length, and clients see their limits only in what one read returns. So there is some time
/// between any two, and what one stream has to say meanwhile is one frame.
async fn next_frame(mut reader: Reader) -> (Bytes, Option<Reader>) {
    let mut event = reader.next().await;
    tokio::time::sleep(BETWEEN_FRAMES).await;
    let first = match &mut event {
        Event::Exit(code) => return (framed(frame::EXIT, &[exit_byte(*code)]), None),
        Event::Output(piece) => piece,
    };
    let mut frame = framed(stream_byte(first.stream), &first.bytes).to_vec();
    while frame.len() < FRAME
        && let Some(more) = reader.take_if(|next| next.stream == first.stream)
    {
        frame.extend_from_slice(&more.bytes);
    }
    (frame.into(), Some(reader))
}

#[derive(Default, Deserialize)]
pub(super) struct KillQuery {
    signal: Option<String>,
    timeout: Option<Value>,
}

/// Signals a command, kills it if that does not help, and tells how it went.
pub(super) async fn kill(
    Session(exec): Session,
    Params(query): Params<KillQuery>,
    body: Bytes,
) -> Answer<Response> {
    // Python says it in the body.
    let body: KillQuery = read_json(&body)?;
    let signal = query
        .signal
        .or(body.signal)
        .unwrap_or_else(|| "TERM".to_owned());
    let limit = match query.timeout.or(body.timeout) {
        None => GRACE,
        Some(Value::String(text)) => duration(&text)?,
        Some(seconds) => {
            let limit = seconds
                .as_f64()
                .and_then(|it| Duration::try_from_secs_f64(it).ok());
            limit.ok_or_else(|| Problem::invalid("`timeout` is not a duration"))?
        }
    };
    Ok(Lines::answer(move |lines| async move {
        exec.ask(Ask::Signal(signal.clone()));
        let said = json!({ "type": "signal", "signal": signal, "message": "signal sent" });
        let _ = lines.write(said).await;
        let code = match tokio::time::timeout(limit, exec.ended()).await {
            Ok(code) => code,
            Err(_) => {
                let _ = lines
                    .write(json!({ "type": "timeout", "message": "still running" }))
                    .await;
                exec.ask(Ask::Signal("KILL".to_owned()));
                let code = exec.ended().await;
                let _ = lines
                    .write(json!({ "type": "killed", "message": "killed" }))
                    .await;
                code
            }
        };
        let _ = lines
            .write(json!({ "type": "exited", "exit_code": code }))
            .await;
        let _ = lines
            .write(json!({ "type": "complete", "exit_code": code }))
            .await;
    }))
}
