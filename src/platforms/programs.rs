//! Files of a sandbox by programs that are in it, for platforms that have no routes for what is asked.

use std::io;

use jiff::Timestamp;
use tokio::io::{AsyncReadExt, DuplexStream, duplex, empty};

use super::files::{no_file, split};
use super::{Act, FileChange, FileEntry, PlatformError, Result, Streams};
use crate::model::{SandboxName, Secrets};

/// Tells what is in the folder `$1`, or of the file. No name has a slash in it, so two of them end each.
const LIST: &str = r#"if [ -d "$1" ]; then
cd -- "$1" && find . ! -name . -prune -exec stat -c '%f %s %Y %n//' -- {} +
else
stat -c '%f %s %Y %n//' -- "$1"
fi"#;

/// Tells of the file or folder `$1`.
const STAT: &str = r#"stat -c '%f %s %Y %n//' -- "$1""#;

const REMOVE: &str = r#"if [ -d "$1" ] && [ ! -L "$1" ]; then rmdir -- "$1"; else rm -- "$1"; fi"#;

const REMOVE_ALL: &str = r#"rm -r -- "$1""#;

const MAKE_FOLDER: &str = r#"mkdir -- "$1""#;

const MAKE_FOLDERS: &str = r#"mkdir -p -- "$1""#;

/// Ends with an error if `$2` is a folder: what is moved or copied would be put into it.
const UNLESS_FOLDER: &str = r#"if [ -d "$2" ]; then echo "there is a folder at $2" >&2; exit 1; fi
"#;

const MOVE: &str = r#"mv -f -- "$1" "$2""#;

const COPY: &str = r#"if [ -d "$1" ]; then echo "it is a folder" >&2; exit 1; fi
cp -- "$1" "$2""#;

const COPY_ALL: &str = r#"cp -RP -- "$1" "$2""#;

const SET_MODE: &str = r#"chmod -- "$2" "$1""#;

const SET_MODE_OF_ALL: &str = r#"chmod -R -- "$2" "$1""#;

/// The kind of a file within its mode, and the kind of a folder.
const KIND: (u32, u32) = (0o170_000, 0o040_000);

/// The command that makes a change.
pub(super) fn change_command(change: &FileChange) -> Vec<String> {
    let either = |all: bool, of_all, of_one| if all { of_all } else { of_one };
    match change {
        FileChange::Remove { path, recursive } => {
            command(either(*recursive, REMOVE_ALL, REMOVE), path, None)
        }
        FileChange::MakeFolder { path, parents } => {
            command(either(*parents, MAKE_FOLDERS, MAKE_FOLDER), path, None)
        }
        FileChange::Move { from, to } => {
            command(&[UNLESS_FOLDER, MOVE].concat(), from, Some(anchored(to)))
        }
        FileChange::Copy {
            from,
            to,
            recursive,
        } => {
            let script = [UNLESS_FOLDER, either(*recursive, COPY_ALL, COPY)].concat();
            command(&script, from, Some(anchored(to)))
        }
        FileChange::SetMode {
            path,
            mode,
            recursive,
        } => {
            let script = either(*recursive, SET_MODE_OF_ALL, SET_MODE);
            command(script, path, Some(format!("{mode:o}")))
        }
    }
}

fn command(script: &str, path: &str, other: Option<String>) -> Vec<String> {
    let words = ["/bin/sh", "-c", script, "gabion-fs"];
    let words = words.map(str::to_owned).into_iter();
    words.chain([anchored(path)]).chain(other).collect()
}

/// A path that no program takes for anything else.
fn anchored(path: &str) -> String {
    match path.starts_with('/') {
        true => path.to_owned(),
        false => format!("./{path}"),
    }
}

/// Makes a change.
pub(super) async fn change<P: Act + ?Sized>(
    platform: &P,
    sandbox: &SandboxName,
    change: &FileChange,
    secrets: &Secrets,
) -> Result<()> {
    let argv = change_command(change);
    let ran = run(platform, sandbox, &change.subject(), &argv, secrets).await;
    ran.map(drop)
}

/// What is in the folder `path`, sorted; of a file, the file.
pub(super) async fn list<P: Act + ?Sized>(
    platform: &P,
    sandbox: &SandboxName,
    path: &str,
    secrets: &Secrets,
) -> Result<Vec<FileEntry>> {
    let argv = command(LIST, path, None);
    let told = run(platform, sandbox, path, &argv, secrets).await?;
    let mut entries = entries(&told)?;
    entries.sort();
    Ok(entries)
}

/// What is known of the file or folder `path`.
pub(super) async fn stat<P: Act + ?Sized>(
    platform: &P,
    sandbox: &SandboxName,
    path: &str,
    secrets: &Secrets,
) -> Result<FileEntry> {
    let argv = command(STAT, path, None);
    let told = run(platform, sandbox, path, &argv, secrets).await?;
    entries(&told)?.pop().ok_or_else(unreadable)
}

/// Runs a command and returns what it has written; where it fails, why.
async fn run<P: Act + ?Sized>(
    platform: &P,
    sandbox: &SandboxName,
    path: &str,
    argv: &[String],
    secrets: &Secrets,
) -> Result<String> {
    /// So much is on its way at once.
    const ROOM: usize = 64 << 10;
    let ((out, stdout), (err, stderr)) = (duplex(ROOM), duplex(ROOM));
    let streams = Streams {
        stdin: Box::new(empty()),
        stdout: Box::new(stdout),
        stderr: Box::new(stderr),
        terminal: None,
        term: None,
    };
    let code = platform.exec(sandbox, argv, secrets, streams);
    match tokio::try_join!(code, read(out), read(err))? {
        (0, out, _) => Ok(out),
        (code, _, err) => Err(failed(path, code, &err)),
    }
}

async fn read(mut from: DuplexStream) -> Result<String> {
    let mut bytes = Vec::new();
    from.read_to_end(&mut bytes).await?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

fn failed(path: &str, code: i32, words: &str) -> PlatformError {
    let reason = match words.lines().next_back().map(reason) {
        Some("No such file or directory") => return no_file(path),
        Some(reason) => reason.to_owned(),
        None => format!("exited with code {code}"),
    };
    let error = PlatformError::new(format!("{path}: {reason}"));
    match code {
        127 => error.hint("programs of the sandbox do this there, and this one is not there"),
        _ => error,
    }
}

/// Why a program has failed: the end of `rm: FILE: No such file or directory`.
pub(super) fn reason(line: &str) -> &str {
    line.rsplit(": ").next().unwrap_or(line)
}

fn entries(told: &str) -> Result<Vec<FileEntry>> {
    let records = told.split_terminator("//\n");
    records.map(|it| entry(it).ok_or_else(unreadable)).collect()
}

/// `81a4 12 1764000000 ./name`
fn entry(record: &str) -> Option<FileEntry> {
    let mut parts = record.splitn(4, ' ');
    let mode = u32::from_str_radix(parts.next()?, 16).ok()?;
    let size = parts.next()?.parse().ok()?;
    let modified_at = Timestamp::from_second(parts.next()?.parse().ok()?).ok();
    Some(FileEntry {
        name: split(parts.next()?).1.to_owned(),
        folder: mode & KIND.0 == KIND.1,
        size: Some(size),
        mode: Some(format!("{:04o}", mode & 0o7777)),
        modified_at,
    })
}

fn unreadable() -> PlatformError {
    io::Error::other("`stat` in the sandbox says what cannot be read").into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_name_is_read() {
        let told = "81a4 12 1764000000 ./a b\n81a4 odd//\n41ed 4096 1764000001 ./-r//\n";
        let read = entries(told).unwrap();
        let [file, folder] = &read[..] else {
            panic!("{read:?}");
        };
        assert_eq!((&*file.name, file.folder), ("a b\n81a4 odd", false));
        assert_eq!(file.mode.as_deref(), Some("0644"));
        assert_eq!((&*folder.name, folder.folder), ("-r", true));
        assert_eq!(entries("").unwrap(), []);
        assert!(entries("nothing//\n").is_err());
    }
}
