//! Files of a sandbox (protocol page iris, §5). What there are no routes for, programs of the sandbox do.

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWrite};

use super::Iris;
use super::extras::LARGEST;
use super::plane::Plane;
use super::wire::FileRecord;
use crate::model::{SandboxName, Secrets};
use crate::platforms::cloud::transfer::{about_file, collect, deliver};
use crate::platforms::files::{no_file, split};
use crate::platforms::{FileChange, FileEntry, PlatformError, Result, programs};

impl Iris {
    pub(super) async fn download(
        &self,
        sandbox: &SandboxName,
        path: &str,
        to: &mut (dyn AsyncWrite + Send + Unpin),
    ) -> Result<()> {
        let path = absolute(path)?;
        let known = self.get(sandbox).await?;
        let bytes = known.plane.read_file(&path).await;
        deliver(to, &bytes.map_err(about_file(&path))?).await
    }

    pub(super) async fn upload(
        &self,
        sandbox: &SandboxName,
        path: &str,
        from: &mut (dyn AsyncRead + Send + Unpin),
        mode: u32,
    ) -> Result<()> {
        let path = absolute(path)?;
        let bytes = Bytes::from(collect(from, LARGEST, "a file").await?);
        let known = self.get(sandbox).await?;
        Ok(known.plane.write_file(&path, &bytes, mode).await?)
    }

    pub(super) async fn list_folder(
        &self,
        sandbox: &SandboxName,
        path: &str,
    ) -> Result<Vec<FileEntry>> {
        let path = absolute(path)?;
        let known = self.get(sandbox).await?;
        let listed = match known.plane.list_files(&path).await {
            Ok(listed) => listed,
            // It may be a file.
            Err(error) => {
                return match look_at(&known.plane, &path).await {
                    Ok(found) if !found.folder => Ok(vec![found]),
                    _ => Err(about_file(&path)(error)),
                };
            }
        };
        if listed.truncated {
            let text = format!("{path}: there are more entries than a list has room for");
            return Err(PlatformError::new(text).hint("gabion exec runs `ls` there"));
        }
        let mut entries: Vec<_> = listed.entries.into_iter().map(entry).collect();
        entries.sort();
        Ok(entries)
    }

    pub(super) async fn stat(&self, sandbox: &SandboxName, path: &str) -> Result<FileEntry> {
        let known = self.get(sandbox).await?;
        look_at(&known.plane, &absolute(path)?).await
    }

    pub(super) async fn change(
        &self,
        sandbox: &SandboxName,
        change: &FileChange,
        secrets: &Secrets,
    ) -> Result<()> {
        let change = change.clone().try_map(absolute)?;
        let known = self.get(sandbox).await?;
        let plane = &known.plane;
        let done = match &change {
            FileChange::Remove { path, recursive } => plane.remove_file(path, *recursive).await,
            FileChange::MakeFolder { path, parents } => plane.make_folder(path, *parents).await,
            FileChange::Move { from, to } => plane.move_file(from, to).await,
            FileChange::Copy { .. } | FileChange::SetMode { .. } => {
                return programs::change(self, sandbox, &change, secrets).await;
            }
        };
        done.map_err(about_file(&change.subject()))
    }
}

/// What is known of a file. That the platform tells is assumed (§5); the list of the folder above does, too.
async fn look_at(plane: &Plane, path: &str) -> Result<FileEntry> {
    match plane.stat_file(path).await {
        Ok(found) => return Ok(entry(found)),
        Err(error) if error.is_not_found() || error.status == Some(405) => {}
        Err(error) => return Err(error.into()),
    }
    let (above, name) = split(path);
    if name == "/" {
        return Ok(FileEntry::folder(name));
    }
    let listed = plane.list_files(above).await.map_err(about_file(path))?;
    let found = listed.entries.into_iter().find(|it| it.name == name);
    found.map(entry).ok_or_else(|| no_file(path))
}

fn entry(found: FileRecord) -> FileEntry {
    FileEntry {
        name: match found.name.is_empty() {
            true => "/".to_owned(),
            false => found.name,
        },
        folder: found.is_dir,
        size: found.size,
        mode: found.mode,
        modified_at: found.modified_at,
    }
}

fn absolute(path: &str) -> Result<String> {
    match path.starts_with('/') {
        true => Ok(path.to_owned()),
        false => Err(PlatformError::new(format!(
            "`{path}`: paths on iris begin with `/`"
        ))),
    }
}
