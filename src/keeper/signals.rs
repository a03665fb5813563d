//! Waiting for descriptors and signals, without a runtime.

use std::io;
use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use signal_hook::consts::{SIGCHLD, SIGHUP, SIGINT, SIGQUIT, SIGTERM};
use signal_hook::{flag, low_level::pipe};

/// What tells a process to end.
const ENDS: [i32; 4] = [SIGTERM, SIGINT, SIGHUP, SIGQUIT];

/// Waits until one of them is ready, or the time is over.
pub(super) fn sleep(waited: &mut [PollFd<'_>], patience: Option<Duration>) -> io::Result<()> {
    let limit = patience.and_then(|patience| patience.try_into().ok());
    match poll(waited, limit.as_ref()) {
        Ok(_) | Err(rustix::io::Errno::INTR) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// Whether something can be read now.
pub(super) fn is_readable(descriptor: BorrowedFd<'_>) -> bool {
    let now = Timespec::default();
    let mut polled = [PollFd::from_borrowed_fd(descriptor, PollFlags::IN)];
    poll(&mut polled, Some(&now)).is_ok_and(|count| count > 0)
}

/// Signals, as bytes in a pipe that can be waited for.
pub(super) struct Signals {
    /// Readable when there is a signal.
    pub reader: io::PipeReader,
    ends: Arc<AtomicUsize>,
}

impl Signals {
    /// Begins to take them, for the rest of the process's life.
    pub(super) fn new() -> io::Result<Self> {
        let (reader, writer) = io::pipe()?;
        rustix::io::ioctl_fionbio(&reader, true)?;
        let ends = Arc::new(AtomicUsize::new(0));
        for signal in ENDS {
            flag::register_usize(signal, ends.clone(), 1)?;
        }
        for signal in ENDS.into_iter().chain([SIGCHLD]) {
            pipe::register(signal, writer.try_clone()?)?;
        }
        Ok(Self { reader, ends })
    }

    /// Whether this process was told to end since the last call.
    pub(super) fn told_to_end(&self) -> bool {
        self.ends.swap(0, Ordering::Relaxed) > 0
    }

    /// Whether there was any signal since the last call: a child may have ended then.
    pub(super) fn any(&self) -> bool {
        let mut bytes = [0; 256];
        let mut any = false;
        while rustix::io::read(&self.reader, &mut bytes).is_ok_and(|count| count > 0) {
            any = true;
        }
        any
    }
}
