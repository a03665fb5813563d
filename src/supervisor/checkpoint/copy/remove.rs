//! Removing a tree without following a link and without leaving its filesystem.

use std::ffi::CStr;
use std::io;
use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{AtFlags, Dir, FileType, Mode};
use rustix::io::Errno;

use super::{open_dir, os};

/// Removes `name` in `at` with everything in it; an absent one counts as removed. Something mounted
/// in it is an error.
pub(in crate::supervisor::checkpoint) fn remove_tree(at: impl AsFd, name: &CStr) -> io::Result<()> {
    let at = at.as_fd();
    match rustix::fs::unlinkat(at, name, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => return Ok(()),
        // What the two systems say of a folder.
        Err(Errno::ISDIR | Errno::PERM) => {}
        Err(error) => return Err(error.into()),
    }
    let dir = enter(at, name)?;
    if os::mount_of(dir.as_fd())? != os::mount_of(at)? {
        let text = format!("{} is a mount point", name.to_string_lossy());
        return Err(io::Error::new(io::ErrorKind::ResourceBusy, text));
    }
    loop {
        let mut left = false;
        for entry in Dir::read_from(&dir)? {
            let entry = entry?;
            let below = entry.file_name();
            if matches!(below.to_bytes(), b"." | b"..") {
                continue;
            }
            left = true;
            if entry.file_type() == FileType::Directory {
                remove_tree(&dir, below)?;
            } else {
                match rustix::fs::unlinkat(&dir, below, AtFlags::empty()) {
                    Ok(()) | Err(Errno::NOENT) => {}
                    Err(Errno::ISDIR | Errno::PERM) => remove_tree(&dir, below)?,
                    Err(error) => return Err(error.into()),
                }
            }
        }
        // A listing may miss entries while others are removed.
        if !left {
            break;
        }
    }
    match rustix::fs::unlinkat(at, name, AtFlags::REMOVEDIR) {
        Err(Errno::NOENT) => Ok(()),
        other => Ok(other?),
    }
}

/// Opens a folder to empty it, also one that its owner has closed to everybody.
fn enter(at: impl AsFd, name: &CStr) -> io::Result<OwnedFd> {
    let at = at.as_fd();
    open_up(at, name);
    Ok(open_dir(at, name)?)
}

/// Lets the owner of a folder change what is in it, where that is not so already.
pub(in crate::supervisor::checkpoint) fn open_up(at: impl AsFd, name: &CStr) {
    // Root may do everything anyway, and must change no mode by a name that somebody else can redirect.
    if rustix::process::geteuid().is_root() {
        return;
    }
    let at = at.as_fd();
    let Ok(stat) = rustix::fs::statat(at, name, AtFlags::SYMLINK_NOFOLLOW) else {
        return;
    };
    let mode = Mode::from_raw_mode(stat.st_mode);
    if FileType::from_raw_mode(stat.st_mode) == FileType::Directory && !mode.contains(Mode::RWXU) {
        // If it is not ours the next step fails, and says so.
        let _ = rustix::fs::chmodat(at, name, mode | Mode::RWXU, AtFlags::empty());
    }
}
