//! The other end of the routes.

use jiff::Timestamp;
use reqwest::Method;
use serde::Deserialize;
use serde_json::Value;

use crate::supervisor::client::{Client, ClientError, json};

/// A process, as the API tells of it.
#[derive(Debug, Deserialize)]
pub struct ProcessObject {
    /// Its number.
    pub pid: u32,
    /// What is executed, for people.
    pub command: String,
    /// The folder that was asked for.
    #[serde(default)]
    pub cwd: Option<String>,
    /// When it was executed.
    pub started_at: Option<Timestamp>,
    status: String,
}

impl ProcessObject {
    /// Whether it has not ended.
    pub fn is_running(&self) -> bool {
        self.status == "running"
    }
}

impl Client {
    /// Every process that is no service, also those that have ended.
    pub async fn processes(&self) -> Result<Vec<ProcessObject>, ClientError> {
        json(self.request(Method::GET, "/v1/processes")).await
    }

    /// Stops such a process; answers once it has ended.
    pub async fn stop_process(&self, pid: u32) -> Result<(), ClientError> {
        let request = self.request(Method::DELETE, &format!("/v1/processes/{pid}"));
        json::<Value>(request).await.map(drop)
    }
}
