//! Files of a sprite (§6). What there are no routes for, programs of the sprite do.

use serde_json::json;
use tokio::io::{AsyncRead, AsyncWrite};

use super::Sprites;
use super::wire::FsEntry;
use crate::model::{SandboxName, Secrets};
use crate::platforms::cloud::transfer::{about_file, collect, deliver};
use crate::platforms::files::{no_file, split};
use crate::platforms::{FileChange, FileEntry, PlatformError, Result, programs};

/// The largest file that is copied: it is held in memory.
const LARGEST: u64 = 256 << 20;

impl Sprites {
    pub(super) async fn download(
        &self,
        sandbox: &SandboxName,
        path: &str,
        to: &mut (dyn AsyncWrite + Send + Unpin),
    ) -> Result<()> {
        let seen = self.seen(sandbox).await?;
        let bytes = self.client.read_file(&seen.sprite, absolute(path)?).await;
        deliver(to, &bytes.map_err(about_file(path))?).await
    }

    pub(super) async fn upload(
        &self,
        sandbox: &SandboxName,
        path: &str,
        from: &mut (dyn AsyncRead + Send + Unpin),
        mode: u32,
    ) -> Result<()> {
        let path = absolute(path)?;
        let bytes = collect(from, LARGEST, "a file").await?;
        let seen = self.seen(sandbox).await?;
        Ok(self
            .client
            .put_file(&seen.sprite, path, bytes, mode)
            .await?)
    }

    pub(super) async fn list_folder(
        &self,
        sandbox: &SandboxName,
        path: &str,
    ) -> Result<Vec<FileEntry>> {
        let path = absolute(path)?;
        let seen = self.seen(sandbox).await?;
        let listed = self.client.list_files(&seen.sprite, path).await;
        let mut entries = listed.map_err(about_file(path))?.entries;
        // A list of what is in a folder might begin with the folder.
        entries.retain(|it| !it.is_dir || it.path.as_deref() != Some(path));
        let mut entries: Vec<_> = entries.into_iter().map(entry).collect();
        entries.sort();
        Ok(entries)
    }

    /// By the list of the folder above it: that of a folder is of what is in it.
    pub(super) async fn stat(&self, sandbox: &SandboxName, path: &str) -> Result<FileEntry> {
        let (above, name) = split(absolute(path)?);
        if name == "/" {
            return Ok(FileEntry::folder(name));
        }
        let seen = self.seen(sandbox).await?;
        let listed = self.client.list_files(&seen.sprite, above).await;
        let entries = listed.map_err(about_file(path))?.entries;
        let found = entries.into_iter().find(|it| it.name == name);
        found.map(entry).ok_or_else(|| no_file(path))
    }

    pub(super) async fn change(
        &self,
        sandbox: &SandboxName,
        change: &FileChange,
        secrets: &Secrets,
    ) -> Result<()> {
        let change = change.clone();
        let change = change.try_map(|path| absolute(path).map(str::to_owned))?;
        let sprite = self.seen(sandbox).await?.sprite;
        let done = match &change {
            FileChange::Remove { path, recursive } => {
                self.client.remove_file(&sprite, path, *recursive).await
            }
            FileChange::Move { from, to } => {
                let body = json!({ "source": from, "dest": to, "workingDir": "/" });
                self.client.change_file(&sprite, "rename", &body).await
            }
            FileChange::Copy {
                from,
                to,
                recursive,
            } => {
                let body = json!({ "source": from, "dest": to, "workingDir": "/",
                    "recursive": recursive });
                self.client.change_file(&sprite, "copy", &body).await
            }
            FileChange::SetMode {
                path,
                mode,
                recursive: false,
            } => {
                let mode = format!("{mode:04o}");
                let body = json!({ "path": path, "mode": mode, "workingDir": "/" });
                self.client.change_file(&sprite, "chmod", &body).await
            }
            FileChange::MakeFolder { .. } | FileChange::SetMode { .. } => {
                return programs::change(self, sandbox, &change, secrets).await;
            }
        };
        done.map_err(about_file(&change.subject()))
    }
}

fn entry(found: FsEntry) -> FileEntry {
    FileEntry {
        name: found.name,
        folder: found.is_dir,
        size: found.size,
        mode: found.mode,
        modified_at: found.mod_time,
    }
}

fn absolute(path: &str) -> Result<&str> {
    match path.starts_with('/') {
        true => Ok(path),
        false => Err(PlatformError::new(format!(
            "`{path}`: paths on Sprites begin with `/`"
        ))),
    }
}
