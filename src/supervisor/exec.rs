//! Runs a command to its end and captures what it writes (protocol page iris, §5).
//!
//! In: a prepared program, its input and its time limit. Out: how it ended and what it wrote. Nothing
//! of its tree of processes is left then, whatever became of it.

use std::io;
use std::time::{Duration, Instant};

use tokio::io::AsyncWriteExt;
use tokio::net::unix::pipe;
use tokio_util::sync::CancellationToken;

use super::aside::{Aside, code_of};
use super::os;
use super::spawn::{Prepared, SpawnError};
use crate::keeper::{End, Keeper, Stream};

/// How many run at a time; each may hold two full [`CAP`]s in memory.
pub(super) const AT_ONCE: usize = 16;

/// The most that is kept of one stream, in bytes.
pub(super) const CAP: usize = 10 << 20;

/// What a time-out is told as, as `timeout` does.
const TIMED_OUT: i32 = 124;

/// What was written to one stream.
#[derive(Debug, Default)]
pub(super) struct Captured {
    /// The first [`CAP`] bytes.
    pub bytes: Vec<u8>,
    /// Whether there were more.
    pub truncated: bool,
}

/// How a command ended.
#[derive(Debug)]
pub(super) struct Outcome {
    pub stdout: Captured,
    pub stderr: Captured,
    /// 128 + the number of the signal that killed it; 124 after the time limit.
    pub exit_code: i32,
    pub timed_out: bool,
    pub duration: Duration,
}

/// What happened first.
enum First {
    Ended(End),
    TimedOut,
    Cancelled,
}

/// Runs a program until it ends, is out of time or is `cancelled` (`None`). `mark` is a variable that
/// nothing else has: what has left its session and its parents is known by it.
pub(super) async fn run(
    keeper: &Keeper,
    prepared: Prepared,
    mark: (&'static str, String),
    stdin: Vec<u8>,
    limit: Duration,
    cancelled: &CancellationToken,
) -> Result<Option<Outcome>, SpawnError> {
    let started = Instant::now();
    let mut running = Running::spawn(keeper, prepared, mark, stdin).await?;
    let first = tokio::select! {
        end = running.program.ended() => First::Ended(end),
        () = tokio::time::sleep(limit) => First::TimedOut,
        () = cancelled.cancelled() => First::Cancelled,
    };
    let [stdout, stderr] = running.finish().await;
    let (exit_code, timed_out) = match first {
        First::Ended(end) => (code_of(end), false),
        First::TimedOut => (TIMED_OUT, true),
        First::Cancelled => return Ok(None),
    };
    Ok(Some(Outcome {
        stdout,
        stderr,
        exit_code,
        timed_out,
        duration: started.elapsed(),
    }))
}

type Capturing = tokio::task::JoinHandle<Captured>;

/// A command that runs.
struct Running {
    program: Aside,
    /// Who takes its orphans in.
    parent: Option<u32>,
    mark: String,
    output: [Capturing; 2],
    last: CancellationToken,
}

impl Running {
    async fn spawn(
        keeper: &Keeper,
        prepared: Prepared,
        mark: (&'static str, String),
        stdin: Vec<u8>,
    ) -> Result<Self, SpawnError> {
        let pipe = || io::pipe().map_err(SpawnError::Log);
        let receiver = |end: io::PipeReader| {
            pipe::Receiver::from_owned_fd(end.into()).map_err(SpawnError::Log)
        };
        let (stdout, stdout_end) = pipe()?;
        let (stderr, stderr_end) = pipe()?;
        let pipes = [receiver(stdout)?, receiver(stderr)?];
        let mut streams = [Stream::Null, Stream::Given, Stream::Given];
        let mut given = vec![stdout_end.into(), stderr_end.into()];
        if !stdin.is_empty() {
            let (reader, writer) = pipe()?;
            let mut writer = pipe::Sender::from_owned_fd(writer.into()).map_err(SpawnError::Log)?;
            streams[0] = Stream::Given;
            given.insert(0, reader.into());
            // Ends with the pipe: at the latest when the whole tree is gone.
            tokio::spawn(async move {
                // A program need not read what it is given.
                let _ = writer.write_all(&stdin).await;
            });
        }
        let name = format!("{}={}", mark.0, mark.1);
        let prepared = prepared.with_env(vec![mark]);
        let program = Aside::start(keeper, &prepared, streams, given).await?;
        let last = CancellationToken::new();
        Ok(Self {
            parent: os::parent(program.pid()),
            program,
            mark: name,
            output: pipes.map(|pipe| tokio::spawn(capture(pipe, last.clone()))),
            last,
        })
    }

    /// Kills what is left, and takes the last of the output.
    async fn finish(mut self) -> [Captured; 2] {
        if let Err(error) = self.kill_tree().await {
            let pid = self.program.pid();
            tracing::warn!(pid, %error, "cannot look for what a command has left");
        }
        self.program.ended().await;
        self.last.cancel();
        let [stdout, stderr] = self.output;
        [stdout.await, stderr.await].map(Result::unwrap_or_default)
    }

    /// Kills its session, what is below it in other sessions, and what has left both.
    async fn kill_tree(&self) -> io::Result<()> {
        let family = os::descendants([self.program.pid()]);
        self.program.clear().await?;
        os::kill_family(family).await?;
        let Some(parent) = self.parent else {
            return Ok(());
        };
        loop {
            let orphans = os::marked_orphans(parent, &self.mark);
            if orphans.is_empty() {
                return Ok(());
            }
            os::kill_family(orphans.clone()).await?;
            let left = os::marked_orphans(parent, &self.mark);
            // What may not be killed is left.
            if left.iter().any(|orphan| orphans.contains(orphan)) {
                return Ok(());
            }
        }
    }
}

/// Reads a stream to its end, or to what is in it when `last` comes.
async fn capture(pipe: pipe::Receiver, last: CancellationToken) -> Captured {
    let mut captured = Captured::default();
    let mut chunk = vec![0; 64 << 10];
    loop {
        let finishing = tokio::select! {
            ready = pipe.readable() => ready.is_err(),
            () = last.cancelled() => true,
        };
        let read = match finishing {
            false => pipe.try_read(&mut chunk),
            // Asks the kernel: the runtime may not have heard of the last bytes yet.
            true => rustix::io::read(&pipe, &mut chunk[..]).map_err(io::Error::from),
        };
        match read {
            Ok(0) => return captured,
            Ok(length) => captured.push(&chunk[..length]),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock && !finishing => {}
            Err(_) => return captured,
        }
    }
}

impl Captured {
    /// Keeps what there is room for; the rest is read and thrown away, so that the program goes on.
    fn push(&mut self, bytes: &[u8]) {
        let room = CAP - self.bytes.len();
        self.truncated |= bytes.len() > room;
        self.bytes
            .extend_from_slice(&bytes[..bytes.len().min(room)]);
    }
}
