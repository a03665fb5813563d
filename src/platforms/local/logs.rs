//! The stored logs of a sandbox whose supervisor is not asked.

use std::path::Path;

use jiff::Timestamp;
use tokio::sync::mpsc;

use crate::model::ServiceName;
use crate::platforms::{LogLine, LogQuery, PlatformError, Result};
use crate::supervisor;

/// How many lines of evidence a failure shows.
const EVIDENCE: usize = 10;

/// The last lines that a service wrote since then; none if they cannot be read.
pub fn tail(dir: &Path, service: &ServiceName, since: Timestamp) -> Vec<String> {
    let query = LogQuery {
        tail: Some(EVIDENCE),
        since: Some(since),
        ..LogQuery::default()
    };
    let lines = supervisor::stored_logs(dir, service, &query).unwrap_or_default();
    lines.into_iter().map(|line| line.text).collect()
}

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
