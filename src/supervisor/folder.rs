//! Watches the sandbox's folder: a supervisor ends with its folder and its socket.

use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use notify::{RecommendedWatcher, RecursiveMode, Watcher as _};
use tokio::sync::Notify;

use crate::keeper::SOCKET;

/// How often a folder is looked at that cannot be watched.
const LOOK_AGAIN: Duration = Duration::from_secs(2);

/// Device and inode: the same as long as it is the same file.
type Identity = (u64, u64);

fn identity(path: &Path) -> io::Result<Identity> {
    let found = std::fs::symlink_metadata(path)?;
    Ok((found.dev(), found.ino()))
}

/// The folder and the socket that a supervisor serves, and news of them.
#[derive(Debug)]
pub(super) struct FolderWatch {
    dir: PathBuf,
    known: (Identity, Identity),
    events: Arc<Notify>,
    /// `None`: the machine has no more of them, which are few for each user (128 on Linux).
    watcher: Option<RecommendedWatcher>,
}

impl FolderWatch {
    /// Begins to watch. The socket is bound already.
    pub(super) fn new(dir: &Path) -> io::Result<Self> {
        // The folder may be reached through a link; what counts is where it leads to now.
        let dir = dir.canonicalize()?;
        let known = identities(&dir)?;
        let events = Arc::new(Notify::new());
        let watcher = watch(&dir, events.clone());
        if let Err(error) = &watcher {
            tracing::warn!(%error, "the folder cannot be watched, and is looked at now and then");
        }
        // What happens before the first look counts too.
        events.notify_one();
        Ok(Self {
            dir,
            known,
            events,
            watcher: watcher.ok(),
        })
    }

    /// Whether the path still leads to the folder and the socket that are served.
    pub(super) fn is_there(&self) -> bool {
        identities(&self.dir).is_ok_and(|found| found == self.known)
    }

    /// Returns once one of them is gone or replaced. Cancel-safe.
    pub(super) async fn lost(&self) {
        while self.is_there() {
            match self.watcher {
                Some(_) => self.events.notified().await,
                None => tokio::time::sleep(LOOK_AGAIN).await,
            }
        }
    }
}

/// Watches the folder, and the one above it.
fn watch(dir: &Path, events: Arc<Notify>) -> notify::Result<RecommendedWatcher> {
    let told = move |_: notify::Result<notify::Event>| events.notify_one();
    let mut watcher = notify::recommended_watcher(told)?;
    watcher.watch(dir, RecursiveMode::NonRecursive)?;
    if let Some(parent) = dir.parent()
        && let Err(error) = watcher.watch(parent, RecursiveMode::NonRecursive)
    {
        // The removal of what is in the folder is seen all the same.
        tracing::warn!(%error, "the folder above the sandbox cannot be watched");
    }
    Ok(watcher)
}

fn identities(dir: &Path) -> io::Result<(Identity, Identity)> {
    Ok((identity(dir)?, identity(&dir.join(SOCKET))?))
}
