//! Files in and out of a sandbox, through programs that run in it: so paths mean what they mean to
//! services, and no file is too large. What else is done to them, the supervisor does where it can.

use std::io;

use futures_util::{StreamExt, stream};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use super::{Local, refused};
use crate::model::SandboxName;
use crate::platforms::programs::{change_command, reason};
use crate::platforms::{FileChange, FileEntry, PlatformError, Result};
use crate::supervisor::{Command, FileFound, Output, Session};

/// Bytes that are on their way at once.
const CHUNK: usize = 64 << 10;

/// How many files of a list are looked at at once.
const AT_ONCE: usize = 32;

/// Writes its input beside `$1` and moves it there once it is whole. `$2` are its permission bits.
const WRITE: &str = r#"set -e
umask 077
mkdir -p -- "$(dirname -- "$1")"
if [ -d "$1" ]; then echo "it is a folder" >&2; exit 1; fi
part="$1.part$$"
trap 'rm -f -- "$part"' EXIT
cat > "$part"
chmod -- "$2" "$part"
mv -f -- "$part" "$1"
"#;

impl Local {
    pub(super) async fn copy_out(
        &self,
        sandbox: &SandboxName,
        path: &str,
        to: &mut (dyn AsyncWrite + Send + Unpin),
    ) -> Result<()> {
        let mut session = self.session(sandbox, &["cat", "--", path]).await?;
        let copying = async {
            drop(session.input.take());
            let mut outputs = std::mem::take(&mut session.outputs).into_iter();
            let (output, error) = (outputs.next(), outputs.next());
            let mut chunk = vec![0; CHUNK];
            if let Some(output) = &output {
                loop {
                    match output.read(&mut chunk).await? {
                        0 => break,
                        length => to.write_all(&chunk[..length]).await?,
                    }
                }
            }
            to.flush().await?;
            ended(&mut session, error).await
        };
        copied(path, copying.await)
    }

    pub(super) async fn copy_in(
        &self,
        sandbox: &SandboxName,
        path: &str,
        from: &mut (dyn AsyncRead + Send + Unpin),
        mode: u32,
    ) -> Result<()> {
        let mode = format!("{mode:o}");
        let argv = ["/bin/sh", "-c", WRITE, "gabion-cp", path, &mode];
        let mut session = self.session(sandbox, &argv).await?;
        let copying = async {
            let input = session.input.take();
            let mut chunk = vec![0; CHUNK];
            if let Some(input) = &input {
                loop {
                    // If it cannot be read the session is dropped, and with it what it has written.
                    match from.read(&mut chunk).await? {
                        0 => break,
                        length => match input.write(&chunk[..length]).await {
                            // It has ended, and says why.
                            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => break,
                            other => other?,
                        },
                    }
                }
            }
            drop(input);
            let error = std::mem::take(&mut session.outputs).into_iter().nth(1);
            ended(&mut session, error).await
        };
        copied(path, copying.await)
    }

    pub(super) async fn list_folder(
        &self,
        sandbox: &SandboxName,
        path: &str,
    ) -> Result<Vec<FileEntry>> {
        let client = self.client(sandbox)?;
        let path = &self.absolute(sandbox, path)?;
        let found = client.stat_file(path).await.map_err(refused)?;
        if !found.is_dir {
            return Ok(vec![entry(found)]);
        }
        let listed = client.list_files(path, 1).await.map_err(refused)?;
        if listed.truncated {
            let text = format!("{path}: there are more entries than a list has room for");
            return Err(PlatformError::new(text).hint("gabion exec runs `ls` there"));
        }
        let entries = stream::iter(listed.entries).map(async |it| {
            let below = format!("{}/{}", path.trim_end_matches('/'), it.name);
            match client.stat_file(&below).await {
                // What a link leads to is another file.
                Ok(found) if found.is_dir == it.is_dir => entry(found),
                _ => FileEntry {
                    name: it.name,
                    folder: it.is_dir,
                    size: Some(it.size),
                    mode: None,
                    modified_at: None,
                },
            }
        });
        Ok(entries.buffered(AT_ONCE).collect().await)
    }

    pub(super) async fn stat(&self, sandbox: &SandboxName, path: &str) -> Result<FileEntry> {
        let client = self.client(sandbox)?;
        let path = self.absolute(sandbox, path)?;
        let found = client.stat_file(&path).await;
        Ok(entry(found.map_err(refused)?))
    }

    pub(super) async fn change(&self, sandbox: &SandboxName, change: &FileChange) -> Result<()> {
        let client = self.client(sandbox)?;
        let absolute = |path: &str| self.absolute(sandbox, path);
        let change = change.clone().try_map(absolute)?;
        let done = match &change {
            FileChange::Remove { path, recursive } => client.remove_file(path, *recursive).await,
            FileChange::MakeFolder { path, parents } => client.make_folder(path, *parents).await,
            FileChange::Move { from, to } => client.move_file(from, to).await,
            FileChange::Copy { .. } | FileChange::SetMode { .. } => {
                let argv = change_command(&change);
                let argv: Vec<_> = argv.iter().map(String::as_str).collect();
                let mut session = self.session(sandbox, &argv).await?;
                drop(session.input.take());
                let error = std::mem::take(&mut session.outputs).into_iter().nth(1);
                return copied(&change.subject(), ended(&mut session, error).await);
            }
        };
        done.map_err(refused)
    }

    /// A path of the sandbox: relative ones begin where services run.
    fn absolute(&self, sandbox: &SandboxName, path: &str) -> Result<String> {
        if path.starts_with('/') {
            return Ok(path.to_owned());
        }
        let folder = self.folder(sandbox);
        let spec = folder.read_spec(&self.stack)?;
        let own = || folder.path().join("workspace");
        let workspace = spec.and_then(|it| it.workspace).unwrap_or_else(own);
        Ok(workspace.join(path).display().to_string())
    }

    async fn session(&self, sandbox: &SandboxName, argv: &[&str]) -> Result<Session> {
        // Says so if it is not there or does not run.
        self.client(sandbox)?;
        let command = Command {
            argv: argv.iter().map(|word| (*word).to_owned()).collect(),
            bare: true,
            ..Command::default()
        };
        Ok(Session::start(self.folder(sandbox).path(), command).await?)
    }
}

/// Its last words if it has failed.
async fn ended(session: &mut Session, error: Option<Output>) -> io::Result<()> {
    let mut words = Vec::new();
    let mut chunk = [0; 1024];
    if let Some(error) = error {
        loop {
            match error.read(&mut chunk).await? {
                0 => break,
                length => words.extend_from_slice(&chunk[..length]),
            }
        }
    }
    if session.ended().await? == 0 {
        return Ok(());
    }
    let words = String::from_utf8_lossy(&words);
    let last = words.lines().last().unwrap_or("it cannot be copied");
    Err(io::Error::other(reason(last).to_owned()))
}

fn entry(found: FileFound) -> FileEntry {
    FileEntry {
        name: match found.name.is_empty() {
            true => "/".to_owned(),
            false => found.name,
        },
        folder: found.is_dir,
        size: Some(found.size),
        mode: Some(found.mode),
        modified_at: Some(found.modified_at),
    }
}

fn copied(path: &str, result: io::Result<()>) -> Result<()> {
    result.map_err(|error| PlatformError::new(format!("{path}: {error}")))
}
