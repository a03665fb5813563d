//! The logs of services: one file per service, a line per line of output, with time and stream.
//!
//! In: bytes from the pipes of a process. Out: `logs/NAME.log`, and readers of it that need no
//! running supervisor. A log is bounded: at [`LIMIT`] it becomes `NAME.log.1`, of which one is kept.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use crate::model::ServiceName;
use crate::platforms::{LogLine, LogQuery, LogStream};

/// The size in bytes at which a log file is put aside.
pub const LIMIT: u64 = 8 << 20;

/// The length in bytes at which a line is split.
const LINE_LIMIT: usize = 64 << 10;

const CHUNK: usize = 64 << 10;

fn path(dir: &Path, name: &ServiceName) -> PathBuf {
    dir.join("logs").join(format!("{name}.log"))
}

/// The lines that a service of the sandbox kept in `dir` has written, oldest first. `query.follow` is
/// not honoured here: new lines are told of by the supervisor only.
pub fn read(dir: &Path, name: &ServiceName, query: &LogQuery) -> io::Result<Vec<LogLine>> {
    let mut follower = Follower::open(dir, name, query)?;
    let mut lines = Vec::new();
    loop {
        let bytes = follower.read()?;
        if bytes.is_empty() {
            return Ok(lines);
        }
        lines.extend(bytes.split(|byte| *byte == b'\n').filter_map(parse_line));
    }
}

/// Reads `2026-01-05T10:30:00.123456Z [stdout] text`.
pub(super) fn parse_line(line: &[u8]) -> Option<LogLine> {
    let end = line.iter().position(|byte| *byte == b' ')?;
    let at = std::str::from_utf8(&line[..end]).ok()?.parse().ok()?;
    let (stream, text) = if let Some(text) = line[end..].strip_prefix(b" [stdout] ") {
        (LogStream::Stdout, text)
    } else {
        (LogStream::Stderr, line[end..].strip_prefix(b" [stderr] ")?)
    };
    Some(LogLine {
        at,
        stream,
        text: String::from_utf8_lossy(text).into_owned(),
    })
}

/// Reads a log piece by piece, in whole lines as they stand in the file, through any change of files.
#[derive(Debug)]
pub(super) struct Follower {
    path: PathBuf,
    /// What is read, in order; the last one is the live file.
    files: Vec<File>,
    since: Option<jiff::Timestamp>,
    rest: Vec<u8>,
}

impl Follower {
    /// At the place where `query` begins. A log that does not exist is an empty one.
    pub(super) fn open(dir: &Path, name: &ServiceName, query: &LogQuery) -> io::Result<Self> {
        let path = path(dir, name);
        let mut files = Vec::new();
        for path in [path.with_extension("log.1"), path.clone()] {
            match File::open(path) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                other => files.push(other?),
            }
        }
        if let Some(mut wanted) = query.tail {
            // From the newest file back; what is older than the wanted lines is not read.
            for (index, file) in files.iter_mut().enumerate().rev() {
                wanted -= seek_to_tail(file, wanted)?;
                if wanted == 0 {
                    files.drain(..index);
                    break;
                }
            }
        }
        Ok(Self {
            path,
            files,
            since: query.since,
            rest: Vec::new(),
        })
    }

    /// The next whole lines, each with its line end; empty if there are no more for now.
    pub(super) fn read(&mut self) -> io::Result<Vec<u8>> {
        loop {
            let Some(file) = self.files.first_mut() else {
                match File::open(&self.path) {
                    Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
                    other => self.files.push(other?),
                }
                continue;
            };
            let length = self.rest.len();
            let read = file.take(CHUNK as u64).read_to_end(&mut self.rest)?;
            if read == 0 {
                if !self.step()? {
                    return Ok(Vec::new());
                }
                continue;
            }
            let Some(end) = self.rest[length..].iter().rposition(|byte| *byte == b'\n') else {
                continue;
            };
            let rest = self.rest.split_off(length + end + 1);
            let mut lines = std::mem::replace(&mut self.rest, rest);
            if let Some(since) = self.since {
                lines = lines
                    .split_inclusive(|byte| *byte == b'\n')
                    .filter(|line| parse_line(line).is_none_or(|line| line.at >= since))
                    .flatten()
                    .copied()
                    .collect();
            }
            if !lines.is_empty() {
                return Ok(lines);
            }
        }
    }

    /// Leaves a file that is read to its end, if there is a newer one.
    fn step(&mut self) -> io::Result<bool> {
        if self.files.len() == 1 {
            let live = match std::fs::metadata(&self.path) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
                other => other?,
            };
            let mine = self.files[0].metadata()?;
            if (live.dev(), live.ino()) == (mine.dev(), mine.ino()) {
                return Ok(false);
            }
            self.files.push(File::open(&self.path)?);
            // Written between the last read and the change of files.
            let mut late = Vec::new();
            self.files[0].read_to_end(&mut late)?;
            self.rest.extend_from_slice(&late);
        }
        self.files.remove(0);
        Ok(true)
    }
}

/// Puts the file at the start of its last `wanted` lines and returns how many there are from there.
fn seek_to_tail(file: &mut File, wanted: usize) -> io::Result<usize> {
    let length = file.metadata()?.len();
    let mut start = length;
    let mut found = 0;
    let mut chunk = vec![0; CHUNK];
    while start > 0 {
        let size = start.min(CHUNK as u64) as usize;
        let piece = &mut chunk[..size];
        let from = start - size as u64;
        std::os::unix::fs::FileExt::read_exact_at(file, piece, from)?;
        for (offset, byte) in piece.iter().enumerate().rev() {
            let at = from + offset as u64;
            // The line end at the very end of the file closes a line, it does not open one.
            if *byte != b'\n' || at + 1 == length {
                continue;
            }
            found += 1;
            if found == wanted {
                file.seek(SeekFrom::Start(at + 1))?;
                return Ok(found);
            }
        }
        start = from;
    }
    if wanted == 0 {
        file.seek(SeekFrom::End(0))?;
        return Ok(0);
    }
    file.seek(SeekFrom::Start(0))?;
    Ok(if length == 0 { 0 } else { found + 1 })
}

/// Appends to a service's log.
#[derive(Debug)]
pub(super) struct Writer {
    path: PathBuf,
    file: File,
    size: u64,
}

impl Writer {
    pub(super) fn open(dir: &Path, name: &ServiceName) -> io::Result<Self> {
        let path = path(dir, name);
        let file = append(&path)?;
        let size = file.metadata()?.len();
        Ok(Self { path, file, size })
    }

    /// Appends whole lines.
    pub(super) fn write(&mut self, lines: &[u8]) -> io::Result<()> {
        if self.size >= LIMIT {
            self.rotate();
        }
        self.file.write_all(lines)?;
        self.size += lines.len() as u64;
        Ok(())
    }
}

impl Writer {
    /// Puts the full file aside. Where that fails the lines go on into the one that is open, and it
    /// is tried again with the next ones.
    fn rotate(&mut self) {
        let renamed = match std::fs::rename(&self.path, self.path.with_extension("log.1")) {
            // Somebody has removed it: a new one is due all the same.
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            other => other,
        };
        match renamed.and_then(|()| append(&self.path)) {
            Ok(file) => {
                self.file = file;
                self.size = 0;
            }
            Err(error) => {
                tracing::warn!(path = %self.path.display(), %error, "a log is not rotated")
            }
        }
    }
}

fn append(path: &Path) -> io::Result<File> {
    File::options()
        .create(true)
        .append(true)
        .mode(0o600)
        .open(path)
}

/// Cuts the bytes of one stream into lines.
#[derive(Debug)]
pub(super) struct Splitter {
    label: &'static str,
    partial: Vec<u8>,
}

impl Splitter {
    pub(super) fn new(stream: LogStream) -> Self {
        let label = match stream {
            LogStream::Stdout => " [stdout] ",
            LogStream::Stderr => " [stderr] ",
        };
        Self {
            label,
            partial: Vec::new(),
        }
    }

    /// Adds the whole lines in `bytes` to `out`, stamped with `now`.
    pub(super) fn push(&mut self, now: &str, bytes: &[u8], out: &mut Vec<u8>) {
        for piece in bytes.split_inclusive(|byte| *byte == b'\n') {
            let (text, ends) = match piece.strip_suffix(b"\n") {
                Some(text) => (text, true),
                None => (piece, false),
            };
            let mut text = text;
            while self.partial.len() + text.len() > LINE_LIMIT {
                let (now_part, later) = text.split_at(LINE_LIMIT - self.partial.len());
                self.partial.extend_from_slice(now_part);
                self.flush(now, out);
                text = later;
            }
            self.partial.extend_from_slice(text);
            if ends {
                self.line(now, out);
            }
        }
    }

    /// Adds what is left without a line end.
    pub(super) fn flush(&mut self, now: &str, out: &mut Vec<u8>) {
        if !self.partial.is_empty() {
            self.line(now, out);
        }
    }

    /// Whether one of `lines`, which a push has just added with the stamp `now`, or what has come
    /// since, contains `text`.
    pub(super) fn shows(&self, now: &str, lines: &[u8], text: &[u8]) -> bool {
        let contains =
            |line: &[u8]| text.is_empty() || line.windows(text.len()).any(|window| window == text);
        let prefix = now.len() + self.label.len();
        contains(&self.partial)
            || lines
                .split(|byte| *byte == b'\n')
                .any(|line| line.get(prefix..).is_some_and(contains))
    }

    fn line(&mut self, now: &str, out: &mut Vec<u8>) {
        out.extend_from_slice(now.as_bytes());
        out.extend_from_slice(self.label.as_bytes());
        out.append(&mut self.partial);
        out.push(b'\n');
    }
}

/// The time as it stands in a log.
pub(super) fn stamp(at: jiff::Timestamp) -> String {
    at.strftime("%Y-%m-%dT%H:%M:%S.%6fZ").to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sandbox() -> (tempfile::TempDir, ServiceName) {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("logs")).unwrap();
        (dir, ServiceName::new("web").unwrap())
    }

    fn line(n: usize) -> Vec<u8> {
        format!("2026-01-05T10:30:{:02}.000000Z [stdout] line {n}\n", n % 60).into_bytes()
    }

    fn texts(lines: &[LogLine]) -> Vec<&str> {
        lines.iter().map(|line| line.text.as_str()).collect()
    }

    #[test]
    fn lines_are_cut_and_long_ones_split() {
        let mut splitter = Splitter::new(LogStream::Stderr);
        let mut out = Vec::new();
        splitter.push("T", b"a\n\nb", &mut out);
        assert_eq!(out, b"T [stderr] a\nT [stderr] \n");
        assert!(splitter.shows("T", &out, b"a") && splitter.shows("T", &out, b"b"));
        assert!(!splitter.shows("T", &out, b"stderr"));
        splitter.push("T", b"c\n", &mut out);
        assert!(out.ends_with(b"T [stderr] bc\n"));
        out.clear();
        splitter.push("T", &vec![b'x'; LINE_LIMIT * 2 + 5], &mut out);
        splitter.flush("T", &mut out);
        let lengths: Vec<_> = out.split(|b| *b == b'\n').map(<[u8]>::len).collect();
        let label = "T [stderr] ".len();
        assert_eq!(
            lengths,
            [label + LINE_LIMIT, label + LINE_LIMIT, label + 5, 0]
        );
    }

    #[test]
    fn stamps_are_read_back() {
        let at = jiff::Timestamp::from_microsecond(1_767_609_000_120_000).unwrap();
        let text = format!("{} [stdout] x [stderr] y", stamp(at));
        let line = parse_line(text.as_bytes()).unwrap();
        assert_eq!((line.at, line.text.as_str()), (at, "x [stderr] y"));
        for bad in [
            "",
            "x",
            "2026-01-05T10:30:00Z",
            "2026-01-05T10:30:00Z [x] y",
        ] {
            assert_eq!(parse_line(bad.as_bytes()), None, "{bad}");
        }
    }

    #[test]
    fn tail_and_since_count_over_both_files() {
        let (dir, name) = sandbox();
        let old: Vec<u8> = (0..5).flat_map(line).collect();
        let new: Vec<u8> = (5..8).flat_map(line).collect();
        std::fs::write(dir.path().join("logs/web.log.1"), old).unwrap();
        std::fs::write(dir.path().join("logs/web.log"), new).unwrap();
        for (tail, count) in [(0, 0), (1, 1), (3, 3), (4, 4), (8, 8), (99, 8)] {
            let query = LogQuery {
                tail: Some(tail),
                ..LogQuery::default()
            };
            let lines = read(dir.path(), &name, &query).unwrap();
            assert_eq!(lines.len(), count, "tail {tail}");
            assert!(lines.last().is_none_or(|line| line.text == "line 7"));
        }
        let query = LogQuery {
            since: Some("2026-01-05T10:30:06Z".parse().unwrap()),
            ..LogQuery::default()
        };
        let lines = read(dir.path(), &name, &query).unwrap();
        assert_eq!(texts(&lines), ["line 6", "line 7"]);
    }

    #[test]
    fn a_follower_goes_on_through_a_change_of_files() {
        let (dir, name) = sandbox();
        let mut follower = Follower::open(dir.path(), &name, &LogQuery::default()).unwrap();
        assert!(follower.read().unwrap().is_empty());
        let mut writer = Writer::open(dir.path(), &name).unwrap();
        writer.write(&line(1)).unwrap();
        assert_eq!(follower.read().unwrap(), line(1));
        assert!(follower.read().unwrap().is_empty());
        writer.write(&line(2)).unwrap();
        writer.size = LIMIT;
        writer.write(&line(3)).unwrap();
        assert_eq!(follower.read().unwrap(), line(2));
        assert_eq!(follower.read().unwrap(), line(3));
        assert!(follower.read().unwrap().is_empty());
        assert!(dir.path().join("logs/web.log.1").exists());
    }

    #[test]
    fn no_line_is_lost_when_a_log_cannot_be_rotated() {
        let (dir, name) = sandbox();
        let live = dir.path().join("logs/web.log");
        let mut writer = Writer::open(dir.path(), &name).unwrap();
        writer.write(&line(1)).unwrap();
        // Its file was removed: it begins a new one.
        std::fs::remove_file(&live).unwrap();
        writer.size = LIMIT;
        writer.write(&line(2)).unwrap();
        assert_eq!(std::fs::read(&live).unwrap(), line(2));
        // A folder in the way: it goes on with the old one.
        std::fs::create_dir_all(dir.path().join("logs/web.log.1/full")).unwrap();
        writer.size = LIMIT;
        writer.write(&line(3)).unwrap();
        assert_eq!(std::fs::read(&live).unwrap(), [line(2), line(3)].concat());
    }
}
