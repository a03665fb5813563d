//! What a file is besides its content: owner, extended attributes, mode, times, in this order, because
//! a change of owner clears modes and capabilities, and every change moves the times.

use std::cell::RefCell;
use std::ffi::CStr;
use std::io;
use std::os::fd::BorrowedFd;

use rustix::fs::{AtFlags, FileType, Gid, Mode, Stat, Timespec, Timestamps, Uid, XattrFlags};
use rustix::io::Errno;

thread_local! {
    static NAMES: RefCell<Vec<u8>> = RefCell::new(vec![0; 1 << 10]);
}

/// Who makes the copies.
pub(super) struct Owner {
    uid: u32,
    gid: u32,
}

impl Owner {
    pub(super) fn new() -> Self {
        Self {
            uid: rustix::process::geteuid().as_raw(),
            gid: rustix::process::getegid().as_raw(),
        }
    }

    fn owns(&self, stat: &Stat) -> bool {
        (self.uid, self.gid) == (stat.st_uid, stat.st_gid)
    }
}

/// Gives an open copy what the original has.
pub(super) fn of_open(
    from: BorrowedFd<'_>,
    to: BorrowedFd<'_>,
    stat: &Stat,
    owner: &Owner,
) -> io::Result<()> {
    let mut mode = Mode::from_raw_mode(stat.st_mode) & Mode::from_raw_mode(0o7777);
    let folder = FileType::from_raw_mode(stat.st_mode) == FileType::Directory;
    // The group of a folder may come from the folder above.
    if folder || !owner.owns(stat) {
        let (uid, gid) = (Uid::from_raw(stat.st_uid), Gid::from_raw(stat.st_gid));
        match rustix::fs::fchown(to, Some(uid), Some(gid)) {
            Ok(()) => {}
            // Only root can give files away. A program must not get rights of another user.
            Err(Errno::PERM) if owner.uid != 0 => {
                let _ = rustix::fs::fchown(to, None, Some(gid));
                mode.remove(Mode::SUID | Mode::SGID);
            }
            Err(error) => return Err(error.into()),
        }
    }
    copy_extended(from, to)?;
    rustix::fs::fchmod(to, mode)?;
    Ok(rustix::fs::futimens(to, &times(stat))?)
}

/// The same for what cannot be opened: links, fifos, devices.
pub(super) fn of_node(
    at: BorrowedFd<'_>,
    name: &CStr,
    stat: &Stat,
    owner: &Owner,
) -> rustix::io::Result<()> {
    if !owner.owns(stat) {
        let (uid, gid) = (Uid::from_raw(stat.st_uid), Gid::from_raw(stat.st_gid));
        let flags = AtFlags::SYMLINK_NOFOLLOW;
        match rustix::fs::chownat(at, name, Some(uid), Some(gid), flags) {
            Err(Errno::PERM) if owner.uid != 0 => {}
            other => other?,
        }
    }
    if FileType::from_raw_mode(stat.st_mode) != FileType::Symlink {
        let mode = Mode::from_raw_mode(stat.st_mode) & Mode::from_raw_mode(0o7777);
        rustix::fs::chmodat(at, name, mode, AtFlags::empty())?;
    }
    rustix::fs::utimensat(at, name, &times(stat), AtFlags::SYMLINK_NOFOLLOW)
}

#[allow(
    clippy::unnecessary_cast,
    reason = "their types differ between systems"
)]
fn times(stat: &Stat) -> Timestamps {
    Timestamps {
        last_access: Timespec {
            tv_sec: stat.st_atime as _,
            tv_nsec: stat.st_atime_nsec as _,
        },
        last_modification: Timespec {
            tv_sec: stat.st_mtime as _,
            tv_nsec: stat.st_mtime_nsec as _,
        },
    }
}

fn copy_extended(from: BorrowedFd<'_>, to: BorrowedFd<'_>) -> io::Result<()> {
    NAMES.with_borrow_mut(|names| {
        let length = match rustix::fs::flistxattr(from, &mut names[..]) {
            Err(Errno::RANGE) => {
                let needed = rustix::fs::flistxattr(from, &mut [0_u8; 0][..])?;
                names.resize(needed, 0);
                rustix::fs::flistxattr(from, &mut names[..])?
            }
            Err(Errno::NOTSUP) => return Ok(()),
            other => other?,
        };
        for name in names[..length].split_inclusive(|byte| *byte == 0) {
            if let Ok(name) = CStr::from_bytes_with_nul(name) {
                copy_one(from, to, name)?;
            }
        }
        Ok(())
    })
}

fn copy_one(from: BorrowedFd<'_>, to: BorrowedFd<'_>, name: &CStr) -> io::Result<()> {
    let mut value = vec![0; 256];
    let length = loop {
        match rustix::fs::fgetxattr(from, name, &mut value[..]) {
            Ok(length) => break length,
            Err(Errno::RANGE) => value.resize(value.len() * 4, 0),
            Err(Errno::NODATA) => return Ok(()),
            Err(error) => return Err(error.into()),
        }
    };
    match rustix::fs::fsetxattr(to, name, &value[..length], XattrFlags::empty()) {
        // What only the kernel or root sets is kept where it can be.
        Err(Errno::PERM | Errno::NOTSUP | Errno::ACCESS)
            if [&b"security."[..], b"trusted.", b"system.nfs4"]
                .iter()
                .any(|kind| name.to_bytes().starts_with(kind)) =>
        {
            Ok(())
        }
        other => {
            let told = |error: Errno| {
                let error = io::Error::from(error);
                let text = format!("extended attribute {}: {error}", name.to_string_lossy());
                io::Error::new(error.kind(), text)
            };
            other.map_err(told)
        }
    }
}
