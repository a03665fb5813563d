//! Logs: the platform keeps none, so services write into a file of their sandbox, which is read here.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::mpsc;

use super::Inner;
use super::command::Files;
use crate::model::ServiceAddress;
use crate::platforms::cloud::supply::shell::quote;
use crate::platforms::{LogLine, LogQuery, LogStream, PlatformError, Result};

/// The time between two looks at a file that is followed.
const PAUSE: Duration = Duration::from_secs(1);

impl Inner {
    /// The lines of a service's output since it was last started. Output and error output are one stream,
    /// and lines have no times but those at which they are read.
    pub(super) async fn read_log(
        self: Arc<Self>,
        at: &ServiceAddress,
        query: LogQuery,
    ) -> Result<mpsc::Receiver<LogLine>> {
        if query.since.is_some() {
            return Err(PlatformError::new(
                "platform `pocketenv` does not know when a line was written",
            ));
        }
        let id = self.id(&at.sandbox).await?;
        let log = quote(&Files::of(&self.owner(&at.sandbox), &at.service).log);
        let first = match query.tail {
            Some(lines) => format!("tail -n {lines} {log} 2>/dev/null"),
            None => format!("cat {log} 2>/dev/null"),
        };
        // How much there is is told first, so that nothing is read twice.
        let first = format!("wc -c <{log} 2>/dev/null || echo 0; {first}");
        let (sender, receiver) = mpsc::channel(256);
        let said = self.api.exec(&id, &first).await?.stdout;
        tokio::spawn(async move {
            let (size, text) = said.split_once('\n').unwrap_or((&said, ""));
            let mut read: u64 = size.trim().parse().unwrap_or(0);
            if send(&sender, text).await.is_err() {
                return;
            }
            if !query.follow {
                return;
            }
            loop {
                tokio::select! {
                    () = sender.closed() => return,
                    () = tokio::time::sleep(PAUSE) => {}
                }
                let more = format!("tail -c +{} {log} 2>/dev/null", read + 1);
                let Ok(ran) = self.api.exec(&id, &more).await else {
                    continue;
                };
                // The rest of a line that is not written to its end yet comes with the next look.
                let whole = ran.stdout.rfind('\n').map_or(0, |end| end + 1);
                let text = &ran.stdout[..whole];
                read += text.len() as u64;
                if send(&sender, text).await.is_err() {
                    return;
                }
            }
        });
        Ok(receiver)
    }
}

async fn send(
    sender: &mpsc::Sender<LogLine>,
    text: &str,
) -> Result<(), mpsc::error::SendError<LogLine>> {
    for line in text.lines() {
        let line = LogLine {
            at: Timestamp::now(),
            stream: LogStream::Stdout,
            text: line.to_owned(),
        };
        sender.send(line).await?;
    }
    Ok(())
}
