//! Reading files that anybody may have written: regular files only, bounded, and as text.

use std::fs::OpenOptions;
use std::io::Read;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use super::codes::{self, Code};

/// The most bytes that a manifest may have.
pub(super) const MANIFEST_LIMIT: u64 = 16 << 20;
/// The most bytes that an env file or a secret's file may have.
pub(super) const SMALL_LIMIT: u64 = 1 << 20;
/// The most bytes that a file of a sandbox may have: sealed, and in base64, it fits into a request of 100 KiB.
pub(super) const FILE_LIMIT: u64 = 64 << 10;

/// Why a file could not be read, for a message that begins with the file's name.
#[derive(Debug)]
pub(super) struct Unreadable {
    pub code: &'static Code,
    pub reason: String,
    /// Line and column, where there is one.
    pub place: Option<(usize, usize)>,
}

impl Unreadable {
    fn new(code: &'static Code, reason: impl Into<String>) -> Self {
        Self {
            code,
            reason: reason.into(),
            place: None,
        }
    }
}

/// The text of the file at `path`, without a byte order mark.
pub(super) fn read_text(path: &Path, limit: u64) -> Result<String, Unreadable> {
    let bytes = read_bytes(path, limit)?;
    let stop = |at: usize, what: &str| Unreadable {
        code: codes::NOT_TEXT,
        reason: what.to_owned(),
        place: Some(place(&bytes, at)),
    };
    let text = match std::str::from_utf8(&bytes) {
        Ok(text) => text,
        Err(error) => {
            let what = match bytes.as_slice() {
                [0xff, 0xfe, ..] | [0xfe, 0xff, ..] => "is UTF-16, not UTF-8: save it as UTF-8",
                _ => "is not UTF-8 text",
            };
            return Err(stop(error.valid_up_to(), what));
        }
    };
    if let Some(at) = text.find('\0') {
        return Err(stop(at, "holds a NUL character"));
    }
    Ok(text.strip_prefix('\u{feff}').unwrap_or(text).to_owned())
}

fn read_bytes(path: &Path, limit: u64) -> Result<Vec<u8>, Unreadable> {
    let unreadable = |error: std::io::Error| {
        let reason = match error.kind() {
            std::io::ErrorKind::NotFound => "does not exist".to_owned(),
            std::io::ErrorKind::PermissionDenied => {
                "may not be read (permission denied)".to_owned()
            }
            _ => format!("cannot be read: {error}"),
        };
        Unreadable::new(codes::UNREADABLE, reason)
    };
    let regular = |meta: &std::fs::Metadata| {
        let why = match meta {
            meta if meta.is_file() => return Ok(()),
            meta if meta.is_dir() => "is a folder, not a file",
            _ => "is a pipe, a socket or a device, not a file",
        };
        Err(Unreadable::new(codes::UNREADABLE, why))
    };
    regular(&std::fs::metadata(path).map_err(unreadable)?)?;
    // It may have become a pipe in between: without NONBLOCK the open could wait for ever.
    let flags = rustix::fs::OFlags::NONBLOCK | rustix::fs::OFlags::NOCTTY;
    let file = OpenOptions::new()
        .read(true)
        .custom_flags(flags.bits() as i32)
        .open(path)
        .map_err(unreadable)?;
    let meta = file.metadata().map_err(unreadable)?;
    regular(&meta)?;
    let mut bytes = Vec::new();
    if meta.len() <= limit {
        // One byte more than allowed tells a file that grew.
        file.take(limit + 1)
            .read_to_end(&mut bytes)
            .map_err(unreadable)?;
    }
    if meta.len().max(bytes.len() as u64) > limit {
        let reason = format!("is larger than {}, the most that is read", show_size(limit));
        return Err(Unreadable::new(codes::TOO_MUCH, reason));
    }
    Ok(bytes)
}

/// A limit, for people.
pub(super) fn show_size(bytes: u64) -> String {
    match bytes >> 20 {
        0 => format!("{} KiB", bytes >> 10),
        mebibytes => format!("{mebibytes} MiB"),
    }
}

/// Line and column of a byte; the bytes before it are valid UTF-8.
fn place(bytes: &[u8], at: usize) -> (usize, usize) {
    let before = &bytes[..at.min(bytes.len())];
    let line = before.iter().filter(|byte| **byte == b'\n').count() + 1;
    let start = before
        .iter()
        .rposition(|byte| *byte == b'\n')
        .map_or(0, |at| at + 1);
    (
        line,
        String::from_utf8_lossy(&before[start..]).chars().count() + 1,
    )
}
