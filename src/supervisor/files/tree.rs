//! Listing, making and removing folders.

use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{AtFlags, Dir, Mode, OFlags, mkdirat, statat};
use rustix::io::Errno;

use super::{ENTRIES, Entry, Listed, Root, Wanted, is_dir, size};
use crate::supervisor::os;
use crate::supervisor::owner::Refusal;

/// A folder made by a client: its owner may do everything, others may look.
const FOLDER_MODE: Mode = Mode::from_raw_mode(0o755);

impl Root {
    /// What is in a folder, `depth` levels deep.
    pub(in crate::supervisor) fn list(
        &self,
        path: Wanted<'_>,
        depth: usize,
    ) -> Result<Listed, Refusal> {
        let top = self.find(path, OFlags::RDONLY | OFlags::DIRECTORY)?;
        let mut listed = Listed {
            path: path.0.to_owned(),
            entries: Vec::new(),
            truncated: false,
        };
        // Folders still to be read: their path below the top, and the levels that are left.
        let mut queue = std::collections::VecDeque::from([(String::new(), depth.max(1))]);
        while let Some((below, depth)) = queue.pop_front() {
            let opened = match below.as_str() {
                "" => top.try_clone().map_err(|error| path.refused(error))?,
                // One that is removed meanwhile, or may not be read, is listed as it was seen.
                below => match os::open_in_root(&top, below, READ) {
                    Ok(opened) => opened,
                    Err(_) => continue,
                },
            };
            let first = listed.entries.len();
            if !read_folder(&opened, &below, &mut listed).map_err(|error| path.refused(error))? {
                break;
            }
            if depth > 1 {
                let folders = listed.entries[first..].iter().filter(|entry| entry.is_dir);
                queue.extend(folders.map(|entry| (entry.name.clone(), depth - 1)));
            }
        }
        listed.entries.sort();
        Ok(listed)
    }

    /// Makes a folder; with `parents`, those above it too, and one that is there is no error.
    pub(in crate::supervisor) fn make_folder(
        &self,
        path: Wanted<'_>,
        parents: bool,
    ) -> Result<(), Refusal> {
        if parents {
            return self.make_all(path).map(drop);
        }
        let (above, name) = path.split()?;
        let above = self.folder(above)?;
        mkdirat(above, name, FOLDER_MODE).map_err(|error| path.refused(error))
    }

    /// The folder at `path`, made with all above it where they are missing.
    pub(super) fn make_all(&self, path: Wanted<'_>) -> Result<OwnedFd, Refusal> {
        let on_the_way =
            || Refusal::conflict(format!("{}: something on the way is not a folder", path.0));
        let ends = path.0.match_indices('/').map(|(at, _)| at).skip(1);
        for end in ends.chain([path.0.len()]) {
            let part = Wanted(&path.0[..end]);
            match os::open_in_root(&self.0, part.below(), os::LOOK | OFlags::CLOEXEC) {
                Ok(_) => {}
                Err(Errno::NOENT) => {
                    let (above, name) = part.split()?;
                    match mkdirat(self.folder(above)?, name, FOLDER_MODE) {
                        // Somebody else was faster, or a link leads nowhere: told below.
                        Ok(()) | Err(Errno::EXIST) => {}
                        Err(error) => return Err(path.refused(error)),
                    }
                }
                Err(Errno::NOTDIR) => return Err(on_the_way()),
                Err(error) => return Err(path.refused(error)),
            }
        }
        self.folder(path).map_err(|refusal| match refusal.status {
            404 => on_the_way(),
            _ => refusal,
        })
    }

    /// Removes a file, a link or a folder.
    pub(in crate::supervisor) fn remove(
        &self,
        path: Wanted<'_>,
        recursive: bool,
    ) -> Result<(), Refusal> {
        let (above, name) = path.split()?;
        let above = self.folder(above)?;
        let refused = |error| path.refused(error);
        let stat = statat(&above, name, AtFlags::SYMLINK_NOFOLLOW).map_err(refused)?;
        if !is_dir(&stat) {
            return rustix::fs::unlinkat(&above, name, AtFlags::empty()).map_err(refused);
        }
        if !recursive {
            return rustix::fs::unlinkat(&above, name, AtFlags::REMOVEDIR).map_err(refused);
        }
        // Through the open folder, so that nothing above `name` is looked up again. It follows no
        // link from there on.
        let tree = os::path_of(&above).and_then(|above| std::fs::remove_dir_all(above.join(name)));
        tree.map_err(|error| path.refused(error))
    }
}

const READ: OFlags = OFlags::RDONLY
    .union(OFlags::DIRECTORY)
    .union(OFlags::NOFOLLOW)
    .union(OFlags::CLOEXEC);

/// Adds the entries of one folder. Returns whether there was room for all.
fn read_folder(folder: impl AsFd, below: &str, listed: &mut Listed) -> Result<bool, Errno> {
    for entry in Dir::read_from(&folder)? {
        let entry = entry?;
        let name = entry.file_name();
        if matches!(name.to_bytes(), b"." | b"..") {
            continue;
        }
        if listed.entries.len() == ENTRIES {
            listed.truncated = true;
            return Ok(false);
        }
        // Gone since it was read.
        let Ok(stat) = statat(&folder, name, AtFlags::SYMLINK_NOFOLLOW) else {
            continue;
        };
        let name = name.to_string_lossy();
        listed.entries.push(Entry {
            name: match below {
                "" => name.into_owned(),
                below => format!("{below}/{name}"),
            },
            is_dir: is_dir(&stat),
            size: size(&stat),
        });
    }
    Ok(true)
}
