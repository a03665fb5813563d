//! Finds the place in a log's files where reading has to begin, without reading all of them.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use jiff::Timestamp;

use super::PAGE;
use super::format::{Record, Tag, is_short};
use crate::platforms::LogStream;

/// How far before a line its beginning is looked for.
const HEAD_DISTANCE: u64 = 256 << 10;

/// A place: the index of a file, the oldest first, and an offset in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Place {
    pub file: usize,
    pub offset: u64,
}

/// The end of the files.
pub(super) fn end(files: &[File]) -> io::Result<Place> {
    let Some(last) = files.last() else {
        return Ok(Place { file: 0, offset: 0 });
    };
    Ok(Place {
        file: files.len() - 1,
        offset: last.metadata()?.len(),
    })
}

/// A place from which there are at least `wanted` lines of the stream, the first of them whole.
pub(super) fn tail(files: &[File], wanted: usize, stream: Option<LogStream>) -> io::Result<Place> {
    let mut found = 0;
    let mut back = Backward::new(files, end(files)?);
    loop {
        let Some((place, batch)) = back.next()? else {
            return Ok(Place { file: 0, offset: 0 });
        };
        if let Some(batch) = batch
            && stream.is_none_or(|stream| batch.stream == stream)
        {
            let first = matches!(batch.tag, Tag::Text { ends: true, .. });
            found += batch.short + usize::from(first);
        }
        // Even if none is wanted: at the end a batch may be half written.
        if found >= wanted {
            return whole(files, place);
        }
    }
}

/// A place before which there are only lines that are older.
pub(super) fn since(files: &[File], since: Timestamp) -> io::Result<Place> {
    for (index, file) in files.iter().enumerate().rev() {
        let first = first_after(file, 0)?;
        if index > 0 && first.is_none_or(|(_, at)| at >= since) {
            continue;
        }
        let (mut low, mut high) = (0, file.metadata()?.len());
        while high - low > PAGE as u64 {
            let middle = low + (high - low) / 2;
            match first_after(file, middle)? {
                Some((offset, at)) if at < since && offset < high => low = offset,
                _ => high = middle,
            }
        }
        return whole(
            files,
            Place {
                file: index,
                offset: low,
            },
        );
    }
    end(files)
}

/// Moves a place back to where the lines begin that stand open there.
fn whole(files: &[File], place: Place) -> io::Result<Place> {
    let mut start = place;
    let mut known = [false; 2];
    let mut back = Backward::new(files, place);
    let mut looked = 0;
    while known != [true; 2] && looked < HEAD_DISTANCE {
        let before = back.place;
        let Some((at, batch)) = back.next()? else {
            break;
        };
        looked += match at.file == before.file {
            true => before.offset - at.offset,
            false => 1,
        };
        let Some(batch) = batch else { continue };
        let (ends, continues) = match batch.tag {
            Tag::Text { .. } if batch.short > 0 => (true, false),
            Tag::Text { ends, continues } => (ends, continues),
            Tag::End => (true, true),
            Tag::Header => continue,
        };
        let known = &mut known[batch.stream as usize];
        if *known {
            continue;
        }
        if ends {
            *known = true;
        } else {
            start = at;
            *known = !continues;
        }
    }
    Ok(start)
}

/// The first full record that begins at or after `offset`, with its time.
fn first_after(file: &File, offset: u64) -> io::Result<Option<(u64, Timestamp)>> {
    let mut bytes = vec![0; 4 << 10];
    // A record begins where a line ends, or at the very start.
    let mut from = offset.saturating_sub(1);
    let mut begins = offset == 0;
    loop {
        let length = file.read_at(&mut bytes, from)?;
        if length == 0 {
            return Ok(None);
        }
        let mut at = 0;
        loop {
            if begins {
                let end = memchr::memchr(b'\n', &bytes[at..length]);
                let record = &bytes[at..end.map_or(length, |end| at + end)];
                if let Some(time) = Record::parse(record).and_then(|record| record.at()) {
                    return Ok(Some((from + at as u64, time)));
                }
                // Cut off by the end of what was read.
                if end.is_none() && at > 0 {
                    break;
                }
            }
            match memchr::memchr(b'\n', &bytes[at..length]) {
                Some(end) => (at, begins) = (at + end + 1, true),
                None => {
                    (at, begins) = (length, false);
                    break;
                }
            }
        }
        from += at.max(1) as u64;
    }
}

/// A full record with the short ones that follow it.
#[derive(Debug, Clone, Copy)]
struct Batch {
    stream: LogStream,
    tag: Tag,
    /// How many short ones there are.
    short: usize,
}

/// Goes through the records of some files, the last first.
struct Backward<'a> {
    files: &'a [File],
    /// Where the last record begins that was seen.
    place: Place,
    /// What stands before that, back to the start of a chunk.
    bytes: Vec<u8>,
}

impl<'a> Backward<'a> {
    fn new(files: &'a [File], place: Place) -> Self {
        let bytes = Vec::new();
        Self {
            files,
            place,
            bytes,
        }
    }

    /// The next full record and its place; `None` instead of what is no record.
    fn next(&mut self) -> io::Result<Option<(Place, Option<Batch>)>> {
        let mut short = 0;
        loop {
            if self.place.offset == 0 {
                if self.place.file == 0 {
                    return Ok(None);
                }
                self.place.file -= 1;
                self.place.offset = self.files[self.place.file].metadata()?.len();
                // Every file begins with a full record.
                short = 0;
                continue;
            }
            // The line end at the very end closes a record, it does not open one.
            let inner = self.bytes.len().saturating_sub(1);
            let start = match memchr::memrchr(b'\n', &self.bytes[..inner]) {
                Some(end) => end + 1,
                None if self.place.offset == self.bytes.len() as u64 => 0,
                None => {
                    self.load()?;
                    continue;
                }
            };
            let record = &self.bytes[start..];
            self.place.offset -= record.len() as u64;
            let whole = record.strip_suffix(b"\n");
            let found = match is_short(record) {
                true => {
                    short += usize::from(whole.is_some());
                    None
                }
                false => Some(whole.and_then(Record::parse).map(|record| Batch {
                    stream: record.stream,
                    tag: record.tag,
                    short,
                })),
            };
            self.bytes.truncate(start);
            if let Some(batch) = found {
                return Ok(Some((self.place, batch)));
            }
        }
    }

    /// Puts the chunk before it in front of what is there.
    fn load(&mut self) -> io::Result<()> {
        let end = self.place.offset - self.bytes.len() as u64;
        let size = end.min(PAGE as u64);
        let mut bytes = vec![0; size as usize];
        self.files[self.place.file].read_exact_at(&mut bytes, end - size)?;
        bytes.append(&mut self.bytes);
        self.bytes = bytes;
        Ok(())
    }
}
