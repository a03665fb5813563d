//! Gives memory back whenever it has become quiet: what a hundred starts need is not needed beside a
//! hundred services that only run.

use std::time::Duration;

use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::RecvError;
use tokio::time::timeout;

use super::changes::Change;
use crate::keeper::give_back_memory;

/// How long nothing changes before it is quiet.
const QUIET: Duration = Duration::from_secs(1);

/// Runs for as long as there is a sandbox. Sleeps without a timer while nothing changes.
pub(super) async fn give_back_when_quiet(mut changes: Receiver<Change>) {
    loop {
        while let Ok(change) = timeout(QUIET, changes.recv()).await {
            if matches!(change, Err(RecvError::Closed)) {
                return;
            }
        }
        give_back_memory();
        if matches!(changes.recv().await, Err(RecvError::Closed)) {
            return;
        }
    }
}
