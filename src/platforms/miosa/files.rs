//! Files of a sandbox (protocol page miosa, §4). What there are no routes for, programs of the sandbox do.

use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use tokio::io::{AsyncRead, AsyncWrite};

use super::Miosa;
use super::command::WORKSPACE;
use super::wire::FileRecord;
use crate::model::{SandboxName, Secrets};
use crate::platforms::cloud::supply::shell::quote;
use crate::platforms::cloud::transfer::{about_file, collect, deliver};
use crate::platforms::files::split;
use crate::platforms::{FileChange, FileEntry, PlatformError, Result, programs};

/// The largest file that is copied in one request, in bytes.
pub(super) const LARGEST: u64 = 32 << 20;

/// What a file is made with by the platform.
const MODE: u32 = 0o644;

/// A path of the sandbox: relative ones begin where services run.
fn absolute(path: &str) -> String {
    match path.starts_with('/') {
        true => path.to_owned(),
        false => format!("{WORKSPACE}/{path}"),
    }
}

/// The same path for programs, which begin in the workspace: the platform's name for it need not be a path in it.
fn inside(path: &str) -> String {
    match path.strip_prefix(WORKSPACE).map(|it| it.strip_prefix('/')) {
        Some(Some(below)) if !below.is_empty() => below.to_owned(),
        Some(_) if path.trim_end_matches('/') == WORKSPACE => ".".to_owned(),
        _ => path.to_owned(),
    }
}

impl Miosa {
    pub(super) async fn download(
        &self,
        sandbox: &SandboxName,
        path: &str,
        to: &mut (dyn AsyncWrite + Send + Unpin),
    ) -> Result<()> {
        let known = self.get(sandbox).await?;
        let read = self.api.read_file(&known.id, &absolute(path)).await;
        deliver(to, &read.map_err(about_file(path))?.body).await
    }

    pub(super) async fn upload(
        &self,
        sandbox: &SandboxName,
        path: &str,
        from: &mut (dyn AsyncRead + Send + Unpin),
        mode: u32,
    ) -> Result<()> {
        let known = self.get(sandbox).await?;
        let bytes = collect(from, LARGEST, "a file").await?;
        let path = absolute(path);
        self.api
            .write_file(&known.id, &path, &STANDARD.encode(&bytes))
            .await?;
        if mode == MODE {
            return Ok(());
        }
        // The platform takes no mode.
        let inside = quote(&inside(&path));
        let script = format!(
            "chmod {mode:o} {} 2>/dev/null || chmod {mode:o} {inside}",
            quote(&path)
        );
        let ran = self
            .script(&known.id, &script.into(), Duration::from_secs(30))
            .await?;
        match ran.exit_code {
            0 => Ok(()),
            _ => Err(PlatformError::new(format!(
                "{path} was written, but not made {mode:o}"
            ))),
        }
    }

    pub(super) async fn list_folder(
        &self,
        sandbox: &SandboxName,
        path: &str,
    ) -> Result<Vec<FileEntry>> {
        let known = self.get(sandbox).await?;
        let at = absolute(path);
        let listed = match self.api.list_files(&known.id, &at).await {
            Ok(listed) => listed,
            // It may be a file.
            Err(error) => match self.api.stat_file(&known.id, &at).await {
                Ok(found) if !found.is_folder() => return Ok(vec![entry(found, &at)]),
                _ => return Err(about_file(path)(error)),
            },
        };
        let mut entries: Vec<_> = listed.into_iter().map(|it| entry(it, &at)).collect();
        entries.sort();
        Ok(entries)
    }

    pub(super) async fn stat(&self, sandbox: &SandboxName, path: &str) -> Result<FileEntry> {
        let known = self.get(sandbox).await?;
        let at = absolute(path);
        let found = self.api.stat_file(&known.id, &at).await;
        Ok(entry(found.map_err(about_file(path))?, &at))
    }

    pub(super) async fn change(
        &self,
        sandbox: &SandboxName,
        change: &FileChange,
        secrets: &Secrets,
    ) -> Result<()> {
        let known = self.get(sandbox).await?;
        let done = match change {
            // The route takes a folder with all that is in it.
            FileChange::Remove {
                path,
                recursive: true,
            } => self.api.remove_file(&known.id, &absolute(path)).await,
            FileChange::MakeFolder { path, parents } => {
                let path = absolute(path);
                self.api.make_folder(&known.id, &path, *parents).await
            }
            other => {
                let inside = |path: &str| Ok::<_, PlatformError>(inside(path));
                let other = other.clone().try_map(inside)?;
                return programs::change(self, sandbox, &other, secrets).await;
            }
        };
        done.map_err(about_file(&change.subject()))
    }
}

/// What is told of the file or folder, at `path` if it has no name.
fn entry(found: FileRecord, path: &str) -> FileEntry {
    FileEntry {
        folder: found.is_folder(),
        name: match found.name {
            Some(name) => split(&name).1.to_owned(),
            None => split(path).1.to_owned(),
        },
        size: found.size_bytes,
        mode: None,
        modified_at: found.modified_at,
    }
}
