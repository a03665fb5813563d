//! Copies a tree of files with everything that makes a file what it is: holes, modes, owners, times,
//! extended attributes (so also ACLs), symbolic and hard links, fifos.
//!
//! In: two open folders. Out: the copy and how much it holds. Every step goes through descriptors of
//! folders and follows no link, because whoever writes to the source may not be trusted: a link that
//! is swapped in leads nowhere. Other filesystems mounted below the source are left out, sockets too.

mod attributes;
mod content;
#[cfg(target_os = "linux")]
#[path = "linux.rs"]
mod os;
#[cfg(not(target_os = "linux"))]
#[path = "other_unix.rs"]
mod os;
mod pool;
mod remove;

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::ffi::{CStr, CString, OsStr};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use rustix::fs::{AtFlags, CWD, Dir, FileType, Mode, OFlags, Stat};
use rustix::io::Errno;

use attributes::Owner;
use content::Content;
pub(super) use os::mounts_below;
use pool::Pool;
pub(super) use remove::{open_up, remove_tree};

/// How many entries of a folder are one piece of work.
const BATCH: usize = 64;

/// How much of a file is one piece of work.
const RANGE: u64 = 32 << 20;

/// Device and inode.
pub(super) type Identity = (u64, u64);

/// What was copied.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Copied {
    /// The sizes of all regular files, a file with several names counted once.
    pub bytes: u64,
    /// Folders, files, links.
    pub entries: u64,
}

/// A copy that did not come to its end, and where.
#[derive(Debug, thiserror::Error)]
#[error("{}: {source}", path.display())]
pub(crate) struct CopyError {
    /// Relative to the root of the tree.
    path: PathBuf,
    source: io::Error,
}

impl From<CopyError> for io::Error {
    fn from(error: CopyError) -> Self {
        Self::new(error.source.kind(), error)
    }
}

/// What is not copied.
#[derive(Debug, Clone, Default)]
pub(super) struct LeaveOut {
    /// Folders, wherever they are.
    pub folders: Vec<Identity>,
    /// A name directly below the root.
    pub name: Option<&'static str>,
}

/// Opens a folder without following a link to it.
pub(super) fn open_dir(at: impl AsFd, name: impl rustix::path::Arg) -> rustix::io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::openat(at, name, flags, Mode::empty())
}

/// Opens a folder that a user has named, links and all.
pub(super) fn open_root(path: &Path) -> io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    Ok(rustix::fs::openat(CWD, path, flags, Mode::empty())?)
}

/// Whether entries of one folder can be moved to the other.
pub(super) fn same_mount(a: &OwnedFd, b: &OwnedFd) -> io::Result<bool> {
    Ok(os::mount_of(a.as_fd())? == os::mount_of(b.as_fd())?)
}

/// Gives `to` what `from` has besides its content.
pub(super) fn copy_attributes(from: BorrowedFd<'_>, to: BorrowedFd<'_>) -> io::Result<()> {
    let stat = rustix::fs::fstat(from)?;
    attributes::of_open(from, to, &stat, &Owner::new())
}

/// Copies everything in `from` into `to`, which is empty, and then the attributes of `from` itself.
///
/// Ends with an error soon after `stop` is set.
pub(super) fn copy_tree(
    from: OwnedFd,
    to: OwnedFd,
    leave_out: LeaveOut,
    stop: &Arc<AtomicBool>,
) -> Result<Copied, CopyError> {
    let at_root = |source: io::Error| CopyError {
        path: PathBuf::from("."),
        source,
    };
    let copy = Arc::new(Copy {
        mount: os::mount_of(from.as_fd()).map_err(at_root)?,
        root: to.try_clone().map_err(at_root)?,
        leave_out,
        content: Content::default(),
        owner: Owner::new(),
        links: Mutex::default(),
        bytes: AtomicU64::new(0),
        entries: AtomicU64::new(0),
        failed: Mutex::default(),
        stop: stop.clone(),
    });
    let root = Folder {
        copy: copy.clone(),
        stat: rustix::fs::fstat(&from).map_err(|error| at_root(error.into()))?,
        from,
        to,
        path: Vec::new(),
    };
    let root = Arc::new(root);
    let pool = Pool::new(Task::List(root));
    pool.run(|task, pool| {
        if copy.has_failed() {
            return;
        }
        if let Err(error) = task.perform(pool) {
            copy.fail(error);
        }
    });
    let failed = copy.failed.lock().unwrap_or_else(PoisonError::into_inner);
    match &mut { failed }.take() {
        Some(error) => Err(CopyError {
            path: std::mem::take(&mut error.path),
            source: std::mem::replace(&mut error.source, io::ErrorKind::Other.into()),
        }),
        None => Ok(Copied {
            bytes: copy.bytes.load(Ordering::Relaxed),
            entries: copy.entries.load(Ordering::Relaxed),
        }),
    }
}

/// One copy that is going on.
struct Copy {
    mount: os::Mount,
    /// The root of the copy, which paths in `links` are relative to.
    root: OwnedFd,
    leave_out: LeaveOut,
    content: Content,
    owner: Owner,
    /// Where the first name of each file that has several was copied to.
    links: Mutex<HashMap<Identity, CString>>,
    bytes: AtomicU64,
    entries: AtomicU64,
    failed: Mutex<Option<CopyError>>,
    stop: Arc<AtomicBool>,
}

impl Copy {
    fn has_failed(&self) -> bool {
        if self.stop.load(Ordering::Relaxed) {
            let source = io::ErrorKind::Interrupted.into();
            self.fail(error_at(Vec::new(), source));
        }
        let failed = self.failed.lock();
        failed.unwrap_or_else(PoisonError::into_inner).is_some()
    }

    /// The first failure counts.
    fn fail(&self, error: CopyError) {
        let mut failed = self.failed.lock().unwrap_or_else(PoisonError::into_inner);
        failed.get_or_insert(error);
    }
}

/// A folder with its copy. When the last piece of work below it is done it is dropped, and its copy
/// gets its attributes: not before, because its times change and it may not be writable.
struct Folder {
    copy: Arc<Copy>,
    stat: Stat,
    from: OwnedFd,
    to: OwnedFd,
    /// Relative to the root, for messages and hard links.
    path: Vec<u8>,
}

impl Folder {
    fn path_of(&self, name: &CStr) -> Vec<u8> {
        let mut path = self.path.clone();
        if !path.is_empty() {
            path.push(b'/');
        }
        path.extend_from_slice(name.to_bytes());
        path
    }

    fn error(&self, name: &CStr, error: Errno) -> CopyError {
        error_at(self.path_of(name), error.into())
    }
}

fn error_at(path: Vec<u8>, source: io::Error) -> CopyError {
    let path = match path.is_empty() {
        true => PathBuf::from("."),
        false => PathBuf::from(OsStr::from_bytes(&path)),
    };
    CopyError { path, source }
}

impl Drop for Folder {
    fn drop(&mut self) {
        if self.copy.has_failed() {
            return;
        }
        let (from, to) = (self.from.as_fd(), self.to.as_fd());
        if let Err(error) = attributes::of_open(from, to, &self.stat, &self.copy.owner) {
            self.copy
                .fail(error_at(std::mem::take(&mut self.path), error));
        }
    }
}

/// A regular file with its copy, whose ranges are copied one by one. It gets its attributes when the
/// last of them is done.
struct File {
    folder: Arc<Folder>,
    name: CString,
    stat: Stat,
    from: OwnedFd,
    to: OwnedFd,
}

impl Drop for File {
    fn drop(&mut self) {
        let copy = &self.folder.copy;
        if copy.has_failed() {
            return;
        }
        let (from, to) = (self.from.as_fd(), self.to.as_fd());
        if let Err(error) = attributes::of_open(from, to, &self.stat, &copy.owner) {
            copy.fail(error_at(self.folder.path_of(&self.name), error));
        }
    }
}

/// Names and types of entries, in one piece of memory.
#[derive(Default)]
struct Batch {
    names: Vec<u8>,
    types: Vec<FileType>,
}

impl Batch {
    fn push(&mut self, name: &CStr, kind: FileType) {
        self.names.extend_from_slice(name.to_bytes_with_nul());
        self.types.push(kind);
    }

    fn iter(&self) -> impl Iterator<Item = (&CStr, FileType)> {
        let names = self.names.split_inclusive(|byte| *byte == 0);
        let names = names.filter_map(|name| CStr::from_bytes_with_nul(name).ok());
        names.zip(self.types.iter().copied())
    }
}

/// A piece of work.
enum Task {
    /// Look what is in a folder.
    List(Arc<Folder>),
    /// Copy some of its entries.
    Entries(Arc<Folder>, Batch),
    /// Copy a folder in it.
    Enter(Arc<Folder>, CString),
    /// Copy a part of a file.
    Range(Arc<File>, u64, u64),
}

impl Task {
    fn perform(self, pool: &Pool<Self>) -> Result<(), CopyError> {
        match self {
            Self::List(folder) => list(&folder, pool),
            Self::Entries(folder, batch) => {
                for (name, kind) in batch.iter() {
                    if folder.copy.has_failed() {
                        break;
                    }
                    let copied = copy_entry(&folder, name, kind, pool);
                    copied.map_err(|error| folder.error(name, error))?;
                }
                Ok(())
            }
            Self::Enter(folder, name) => {
                let entered = enter(&folder, &name);
                match entered.map_err(|error| folder.error(&name, error))? {
                    Some(below) => list(&Arc::new(below), pool),
                    None => Ok(()),
                }
            }
            Self::Range(file, start, end) => {
                let (from, to) = (file.from.as_fd(), file.to.as_fd());
                let content = &file.folder.copy.content;
                content
                    .range(from, to, start, end)
                    .map_err(|error| file.folder.error(&file.name, error))
            }
        }
    }
}

fn list(folder: &Arc<Folder>, pool: &Pool<Task>) -> Result<(), CopyError> {
    let whole = |error: Errno| error_at(folder.path.clone(), error.into());
    let mut batch = Batch::default();
    for entry in Dir::read_from(&folder.from).map_err(whole)? {
        let entry = entry.map_err(whole)?;
        let name = entry.file_name();
        let left_out = || {
            folder.path.is_empty()
                && folder.copy.leave_out.name.map(str::as_bytes) == Some(name.to_bytes())
        };
        if matches!(name.to_bytes(), b"." | b"..") || left_out() {
            continue;
        }
        if entry.file_type() == FileType::Directory {
            pool.push(Task::Enter(folder.clone(), name.to_owned()));
            continue;
        }
        batch.push(name, entry.file_type());
        if batch.types.len() == BATCH {
            pool.push(Task::Entries(folder.clone(), std::mem::take(&mut batch)));
        }
    }
    if !batch.types.is_empty() {
        pool.push(Task::Entries(folder.clone(), batch));
    }
    Ok(())
}

/// Makes the copy of a folder, still empty; `None` if it is not to be copied or is gone.
fn enter(parent: &Arc<Folder>, name: &CStr) -> rustix::io::Result<Option<Folder>> {
    let copy = &parent.copy;
    let from = match open_dir(&parent.from, name) {
        // Removed or replaced since it was listed, where nobody keeps the writers still.
        Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => return Ok(None),
        other => other?,
    };
    let stat = rustix::fs::fstat(&from)?;
    if copy.leave_out.folders.contains(&identity(&stat)) {
        return Ok(None);
    }
    rustix::fs::mkdirat(&parent.to, name, Mode::RWXU)?;
    let to = open_dir(&parent.to, name)?;
    copy.entries.fetch_add(1, Ordering::Relaxed);
    let folder = Folder {
        copy: copy.clone(),
        stat,
        to,
        path: parent.path_of(name),
        from,
    };
    if os::mount_of(folder.from.as_fd()).ok().as_ref() != Some(&copy.mount) {
        let path = OsStr::from_bytes(&folder.path);
        tracing::warn!(
            ?path,
            "another filesystem is mounted there, which is left out"
        );
        return Ok(None);
    }
    Ok(Some(folder))
}

fn identity(stat: &Stat) -> Identity {
    #[allow(
        clippy::unnecessary_cast,
        reason = "their types differ between systems"
    )]
    (stat.st_dev as u64, stat.st_ino as u64)
}

/// Identity of an open file or folder.
pub(super) fn identity_of(of: impl AsFd) -> io::Result<Identity> {
    Ok(identity(&rustix::fs::fstat(of)?))
}

/// Copies whatever is not a folder.
fn copy_entry(
    folder: &Arc<Folder>,
    name: &CStr,
    kind: FileType,
    pool: &Pool<Task>,
) -> rustix::io::Result<()> {
    if kind == FileType::RegularFile {
        // Whatever was put in its place meanwhile is neither followed nor waited for.
        let flags =
            OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        match rustix::fs::openat(&folder.from, name, flags, Mode::empty()) {
            Ok(from) => {
                let stat = rustix::fs::fstat(&from)?;
                if FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile {
                    return copy_file(folder, name, from, stat, pool);
                }
            }
            Err(Errno::NOENT) => return Ok(()),
            // Not a regular file any more.
            Err(Errno::LOOP | Errno::NXIO) => {}
            Err(error) => return Err(error),
        }
    }
    let stat = match rustix::fs::statat(&folder.from, name, AtFlags::SYMLINK_NOFOLLOW) {
        Err(Errno::NOENT) => return Ok(()),
        other => other?,
    };
    match FileType::from_raw_mode(stat.st_mode) {
        FileType::Directory => {
            pool.push(Task::Enter(folder.clone(), name.to_owned()));
            Ok(())
        }
        // The directory listing did not say.
        FileType::RegularFile if kind != FileType::RegularFile => {
            copy_entry(folder, name, FileType::RegularFile, pool)
        }
        // It changes faster than it can be looked at.
        FileType::RegularFile => Err(Errno::AGAIN),
        FileType::Socket | FileType::Unknown => Ok(()),
        FileType::Symlink => {
            let target = match rustix::fs::readlinkat(&folder.from, name, Vec::new()) {
                Err(Errno::NOENT | Errno::INVAL) => return Ok(()),
                other => other?,
            };
            let make = || rustix::fs::symlinkat(&target, &folder.to, name);
            copy_node(folder, name, &stat, make)
        }
        kind @ (FileType::Fifo | FileType::CharacterDevice | FileType::BlockDevice) => {
            if kind != FileType::Fifo && !rustix::process::geteuid().is_root() {
                return Ok(());
            }
            let make = || os::make_node(folder.to.as_fd(), name, kind, &stat);
            copy_node(folder, name, &stat, make)
        }
    }
}

/// Copies something that has no content.
fn copy_node(
    folder: &Folder,
    name: &CStr,
    stat: &Stat,
    make: impl FnOnce() -> rustix::io::Result<()>,
) -> rustix::io::Result<()> {
    folder.copy.entries.fetch_add(1, Ordering::Relaxed);
    if once(folder, name, stat, make)?.is_none() {
        return Ok(());
    }
    attributes::of_node(folder.to.as_fd(), name, stat, &folder.copy.owner)
}

/// Makes something by `make`, unless it has been made already under another name: then it is linked
/// to that, and there is no result.
fn once<T>(
    folder: &Folder,
    name: &CStr,
    stat: &Stat,
    make: impl FnOnce() -> rustix::io::Result<T>,
) -> rustix::io::Result<Option<T>> {
    if stat.st_nlink < 2 {
        return make().map(Some);
    }
    let copy = &folder.copy;
    // Held while it is made, so that no other name can come first.
    let mut links = copy.links.lock().unwrap_or_else(PoisonError::into_inner);
    match links.entry(identity(stat)) {
        Entry::Occupied(first) => {
            let empty = AtFlags::empty();
            rustix::fs::linkat(&copy.root, first.get(), &folder.to, name, empty)?;
            Ok(None)
        }
        Entry::Vacant(first) => {
            let made = make()?;
            // Names of files hold no zero byte.
            if let Ok(path) = CString::new(folder.path_of(name)) {
                first.insert(path);
            }
            Ok(Some(made))
        }
    }
}

fn copy_file(
    folder: &Arc<Folder>,
    name: &CStr,
    from: OwnedFd,
    stat: Stat,
    pool: &Pool<Task>,
) -> rustix::io::Result<()> {
    let copy = &folder.copy;
    copy.entries.fetch_add(1, Ordering::Relaxed);
    let make = || {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
        rustix::fs::openat(&folder.to, name, flags, Mode::RUSR | Mode::WUSR)
    };
    let Some(to) = once(folder, name, &stat, make)? else {
        return Ok(());
    };
    let size = u64::try_from(stat.st_size).unwrap_or(0);
    copy.bytes.fetch_add(size, Ordering::Relaxed);
    let (source, target) = (from.as_fd(), to.as_fd());
    if size <= RANGE || copy.content.share(source, target) {
        if size <= RANGE {
            copy.content.whole(source, target, &stat)?;
        }
        let done = attributes::of_open(source, target, &stat, &copy.owner);
        return done.map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO));
    }
    // What is not written below stays a hole.
    rustix::fs::ftruncate(target, size)?;
    let file = Arc::new(File {
        folder: folder.clone(),
        name: name.to_owned(),
        stat,
        from,
        to,
    });
    let mut start = 0;
    while start < size {
        let end = size.min(start + RANGE);
        pool.push(Task::Range(file.clone(), start, end));
        start = end;
    }
    Ok(())
}

#[cfg(test)]
mod tests;
