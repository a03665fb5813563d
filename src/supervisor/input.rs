//! The standard input of a live process: a queue in front of a pipe, so that a process that does not
//! read holds up nobody but those who write to it.

use std::io;
use std::os::fd::OwnedFd;

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::sync::mpsc;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::owner::{Refusal, Reply};

/// How many writes may wait for the process to read.
const WAITING: usize = 16;

/// What somebody wants to be read.
#[derive(Debug)]
pub(super) struct Given {
    /// The bytes, written as they are.
    pub data: Vec<u8>,
    /// Whether the input ends after them.
    pub eof: bool,
}

/// What the standard input is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Pipe,
    /// Ends with a character, not by being closed.
    Terminal,
}

/// What ends the input at a terminal: Ctrl-D.
const END_OF_TEXT: &[u8] = &[4];

/// The way to the standard input of one process. It is closed when this is dropped.
#[derive(Debug)]
pub(super) struct Input {
    queue: mpsc::Sender<(Given, Reply)>,
    _open: DropGuard,
}

impl Input {
    /// Takes our end. `at_end` is called when a pipe was told to end: whoever holds that end, too, has
    /// to close it.
    pub(super) fn start(
        ours: OwnedFd,
        kind: Kind,
        at_end: impl FnOnce() + Send + 'static,
    ) -> io::Result<Self> {
        rustix::io::ioctl_fionbio(&ours, true)?;
        // SAFETY: an `OwnedFd` names the same open descriptor for as long as it lives.
        let ours = unsafe { AsyncFd::register_with_interest(ours, Interest::WRITABLE) }?;
        let (queue, waiting) = mpsc::channel(WAITING);
        let ended = CancellationToken::new();
        let ending = ended.clone();
        tokio::spawn(async move {
            if write_queue(ours, kind, waiting, ending).await && kind == Kind::Pipe {
                at_end();
            }
        });
        Ok(Self {
            queue,
            _open: ended.drop_guard(),
        })
    }

    /// Queues a write. It is answered once the pipe has taken it.
    pub(super) fn give(&self, given: Given, reply: Reply) {
        let refused = match self.queue.try_send((given, reply)) {
            Ok(()) => return,
            Err(error) => error,
        };
        let (refusal, (_, reply)) = match refused {
            mpsc::error::TrySendError::Full(given) => {
                let text = "it does not read what it was given before";
                (Refusal::new(429, "conflict", text), given)
            }
            mpsc::error::TrySendError::Closed(given) => (closed(), given),
        };
        // Whoever asked may have hung up.
        let _ = reply.send(Err(refusal));
    }
}

fn closed() -> Refusal {
    Refusal::conflict("its standard input is closed")
}

/// Writes what is given until the process has ended or its input. Says whether it was told to end it.
async fn write_queue(
    ours: AsyncFd<OwnedFd>,
    kind: Kind,
    mut waiting: mpsc::Receiver<(Given, Reply)>,
    ended: CancellationToken,
) -> bool {
    let (mut open, mut eof) = (true, false);
    while open {
        let (given, reply) = tokio::select! {
            () = ended.cancelled() => break,
            next = waiting.recv() => match next {
                Some(next) => next,
                None => break,
            },
        };
        let mut data = given.data;
        if given.eof && kind == Kind::Terminal {
            data.extend_from_slice(END_OF_TEXT);
        }
        let written = tokio::select! {
            () = ended.cancelled() => Err(closed()),
            written = write_all(&ours, &data) => written.map_err(|_| closed()),
        };
        eof = given.eof && written.is_ok();
        // A terminal can be written to again.
        open = written.is_ok() && !(eof && kind == Kind::Pipe);
        let _ = reply.send(written);
    }
    waiting.close();
    while let Ok((_, reply)) = waiting.try_recv() {
        let _ = reply.send(Err(closed()));
    }
    eof
}

async fn write_all(ours: &AsyncFd<OwnedFd>, mut data: &[u8]) -> io::Result<()> {
    while !data.is_empty() {
        let mut ready = ours.writable().await?;
        let written = ready.try_io(|ours| Ok(rustix::io::write(ours, data)?));
        match written {
            Ok(Ok(length)) => data = &data[length..],
            Ok(Err(error)) if error.kind() == io::ErrorKind::Interrupted => {}
            Ok(Err(error)) => return Err(error),
            // Not ready after all.
            Err(_) => {}
        }
    }
    Ok(())
}
