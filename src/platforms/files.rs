//! What is known of files in a sandbox, and what is done to them beside copying them in and out.

use jiff::Timestamp;
use serde::Serialize;

use super::PlatformError;

/// A file or folder in a sandbox, as far as the platform tells of it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct FileEntry {
    /// The last part of its path; `/` for the root.
    pub name: String,
    /// Whether it is a folder.
    pub folder: bool,
    /// In bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub size: Option<u64>,
    /// Its permissions, in octal: `0644`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mode: Option<String>,
    /// When its content was last changed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub modified_at: Option<Timestamp>,
}

impl FileEntry {
    /// A folder of which no more is known than its path.
    pub(super) fn folder(path: &str) -> Self {
        Self {
            name: split(path).1.to_owned(),
            folder: true,
            size: None,
            mode: None,
            modified_at: None,
        }
    }
}

/// What is to be done to files in a sandbox. Paths are absolute, or relative to where services run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FileChange {
    /// Remove a file or an empty folder; with `recursive`, a folder with all that is in it.
    Remove {
        /// What goes.
        path: String,
        /// Whether a folder goes with all that is in it.
        recursive: bool,
    },
    /// Make a folder.
    MakeFolder {
        /// What comes.
        path: String,
        /// Whether those above it come too; one that is there is no error then.
        parents: bool,
    },
    /// Give a file or folder another path. A file at the destination is replaced.
    Move {
        /// What is moved.
        from: String,
        /// Its new path.
        to: String,
    },
    /// Make a copy of a file. A file at the destination is replaced.
    Copy {
        /// What is copied.
        from: String,
        /// The path of the copy.
        to: String,
        /// Whether it may be a folder, which is copied with all that is in it.
        recursive: bool,
    },
    /// Give a file or folder other permissions.
    SetMode {
        /// Whose.
        path: String,
        /// The permission bits.
        mode: u32,
        /// Whether all that is in a folder gets them too.
        recursive: bool,
    },
}

impl FileChange {
    /// What errors are about: the path, or from where to where.
    pub(super) fn subject(&self) -> String {
        match self {
            Self::Remove { path, .. } | Self::MakeFolder { path, .. } => path.clone(),
            Self::SetMode { path, .. } => path.clone(),
            Self::Move { from, to } | Self::Copy { from, to, .. } => format!("{from} -> {to}"),
        }
    }

    /// The same with other paths.
    pub(super) fn try_map<E>(mut self, to: impl Fn(&str) -> Result<String, E>) -> Result<Self, E> {
        match &mut self {
            Self::Remove { path, .. } | Self::MakeFolder { path, .. } => *path = to(path)?,
            Self::SetMode { path, .. } => *path = to(path)?,
            Self::Move { from, to: new } | Self::Copy { from, to: new, .. } => {
                (*from, *new) = (to(from)?, to(new)?);
            }
        }
        Ok(self)
    }
}

/// The folder that something is in, and its name there: `/srv` and `web` of `/srv/web/`. The root is its own.
pub(super) fn split(path: &str) -> (&str, &str) {
    let path = path.trim_end_matches('/');
    match path.rsplit_once('/') {
        None if path.is_empty() => ("/", "/"),
        None => (".", path),
        Some(("", name)) => ("/", name),
        Some((above, name)) => (above, name),
    }
}

/// What is said of a path that leads nowhere.
pub(super) fn no_file(path: &str) -> PlatformError {
    PlatformError::new(format!("{path}: there is no such file"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_split() {
        for (path, parts) in [
            ("/srv/web", ("/srv", "web")),
            ("/srv/web//", ("/srv", "web")),
            ("/srv", ("/", "srv")),
            ("/", ("/", "/")),
            ("web", (".", "web")),
            ("a/b", ("a", "b")),
        ] {
            assert_eq!(split(path), parts, "{path}");
        }
    }
}
