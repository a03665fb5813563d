//! The same as `linux.rs` with what every Unix has. Weaker: the batch in hand is in this process's own
//! memory, so it is lost if that is killed.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::{Errno, read, retry_on_intr};

/// What has to outlive the process for nothing to be lost with it.
#[derive(Debug)]
pub(in crate::supervisor) struct Kept {
    /// Not used here.
    pub stage: (OwnedFd, OwnedFd),
    /// The file that says how far the batch in hand has come.
    pub journal: OwnedFd,
}

impl Kept {
    /// New ones, of which nothing is begun.
    #[cfg(test)]
    pub(in crate::supervisor) fn new() -> io::Result<Self> {
        let (out, into) = io::pipe()?;
        Ok(Self {
            stage: (out.into(), into.into()),
            journal: tempfile::tempfile()?.into(),
        })
    }
}

/// Where every batch goes through.
#[derive(Debug)]
pub(super) struct Stage(Vec<u8>);

impl Stage {
    pub(super) fn new(_kept: (OwnedFd, OwnedFd)) -> io::Result<Self> {
        Ok(Self(Vec::new()))
    }

    /// Moves at most a chunk from `source` into the empty stage. 0 at the end of the source.
    pub(super) fn fill(&mut self, source: BorrowedFd<'_>, chunk: &mut [u8]) -> io::Result<usize> {
        let length = match retry_on_intr(|| read(source, &mut *chunk)) {
            Err(Errno::IO) => 0,
            other => other?,
        };
        self.0.extend_from_slice(&chunk[..length]);
        Ok(length)
    }

    /// How many bytes it holds.
    pub(super) fn len(&self) -> io::Result<usize> {
        Ok(self.0.len())
    }

    /// Copies the first bytes of it, and leaves them there.
    pub(super) fn peek(&mut self, chunk: &mut [u8]) -> io::Result<usize> {
        let length = self.0.len().min(chunk.len());
        chunk[..length].copy_from_slice(&self.0[..length]);
        Ok(length)
    }

    /// Takes the first bytes out of it.
    pub(super) fn drain(&mut self, chunk: &mut [u8]) -> io::Result<()> {
        self.0.drain(..chunk.len().min(self.0.len()));
        Ok(())
    }
}

/// Waits for any of many descriptors.
#[derive(Debug)]
pub(super) struct Poller(Vec<(OwnedFd, u64)>);

impl Poller {
    pub(super) fn new() -> io::Result<Self> {
        Ok(Self(Vec::new()))
    }

    /// Waits for `source` too, and tells of it by `key`.
    pub(super) fn add(&mut self, source: impl AsFd, key: u64) -> io::Result<()> {
        let source = source.as_fd().try_clone_to_owned()?;
        self.0.push((source, key));
        Ok(())
    }

    /// Does not wait for it any more.
    pub(super) fn remove(&mut self, _source: impl AsFd, key: u64) -> io::Result<()> {
        self.0.retain(|(_, of)| *of != key);
        Ok(())
    }

    /// Waits, and returns the keys of those that have something.
    pub(super) fn wait(&mut self) -> io::Result<Vec<u64>> {
        let polled = self
            .0
            .iter()
            .map(|(source, _)| PollFd::new(source, PollFlags::IN));
        let mut polled: Vec<_> = polled.collect();
        retry_on_intr(|| poll(&mut polled, None))?;
        let ready = polled.iter().zip(&self.0);
        let ready = ready.filter(|(polled, _)| !polled.revents().is_empty());
        Ok(ready.map(|(_, (_, key))| *key).collect())
    }
}
