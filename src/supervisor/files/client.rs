//! The other end of the routes.

use reqwest::{Method, RequestBuilder};
use serde_json::{Value, json};

use super::{Found, Listed};
use crate::supervisor::client::{Client, ClientError, checked, json as answer, once};

type Result<T, E = ClientError> = std::result::Result<T, E>;

impl Client {
    /// The bytes of a file, of at most 1 MiB. Paths are absolute, as the sandbox sees them.
    pub async fn read_file(&self, path: &str) -> Result<bytes::Bytes> {
        let answer = self.at(Method::GET, "/v1/files", path).send().await?;
        Ok(checked(answer).await?.bytes().await?)
    }

    /// Writes a file of at most 1 MiB, with the folders above it where they are missing.
    pub async fn write_file(&self, path: &str, bytes: bytes::Bytes, mode: u32) -> Result<()> {
        let request = self.at(Method::POST, "/v1/files", path);
        let request = request
            .header("x-file-mode", format!("{mode:o}"))
            .body(bytes);
        answer::<Value>(request).await.map(drop)
    }

    /// Removes a file or a folder; with `recursive`, with all that is in it.
    pub async fn remove_file(&self, path: &str, recursive: bool) -> Result<()> {
        let request = self.at(Method::DELETE, "/v1/files", path);
        once::<Value>(request.query(&[("recursive", recursive)]))
            .await
            .map(drop)
    }

    /// What is in a folder, `depth` levels deep.
    pub async fn list_files(&self, path: &str, depth: usize) -> Result<Listed> {
        let request = self.at(Method::GET, "/v1/files/list", path);
        answer(request.query(&[("depth", depth)])).await
    }

    /// What is known about a file or folder.
    pub async fn stat_file(&self, path: &str) -> Result<Found> {
        answer(self.at(Method::GET, "/v1/files/stat", path)).await
    }

    /// Makes a folder; with `parents`, those above it too, and one that is there is no error.
    pub async fn make_folder(&self, path: &str, parents: bool) -> Result<()> {
        let body = json!({ "path": path, "parents": parents });
        let request = self.request(Method::POST, "/v1/files/mkdir").json(&body);
        once::<Value>(request).await.map(drop)
    }

    /// Moves a file or folder; a file at the destination is replaced.
    pub async fn move_file(&self, source: &str, destination: &str) -> Result<()> {
        let body = json!({ "source": source, "destination": destination });
        let request = self.request(Method::POST, "/v1/files/move").json(&body);
        once::<Value>(request).await.map(drop)
    }

    fn at(&self, method: Method, route: &str, path: &str) -> RequestBuilder {
        self.request(method, route).query(&[("path", path)])
    }
}
