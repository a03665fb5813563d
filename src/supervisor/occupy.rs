//! Holding a sandbox's folder against any supervisor.

use std::fs::File;
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::Duration;

use rustix::fs::{FlockOperation, fcntl_lock};

/// How long a supervisor that was told to end is given.
const PATIENCE: Duration = Duration::from_secs(15);

/// Takes the place of the supervisor in `dir`, so that none runs there and none can start, for as
/// long as the result lives. Waits for one that is about to end; one that does not is an error.
pub async fn occupy(dir: &Path) -> io::Result<File> {
    let file = File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .mode(0o600)
        .open(dir.join("supervisor.lock"))?;
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
            "its supervisor runs, but does not answer: kill it, and try again",
        )),
    }
}

/// Whether a supervisor runs in `dir`, whether or not it can be reached.
pub fn is_occupied(dir: &Path) -> bool {
    let Ok(file) = File::options()
        .write(true)
        .open(dir.join("supervisor.lock"))
    else {
        return false;
    };
    let taken = fcntl_lock(&file, FlockOperation::NonBlockingLockExclusive);
    matches!(
        taken,
        Err(rustix::io::Errno::WOULDBLOCK | rustix::io::Errno::ACCESS)
    )
}
