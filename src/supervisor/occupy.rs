//! Holding a sandbox's folder against any keeper and supervisor.

use std::fs::File;
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::Duration;

use rustix::fs::{FlockOperation, fcntl_lock};

use crate::keeper::{LOCK, SocketPath};

/// How long a keeper that was told to end is given.
const PATIENCE: Duration = Duration::from_secs(15);

/// A folder in which nothing runs, for as long as this lives.
#[derive(Debug)]
pub struct Occupied {
    _keeper: File,
    _supervisor: File,
}

/// Takes the place of the keeper in `dir`, so that none runs there and none can start. Waits for one that
/// is about to end; one that does not is an error.
pub async fn occupy(dir: &Path) -> io::Result<Occupied> {
    Ok(Occupied {
        _keeper: take(dir, LOCK).await?,
        // One that has lost its keeper is about to end.
        _supervisor: take(dir, "supervisor.lock").await?,
    })
}

async fn take(dir: &Path, name: &str) -> io::Result<File> {
    let file = File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .mode(0o600)
        .open(dir.join(name))?;
    if fcntl_lock(&file, FlockOperation::NonBlockingLockExclusive).is_ok() {
        return Ok(file);
    }
    let (sender, receiver) = tokio::sync::oneshot::channel();
    // A plain thread: should the lock not be had, it stays blocked, and must not keep the process
    // from ending.
    std::thread::spawn(move || {
        let locked = fcntl_lock(&file, FlockOperation::LockExclusive);
        sender.send(locked.map(|()| file))
    });
    match tokio::time::timeout(PATIENCE, receiver).await {
        Ok(Ok(locked)) => Ok(locked?),
        Ok(Err(_)) | Err(_) => Err(io::Error::new(
            io::ErrorKind::TimedOut,
            "its keeper runs, but does not answer: kill it, and try again",
        )),
    }
}

/// Whether a keeper runs in `dir`, whether or not its supervisor can be reached.
pub fn is_occupied(dir: &Path) -> bool {
    let Ok(file) = File::options().write(true).open(dir.join(LOCK)) else {
        return false;
    };
    let taken = fcntl_lock(&file, FlockOperation::NonBlockingLockExclusive);
    matches!(
        taken,
        Err(rustix::io::Errno::WOULDBLOCK | rustix::io::Errno::ACCESS)
    )
}

/// Whether a supervisor serves the sandbox kept in `dir`.
pub fn is_serving(dir: &Path) -> bool {
    let socket = SocketPath::open(dir);
    socket.is_ok_and(|socket| std::os::unix::net::UnixStream::connect(socket.path()).is_ok())
}
