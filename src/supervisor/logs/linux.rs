//! The stage pipe, whose content survives this process, and epoll.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::buffer::spare_capacity;
use rustix::event::epoll;
use rustix::io::{Errno, ioctl_fionread, read, retry_on_intr};
use rustix::pipe::{PIPE_BUF, splice, tee};
use rustix::pipe::{PipeFlags, SpliceFlags, fcntl_getpipe_size, fcntl_setpipe_size, pipe_with};

use super::CHUNK;

/// What has to outlive the process for nothing to be lost with it.
#[derive(Debug)]
pub(in crate::supervisor) struct Kept {
    /// The reading and the writing end of the pipe that the batch in hand is in.
    pub stage: (OwnedFd, OwnedFd),
    /// The file that says how far it has come.
    pub journal: OwnedFd,
}

impl Kept {
    /// New ones, of which nothing is begun.
    #[cfg(test)]
    pub(in crate::supervisor) fn new() -> io::Result<Self> {
        Ok(Self {
            stage: pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK)?,
            journal: rustix::fs::memfd_create(
                "gabion-log-journal",
                rustix::fs::MemfdFlags::CLOEXEC,
            )?,
        })
    }
}

/// The pipe through which every batch goes. Bytes come from a service's pipe in one step, so they are
/// always in one of the two; they are read without being taken out, and leave when they are written.
#[derive(Debug)]
pub(super) struct Stage {
    out: OwnedFd,
    into: OwnedFd,
    scratch: (OwnedFd, OwnedFd),
    /// Where bytes leave to without being copied once more.
    null: Option<OwnedFd>,
}

impl Stage {
    pub(super) fn new((out, into): (OwnedFd, OwnedFd)) -> io::Result<Self> {
        widen(out.as_fd());
        let scratch = scratch(&out)?;
        let null = File::options().write(true).open("/dev/null");
        let null = null.ok().map(OwnedFd::from);
        Ok(Self {
            out,
            into,
            scratch,
            null,
        })
    }

    /// Moves at most `most` bytes from `source` into the empty stage. 0 at the end of the source.
    pub(super) fn fill(&mut self, source: BorrowedFd<'_>, chunk: &mut [u8]) -> io::Result<usize> {
        let flags = SpliceFlags::NONBLOCK;
        match retry_on_intr(|| splice(source, None, &self.into, None, chunk.len(), flags)) {
            // A kernel that cannot do this with terminals (before 5.11). What is between the two steps is lost with
            // the process.
            Err(Errno::INVAL) => {
                let most = chunk.len().min(PIPE_BUF);
                let length = retry_on_intr(|| read(source, &mut chunk[..most]))?;
                // So many fit into any empty pipe.
                Ok(retry_on_intr(|| {
                    rustix::io::write(&self.into, &chunk[..length])
                })?)
            }
            // The last process that held the other side of a terminal has ended.
            Err(Errno::IO) => Ok(0),
            Ok(moved) => {
                if moved >= USUAL {
                    widen(source);
                }
                Ok(moved)
            }
            Err(error) => Err(error.into()),
        }
    }

    /// How many bytes it holds.
    pub(super) fn len(&self) -> io::Result<usize> {
        Ok(ioctl_fionread(&self.out)? as usize)
    }

    /// Copies the first bytes of it, and leaves them there.
    pub(super) fn peek(&mut self, chunk: &mut [u8]) -> io::Result<usize> {
        let flags = SpliceFlags::NONBLOCK;
        let taken = match retry_on_intr(|| tee(&self.out, &self.scratch.1, chunk.len(), flags)) {
            Ok(taken) => taken,
            Err(Errno::AGAIN) => 0,
            Err(error) => return Err(error.into()),
        };
        let copied = fill_from(&self.scratch.0, &mut chunk[..taken]);
        if copied.is_err() {
            // What is left in it must not be taken for the next batch.
            self.scratch = scratch(&self.out)?;
        }
        copied.map(|()| taken)
    }

    /// Takes the first bytes out of it.
    pub(super) fn drain(&mut self, chunk: &mut [u8]) -> io::Result<()> {
        let mut left = chunk.len();
        if let Some(null) = &self.null {
            let flags = SpliceFlags::NONBLOCK;
            while left > 0
                && let Ok(gone @ 1..) = splice(&self.out, None, null, None, left, flags)
            {
                left -= gone;
            }
        }
        fill_from(&self.out, &mut chunk[..left])
    }
}

/// Lets a pipe hold a whole chunk: whoever floods it holds its lock while writing, and is waited for at
/// every turn. Where there are too many large pipes already, it stays as it is.
fn widen(pipe: BorrowedFd<'_>) {
    if fcntl_getpipe_size(pipe).is_ok_and(|size| size < CHUNK) {
        let _ = fcntl_setpipe_size(pipe, CHUNK);
    }
}

/// A pipe that holds as much as the stage.
fn scratch(stage: &OwnedFd) -> io::Result<(OwnedFd, OwnedFd)> {
    let scratch = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK)?;
    // Where it may not be as large, a batch is copied in more than one piece.
    let _ = fcntl_getpipe_size(stage).and_then(|size| fcntl_setpipe_size(&scratch.0, size));
    Ok(scratch)
}

fn fill_from(pipe: &OwnedFd, mut chunk: &mut [u8]) -> io::Result<()> {
    while !chunk.is_empty() {
        match retry_on_intr(|| read(pipe, &mut *chunk))? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            length => chunk = &mut chunk[length..],
        }
    }
    Ok(())
}

/// How many bytes a pipe holds that nobody has widened.
const USUAL: usize = 64 << 10;

/// Waits for any of many descriptors.
#[derive(Debug)]
pub(super) struct Poller(OwnedFd);

/// The most descriptors that one wait tells of. The kernel puts them at the end of its queue, so the
/// others are next; few, so that a request is soon looked at.
const TURN: usize = 16;

impl Poller {
    pub(super) fn new() -> io::Result<Self> {
        Ok(Self(epoll::create(epoll::CreateFlags::CLOEXEC)?))
    }

    /// Waits for `source` too, as long as it is open, and tells of it by `key`.
    pub(super) fn add(&mut self, source: impl AsFd, key: u64) -> io::Result<()> {
        let data = epoll::EventData::new_u64(key);
        Ok(epoll::add(&self.0, source, data, epoll::EventFlags::IN)?)
    }

    /// Does not wait for it any more.
    pub(super) fn remove(&mut self, source: impl AsFd, _key: u64) -> io::Result<()> {
        Ok(epoll::delete(&self.0, source)?)
    }

    /// Waits, and returns the keys of those that have something.
    pub(super) fn wait(&mut self) -> io::Result<Vec<u64>> {
        let mut events: Vec<epoll::Event> = Vec::with_capacity(TURN);
        retry_on_intr(|| epoll::wait(&self.0, spare_capacity(&mut events), None))?;
        Ok(events.iter().map(|event| event.data.u64()).collect())
    }
}
