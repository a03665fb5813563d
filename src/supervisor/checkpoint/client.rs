//! The other end of the routes.

use reqwest::Method;
use serde::Deserialize;
use serde_json::{Map, Value};

use crate::model::{Checkpoint, Restored, Secrets};
use crate::supervisor::client::{Client, ClientError, json, once};
use crate::supervisor::wire;

type Result<T, E = ClientError> = std::result::Result<T, E>;

#[derive(Deserialize)]
struct Listed {
    checkpoints: Vec<Checkpoint>,
}

#[derive(Deserialize)]
struct Begun {
    checkpoint_id: String,
}

impl Client {
    /// Every checkpoint that is written, the oldest first.
    pub async fn checkpoints(&self) -> Result<Vec<Checkpoint>> {
        let listed: Listed = json(self.request(Method::GET, "/v1/checkpoints")).await?;
        Ok(listed.checkpoints)
    }

    /// Makes a checkpoint and returns once it is written. The secrets are for the sandbox's hooks.
    pub async fn create_checkpoint(
        &self,
        name: Option<&str>,
        secrets: &Secrets,
    ) -> Result<Checkpoint> {
        let request = self.request(Method::POST, "/v1/checkpoints?wait=true");
        once(request.json(&body(name, secrets))).await
    }

    /// Begins a checkpoint and returns its id.
    pub async fn begin_checkpoint(&self, name: Option<&str>, secrets: &Secrets) -> Result<String> {
        let request = self.request(Method::POST, "/v1/checkpoints");
        let begun: Begun = once(request.json(&body(name, secrets))).await?;
        Ok(begun.checkpoint_id)
    }

    /// Returns once a checkpoint that was begun is written.
    pub async fn wait_checkpoint(&self, id: &str) -> Result<Checkpoint> {
        let request = self.request(Method::POST, "/v1/checkpoints/wait");
        once(request.json(&serde_json::json!({ "checkpoint_id": id }))).await
    }

    /// Rewinds the sandbox. Services that need secrets nobody has sent before get these.
    pub async fn restore_checkpoint(&self, id: &str, secrets: &Secrets) -> Result<Restored> {
        let mut body = body(None, secrets);
        body.insert("checkpoint_id".to_owned(), serde_json::json!(id));
        let request = self.request(Method::POST, "/v1/checkpoints/restore");
        once(request.json(&body)).await
    }

    /// Removes a checkpoint; one that is not there is an error (404).
    pub async fn delete_checkpoint(&self, id: &str) -> Result<()> {
        let request = self.request(Method::DELETE, &format!("/v1/checkpoints/{id}"));
        once::<Value>(request).await.map(drop)
    }
}

fn body(name: Option<&str>, secrets: &Secrets) -> Map<String, Value> {
    let mut body = match wire::start_body(secrets) {
        Value::Object(body) => body,
        _ => Map::new(),
    };
    if let Some(name) = name {
        body.insert("name".to_owned(), serde_json::json!(name));
    }
    body
}
