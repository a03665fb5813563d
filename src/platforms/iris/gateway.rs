//! The gateway: Connect calls with JSON (protocol page iris, §2).

use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::wire::{Made, Page, Pass, Record};
use crate::platforms::cloud::http::{Client, HttpError, Retry};

/// The service's path, unless the manifest says otherwise: it is not published.
pub(super) const SERVICE: &str = "iris.v1.SandboxService";

/// Speaks to the gateway. Cheap to clone.
#[derive(Clone)]
pub(super) struct Gateway {
    client: Client,
    service: String,
}

type Result<T, E = HttpError> = std::result::Result<T, E>;

impl Gateway {
    pub fn new(client: Client, service: String) -> Self {
        Self { client, service }
    }

    async fn call<T: DeserializeOwned>(
        &self,
        method: &str,
        body: &Value,
        retry: Retry,
    ) -> Result<T> {
        let request = self.client.post(&[&self.service, method]);
        let request = request.header("connect-protocol-version", "1");
        request.json(body).retry(retry).fetch().await
    }

    /// Makes a sandbox. Not asked for twice: whoever calls looks for it where the answer is lost.
    pub async fn create(&self, name: &str) -> Result<Made> {
        let body = json!({ "name": name });
        self.call("CreateSandbox", &body, Retry::IfNotDone).await
    }

    /// Makes one with the files of another.
    pub async fn fork(&self, id: &str, name: &str) -> Result<Made> {
        let body = json!({ "sandbox_id": id, "name": name });
        self.call("ForkSandbox", &body, Retry::IfNotDone).await
    }

    /// A new token for a data plane.
    pub async fn token(&self, id: &str) -> Result<Pass> {
        let body = json!({ "sandbox_id": id });
        self.call("IssueDataPlaneToken", &body, Retry::Safe).await
    }

    /// Every sandbox of the account.
    pub async fn list(&self) -> Result<Vec<Record>> {
        let mut all = Vec::new();
        let mut token = String::new();
        loop {
            let body = match token.is_empty() {
                true => json!({}),
                false => json!({ "page_token": token }),
            };
            let page: Page = self.call("ListSandboxes", &body, Retry::Safe).await?;
            all.extend(page.sandboxes);
            // One that does not get on would be asked for ever.
            if page.next_page_token.is_empty() || page.next_page_token == token {
                return Ok(all);
            }
            token = page.next_page_token;
        }
    }

    /// One sandbox; `None` if there is none.
    pub async fn show(&self, id: &str) -> Result<Option<Record>> {
        #[derive(serde::Deserialize)]
        struct Shown {
            sandbox: Record,
        }
        let body = json!({ "sandbox_id": id });
        let shown: Result<Shown> = self.call("GetSandbox", &body, Retry::Safe).await;
        match shown {
            Ok(shown) => Ok(Some(shown.sandbox)),
            Err(error) if is_absent(&error) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Stops it and keeps it as it is.
    pub async fn suspend(&self, id: &str) -> Result<()> {
        self.change("SuspendSandbox", id).await
    }

    /// Goes on with it.
    pub async fn resume(&self, id: &str) -> Result<()> {
        self.change("ResumeSandbox", id).await
    }

    /// Removes it. An absent one counts as removed.
    pub async fn delete(&self, id: &str) -> Result<()> {
        match self.change("DeleteSandbox", id).await {
            Err(error) if !is_absent(&error) => Err(error),
            _ => Ok(()),
        }
    }

    /// Each of these may be asked for twice.
    async fn change(&self, method: &str, id: &str) -> Result<()> {
        let body = json!({ "sandbox_id": id });
        let done: Result<Value> = self.call(method, &body, Retry::Safe).await;
        done.map(drop)
    }
}

fn is_absent(error: &HttpError) -> bool {
    error.is_not_found() || error.has_code("not_found")
}
