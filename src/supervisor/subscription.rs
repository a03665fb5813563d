//! The other end of `/v1/events`.

use futures_util::StreamExt;
use reqwest::Method;
use serde::Deserialize;
use tokio::sync::mpsc;

use super::client::{Client, ClientError, checked};
use super::wire::ServiceObject;

/// What happens to the services of a sandbox.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum ServiceEvent {
    /// A service as it is now.
    Service {
        /// All that is known of it.
        service: Box<ServiceObject>,
    },
    /// A service is gone.
    Deleted {
        /// What it was called.
        name: String,
    },
    /// So many events were missed: list the services again.
    Lagged {
        /// How many.
        missed: u64,
    },
}

impl Client {
    /// Every service as it is, and then each change. The channel closes when the supervisor ends.
    pub async fn events(&self) -> Result<mpsc::Receiver<ServiceEvent>, ClientError> {
        let answer = self.request(Method::GET, "/v1/events").send().await?;
        let answer = checked(answer).await?;
        let (sender, receiver) = mpsc::channel(256);
        tokio::spawn(async move {
            let mut body = answer.bytes_stream();
            let mut rest = Vec::new();
            loop {
                // Nobody listens any more, which is not noticed otherwise while nothing happens.
                let chunk = tokio::select! {
                    chunk = body.next() => chunk,
                    () = sender.closed() => return,
                };
                let Some(Ok(chunk)) = chunk else {
                    return;
                };
                rest.extend_from_slice(&chunk);
                let whole = rest
                    .iter()
                    .rposition(|byte| *byte == b'\n')
                    .map_or(0, |end| end + 1);
                for line in rest[..whole].split(|byte| *byte == b'\n') {
                    // A new kind of event means nothing here.
                    if let Ok(event) = serde_json::from_slice(line)
                        && sender.send(event).await.is_err()
                    {
                        return;
                    }
                }
                rest.drain(..whole);
            }
        });
        Ok(receiver)
    }
}
