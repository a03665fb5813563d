//! The data plane of one sandbox (protocol page iris, §3 to §7).

use std::time::Duration;

use bytes::Bytes;
use jiff::Timestamp;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::gateway::Gateway;
use super::wire::{
    Begun, Checkpoints, FileRecord, FilesListed, Pass, Ran, Restored, Service, Services, Stored,
};
use crate::model::ServiceName;
use crate::platforms::cloud::http::{Answer, Client, HttpError, Lines, Request, Retry};

/// A token is renewed so long before it runs out.
const EARLY: i64 = 30;

/// A start takes as long as a service takes to be ready.
const START: Duration = Duration::from_secs(600);

/// A restore takes as long as its files do.
const RESTORE: Duration = Duration::from_secs(300);

/// Speaks to one data plane.
pub(super) struct Plane {
    client: Client,
    /// Where new tokens come from; `None` if this one is for good.
    source: Option<(Gateway, String)>,
    /// When the token runs out, in seconds since 1970; 0 if there is none.
    expires: tokio::sync::Mutex<Option<i64>>,
}

type Result<T, E = HttpError> = std::result::Result<T, E>;

impl Plane {
    /// One that needs no gateway.
    pub fn direct(client: Client) -> Self {
        Self {
            client,
            source: None,
            expires: tokio::sync::Mutex::new(None),
        }
    }

    /// One whose tokens the gateway makes; without `pass` it is asked at once.
    pub fn new(client: Client, gateway: Gateway, id: &str, pass: Option<&Pass>) -> Self {
        let expires = match pass {
            Some(pass) => {
                if let Some(token) = &pass.data_plane_token {
                    client.set_token(token.clone());
                }
                pass.data_plane_token_expires_at_unix
            }
            None => Some(0),
        };
        Self {
            client,
            source: Some((gateway, id.to_owned())),
            expires: tokio::sync::Mutex::new(expires),
        }
    }

    /// Gets another token if this one has run out, or does so soon.
    async fn renew(&self, refused: bool) -> Result<()> {
        let Some((gateway, id)) = &self.source else {
            return Ok(());
        };
        let mut expires = self.expires.lock().await;
        let soon = Timestamp::now().as_second() + EARLY;
        if !refused && expires.is_none_or(|at| at > soon) {
            return Ok(());
        }
        let pass = gateway.token(id).await?;
        if let Some(token) = pass.data_plane_token {
            self.client.set_token(token);
        }
        *expires = pass.data_plane_token_expires_at_unix;
        Ok(())
    }

    /// Calls with a token that is good; once more with another one if it is refused all the same.
    async fn call<'a, T, F: Future<Output = Result<T>>>(
        &'a self,
        call: impl Fn(&'a Client) -> F,
    ) -> Result<T> {
        self.renew(false).await?;
        match call(&self.client).await {
            Err(error) if error.status == Some(401) && self.source.is_some() => {
                self.renew(true).await?;
                call(&self.client).await
            }
            other => other,
        }
    }

    async fn send<'a>(&'a self, build: impl Fn(&'a Client) -> Request<'a>) -> Result<Answer> {
        self.call(|it| build(it).send()).await
    }

    async fn ask<'a, T: DeserializeOwned>(
        &'a self,
        build: impl Fn(&'a Client) -> Request<'a>,
    ) -> Result<T> {
        self.call(|it| build(it).fetch()).await
    }

    /// Every service, of us and of others.
    pub async fn services(&self) -> Result<Vec<Service>> {
        let listed: Services = self.ask(|it| it.get(&["v1", "services"])).await?;
        Ok(listed.into())
    }

    /// One service; `None` if there is none.
    pub async fn service(&self, name: &ServiceName) -> Result<Option<Service>> {
        let asked = self.ask(|it| it.get(&["v1", "services", name.as_str()]));
        absent(asked.await)
    }

    /// Stores a definition. A live process goes on as it is.
    pub async fn put(&self, name: &ServiceName, body: &Value) -> Result<()> {
        let path = ["v1", "services", name.as_str()];
        self.send(|it| it.put(&path).json(body)).await.map(drop)
    }

    /// Starts a service; answers when it has settled, or before.
    pub async fn start(&self, name: &ServiceName) -> Result<()> {
        let path = ["v1", "services", name.as_str(), "start"];
        self.send(|it| it.post(&path).retry(Retry::Safe).timeout(START))
            .await
            .map(drop)
    }

    /// Stops a service. One that is not there, or down already, counts as stopped.
    pub async fn stop(&self, name: &ServiceName) -> Result<()> {
        let path = ["v1", "services", name.as_str(), "stop"];
        match self.send(|it| it.post(&path).retry(Retry::Safe)).await {
            Err(error) if !error.is_not_found() && !error.is_conflict() => Err(error),
            _ => Ok(()),
        }
    }

    /// Stops and removes a service. One that is not there counts as removed.
    pub async fn delete(&self, name: &ServiceName) -> Result<()> {
        let path = ["v1", "services", name.as_str()];
        absent(self.send(|it| it.delete(&path)).await).map(drop)
    }

    /// Sends a signal (an extension, §4.6).
    pub async fn signal(&self, name: &ServiceName, signal: &str) -> Result<()> {
        let path = ["v1", "services", name.as_str(), "signal"];
        let body = json!({ "signal": signal });
        self.send(|it| it.post(&path).json(&body)).await.map(drop)
    }

    /// Writes to standard input (an extension of our own supervisor).
    pub async fn stdin(&self, name: &ServiceName, data: &str, eof: bool) -> Result<()> {
        let path = ["v1", "services", name.as_str(), "stdin"];
        let body = json!({ "data": data, "eof": eof });
        self.send(|it| it.post(&path).json(&body)).await.map(drop)
    }

    /// The log of a service (an extension, §4.6), as lines.
    pub async fn logs(&self, name: &ServiceName, query: &[(&str, String)]) -> Result<Lines> {
        self.renew(false).await?;
        let mut request = self.client.get(&["v1", "services", name.as_str(), "logs"]);
        for (key, value) in query {
            request = request.query(key, value);
        }
        // A quiet service says nothing for as long as it likes.
        request.lines(Duration::MAX).await
    }

    /// Runs a command. Never asked for twice.
    pub async fn exec(&self, body: &Value, limit: Duration) -> Result<Ran> {
        let limit = limit + Duration::from_secs(30);
        self.ask(|it| it.post(&["v1", "exec"]).json(body).timeout(limit))
            .await
    }

    /// Runs a command in the container of a service.
    pub async fn exec_in(&self, name: &ServiceName, body: &Value, limit: Duration) -> Result<Ran> {
        let path = ["v1", "services", name.as_str(), "exec"];
        let limit = limit + Duration::from_secs(30);
        self.ask(|it| it.post(&path).json(body).timeout(limit))
            .await
    }

    /// A value of the store; `None` if there is none.
    pub async fn value<T: DeserializeOwned>(&self, key: &str) -> Result<Option<T>> {
        let stored: Result<Stored<T>> = self.ask(|it| it.get(&["v1", "store", key])).await;
        Ok(absent(stored)?.map(|stored| stored.value))
    }

    /// Sets a value of the store.
    pub async fn set_value(&self, key: &str, value: &impl Serialize) -> Result<()> {
        let body = json!({ "value": value });
        let path = ["v1", "store", key];
        self.send(|it| it.put(&path).json(&body)).await.map(drop)
    }

    /// Removes a value of the store.
    pub async fn remove_value(&self, key: &str) -> Result<()> {
        absent(self.send(|it| it.delete(&["v1", "store", key])).await).map(drop)
    }

    /// The bytes of a file.
    pub async fn read_file(&self, path: &str) -> Result<Bytes> {
        let read = self.send(|it| it.get(&["v1", "files"]).query("path", path));
        Ok(read.await?.body)
    }

    /// Writes a file.
    pub async fn write_file(&self, path: &str, bytes: &Bytes, mode: u32) -> Result<()> {
        let mode = format!("{mode:o}");
        let written = self.send(|it| {
            it.post(&["v1", "files"])
                .query("path", path)
                .bytes("application/octet-stream", bytes.clone())
                .header("x-file-mode", &mode)
                .retry(Retry::Safe)
        });
        written.await.map(drop)
    }

    /// What is in a folder.
    pub async fn list_files(&self, path: &str) -> Result<FilesListed> {
        let listed = self.ask(|it| {
            let request = it.get(&["v1", "files", "list"]);
            request.query("path", path).query("depth", "1")
        });
        listed.await
    }

    /// What is known of a file or folder.
    pub async fn stat_file(&self, path: &str) -> Result<FileRecord> {
        self.ask(|it| it.get(&["v1", "files", "stat"]).query("path", path))
            .await
    }

    /// Removes a file or folder. Not repeated where it may have been done: the file is not there then.
    pub async fn remove_file(&self, path: &str, recursive: bool) -> Result<()> {
        let removed = self.send(|it| {
            it.delete(&["v1", "files"])
                .query("path", path)
                .query("recursive", recursive.to_string())
                .retry(Retry::IfNotDone)
        });
        removed.await.map(drop)
    }

    /// Makes a folder.
    pub async fn make_folder(&self, path: &str, parents: bool) -> Result<()> {
        let body = json!({ "path": path, "parents": parents });
        self.change_file("mkdir", &body).await
    }

    /// Gives a file or folder another path.
    pub async fn move_file(&self, source: &str, destination: &str) -> Result<()> {
        let body = json!({ "source": source, "destination": destination });
        self.change_file("move", &body).await
    }

    async fn change_file(&self, what: &str, body: &Value) -> Result<()> {
        let changed = self.send(|it| {
            let request = it.post(&["v1", "files", what]).json(body);
            request.retry(Retry::IfNotDone)
        });
        changed.await.map(drop)
    }

    /// The checkpoints.
    pub async fn checkpoints(&self) -> Result<Checkpoints> {
        self.at_checkpoints(|it, word| it.get(&["v1", word])).await
    }

    /// Begins a checkpoint.
    pub async fn checkpoint(&self, name: Option<&str>) -> Result<Begun> {
        let body = match name {
            Some(name) => json!({ "name": name }),
            None => json!({}),
        };
        self.at_checkpoints(|it, word| it.post(&["v1", word]).json(&body))
            .await
    }

    /// Returns once a checkpoint is written.
    pub async fn wait_checkpoint(&self, id: &str) -> Result<()> {
        let body = json!({ "checkpoint_id": id });
        let waited = self.at_checkpoints::<Value>(|it, word| {
            let request = it.post(&["v1", word, "wait"]).json(&body);
            request.retry(Retry::Safe).timeout(RESTORE)
        });
        waited.await.map(drop)
    }

    /// Makes the sandbox what it was.
    pub async fn restore(&self, id: &str) -> Result<Restored> {
        self.at_checkpoints(|it, word| it.post(&["v1", word, id, "restore"]).timeout(RESTORE))
            .await
    }

    /// Removes a checkpoint. An absent one counts as removed.
    pub async fn delete_checkpoint(&self, id: &str) -> Result<()> {
        let removed: Result<Value> = self
            .at_checkpoints(|it, word| it.delete(&["v1", word, id]))
            .await;
        absent(removed).map(drop)
    }

    /// The routes of checkpoints are not published: the plural, and where that is unknown the singular.
    async fn at_checkpoints<'a, T: DeserializeOwned>(
        &'a self,
        build: impl Fn(&'a Client, &str) -> Request<'a>,
    ) -> Result<T> {
        match self.ask(|it| build(it, "checkpoints")).await {
            Err(error) if error.status == Some(405) => self.ask(|it| build(it, "checkpoint")).await,
            other => other,
        }
    }
}

fn absent<T>(result: Result<T>) -> Result<Option<T>> {
    match result {
        Ok(found) => Ok(Some(found)),
        Err(error) if error.is_not_found() => Ok(None),
        Err(error) => Err(error),
    }
}
