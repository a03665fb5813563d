//! There is no way here to know who sends: services cannot notify.

use std::convert::Infallible;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use super::notify::Note;

/// There is none.
#[derive(Debug)]
pub(in crate::supervisor) struct NotifySocket(Infallible);

impl NotifySocket {
    /// Fails.
    pub fn new() -> io::Result<Self> {
        Err(io::Error::new(
            io::ErrorKind::Unsupported,
            "`health.notify` needs Linux",
        ))
    }

    /// Fails.
    #[allow(dead_code, reason = "for a supervisor that takes services over")]
    pub fn from_fd(_fd: OwnedFd) -> io::Result<Self> {
        Self::new()
    }

    /// Never called.
    #[allow(dead_code, reason = "for a supervisor that hands its services over")]
    pub fn into_fd(self) -> io::Result<OwnedFd> {
        match self.0 {}
    }

    /// Never called.
    pub fn address(&self) -> &str {
        match self.0 {}
    }

    /// Never called.
    pub(super) fn said(&self) -> Option<Note> {
        match self.0 {}
    }

    /// Never called.
    pub(super) fn say(&self, _notes: Vec<Note>) {
        match self.0 {}
    }

    /// Never called.
    pub async fn receive(&self, _message: &mut [u8], _leader: u32) -> io::Result<Option<usize>> {
        match self.0 {}
    }
}

impl AsFd for NotifySocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self.0 {}
    }
}
