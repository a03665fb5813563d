//! A log whose lines come with their times: those of a container, from the engine that has kept them.
//! The times are what its reader finds again how far it had come, so nothing else has to be noted.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

use jiff::Timestamp;

use super::file::{Log, reason};
use super::format::{self, Reader, Tag};
use super::path;
use crate::model::ServiceName;
use crate::platforms::LogStream;

/// How many files are searched for what is stored: each is larger than what an engine keeps at hand.
const SEARCHED: usize = 2;

/// Appends to a service's log.
#[derive(Debug)]
pub(in crate::supervisor) struct StampedLog(Log);

/// A line, or a part of one, with its line end if it has one.
#[derive(Debug, Clone, Copy)]
pub(in crate::supervisor) struct Piece<'a> {
    /// When it was written.
    pub at: Timestamp,
    /// Where.
    pub stream: LogStream,
    /// Whether it goes on with the line that stands open.
    pub continues: bool,
    /// What.
    pub text: &'a [u8],
}

impl Piece<'_> {
    /// Adds its record to `out`.
    pub(in crate::supervisor) fn write(&self, out: &mut Vec<u8>) {
        let (text, ends) = match self.text.strip_suffix(b"\n") {
            Some(text) => (text, true),
            None => (self.text, false),
        };
        let tag = match (ends, self.continues) {
            (true, false) => "F",
            (true, true) => "F:c",
            (false, false) => "P",
            (false, true) => "P:c",
        };
        let (time, stream) = (format::stamp(self.at), self.stream.word());
        out.extend_from_slice(format!("{time} {stream} {tag} ").as_bytes());
        out.extend_from_slice(text);
        out.push(b'\n');
    }
}

/// Adds the record that ends a line which stands open.
pub(in crate::supervisor) fn write_end(at: Timestamp, stream: LogStream, out: &mut Vec<u8>) {
    out.extend_from_slice(format::end(at, stream).as_bytes());
}

impl StampedLog {
    /// The log of a service in the sandbox kept in `dir`.
    pub(in crate::supervisor) fn new(dir: &Path, name: &ServiceName) -> Self {
        Self(Log::new(dir, name))
    }

    /// Appends records; why they are lost, if they are.
    pub(in crate::supervisor) fn write(&mut self, records: &[u8]) -> Option<String> {
        let log = &mut self.0;
        let written = log.prepare().and_then(|size| {
            log.append(records)
                .inspect_err(|_| drop(log.take_back(size)))
        });
        let error = written.err()?;
        log.lose(records.len() as u64, &error);
        Some(reason(&error))
    }
}

/// Shows the stored pieces of a log to `each`, oldest first. One that a kill has torn is removed: it is
/// stored anew.
pub(in crate::supervisor) fn pieces(
    dir: &Path,
    name: &ServiceName,
    mut each: impl FnMut(Piece<'_>),
) -> io::Result<()> {
    for age in (0..SEARCHED).rev() {
        let file = match File::options()
            .read(true)
            .write(true)
            .open(path(dir, name, age))
        {
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            other => other?,
        };
        let mut bytes = vec![0; usize::try_from(file.metadata()?.len()).unwrap_or(0)];
        let length = file.read_at(&mut bytes, 0)?;
        bytes.truncate(length);
        let whole = memchr::memrchr(b'\n', &bytes).map_or(0, |end| end + 1);
        if whole < bytes.len() && age == 0 {
            file.set_len(whole as u64)?;
        }
        let mut reader = Reader::default();
        for line in bytes[..whole].split_inclusive(|byte| *byte == b'\n') {
            let record = reader.read(line.strip_suffix(b"\n").unwrap_or(line));
            let Some((record, at)) = record.and_then(|record| Some((record, record.at()?))) else {
                continue;
            };
            let Tag::Text { continues, .. } = record.tag else {
                continue;
            };
            let (stream, text) = (record.stream, record.text);
            each(Piece {
                at,
                stream,
                continues,
                text,
            });
        }
    }
    Ok(())
}
