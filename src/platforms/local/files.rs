//! Files in and out of a sandbox, through programs that run in it: so paths mean what they mean to
//! services, and no file is too large.

use std::io;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use super::Local;
use crate::model::SandboxName;
use crate::platforms::{PlatformError, Result};
use crate::supervisor::{Command, Output, Session};

/// Bytes that are on their way at once.
const CHUNK: usize = 64 << 10;

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
    // `cat: FILE: No such file or directory`
    let reason = last.rsplit(": ").next().unwrap_or(last);
    Err(io::Error::other(reason.to_owned()))
}

fn copied(path: &str, result: io::Result<()>) -> Result<()> {
    result.map_err(|error| PlatformError::new(format!("{path}: {error}")))
}
