//! Commands in a sandbox, run by its supervisor, whose streams end here: to be read, written, signalled and
//! left by clients.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use axum::body::Bytes;
use futures_util::future::join_all;
use jiff::Timestamp;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::output::{Backlog, Piece, Reader};
use super::sandbox::locked;
use super::{EngineError, Result, Sandbox};
use crate::platforms::{LogStream, TerminalSize};
use crate::supervisor::{Command, Input, Output, Session};

/// The largest piece of output, in bytes.
const PIECE: usize = 8 << 10;

/// The code of a command that could not be executed, as shells say it.
const NOT_EXECUTED: i32 = 127;

/// The code of a command that was killed because nobody wanted it any more: 128 + SIGKILL.
const KILLED: i32 = 137;

/// A command that is asked for.
#[derive(Debug, Default)]
pub struct Program {
    /// It and its arguments.
    pub argv: Vec<String>,
    /// Over the sandbox's variables.
    pub env: Vec<(String, String)>,
    /// Where; relative to the workspace, which is the default.
    pub dir: Option<String>,
    /// The size of its terminal; `None`: it has pipes.
    pub terminal: Option<TerminalSize>,
    /// How long it may go on while nobody reads it. `None`: for ever.
    pub patience: Option<Duration>,
}

/// What a client asks of a running command.
#[derive(Debug)]
pub enum Ask {
    /// To be written to its standard input.
    Input(Bytes),
    /// The end of its standard input. A terminal has none.
    End,
    /// A signal, by its name with or without `SIG`.
    Signal(String),
    /// Another size of its terminal.
    Resize(TerminalSize),
}

/// A command that runs or has ended.
pub struct Exec {
    /// Counts the commands of all sandboxes.
    pub number: u64,
    /// Its arguments, for people.
    pub command: String,
    /// The folder that was asked for.
    pub dir: Option<String>,
    /// When it was started.
    pub started_at: Timestamp,
    /// Whether it has a terminal.
    pub terminal: bool,
    asks: mpsc::UnboundedSender<Ask>,
    backlog: Arc<Backlog>,
}

/// What a command has left when it has ended.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Ran {
    /// What it wrote to its standard output.
    pub stdout: Vec<u8>,
    /// What it wrote to its error output.
    pub stderr: Vec<u8>,
    /// 128 + signal number if it was killed; 127 if it could not be executed.
    pub code: i32,
}

impl Exec {
    /// Asks something of it; of one that has ended, in vain.
    pub fn ask(&self, ask: Ask) {
        if self.terminal && matches!(ask, Ask::End) {
            // Somebody else may still write to it.
            return;
        }
        let _ = self.asks.send(ask);
    }

    /// Reads what it writes, from the first piece that is kept.
    pub fn reader(&self) -> Reader {
        self.backlog.reader()
    }

    /// Its exit code, once it has ended.
    pub async fn ended(&self) -> i32 {
        self.backlog.ended().await
    }

    /// Its exit code, if it has ended.
    pub fn exit(&self) -> Option<i32> {
        self.backlog.exit()
    }
}

impl Sandbox {
    /// Runs a command. It ends when nobody has read it for as long as it is given.
    ///
    /// One that cannot be executed is not an error: it says why on its error output, and ends with 127.
    pub async fn exec(self: &Arc<Self>, program: Program) -> Result<(Arc<Exec>, Reader)> {
        static NUMBER: AtomicU64 = AtomicU64::new(1);
        if program.argv.first().is_none_or(String::is_empty) {
            return Err(EngineError::invalid("there is nothing to run"));
        }
        self.awake().await?;
        let command = Command {
            argv: program.argv.clone(),
            env: program.env,
            dir: program
                .dir
                .clone()
                .filter(|dir| !dir.is_empty())
                .map(Into::into),
            terminal: program.terminal,
            ..Command::default()
        };
        let session = Session::start(self.dir(), command).await;
        let (asks, asked) = mpsc::unbounded_channel();
        let exec = Arc::new(Exec {
            number: NUMBER.fetch_add(1, Ordering::Relaxed),
            command: program.argv.join(" "),
            dir: program.dir,
            started_at: Timestamp::now(),
            terminal: program.terminal.is_some(),
            asks,
            backlog: Backlog::new(),
        });
        // Before anybody could think that nobody reads.
        let reader = exec.reader();
        locked(&self.execs).insert(exec.number, exec.clone());
        let (sandbox, running) = (self.clone(), exec.clone());
        tokio::spawn(async move {
            let code = attend(session, &running.backlog, asked, program.patience).await;
            locked(&sandbox.execs).remove(&running.number);
            running.backlog.end(code);
        });
        Ok((exec, reader))
    }

    /// Runs a command to its end, with this to read.
    pub async fn run(self: &Arc<Self>, program: Program, input: Bytes) -> Result<Ran> {
        let (exec, mut reader) = self.exec(program).await?;
        exec.ask(Ask::Input(input));
        exec.ask(Ask::End);
        let mut ran = Ran::default();
        loop {
            match reader.next().await {
                super::Event::Output(piece) => match piece.stream {
                    LogStream::Stdout => ran.stdout.extend_from_slice(&piece.bytes),
                    LogStream::Stderr => ran.stderr.extend_from_slice(&piece.bytes),
                },
                super::Event::Exit(code) => {
                    ran.code = code;
                    return Ok(ran);
                }
            }
        }
    }

    /// Every command that runs, the oldest first.
    pub fn execs(&self) -> Vec<Arc<Exec>> {
        locked(&self.execs).values().cloned().collect()
    }
}

/// Sees a command through to its end, and returns its exit code.
async fn attend(
    session: io::Result<Session>,
    backlog: &Backlog,
    mut asked: mpsc::UnboundedReceiver<Ask>,
    patience: Option<Duration>,
) -> i32 {
    let mut session = match session {
        Ok(session) => session,
        Err(error) => {
            let bytes = format!("{error}\n").into();
            let stream = LogStream::Stderr;
            backlog.add(Piece { stream, bytes }).await;
            return NOT_EXECUTED;
        }
    };
    let (input, given) = mpsc::unbounded_channel();
    let mut input = Some(input);
    let writing = session
        .input
        .take()
        .map(|end| tokio::spawn(write(end, given)));
    let outputs = std::mem::take(&mut session.outputs);
    let streams = [LogStream::Stdout, LogStream::Stderr];
    // Comes when it has ended.
    let last = CancellationToken::new();
    let reads = outputs.iter().zip(streams);
    let reading = join_all(reads.map(|(output, stream)| read(output, stream, backlog, &last)));
    tokio::pin!(reading);
    let given_up = give_up(backlog, patience);
    tokio::pin!(given_up);
    let mut read_all = false;
    let code = loop {
        tokio::select! {
            ended = session.ended() => break ended.unwrap_or(KILLED),
            () = &mut given_up => break KILLED,
            _ = &mut reading, if !read_all => read_all = true,
            Some(ask) = asked.recv() => match ask {
                Ask::Input(bytes) => {
                    if let Some(input) = &input {
                        // A program that does not read any more does not miss it.
                        let _ = input.send(bytes);
                    }
                }
                Ask::End => input = None,
                Ask::Signal(name) => {
                    // One that has ended meanwhile is told of above.
                    let _ = session.signal(&name).await;
                }
                Ask::Resize(size) => session.resize(size),
            },
        }
    };
    drop(session);
    if let Some(writing) = writing {
        writing.abort();
    }
    last.cancel();
    if !read_all {
        reading.await;
    }
    code
}

/// Returns when nobody has read for as long as that is borne.
async fn give_up(backlog: &Backlog, patience: Option<Duration>) {
    let Some(patience) = patience else {
        return std::future::pending().await;
    };
    loop {
        backlog.left_alone().await;
        if tokio::time::timeout(patience, backlog.read_again())
            .await
            .is_err()
        {
            return;
        }
    }
}

/// Reads to the end; what has escaped from the program may keep that from coming, so that `last` makes it
/// read only what is there.
async fn read(output: &Output, stream: LogStream, backlog: &Backlog, last: &CancellationToken) {
    let mut bytes = vec![0; PIECE];
    loop {
        let read = tokio::select! {
            read = output.read(&mut bytes) => read,
            () = last.cancelled() => break,
        };
        let Ok(length @ 1..) = read else {
            return;
        };
        let bytes = Bytes::copy_from_slice(&bytes[..length]);
        backlog.add(Piece { stream, bytes }).await;
    }
    while let Ok(length @ 1..) = output.read_rest(&mut bytes) {
        let bytes = Bytes::copy_from_slice(&bytes[..length]);
        backlog.add(Piece { stream, bytes }).await;
    }
}

/// Writes what is given; the end of that is the end of the input.
async fn write(end: Input, mut given: mpsc::UnboundedReceiver<Bytes>) {
    while let Some(bytes) = given.recv().await {
        if end.write(&bytes).await.is_err() {
            return;
        }
    }
}
