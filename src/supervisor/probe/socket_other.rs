//! There is no way here to know who sends: services cannot notify.

use std::convert::Infallible;
use std::io;

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
    pub fn from_fd(_: std::os::fd::OwnedFd) -> io::Result<Self> {
        Self::new()
    }

    /// Never called.
    pub fn twin(&self) -> io::Result<std::os::fd::OwnedFd> {
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
