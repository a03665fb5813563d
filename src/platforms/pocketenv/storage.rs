//! Folders in and out, as archives that wait in the platform's storage between two requests, for one use
//! (protocol page pocketenv, §9).

use std::time::Duration;

use serde::Deserialize;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};

use super::super::cloud::http::{Client, Retry};
use super::super::cloud::supply::shell::quote;
use super::super::cloud::transfer::collect;
use super::Inner;
use crate::platforms::{PlatformError, Result};

/// The largest archive, in bytes: it is kept in memory. What the platform takes is not known.
const LARGEST: u64 = 256 << 20;

/// How long an archive may be on its way, and how long the next piece of one.
const ON_ITS_WAY: Duration = Duration::from_secs(600);
const IDLE: Duration = Duration::from_secs(60);

/// The storage.
pub(super) struct Storage(Client);

#[derive(Deserialize)]
struct Stored {
    uuid: String,
}

impl Storage {
    pub fn new(http: Client) -> Self {
        Self(http)
    }

    /// Keeps an archive for one use. One that is kept twice is used once.
    async fn put(&self, archive: &[u8]) -> Result<String> {
        let boundary = format!("gabion-{:032x}", fastrand::u128(..));
        let head = format!(
            "--{boundary}\r\nContent-Disposition: form-data; name=\"file\"; filename=\"folder.tar.gz\"\r\n\
             Content-Type: application/gzip\r\n\r\n"
        );
        let end = format!("\r\n--{boundary}--\r\n");
        let body = [head.as_bytes(), archive, end.as_bytes()].concat();
        let kind = format!("multipart/form-data; boundary={boundary}");
        let request = self.0.post(&["cp"]).bytes(&kind, body);
        let request = request.timeout(ON_ITS_WAY).retry(Retry::Safe);
        let stored: Stored = request.fetch().await?;
        Ok(stored.uuid)
    }

    /// Takes one out, which can be done once.
    async fn take(&self, uuid: &str, to: &mut (dyn AsyncWrite + Send + Unpin)) -> Result<()> {
        let request = self.0.get(&["cp", uuid]).retry(Retry::IfNotDone);
        let mut blocks = request.timeout(ON_ITS_WAY).blocks(IDLE).await?;
        while let Some(block) = blocks.next().await? {
            to.write_all(&block).await?;
        }
        Ok(to.flush().await?)
    }
}

impl Inner {
    /// Unpacks an archive in a folder, which is made if it is not there.
    pub(super) async fn upload_folder(
        &self,
        id: &str,
        path: &str,
        from: &mut (dyn AsyncRead + Send + Unpin),
    ) -> Result<()> {
        let archive = collect(from, LARGEST, "an archive").await?;
        let folder = quote(path);
        let folder = self
            .folder(id, &format!("mkdir -p -- {folder} && cd -- {folder}"))
            .await?;
        let uuid = self.storage.put(&archive).await?;
        Ok(self.api.pull_directory(id, &folder, &uuid).await?)
    }

    /// Packs what is in a folder.
    pub(super) async fn download_folder(
        &self,
        id: &str,
        path: &str,
        to: &mut (dyn AsyncWrite + Send + Unpin),
    ) -> Result<()> {
        let folder = self.folder(id, &format!("cd -- {}", quote(path))).await?;
        let uuid = self.api.push_directory(id, &folder).await?;
        self.storage.take(&uuid, to).await
    }

    /// The absolute path of the folder that a script goes to.
    async fn folder(&self, id: &str, go: &str) -> Result<String> {
        let ran = self
            .api
            .exec(id, &format!("{go} >/dev/null && pwd"))
            .await?;
        match ran.exit_code {
            0 => Ok(ran.stdout.trim_end_matches('\n').to_owned()),
            _ => {
                let why = ran
                    .stderr
                    .lines()
                    .last()
                    .unwrap_or("there is no such folder");
                Err(PlatformError::new(why.to_owned()))
            }
        }
    }
}
