//! The bytes of regular files: shared where the filesystem can, copied by the kernel otherwise, and
//! holes stay holes.

use std::cell::RefCell;
use std::os::fd::BorrowedFd;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::fs::Stat;
use rustix::io::Errno;

use super::os;

/// Up to this size a read and a write are cheaper than asking the kernel for a copy.
const SMALL: usize = 128 << 10;

/// How a piece of a buffer is at most.
const CHUNK: usize = 1 << 20;

thread_local! {
    static BUFFER: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// What was found out about the two filesystems of one copy.
#[derive(Debug, Default)]
pub(super) struct Content {
    /// They cannot share extents.
    never_shares: AtomicBool,
    /// The kernel does not copy between them.
    never_copies: AtomicBool,
}

impl Content {
    /// Lets the copy share the extents of the original. Says whether that was done.
    pub(super) fn share(&self, from: BorrowedFd<'_>, to: BorrowedFd<'_>) -> bool {
        if self.never_shares.load(Ordering::Relaxed) {
            return false;
        }
        match os::share(from, to) {
            Ok(()) => true,
            Err(error) => {
                let never = [Errno::NOTSUP, Errno::XDEV, Errno::NOTTY, Errno::NOSYS];
                if never.contains(&error) || error == Errno::INVAL {
                    self.never_shares.store(true, Ordering::Relaxed);
                }
                false
            }
        }
    }

    /// Copies a whole file, which is not large.
    pub(super) fn whole(
        &self,
        from: BorrowedFd<'_>,
        to: BorrowedFd<'_>,
        stat: &Stat,
    ) -> rustix::io::Result<()> {
        let size = u64::try_from(stat.st_size).unwrap_or(0);
        if size == 0 || self.share(from, to) {
            return Ok(());
        }
        let allocated = u64::try_from(stat.st_blocks).unwrap_or(0) * 512;
        if allocated >= size && size <= SMALL as u64 {
            return copy_by_hand(from, to, 0, size);
        }
        if allocated >= size {
            return self.bytes(from, to, 0, size);
        }
        rustix::fs::ftruncate(to, size)?;
        self.range(from, to, 0, size)
    }

    /// Copies what lies between two offsets; holes are left out. The copy has its full length already.
    pub(super) fn range(
        &self,
        from: BorrowedFd<'_>,
        to: BorrowedFd<'_>,
        start: u64,
        end: u64,
    ) -> rustix::io::Result<()> {
        let mut at = start;
        while at < end {
            let Some((data, hole)) = os::next_data(from, at)? else {
                return Ok(());
            };
            let (data, hole) = (data.max(at), hole.min(end));
            if data >= end {
                return Ok(());
            }
            self.bytes(from, to, data, hole)?;
            at = hole;
        }
        Ok(())
    }

    fn bytes(
        &self,
        from: BorrowedFd<'_>,
        to: BorrowedFd<'_>,
        mut start: u64,
        end: u64,
    ) -> rustix::io::Result<()> {
        while start < end && !self.never_copies.load(Ordering::Relaxed) {
            match os::copy_range(from, to, start, end - start) {
                // The original has become shorter.
                Ok(0) => return Ok(()),
                Ok(copied) => start += copied,
                Err(Errno::INTR) => {}
                Err(Errno::XDEV | Errno::INVAL | Errno::NOSYS | Errno::NOTSUP | Errno::PERM) => {
                    self.never_copies.store(true, Ordering::Relaxed);
                }
                Err(error) => return Err(error),
            }
        }
        copy_by_hand(from, to, start, end)
    }
}

fn copy_by_hand(
    from: BorrowedFd<'_>,
    to: BorrowedFd<'_>,
    mut start: u64,
    end: u64,
) -> rustix::io::Result<()> {
    BUFFER.with_borrow_mut(|buffer| {
        while start < end {
            let wanted = usize::try_from(end - start).unwrap_or(CHUNK).min(CHUNK);
            if buffer.len() < wanted {
                buffer.resize(wanted.max(SMALL), 0);
            }
            let read = match rustix::io::pread(from, &mut buffer[..wanted], start) {
                Ok(0) => return Ok(()),
                Err(Errno::INTR) => continue,
                other => other?,
            };
            let mut written = 0;
            while written < read {
                match rustix::io::pwrite(to, &buffer[written..read], start + written as u64) {
                    Err(Errno::INTR) => {}
                    other => written += other?,
                }
            }
            start += read as u64;
        }
        Ok(())
    })
}
