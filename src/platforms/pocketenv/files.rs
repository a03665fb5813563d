//! Files in and out, by commands in the sandbox: in base64, in pieces that fit into a request.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use super::Inner;
use crate::platforms::cloud::supply::shell::quote;
use crate::platforms::{PlatformError, Result};

/// How much of a file one request carries, in bytes: with base64 below the 100 KiB of a body.
const PIECE: usize = 60_000;

impl Inner {
    async fn sh(&self, id: &str, script: &str) -> Result<String> {
        let ran = self.api.exec(id, script).await?;
        match ran.exit_code {
            0 => Ok(ran.stdout),
            code => {
                let why = ran.stderr.lines().last().unwrap_or_default().to_owned();
                Err(PlatformError::new(match why.is_empty() {
                    true => format!("exited with code {code}"),
                    false => why,
                }))
            }
        }
    }

    pub(super) async fn download(
        &self,
        id: &str,
        path: &str,
        to: &mut (dyn AsyncWrite + Send + Unpin),
    ) -> Result<()> {
        let path = quote(path);
        for piece in 0.. {
            let script = format!(
                "exec <{path} && dd bs={PIECE} skip={piece} count=1 2>/dev/null | base64 | tr -d '\\n'"
            );
            let text = self.sh(id, &script).await?;
            let bytes = STANDARD.decode(text.trim());
            let bytes =
                bytes.map_err(|_| PlatformError::new("the file came in pieces that do not fit"))?;
            to.write_all(&bytes).await?;
            if bytes.len() < PIECE {
                break;
            }
        }
        Ok(to.flush().await?)
    }

    /// The file is written beside its place and moved there when it is whole.
    pub(super) async fn upload(
        &self,
        id: &str,
        path: &str,
        from: &mut (dyn AsyncRead + Send + Unpin),
        mode: u32,
    ) -> Result<()> {
        let new = quote(&format!("{path}.gabion-new"));
        let folder = match path.rsplit_once('/') {
            Some((folder, _)) if !folder.is_empty() => format!("mkdir -p {} && ", quote(folder)),
            _ => String::new(),
        };
        self.sh(id, &format!("{folder}: >{new}")).await?;
        let (mut bytes, mut at) = (vec![0; PIECE], 0);
        loop {
            let length = fill(from, &mut bytes).await?;
            if length == 0 {
                break;
            }
            let text = STANDARD.encode(&bytes[..length]);
            // At its own place, so that a piece that is sent twice is written once.
            let script = format!(
                "printf %s {text} | base64 -d | dd of={new} bs={PIECE} seek={at} conv=notrunc 2>/dev/null"
            );
            self.sh(id, &script).await?;
            at += 1;
        }
        let script = format!("chmod {mode:o} {new} && mv -f {new} {}", quote(path));
        self.sh(id, &script).await.map(drop)
    }
}

/// Reads as much as there is room for, unless it ends before.
async fn fill(from: &mut (dyn AsyncRead + Send + Unpin), bytes: &mut [u8]) -> Result<usize> {
    let mut length = 0;
    while length < bytes.len() {
        match from.read(&mut bytes[length..]).await? {
            0 => break,
            more => length += more,
        }
    }
    Ok(length)
}
