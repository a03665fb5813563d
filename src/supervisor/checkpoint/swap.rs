//! Puts the files and definitions of a checkpoint in the place of the present ones, so that a crash at
//! any moment leads to the old or to the new ones at the next start, and never to a mixture.
//!
//! The new files are copied beside the old ones first. From then on a journal says how far it has come
//! (`<sandbox>/restore.json`): the old entries of the workspace are moved out, the new ones in, the
//! definitions replaced. Each of these can be repeated, so an interrupted swap is completed at the next
//! start. The workspace itself stays the same folder: it may be a mount point, a user's own folder, or
//! somebody's working directory.

use std::collections::BTreeMap;
use std::ffi::{CString, OsString};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, Dir, FileType, Mode};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};

use super::copy::{self, LeaveOut};
use super::store::{private_dir, write_durably};
use crate::model::ServiceName;
use crate::supervisor::store::{Record, Store};

const JOURNAL: &str = "restore.json";

/// Where new and old files are, if the sandbox's folder is on another filesystem than the workspace.
pub(super) const STAGING: &str = ".gabion-restore";

/// Else they are in a folder of the sandbox whose name begins so.
const NEAR: &str = "restore-";

/// How far a swap has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Phase {
    /// The new files are being copied; nothing else has changed.
    Staging,
    /// The old entries are being moved out.
    Clearing,
    /// The new entries are being moved in, then the definitions replaced.
    Filling,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
struct Journal {
    version: u32,
    phase: Phase,
    workspace: PathBuf,
    /// Holds `new` and `old`.
    staging: PathBuf,
    /// The way from the workspace to a folder in it that stays as it is.
    kept: Vec<PathBuf>,
    records: BTreeMap<ServiceName, Record>,
}

/// A swap whose new files are complete.
#[derive(Debug)]
pub(super) struct Swap {
    store: Store,
    journal: Journal,
}

/// The way from the workspace down to gabion's own state, if that is in it: it is neither copied nor
/// replaced, for it holds the checkpoint itself, and all other sandboxes.
fn way_to_own_state(workspace: &Path, sandbox: &Path) -> io::Result<Vec<PathBuf>> {
    let (workspace, sandbox) = (workspace.canonicalize()?, sandbox.canonicalize()?);
    // `<home>/sandboxes/<stack>/<sandbox>`, or a folder of its own.
    let in_a_home = sandbox.ancestors().nth(2).and_then(Path::file_name);
    let up = if in_a_home == Some("sandboxes".as_ref()) {
        3
    } else {
        0
    };
    let ancestors: Vec<_> = sandbox.ancestors().take(up + 1).collect();
    let way = ancestors.iter().rev().find_map(|own| {
        let way = own.strip_prefix(&workspace).ok()?;
        (!way.as_os_str().is_empty()).then(|| way.iter().map(PathBuf::from).collect())
    });
    Ok(way.unwrap_or_default())
}

/// What a checkpoint of `workspace` does not hold.
pub(super) fn left_out(workspace: &Path, sandbox: &Path) -> io::Result<LeaveOut> {
    let mut leave_out = LeaveOut {
        folders: Vec::new(),
        name: Some(STAGING),
    };
    let way = way_to_own_state(workspace, sandbox)?;
    if !way.is_empty() {
        let own = workspace.join(way.iter().collect::<PathBuf>());
        leave_out
            .folders
            .push(copy::identity_of(copy::open_root(&own)?)?);
    }
    Ok(leave_out)
}

impl Swap {
    /// Copies `files` beside the workspace. The sandbox may go on meanwhile.
    pub(super) fn stage(
        store: &Store,
        files: &Path,
        records: BTreeMap<ServiceName, Record>,
    ) -> io::Result<Self> {
        let workspace = store.workspace()?;
        let mounts = copy::mounts_below(&workspace.canonicalize()?)?;
        if let Some(mount) = mounts.first() {
            let text = format!("{} is a mount point in the workspace", mount.display());
            return Err(io::Error::new(io::ErrorKind::ResourceBusy, text));
        }
        let near = copy::same_mount(
            &copy::open_root(&workspace)?,
            &copy::open_root(store.dir())?,
        )?;
        let staging = match near {
            true => store.dir().join(format!("{NEAR}{:08x}", fastrand::u32(..))),
            false => workspace.join(STAGING),
        };
        let journal = Journal {
            version: 1,
            phase: Phase::Staging,
            kept: way_to_own_state(&workspace, store.dir())?,
            workspace,
            staging,
            records,
        };
        let swap = Self {
            store: store.clone(),
            journal,
        };
        swap.note()?;
        swap.copy(files).inspect_err(|_| swap.cancel())?;
        Ok(swap)
    }

    fn copy(&self, files: &Path) -> io::Result<()> {
        self.remove_staging()?;
        for part in ["new", "old"] {
            private_dir(&self.journal.staging.join(part))?;
        }
        let new = copy::open_root(&self.journal.staging.join("new"))?;
        copy::copy_tree(
            copy::open_root(files)?,
            new,
            LeaveOut::default(),
            &Default::default(),
        )?;
        Ok(())
    }

    fn path(&self) -> PathBuf {
        self.store.dir().join(JOURNAL)
    }

    fn note(&self) -> io::Result<()> {
        write_durably(&self.path(), &self.journal)
    }

    /// Gives up before anything was swapped.
    pub(super) fn cancel(&self) {
        if let Err(error) = self.finish() {
            tracing::warn!(%error, "a restore that was given up leaves something behind");
        }
    }

    /// From here on a crash completes it. What runs is to be stopped next.
    pub(super) fn begin(&mut self) -> io::Result<()> {
        self.enter(Phase::Clearing)
    }

    /// Swaps the files; it has begun, and nothing of the sandbox may run. On an error the old ones are
    /// back.
    pub(super) fn files(&mut self) -> io::Result<()> {
        self.advance().map_err(|error| match self.undo() {
            Ok(()) => error,
            Err(worse) => {
                tracing::error!(%worse, "the old files cannot be put back");
                let text = format!("{error}; the next start of the sandbox completes the restore");
                io::Error::new(error.kind(), text)
            }
        })
    }

    fn enter(&mut self, phase: Phase) -> io::Result<()> {
        self.journal.phase = phase;
        self.note()
    }

    /// Goes on from where it is until all files are in their places.
    fn advance(&mut self) -> io::Result<()> {
        if self.journal.phase == Phase::Clearing {
            self.each_level(|live, _, old, kept| move_all(live, old, kept))?;
            self.enter(Phase::Filling)?;
        }
        self.each_level(|live, new, _, kept| move_all(new, live, kept))?;
        let new = copy::open_root(&self.journal.staging.join("new"))?;
        let live = copy::open_root(&self.journal.workspace)?;
        copy::copy_attributes(new.as_fd(), live.as_fd())
    }

    /// Puts everything back. Not for after a crash, which is completed instead.
    fn undo(&mut self) -> io::Result<()> {
        if self.journal.phase == Phase::Filling {
            self.each_level(|live, new, _, kept| move_all(live, new, kept))?;
        }
        self.each_level(|live, _, old, kept| move_all(old, live, kept))?;
        self.finish()
    }

    /// Calls `act` with the folders of each level in which entries are swapped, and what stays there:
    /// the workspace, and those on the way to what is kept.
    fn each_level(
        &self,
        act: impl Fn(&OwnedFd, &OwnedFd, &OwnedFd, &[&[u8]]) -> io::Result<()>,
    ) -> io::Result<()> {
        let Journal {
            workspace,
            staging,
            kept,
            ..
        } = &self.journal;
        let mut live = copy::open_root(workspace)?;
        let mut new = copy::open_root(&staging.join("new"))?;
        let mut old = copy::open_root(&staging.join("old"))?;
        let mut way = kept
            .iter()
            .map(|name| name.as_os_str().as_bytes())
            .peekable();
        loop {
            let next = way.next();
            let stays = [Some(STAGING.as_bytes()), next];
            let stays: Vec<&[u8]> = stays.into_iter().flatten().collect();
            act(&live, &new, &old, &stays)?;
            let Some(next) = next.filter(|_| way.peek().is_some()) else {
                return Ok(());
            };
            let next = CString::new(next)?;
            live = copy::open_dir(&live, next.as_c_str())?;
            for dir in [&mut new, &mut old] {
                match rustix::fs::mkdirat(&*dir, next.as_c_str(), Mode::RWXU) {
                    Ok(()) | Err(Errno::EXIST) => {}
                    Err(error) => return Err(error.into()),
                }
                *dir = copy::open_dir(&*dir, next.as_c_str())?;
            }
        }
    }

    /// Replaces the definitions. For when no owner of a service is alive.
    fn records(&self) -> io::Result<()> {
        for name in self.store.load()?.keys() {
            if !self.journal.records.contains_key(name) {
                self.store.remove(name)?;
            }
        }
        for (name, record) in &self.journal.records {
            self.store.save(name, record)?;
        }
        Ok(())
    }

    /// Ends it: from here on no start completes it any more.
    pub(super) fn commit(&self) -> io::Result<()> {
        match std::fs::remove_file(self.path()) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    fn finish(&self) -> io::Result<()> {
        self.commit()?;
        self.remove_staging()
    }

    /// Removes the old files.
    pub(super) fn remove_staging(&self) -> io::Result<()> {
        let staging = &self.journal.staging;
        let (Some(parent), Some(name)) = (staging.parent(), staging.file_name()) else {
            return Ok(());
        };
        copy::remove_tree(copy::open_root(parent)?, &CString::new(name.as_bytes())?)
    }

    /// Files and definitions at once, for when no supervisor runs.
    pub(super) fn all(mut self) -> io::Result<()> {
        self.begin()?;
        self.files()?;
        self.records()?;
        self.finish()
    }
}

/// Whether a swap was interrupted that has to be completed. What runs is to be stopped first.
pub(super) fn is_interrupted(store: &Store) -> io::Result<bool> {
    Ok(interrupted(store)?.is_some_and(|swap| swap.journal.phase != Phase::Staging))
}

fn interrupted(store: &Store) -> io::Result<Option<Swap>> {
    let text = match std::fs::read(store.dir().join(JOURNAL)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        other => other?,
    };
    Ok(Some(Swap {
        store: store.clone(),
        journal: serde_json::from_slice(&text)?,
    }))
}

/// Completes a swap that was interrupted, or forgets it if it had changed nothing yet. To be called
/// before anything of the sandbox is read.
pub(super) fn recover(store: &Store) -> io::Result<()> {
    let Some(mut swap) = interrupted(store)? else {
        return Ok(());
    };
    if swap.journal.phase != Phase::Staging {
        tracing::warn!("completes a restore that was interrupted");
        swap.advance()?;
        swap.records()?;
    }
    swap.finish()
}

/// What was left of swaps that had come to their end; nothing is swapped while this runs.
pub(super) fn remove_leftovers(store: &Store, names: &[String]) -> io::Result<()> {
    let dir = copy::open_root(store.dir())?;
    for name in names {
        copy::remove_tree(&dir, &CString::new(name.as_str())?)?;
    }
    Ok(())
}

/// Their names.
pub(super) fn leftovers(store: &Store) -> Vec<String> {
    let entries = store.dir().read_dir().into_iter().flatten().flatten();
    let names = entries.filter_map(|entry| entry.file_name().into_string().ok());
    names.filter(|name| name.starts_with(NEAR)).collect()
}

/// Moves every entry but `stays` from one folder to another.
fn move_all(from: &OwnedFd, to: &OwnedFd, stays: &[&[u8]]) -> io::Result<()> {
    let mut names = Vec::new();
    for entry in Dir::read_from(from)? {
        let entry = entry?;
        let name = entry.file_name();
        if !matches!(name.to_bytes(), b"." | b"..") && !stays.contains(&name.to_bytes()) {
            names.push(name.to_owned());
        }
    }
    for name in names {
        move_one(from, to, &name).map_err(|error| {
            let name = OsString::from_vec(name.into_bytes());
            let text = format!("{} cannot be moved: {error}", Path::new(&name).display());
            io::Error::new(error.kind(), text)
        })?;
    }
    Ok(())
}

fn move_one(from: &OwnedFd, to: &OwnedFd, name: &CString) -> io::Result<()> {
    #[cfg(test)]
    tests::fault()?;
    let rename = || rustix::fs::renameat(from, name.as_c_str(), to, name.as_c_str());
    match rename() {
        Err(Errno::NOENT) => return Ok(()),
        // Somebody has made something of that name since.
        Err(Errno::EXIST | Errno::NOTEMPTY | Errno::ISDIR | Errno::NOTDIR) => {
            copy::remove_tree(to, name)?;
        }
        // A folder that may not be written to cannot get another parent.
        Err(Errno::ACCESS) => {
            let stat = rustix::fs::statat(from, name.as_c_str(), AtFlags::SYMLINK_NOFOLLOW)?;
            copy::open_up(from, name);
            rename()?;
            if FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
                let mode = Mode::from_raw_mode(stat.st_mode);
                rustix::fs::chmodat(to, name.as_c_str(), mode, AtFlags::empty())?;
            }
            return Ok(());
        }
        other => return Ok(other?),
    }
    Ok(rename()?)
}

#[cfg(test)]
mod tests;
