//! Writing and moving files: each is there whole, under its old name or its new one.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::OwnedFd;

use rustix::fs::{
    AtFlags, FileType, Gid, Mode, OFlags, RawMode, Uid, fchmod, fchown, openat, renameat, statat,
    unlinkat,
};
use rustix::io::Errno;

use super::{LIMIT, Root, Wanted, is_dir, too_large};
use crate::supervisor::owner::Refusal;

/// A file that is written beside its place, and removed again if it does not get there.
struct Draft<'a> {
    folder: &'a OwnedFd,
    name: String,
    file: File,
}

impl<'a> Draft<'a> {
    fn new(folder: &'a OwnedFd) -> Result<Self, Errno> {
        let name = format!(".gabion-{:016x}.tmp", fastrand::u64(..));
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
        let file = openat(folder, &name, flags, Mode::from_raw_mode(0o600))?;
        let file = File::from(file);
        Ok(Self { folder, name, file })
    }

    /// Puts it in its place.
    fn place(mut self, name: &str) -> Result<(), Errno> {
        renameat(self.folder, &self.name, self.folder, name)?;
        // Nothing to remove any more.
        self.name.clear();
        Ok(())
    }
}

impl Drop for Draft<'_> {
    fn drop(&mut self) {
        if !self.name.is_empty() {
            let _ = unlinkat(self.folder, &self.name, AtFlags::empty());
        }
    }
}

impl Root {
    /// Writes a file, with the folders above it where they are missing. A file that is there keeps
    /// its owner; a link is replaced, not followed.
    pub(in crate::supervisor) fn write(
        &self,
        path: Wanted<'_>,
        bytes: &[u8],
        mode: RawMode,
    ) -> Result<(), Refusal> {
        if bytes.len() > LIMIT {
            return Err(too_large(path));
        }
        let (above, name) = path.split()?;
        if path.0.ends_with('/') {
            return Err(path.refused(Errno::ISDIR));
        }
        let folder = self.make_all(above)?;
        let old = statat(&folder, name, AtFlags::SYMLINK_NOFOLLOW).ok();
        if old.as_ref().is_some_and(is_dir) {
            return Err(path.refused(Errno::ISDIR));
        }
        let refused = |error: io::Error| path.refused(error);
        let mut draft = Draft::new(&folder).map_err(|error| path.refused(error))?;
        draft.file.write_all(bytes).map_err(refused)?;
        if let Some(old) = old.filter(|old| is_plain(old.st_mode)) {
            let (uid, gid) = (Uid::from_raw(old.st_uid), Gid::from_raw(old.st_gid));
            // Only root can, and only root has to.
            let _ = fchown(&draft.file, Some(uid), Some(gid));
        }
        fchmod(&draft.file, Mode::from_raw_mode(mode)).map_err(|error| path.refused(error))?;
        draft.place(name).map_err(|error| path.refused(error))
    }

    /// Moves a file or folder; a file at the destination is replaced.
    pub(in crate::supervisor) fn rename(
        &self,
        source: Wanted<'_>,
        destination: Wanted<'_>,
    ) -> Result<(), Refusal> {
        let (from_folder, from) = source.split()?;
        let (to_folder, to) = destination.split()?;
        let from_folder = self.folder(from_folder)?;
        let to_folder = self.folder(to_folder)?;
        let stat = statat(&from_folder, from, AtFlags::SYMLINK_NOFOLLOW);
        let stat = stat.map_err(|error| source.refused(error))?;
        let target = statat(&to_folder, to, AtFlags::SYMLINK_NOFOLLOW).ok();
        match target {
            Some(target) if is_dir(&target) => return Err(destination.refused(Errno::EXIST)),
            Some(_) if is_dir(&stat) => return Err(destination.refused(Errno::EXIST)),
            _ => {}
        }
        match renameat(&from_folder, from, &to_folder, to) {
            Err(Errno::XDEV) if is_plain(stat.st_mode) => {
                let copied = copy(&from_folder, from, &to_folder, to, stat.st_mode);
                copied.map_err(|error| destination.refused(error))?;
                unlinkat(&from_folder, from, AtFlags::empty())
                    .map_err(|error| source.refused(error))
            }
            Err(Errno::XDEV) => {
                let text = format!("{}: it is on another file system", destination.0);
                Err(Refusal::conflict(text))
            }
            // A folder into itself.
            Err(Errno::INVAL) => Err(Refusal::invalid(format!(
                "{} cannot be moved into itself",
                source.0
            ))),
            other => other.map_err(|error| destination.refused(error)),
        }
    }
}

fn is_plain(mode: RawMode) -> bool {
    FileType::from_raw_mode(mode) == FileType::RegularFile
}

/// Copies a file to another file system.
fn copy(
    from_folder: &OwnedFd,
    from: &str,
    to_folder: &OwnedFd,
    to: &str,
    mode: RawMode,
) -> io::Result<()> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let mut source = File::from(openat(from_folder, from, flags, Mode::empty())?);
    let mut draft = Draft::new(to_folder)?;
    io::copy(&mut source, &mut draft.file)?;
    fchmod(&draft.file, Mode::from_raw_mode(mode & 0o7777))?;
    draft.place(to)?;
    Ok(())
}
