//! Stand-ins for what only Linux can do.

use std::ffi::CStr;
use std::io;
use std::os::fd::BorrowedFd;
use std::path::{Path, PathBuf};

use rustix::fs::{FileType, Stat};
use rustix::io::Errno;

/// Which filesystem a file is on.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Mount(i64);

#[allow(clippy::unnecessary_cast, reason = "its type differs between systems")]
pub(super) fn mount_of(dir: BorrowedFd<'_>) -> io::Result<Mount> {
    Ok(Mount(rustix::fs::fstat(dir)?.st_dev as i64))
}

/// There is no table of mounts that could be read.
pub(in crate::supervisor::checkpoint) fn mounts_below(_dir: &Path) -> io::Result<Vec<PathBuf>> {
    Ok(Vec::new())
}

pub(super) fn share(_from: BorrowedFd<'_>, _to: BorrowedFd<'_>) -> rustix::io::Result<()> {
    Err(Errno::NOTSUP)
}

pub(super) fn copy_range(
    _from: BorrowedFd<'_>,
    _to: BorrowedFd<'_>,
    _offset: u64,
    _length: u64,
) -> rustix::io::Result<u64> {
    Err(Errno::NOSYS)
}

/// Everything counts as data.
pub(super) fn next_data(_file: BorrowedFd<'_>, at: u64) -> rustix::io::Result<Option<(u64, u64)>> {
    Ok(Some((at, u64::MAX)))
}

/// Fifos and devices are left out.
pub(super) fn make_node(
    _at: BorrowedFd<'_>,
    _name: &CStr,
    _kind: FileType,
    _stat: &Stat,
) -> rustix::io::Result<()> {
    Err(Errno::NOTSUP)
}
