//! Folders in and out of a sandbox, where the platform knows only files and commands: as one archive, which `tar`
//! unpacks or packs inside.

use tokio::io::{AsyncRead, AsyncWrite, sink, stderr};

use super::{Act, PlatformError, Result, Streams};
use crate::model::{SandboxName, Secrets};

/// Unpacks the archive `$1` in the folder `$2`, and removes it. Whoever copies owns what is copied.
const UNPACK: &str = r#"trap 'rm -f -- "$1"' EXIT
mkdir -p -- "$2" && tar -xozf "$1" -C "$2" </dev/null"#;

/// Packs the folder `$2` as the archive `$1`.
const PACK: &str = r#"umask 077
if [ ! -d "$2" ]; then echo "gabion: $2: no such folder" >&2; exit 1; fi
tar -czf "$1" -C "$2" . </dev/null || { rm -f -- "$1"; exit 1; }"#;

/// A file that nobody else has.
fn archive() -> String {
    format!("/tmp/.gabion-cp-{:016x}.tgz", fastrand::u64(..))
}

async fn sh<P: Act + ?Sized>(
    platform: &P,
    sandbox: &SandboxName,
    secrets: &Secrets,
    script: &str,
    args: &[&str],
) -> Result<i32> {
    let argv = ["/bin/sh", "-c", script, "gabion-cp"];
    let argv: Vec<_> = argv.iter().chain(args).map(|it| it.to_string()).collect();
    let streams = Streams {
        stdin: Box::new(tokio::io::empty()),
        stdout: Box::new(sink()),
        stderr: Box::new(stderr()),
        terminal: None,
        term: None,
    };
    platform.exec(sandbox, &argv, secrets, streams).await
}

/// Whether there is a folder at `path`.
pub(super) async fn is_folder<P: Act + ?Sized>(
    platform: &P,
    sandbox: &SandboxName,
    path: &str,
    secrets: &Secrets,
) -> Result<bool> {
    let code = sh(platform, sandbox, secrets, r#"[ -d "$1" ]"#, &[path]).await?;
    match code {
        0 => Ok(true),
        1 => Ok(false),
        code => Err(failed("sh", code)),
    }
}

/// Unpacks `from` in the folder `path`.
pub(super) async fn write<P: Act + ?Sized>(
    platform: &P,
    sandbox: &SandboxName,
    path: &str,
    from: &mut (dyn AsyncRead + Send + Unpin),
    secrets: &Secrets,
) -> Result<()> {
    let archive = archive();
    platform.write_file(sandbox, &archive, from, 0o600).await?;
    match sh(platform, sandbox, secrets, UNPACK, &[&archive, path]).await? {
        0 => Ok(()),
        code => Err(failed("tar", code)),
    }
}

/// Packs what is in the folder `path`.
pub(super) async fn read<P: Act + ?Sized>(
    platform: &P,
    sandbox: &SandboxName,
    path: &str,
    to: &mut (dyn AsyncWrite + Send + Unpin),
    secrets: &Secrets,
) -> Result<()> {
    let archive = archive();
    match sh(platform, sandbox, secrets, PACK, &[&archive, path]).await? {
        0 => {}
        code => return Err(failed("tar", code)),
    }
    let read = platform.read_file(sandbox, &archive, to).await;
    let removed = sh(platform, sandbox, secrets, r#"rm -f -- "$1""#, &[&archive]).await;
    // What went wrong first says more.
    read.and(removed.map(drop))
}

fn failed(program: &str, code: i32) -> PlatformError {
    let text = format!("`{program}` in the sandbox exited with code {code}");
    match code {
        127 => PlatformError::new(text).hint("a folder is copied by `tar`, which is not there"),
        _ => PlatformError::new(text),
    }
}
