//! One apply at a time on a stack: an advisory lock on a file, which the kernel releases when its
//! holder dies, however it dies.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Who holds the lock of a stack.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Holder {
    /// Its process.
    pub pid: u32,
    /// The command it runs, such as `gabion apply`.
    pub command: String,
    /// Since when.
    pub since: jiff::Timestamp,
}

/// Why the lock was not had.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// Somebody else holds it, and the time to wait is over.
    #[error("the stack is locked by {}", describe(.holder))]
    Held {
        /// Who, if they have written it down already.
        holder: Option<Holder>,
    },
    /// The lock file could not be used.
    #[error("cannot lock {path}: {source}")]
    Io {
        /// The lock file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

fn describe(holder: &Option<Holder>) -> String {
    match holder {
        Some(Holder {
            pid,
            command,
            since,
        }) => {
            format!("`{command}` (process {pid}, since {since:.0})")
        }
        None => "another process".to_owned(),
    }
}

/// The lock of a stack, held until it is dropped or its process ends.
#[derive(Debug)]
pub struct StackLock {
    path: PathBuf,
    _file: File,
}

impl StackLock {
    /// Takes the lock at `path`. If somebody holds it, `on_wait` is told who, and the lock is awaited
    /// for at most `timeout`.
    pub async fn acquire(
        path: &Path,
        command: &str,
        timeout: Duration,
        on_wait: impl FnOnce(Option<&Holder>),
    ) -> Result<Self, LockError> {
        let failed = |source| LockError::Io {
            path: path.to_owned(),
            source,
        };
        if let Some(lock) = try_acquire(path, command).map_err(failed)? {
            return Ok(lock);
        }
        let holder = read_holder(path);
        if timeout.is_zero() {
            return Err(LockError::Held { holder });
        }
        on_wait(holder.as_ref());
        // A thread of its own, not one of the runtime's: on time-out it stays blocked in the kernel,
        // and must not keep the process from ending.
        let (sender, receiver) = tokio::sync::oneshot::channel();
        let (owned, command) = (path.to_owned(), command.to_owned());
        std::thread::spawn(move || sender.send(wait_acquire(&owned, &command)));
        match tokio::time::timeout(timeout, receiver).await {
            Ok(Ok(result)) => result.map_err(failed),
            Ok(Err(_)) | Err(_) => Err(LockError::Held {
                holder: read_holder(path),
            }),
        }
    }
}

impl Drop for StackLock {
    fn drop(&mut self) {
        // Removed while it is still held, so that nobody else's lock can be the one removed.
        let _ = std::fs::remove_file(&self.path);
    }
}

fn try_acquire(path: &Path, command: &str) -> io::Result<Option<StackLock>> {
    loop {
        let file = open(path)?;
        match file.try_lock() {
            Ok(()) if is_current(&file, path) => return sign(file, path, command).map(Some),
            // The holder before us removed this file: take the one that is there now.
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Ok(None),
            Err(TryLockError::Error(error)) => return Err(error),
        }
    }
}

fn wait_acquire(path: &Path, command: &str) -> io::Result<StackLock> {
    loop {
        let file = open(path)?;
        file.lock()?;
        if is_current(&file, path) {
            return sign(file, path, command);
        }
    }
}

fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .custom_flags(rustix::fs::OFlags::NOFOLLOW.bits() as i32)
        .open(path)
}

/// Whether the open file is still the one that `path` names.
fn is_current(file: &File, path: &Path) -> bool {
    match (file.metadata(), std::fs::metadata(path)) {
        (Ok(open), Ok(named)) => (open.dev(), open.ino()) == (named.dev(), named.ino()),
        _ => false,
    }
}

fn sign(mut file: File, path: &Path, command: &str) -> io::Result<StackLock> {
    let holder = Holder {
        pid: std::process::id(),
        command: command.to_owned(),
        since: jiff::Timestamp::now(),
    };
    // Only a note for others: a full disk must not keep anybody from stopping what fills it.
    let note = serde_json::to_vec(&holder)?;
    let _ = file
        .set_len(0)
        .and_then(|()| file.seek(SeekFrom::Start(0)))
        .and_then(|_| file.write_all(&note));
    Ok(StackLock {
        path: path.to_owned(),
        _file: file,
    })
}

fn read_holder(path: &Path) -> Option<Holder> {
    let mut text = String::new();
    File::open(path)
        .ok()?
        .take(4096)
        .read_to_string(&mut text)
        .ok()?;
    serde_json::from_str(&text).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_second_holder_is_told_who_holds_it_and_gets_it_afterwards() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("shop.lock");
        let first = StackLock::acquire(&path, "gabion apply", Duration::ZERO, |_| {})
            .await
            .unwrap();
        let refused = StackLock::acquire(&path, "gabion destroy", Duration::ZERO, |_| {}).await;
        let message = refused.unwrap_err().to_string();
        assert!(
            message.contains("`gabion apply`") && message.contains(&std::process::id().to_string())
        );

        let (told, heard) = tokio::sync::oneshot::channel();
        let second_path = path.clone();
        let second = tokio::spawn(async move {
            let timeout = Duration::from_secs(60);
            StackLock::acquire(&second_path, "gabion destroy", timeout, |holder| {
                told.send(holder.cloned()).unwrap();
            })
            .await
        });
        assert_eq!(heard.await.unwrap().unwrap().command, "gabion apply");
        drop(first);
        drop(second.await.unwrap().unwrap());
        assert!(!path.exists());
    }
}
