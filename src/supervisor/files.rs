//! Files of the sandbox, as clients see them (protocol page iris, §5).
//!
//! Every path is looked up below a [`Root`], and neither `..` nor a link leads out of it. In:
//! absolute paths. Out: bytes, entries, and refusals. All of this blocks.

mod change;
mod client;
mod tree;

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::OwnedFd;
#[cfg(test)]
use std::path::Path;

use jiff::Timestamp;
#[cfg(test)]
use rustix::fs::Mode;
use rustix::fs::{FileType, OFlags, Stat, fstat};
use rustix::io::Errno;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::os;
use super::owner::Refusal;

/// The largest file that is read or written, in bytes (iris §5).
pub(super) const LIMIT: usize = 1 << 20;

/// The most entries of one listing.
const ENTRIES: usize = 10_000;

/// What `/` means.
#[derive(Debug)]
pub(super) struct Root(OwnedFd);

/// A file or folder.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
pub struct Found {
    /// The path that was asked for.
    pub path: String,
    /// Its last part; empty for the root.
    pub name: String,
    /// Whether it is a folder.
    pub is_dir: bool,
    /// In bytes.
    pub size: u64,
    /// The permissions, in octal: `0644`.
    pub mode: String,
    /// When its content was last changed.
    pub modified_at: Timestamp,
}

/// A file or folder in a listing.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
pub struct Entry {
    /// Its path below the listed folder.
    pub name: String,
    /// False for a link, wherever it leads.
    pub is_dir: bool,
    /// In bytes.
    pub size: u64,
}

/// What is in a folder.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
pub struct Listed {
    /// The path that was asked for.
    pub path: String,
    /// By name.
    pub entries: Vec<Entry>,
    /// Whether there was more than fits: list the folders in it one by one.
    pub truncated: bool,
}

/// A path that was checked: absolute, without NUL.
#[derive(Debug, Clone, Copy)]
pub(super) struct Wanted<'a>(&'a str);

impl<'a> Wanted<'a> {
    pub(super) fn new(path: &'a str) -> Result<Self, Refusal> {
        if !path.starts_with('/') {
            let text = format!("`{}` is not an absolute path", path.escape_debug());
            return Err(Refusal::invalid(text));
        }
        if path.contains('\0') {
            return Err(Refusal::invalid("a path must not contain NUL"));
        }
        Ok(Self(path))
    }

    /// The path as the kernel takes it below a folder.
    fn below(self) -> &'a str {
        match self.0.trim_start_matches('/') {
            "" => ".",
            path => path,
        }
    }

    /// The folder and the name in it; the name is one that can be made or removed.
    fn split(self) -> Result<(Wanted<'a>, &'a str), Refusal> {
        let path = self.0.trim_end_matches('/');
        let (folder, name) = path.rsplit_once('/').unwrap_or(("", path));
        if matches!(name, "" | "." | "..") {
            let text = format!("`{}` does not end in a name", self.0);
            return Err(Refusal::invalid(text));
        }
        // With its slash, so that the folder of `/a` is `/`.
        Ok((Wanted(&self.0[..=folder.len()]), name))
    }

    /// Why something about this path did not work.
    fn refused(self, error: impl Into<io::Error>) -> Refusal {
        let (error, path) = (error.into(), self.0);
        let (status, code, text) = match error.raw_os_error().map(Errno::from_raw_os_error) {
            Some(Errno::NOENT | Errno::NOTDIR) => {
                (404, "not_found", "there is no such file".into())
            }
            Some(Errno::ACCESS | Errno::PERM) => (403, "forbidden", "permission denied".into()),
            Some(Errno::ROFS) => (403, "forbidden", "the file system is read-only".into()),
            Some(Errno::LOOP) => (400, "invalid_request", "too many links".into()),
            Some(Errno::NAMETOOLONG) => (400, "invalid_request", "the name is too long".into()),
            Some(Errno::EXIST) => (409, "conflict", "it exists already".into()),
            Some(Errno::NOTEMPTY) => (409, "conflict", "the folder is not empty".into()),
            Some(Errno::ISDIR) => (409, "conflict", "it is a folder".into()),
            Some(Errno::BUSY) => (409, "conflict", "it is in use".into()),
            Some(Errno::NOSPC | Errno::DQUOT) => (507, "internal", "no space is left".into()),
            _ => (500, "internal", error.to_string()),
        };
        Refusal::new(status, code, format!("{path}: {text}"))
    }
}

impl Root {
    /// The files below this folder.
    pub(super) fn new(dir: OwnedFd) -> Self {
        Self(dir)
    }

    /// The files below the folder at this path.
    #[cfg(test)]
    pub(super) fn open(dir: &Path) -> io::Result<Self> {
        let flags = os::LOOK | OFlags::DIRECTORY | OFlags::CLOEXEC;
        Ok(Self(rustix::fs::open(dir, flags, Mode::empty())?))
    }

    /// Looks a path up; links are followed, within the root.
    fn find(&self, path: Wanted<'_>, flags: OFlags) -> Result<OwnedFd, Refusal> {
        os::open_in_root(&self.0, path.below(), flags | OFlags::CLOEXEC)
            .map_err(|error| path.refused(error))
    }

    fn folder(&self, path: Wanted<'_>) -> Result<OwnedFd, Refusal> {
        self.find(path, os::LOOK | OFlags::DIRECTORY)
    }

    /// The bytes of a file.
    pub(super) fn read(&self, path: Wanted<'_>) -> Result<Vec<u8>, Refusal> {
        let found = self.find(path, os::LOOK)?;
        let stat = fstat(&found).map_err(|error| path.refused(error))?;
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::RegularFile => {}
            FileType::Directory => return Err(path.refused(Errno::ISDIR)),
            // To open a pipe or a device can wait for ever, or have effects.
            _ => return Err(Refusal::invalid(format!("{}: not a plain file", path.0))),
        }
        if stat.st_size > LIMIT as i64 {
            return Err(too_large(path));
        }
        let opened = os::path_of(&found).and_then(File::open);
        let opened = opened.map_err(|error| path.refused(error))?;
        let mut bytes = Vec::new();
        opened
            .take(LIMIT as u64 + 1)
            .read_to_end(&mut bytes)
            .map_err(|error| path.refused(error))?;
        // It may have grown; and files of the kernel's do not tell their size.
        if bytes.len() > LIMIT {
            return Err(too_large(path));
        }
        Ok(bytes)
    }

    /// What is known about a file or folder.
    pub(super) fn stat(&self, path: Wanted<'_>) -> Result<Found, Refusal> {
        let found = self.find(path, os::LOOK)?;
        let stat = fstat(&found).map_err(|error| path.refused(error))?;
        let name = path.0.trim_end_matches('/').rsplit('/').next();
        Ok(Found {
            path: path.0.to_owned(),
            name: name.unwrap_or_default().to_owned(),
            is_dir: is_dir(&stat),
            size: size(&stat),
            mode: format!("{:04o}", stat.st_mode & 0o7777),
            modified_at: Timestamp::from_second(stat.st_mtime).unwrap_or_default(),
        })
    }
}

fn too_large(path: Wanted<'_>) -> Refusal {
    let text = format!("{}: larger than {LIMIT} bytes", path.0);
    Refusal::new(413, "too_large", text)
}

fn is_dir(stat: &Stat) -> bool {
    FileType::from_raw_mode(stat.st_mode) == FileType::Directory
}

fn size(stat: &Stat) -> u64 {
    u64::try_from(stat.st_size).unwrap_or_default()
}

#[cfg(test)]
mod tests;
