//! The sandbox's folder as the keeper needs it: whose it is at the moment, its socket, what its walls are.

use std::fs::File;
use std::io;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, fcntl_lock};
use serde::Deserialize;

use super::enclosure::Walls;
use super::keep::{KeepError, at};
use super::os::SocketPath;
use crate::model::{IsolationWish, SandboxSpec};

/// The socket's name in the folder.
pub(crate) const SOCKET: &str = "supervisor.sock";
/// Held by whoever keeps the sandbox.
pub(crate) const LOCK: &str = "keeper.lock";
/// What the sandbox was created with; without it there is none.
pub(crate) const SPEC: &str = "sandbox.json";

/// What the keeper does otherwise for one sandbox than for another.
#[derive(Debug, Clone)]
pub(super) struct Settings {
    pub wish: IsolationWish,
    pub walls: Walls,
}

/// A folder that is this process's alone.
pub(super) struct Folder {
    dir: PathBuf,
    socket: SocketPath,
    bound: bool,
    _lock: File,
}

impl Folder {
    /// Becomes the only keeper of the sandbox, as long as the value lives.
    pub(super) fn take(dir: &Path) -> Result<Self, KeepError> {
        let dir = std::path::absolute(dir).map_err(at("the sandbox's folder"))?;
        let missing = || KeepError::NoSandbox(dir.clone());
        // Not even a lock is left in a folder that is not a sandbox's.
        if !dir.join(SPEC).is_file() {
            return Err(missing());
        }
        let lock = File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .mode(0o600)
            .open(dir.join(LOCK))
            .map_err(at("the lock cannot be taken"))?;
        // A lock of the process, not of the open file: a child does not hold it, so it is free as soon as
        // a killed keeper is gone.
        match fcntl_lock(&lock, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(rustix::io::Errno::WOULDBLOCK | rustix::io::Errno::ACCESS) => {
                return Err(KeepError::Taken(dir));
            }
            Err(error) => return Err(KeepError::Io("the lock cannot be taken", error.into())),
        }
        // Removed while the lock was waited for or taken.
        if !dir.join(SPEC).is_file() {
            return Err(missing());
        }
        let socket = SocketPath::open(&dir).map_err(at("the sandbox's folder"))?;
        Ok(Self {
            dir,
            socket,
            bound: false,
            _lock: lock,
        })
    }

    pub(super) fn dir(&self) -> &Path {
        &self.dir
    }

    /// Whether the sandbox still exists.
    pub(super) fn is_there(&self) -> bool {
        self.dir.join(SPEC).is_file()
    }

    /// Reads what was wished for.
    pub(super) fn settings(&self) -> io::Result<Settings> {
        #[derive(Deserialize)]
        struct Sandbox {
            spec: SandboxSpec,
        }
        let text = std::fs::read(self.dir.join(SPEC))?;
        let Sandbox { spec } = serde_json::from_slice(&text)?;
        let workspace = match &spec.workspace {
            Some(workspace) => workspace.clone(),
            None => self.dir.join("workspace"),
        };
        match std::fs::create_dir(&workspace) {
            Ok(()) if spec.workspace.is_none() => {
                std::fs::set_permissions(&workspace, std::fs::Permissions::from_mode(0o700))?;
            }
            // Whether there is one, and whether it can be used, is the services' business.
            _ => {}
        }
        let mut writable = vec![workspace];
        writable.extend(spec.writable);
        writable.retain(|path| path.exists());
        let mut hidden = spec.hide;
        hidden.push(self.home().to_owned());
        Ok(Settings {
            wish: spec.isolation,
            walls: Walls {
                root: self.dir.join("root"),
                tmp: self.dir.join("tmp"),
                writable,
                hidden,
            },
        })
    }

    /// What holds all sandboxes, if the folder is where sandboxes are usually kept.
    fn home(&self) -> &Path {
        let sandboxes = self.dir.parent().and_then(Path::parent);
        match sandboxes {
            Some(sandboxes) if sandboxes.ends_with("sandboxes") => {
                sandboxes.parent().unwrap_or(&self.dir)
            }
            _ => &self.dir,
        }
    }

    /// Listens at the sandbox's socket. The lock is held, so one that is there belongs to nobody.
    pub(super) fn bind(&mut self) -> io::Result<UnixListener> {
        let path = self.socket.path();
        match std::fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let listener = UnixListener::bind(path)?;
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?;
        listener.set_nonblocking(true)?;
        self.bound = true;
        Ok(listener)
    }

    /// Removes the socket, should the supervisor not have.
    pub(super) fn unbind(&self) {
        if self.bound {
            let _ = std::fs::remove_file(self.socket.path());
        }
    }
}
