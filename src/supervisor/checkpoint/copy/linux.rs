//! What only Linux can do: sharing extents, copies by the kernel, holes, mounts.

use std::ffi::CStr;
use std::io;
use std::os::fd::BorrowedFd;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, FileType, Mode, SeekFrom, Stat, StatxFlags};
use rustix::io::Errno;

/// Which mount a file is on.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Mount(u64, u32, u32);

pub(super) fn mount_of(dir: BorrowedFd<'_>) -> io::Result<Mount> {
    let found = rustix::fs::statx(dir, c"", AtFlags::EMPTY_PATH, StatxFlags::MNT_ID)?;
    // 0 everywhere on a kernel before 5.8: then the device alone tells.
    Ok(Mount(
        found.stx_mnt_id,
        found.stx_dev_major,
        found.stx_dev_minor,
    ))
}

/// The places below `dir` where something else is mounted.
pub(in crate::supervisor::checkpoint) fn mounts_below(dir: &Path) -> io::Result<Vec<PathBuf>> {
    let table = std::fs::read("/proc/self/mountinfo")?;
    let points = table.split(|byte| *byte == b'\n').filter_map(|line| {
        let point = line.split(|byte| *byte == b' ').nth(4)?;
        Some(PathBuf::from(std::ffi::OsString::from_vec(unescape(point))))
    });
    Ok(points
        .filter(|point| point != dir && point.starts_with(dir))
        .collect())
}

/// Blanks, tabs, line ends and backslashes are written as three octal digits.
fn unescape(text: &[u8]) -> Vec<u8> {
    let mut plain = Vec::with_capacity(text.len());
    let mut rest = text;
    while let [first, tail @ ..] = rest {
        let digits = tail.get(..3).filter(|_| *first == b'\\');
        let value =
            digits.and_then(|digits| u8::from_str_radix(std::str::from_utf8(digits).ok()?, 8).ok());
        match value {
            Some(value) => {
                plain.push(value);
                rest = &tail[3..];
            }
            None => {
                plain.push(*first);
                rest = tail;
            }
        }
    }
    plain
}

pub(super) fn share(from: BorrowedFd<'_>, to: BorrowedFd<'_>) -> rustix::io::Result<()> {
    rustix::fs::ioctl_ficlone(to, from)
}

/// Copies at most `length` bytes at the same offset in both.
pub(super) fn copy_range(
    from: BorrowedFd<'_>,
    to: BorrowedFd<'_>,
    offset: u64,
    length: u64,
) -> rustix::io::Result<u64> {
    let (mut source, mut target) = (offset, offset);
    let length = usize::try_from(length).unwrap_or(usize::MAX);
    let copied =
        rustix::fs::copy_file_range(from, Some(&mut source), to, Some(&mut target), length)?;
    Ok(copied as u64)
}

/// Where data begins at or after an offset, and where it ends; `None` if there is no more.
pub(super) fn next_data(file: BorrowedFd<'_>, at: u64) -> rustix::io::Result<Option<(u64, u64)>> {
    let data = match rustix::fs::seek(file, SeekFrom::Data(at)) {
        Err(Errno::NXIO) => return Ok(None),
        // A filesystem that does not tell.
        Err(Errno::INVAL) => return Ok(Some((at, u64::MAX))),
        other => other?,
    };
    Ok(Some((data, rustix::fs::seek(file, SeekFrom::Hole(data))?)))
}

pub(super) fn make_node(
    at: BorrowedFd<'_>,
    name: &CStr,
    kind: FileType,
    stat: &Stat,
) -> rustix::io::Result<()> {
    let mode = Mode::RUSR | Mode::WUSR;
    rustix::fs::mknodat(at, name, kind, mode, stat.st_rdev)
}

#[test]
fn mount_points_are_read_as_they_are_written() {
    assert_eq!(unescape(br"/a\040b\134c\0"), br"/a b\c\0");
}
