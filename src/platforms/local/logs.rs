//! The stored logs of a sandbox whose supervisor is not asked.

use std::path::Path;

use tokio::sync::mpsc;

use crate::model::ServiceName;
use crate::platforms::{LogLine, LogQuery, PlatformError, Result};
use crate::supervisor;

/// The stored lines; nothing can follow them.
pub fn stored(
    dir: &Path,
    service: &ServiceName,
    query: &LogQuery,
) -> Result<mpsc::Receiver<LogLine>> {
    let lines = supervisor::stored_logs(dir, service, query)
        .map_err(|error| PlatformError::new(format!("cannot read the log: {error}")))?;
    let (sender, receiver) = mpsc::channel(64);
    tokio::spawn(async move {
        for line in lines {
            if sender.send(line).await.is_err() {
                break;
            }
        }
    });
    Ok(receiver)
}
