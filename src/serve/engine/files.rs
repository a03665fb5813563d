//! The files of a sandbox, as its services see them. Paths are absolute.

use axum::body::Bytes;
use futures_util::future::join_all;

use super::{EngineError, Kind, Result, Sandbox};
use crate::platforms::{Act, Observe};
use crate::supervisor::FileFound;

/// Files up to this size, in bytes, are the supervisor's business; larger ones go through a program.
const SMALL: usize = 1 << 20;

impl Sandbox {
    /// The bytes of a file.
    pub async fn read_file(&self, path: &str) -> Result<Bytes> {
        let read = self.awake().await?.read_file(path).await;
        match read.map_err(EngineError::from) {
            Err(error) if error.kind == Kind::TooLarge => {
                let mut bytes = Vec::new();
                self.local.read_file(self.id(), path, &mut bytes).await?;
                Ok(bytes.into())
            }
            other => other,
        }
    }

    /// Writes a file, with the folders above it where they are missing.
    pub async fn write_file(&self, path: &str, bytes: Bytes, mode: u32) -> Result<()> {
        let client = self.awake().await?;
        if bytes.len() <= SMALL {
            return Ok(client.write_file(path, bytes, mode).await?);
        }
        let mut bytes = &bytes[..];
        Ok(self
            .local
            .write_file(self.id(), path, &mut bytes, mode)
            .await?)
    }

    /// What is known about a file or folder.
    pub async fn stat_file(&self, path: &str) -> Result<FileFound> {
        Ok(self.awake().await?.stat_file(path).await?)
    }

    /// What is in a folder, `depth` levels deep; the path of each entry is absolute.
    pub async fn list_files(&self, path: &str, depth: usize) -> Result<Vec<FileFound>> {
        let client = self.awake().await?;
        let listed = client.list_files(path, depth).await?;
        let above = path.trim_end_matches('/');
        let paths: Vec<_> = listed
            .entries
            .iter()
            .map(|it| format!("{above}/{}", it.name))
            .collect();
        let found = join_all(paths.iter().map(|path| client.stat_file(path))).await;
        // One that was removed meanwhile, or a link that leads nowhere, is not listed.
        Ok(found.into_iter().flatten().collect())
    }

    /// Removes a file or a folder; with `recursive`, with all that is in it.
    pub async fn remove_file(&self, path: &str, recursive: bool) -> Result<()> {
        Ok(self.awake().await?.remove_file(path, recursive).await?)
    }

    /// Makes a folder; with `parents`, those above it too, and one that is there is no error.
    pub async fn make_folder(&self, path: &str, parents: bool) -> Result<()> {
        Ok(self.awake().await?.make_folder(path, parents).await?)
    }

    /// Moves a file or folder; a file at the destination is replaced.
    pub async fn move_file(&self, source: &str, destination: &str) -> Result<()> {
        Ok(self.awake().await?.move_file(source, destination).await?)
    }
}
