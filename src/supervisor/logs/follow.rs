//! Reads a log: joins records to lines, goes on through any change of files, and begins where a query
//! begins.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use jiff::Timestamp;

use super::file::header;
use super::format::{Reader, Record, Tag};
use super::{KEEP, PAGE, path, seek};
use crate::model::ServiceName;
use crate::platforms::{LogLine, LogQuery, LogStream};

/// The length in bytes at which a line is split.
const LINE_LIMIT: usize = 64 << 10;

/// Reads a log piece by piece.
#[derive(Debug)]
pub(in crate::supervisor) struct Follower {
    dir: PathBuf,
    name: ServiceName,
    since: Option<Timestamp>,
    stream: Option<LogStream>,
    /// What is read, in order; the last one was the newest when it was opened.
    files: VecDeque<File>,
    /// What was read of a record that is not whole yet.
    rest: Vec<u8>,
    records: Reader,
    lines: Lines,
    /// So many lines of those that are found first are not wanted.
    skip: usize,
}

impl Follower {
    /// At the place where `query` begins. A log that does not exist is an empty one.
    pub(in crate::supervisor) fn open(
        dir: &Path,
        name: &ServiceName,
        query: &LogQuery,
    ) -> io::Result<Self> {
        let mut follower = Self {
            dir: dir.to_owned(),
            name: name.clone(),
            since: query.since,
            stream: query.stream,
            files: VecDeque::new(),
            rest: Vec::new(),
            records: Reader::default(),
            lines: Lines::default(),
            skip: 0,
        };
        let files = follower.all()?;
        let start = match (query.tail, query.since) {
            (Some(wanted), _) => {
                let start = seek::tail(&files, wanted, query.stream)?;
                follower.begin(&files, start)?;
                follower.since = None;
                let mut found = 0;
                loop {
                    match follower.read()?.len() {
                        0 => break,
                        more => found += more,
                    }
                }
                // One that stands open is none of the last yet.
                follower.skip = found.saturating_sub(wanted);
                follower.since = query.since;
                follower.rest.clear();
                follower.lines = Lines::default();
                start
            }
            (None, Some(since)) => seek::since(&files, since)?,
            (None, None) => seek::Place { file: 0, offset: 0 },
        };
        follower.begin(&files, start)?;
        Ok(follower)
    }

    fn begin(&mut self, files: &[File], start: seek::Place) -> io::Result<()> {
        self.files.clear();
        for (index, file) in files.iter().enumerate().skip(start.file) {
            let mut file = file.try_clone()?;
            let offset = if index == start.file { start.offset } else { 0 };
            // Copies of a descriptor have one place in common: it is set here, and read from once.
            file.seek(SeekFrom::Start(offset))?;
            self.files.push_back(file);
        }
        Ok(())
    }

    /// The next lines; empty if there are no more for now.
    pub(in crate::supervisor) fn read(&mut self) -> io::Result<Vec<LogLine>> {
        loop {
            let Some(file) = self.files.front_mut() else {
                self.files = self.all()?.into();
                if self.files.is_empty() {
                    return Ok(Vec::new());
                }
                continue;
            };
            let before = self.rest.len();
            if file.take(PAGE as u64).read_to_end(&mut self.rest)? == 0 {
                let mut lines = Vec::new();
                if !self.step(&mut lines)? {
                    return Ok(Vec::new());
                }
                if !lines.is_empty() {
                    return Ok(lines);
                }
                continue;
            }
            let Some(end) = memchr::memrchr(b'\n', &self.rest[before..]) else {
                continue;
            };
            let rest = self.rest.split_off(before + end + 1);
            let records = std::mem::replace(&mut self.rest, rest);
            let lines = self.wanted(&records);
            if !lines.is_empty() {
                return Ok(lines);
            }
        }
    }

    /// The lines that stand open, to be asked for once nothing more will come.
    pub(in crate::supervisor) fn unfinished(&mut self) -> Vec<LogLine> {
        let mut lines = Vec::new();
        self.lines.end_all(&mut lines);
        lines.retain(|line| self.wants(line));
        lines
    }

    fn wants(&self, line: &LogLine) -> bool {
        self.stream.is_none_or(|stream| line.stream == stream)
            && self.since.is_none_or(|since| line.at >= since)
    }

    fn wanted(&mut self, records: &[u8]) -> Vec<LogLine> {
        let mut lines = Vec::new();
        let mut rest = records;
        while let Some(end) = memchr::memchr(b'\n', rest) {
            if let Some(record) = self.records.read(&rest[..end])
                // Joining what is not wanted would be work for nothing.
                && self.stream.is_none_or(|stream| record.stream == stream)
            {
                self.lines.add(&record, &mut lines);
            }
            rest = &rest[end + 1..];
        }
        let skipped = self.skip.min(lines.len());
        self.skip -= skipped;
        lines.drain(..skipped);
        lines.retain(|line| self.wants(line));
        lines
    }

    /// Leaves a file that is read to its end, if there is a newer one. Says so in `lines` if there was
    /// more between the two.
    fn step(&mut self, lines: &mut Vec<LogLine>) -> io::Result<bool> {
        if self.files.len() > 1 {
            self.files.pop_front();
            self.rest.clear();
            return Ok(true);
        }
        let Some(mine) = self.files.front_mut() else {
            return Ok(false);
        };
        let live = match std::fs::metadata(path(&self.dir, &self.name, 0)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
            other => other?,
        };
        if identity(&live) == identity(&mine.metadata()?) {
            // Half a batch was taken back, or somebody has emptied it. What comes is new.
            if live.len() < mine.stream_position()? {
                mine.seek(SeekFrom::Start(live.len()))?;
                self.rest.clear();
            }
            return Ok(false);
        }
        // Written between the last read and the change of files.
        let late = self.rest.len();
        mine.read_to_end(&mut self.rest)?;
        if self.rest.len() > late {
            let end = memchr::memrchr(b'\n', &self.rest).map_or(0, |end| end + 1);
            let rest = self.rest.split_off(end);
            let records = std::mem::replace(&mut self.rest, rest);
            *lines = self.wanted(&records);
            return Ok(true);
        }
        self.rest.clear();
        self.enter_next(lines)
    }

    fn enter_next(&mut self, lines: &mut Vec<LogLine>) -> io::Result<bool> {
        let all = self.all()?;
        let Some(mine) = self.files.front() else {
            return Ok(false);
        };
        let found = mine.metadata()?;
        let mut place = None;
        for (index, file) in all.iter().enumerate() {
            if identity(&file.metadata()?) == identity(&found) {
                place = Some(index);
            }
        }
        if place.is_none()
            && let Some(oldest) = all.first()
        {
            let mine_ends = header(mine)?.unwrap_or(0) + found.len();
            let text = match header(oldest)?.and_then(|next| next.checked_sub(mine_ends)) {
                Some(0) => None,
                Some(bytes) => Some(format!("gabion: {bytes} bytes of the log")),
                None => Some("gabion: a part of the log".to_owned()),
            };
            if let Some(text) = text {
                lines.push(LogLine {
                    at: self.lines.at,
                    stream: self.stream.unwrap_or(LogStream::Stderr),
                    text: format!("{text} were put aside and removed before they were read here"),
                });
            }
        }
        let next = place.map_or(0, |index| index + 1);
        let entered: VecDeque<_> = all.into_iter().skip(next).collect();
        let any = !entered.is_empty();
        if any {
            self.files = entered;
        }
        Ok(any)
    }

    /// All files of the log, the oldest first. Files only ever get older, so that none is missed from
    /// the newest on; one that ages meanwhile is met again.
    fn all(&self) -> io::Result<Vec<File>> {
        let mut found: Vec<(File, (u64, u64))> = Vec::new();
        for age in 0..KEEP {
            let file = match File::open(path(&self.dir, &self.name, age)) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                other => other?,
            };
            let identity = identity(&file.metadata()?);
            found.retain(|(_, known)| *known != identity);
            found.push((file, identity));
        }
        Ok(found.into_iter().rev().map(|(file, _)| file).collect())
    }
}

fn identity(found: &std::fs::Metadata) -> (u64, u64) {
    (found.dev(), found.ino())
}

/// Joins records to lines.
#[derive(Debug, Default)]
struct Lines {
    /// The lines that stand open, by stream.
    open: [Option<Open>; 2],
    stamp: Vec<u8>,
    /// The time of the last record.
    at: Timestamp,
}

#[derive(Debug)]
struct Open {
    at: Timestamp,
    text: Vec<u8>,
}

impl Lines {
    fn add(&mut self, record: &Record<'_>, lines: &mut Vec<LogLine>) {
        let (ends, continues) = match record.tag {
            Tag::Text { ends, continues } => (ends, continues),
            Tag::End if self.open[record.stream as usize].is_some() => (true, true),
            Tag::End | Tag::Header => return,
        };
        // The records of a batch have one time, and reading it is most of the work.
        if self.stamp != record.stamp {
            let Some(at) = record.at() else { return };
            self.at = at;
            self.stamp.clear();
            self.stamp.extend_from_slice(record.stamp);
        }
        let (at, stream) = (self.at, record.stream);
        let place = &mut self.open[stream as usize];
        if !continues && let Some(left) = place.take() {
            lines.push(line(left.at, stream, &left.text));
        }
        if ends && place.is_none() && record.text.len() <= LINE_LIMIT {
            return lines.push(line(at, stream, record.text));
        }
        let open = place.get_or_insert_with(|| Open {
            at,
            text: Vec::new(),
        });
        open.at = at;
        let mut rest = record.text;
        while open.text.len() + rest.len() > LINE_LIMIT {
            let (now, later) = rest.split_at(LINE_LIMIT - open.text.len());
            open.text.extend_from_slice(now);
            lines.push(line(at, stream, &open.text));
            open.text.clear();
            rest = later;
        }
        open.text.extend_from_slice(rest);
        if ends && let Some(open) = place.take() {
            lines.push(line(at, stream, &open.text));
        }
    }

    fn end_all(&mut self, lines: &mut Vec<LogLine>) {
        for stream in [LogStream::Stdout, LogStream::Stderr] {
            if let Some(open) = self.open[stream as usize].take() {
                lines.push(line(open.at, stream, &open.text));
            }
        }
    }
}

fn line(at: Timestamp, stream: LogStream, text: &[u8]) -> LogLine {
    let text = String::from_utf8_lossy(text).into_owned();
    LogLine { at, stream, text }
}

#[cfg(test)]
#[path = "follow_tests.rs"]
mod tests;
