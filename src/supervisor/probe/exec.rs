//! A program that is asked: with the service's environment, folder and user.

use std::io;
use std::time::Duration;

use tokio::net::unix::pipe;
use tokio::time::timeout;

use super::miss::{self, Answers, Miss};
use crate::keeper::{End, Keeper, Stream};
use crate::supervisor::aside::Aside;
use crate::supervisor::container;
use crate::supervisor::live::Inside;
use crate::supervisor::spawn::{Prepared, SpawnError};

/// How much of the end of its output is kept.
const KEPT: usize = 4 << 10;

pub(super) async fn attempt(
    inside: &Inside,
    argv: &[String],
    answers: Answers<'_>,
    limit: Duration,
) -> Result<(), Miss> {
    let (keeper, prepared) = match inside {
        Inside::Process(keeper, prepared) => (keeper, prepared),
        Inside::Container(engine, id) => {
            return in_container(engine, id, argv, answers, limit).await;
        }
    };
    let mut output = Tail::default();
    let ended = match timeout(limit, run(keeper, prepared, argv, &mut output)).await {
        Ok(Ok(End::Exited(0))) => return Ok(()),
        Ok(Ok(end)) => {
            let text = match end {
                End::Exited(code) => format!("exited with {code}"),
                End::Killed(_) => "was killed".to_owned(),
            };
            miss::exec(argv, &text, &format!("still {text}"))
        }
        Ok(Err(error)) => return Err(Miss::plain(format!("health check: {error}"))),
        Err(_) => miss::exec(argv, "has not ended yet", "did not end"),
    };
    Err(ended.with(answers.last_line(&output.0)))
}

async fn in_container(
    engine: &container::Engine,
    id: &str,
    argv: &[String],
    answers: Answers<'_>,
    limit: Duration,
) -> Result<(), Miss> {
    let ran = match container::run(engine, id, argv.to_vec(), limit).await {
        Ok(ran) => ran,
        Err(error) => return Err(Miss::plain(format!("health check: {error}"))),
    };
    if ran.timed_out {
        let miss = miss::exec(argv, "has not ended yet", "did not end");
        return Err(miss.with(answers.last_line(&ran.stdout)));
    }
    if ran.code == 0 {
        return Ok(());
    }
    let text = format!("exited with {}", ran.code);
    let said = answers.last_line(&ran.stderr);
    let said = said.or_else(|| answers.last_line(&ran.stdout));
    Err(miss::exec(argv, &text, &format!("still {text}")).with(said))
}

/// Runs a program to its end, with the end of what it writes in `output`. What is left of it is killed
/// then, and when this is dropped.
async fn run(
    keeper: &Keeper,
    prepared: &Prepared,
    argv: &[String],
    output: &mut Tail,
) -> Result<End, SpawnError> {
    let prepared = prepared.with_argv(argv.to_vec());
    let (reader, writer) = io::pipe().map_err(SpawnError::Log)?;
    let second = writer.try_clone().map_err(SpawnError::Log)?;
    let reader = pipe::Receiver::from_owned_fd(reader.into()).map_err(SpawnError::Log)?;
    let streams = [Stream::Null, Stream::Given, Stream::Given];
    let given = vec![writer.into(), second.into()];
    let mut program = Aside::start(keeper, &prepared, streams, given).await?;
    let mut open = true;
    loop {
        tokio::select! {
            biased;
            ready = reader.readable(), if open => {
                open = ready.is_ok() && output.take(|chunk| reader.try_read(chunk));
            }
            end = program.ended() => {
                // The kernel is asked: the runtime may not have heard of the last bytes yet.
                output.take(|chunk| Ok(rustix::io::read(&reader, chunk)?));
                return Ok(end);
            }
        }
    }
}

/// The end of an output.
#[derive(Default)]
struct Tail(Vec<u8>);

impl Tail {
    /// Takes what is in the pipe, up to a bound; says whether there may be more.
    fn take(&mut self, read: impl Fn(&mut [u8]) -> io::Result<usize>) -> bool {
        let mut chunk = [0; KEPT];
        // One that floods the pipe must not keep the supervisor from everything else.
        for _ in 0..16 {
            match read(&mut chunk) {
                Ok(0) => return false,
                Ok(length) => self.push(&chunk[..length]),
                Err(error) => return error.kind() == io::ErrorKind::WouldBlock,
            }
        }
        true
    }

    fn push(&mut self, chunk: &[u8]) {
        self.0.extend_from_slice(chunk);
        let excess = self.0.len().saturating_sub(KEPT);
        self.0.drain(..excess);
    }
}
