//! What stands in a log file, and what a log is on the wire.
//!
//! A file holds records as the container runtimes write them: `TIME STREAM TAG TEXT`, with `F` for the
//! end of a line and `P` for a part that goes on. `:c` after it says that the record goes on with a
//! line that stands open, if one does; without it a line begins here, whatever an earlier process may
//! have left open. `E` ends a line that stands open, and is nothing where none does. `H` opens a file
//! with the number of bytes that were put aside before it.
//!
//! Of a batch with many lines only the first is written so. The others are *short*: a space and the
//! text, a whole line of the same time and stream. Every batch begins with a full record, so one is
//! never further before a short one than a batch is long.

use jiff::Timestamp;

use crate::platforms::{LogLine, LogStream};

/// The length of a time: `2026-01-05T10:30:00.123456Z`.
const STAMP: usize = 27;

/// More than what stands before the text of any record.
pub(super) const HEAD_ROOM: usize = 64;

/// What stands before the text of a short record. A time begins with a digit.
const SHORT: u8 = b' ';

/// The number of whole lines from which on the records of a batch are short.
const FLOOD: usize = 64;

/// The mean length in bytes from which on it pays to look for each line end, and to copy line by line.
const WIDE: usize = 40;

/// What a record is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Tag {
    /// A piece of a line.
    Text {
        /// Whether the line ends here.
        ends: bool,
        /// Whether it may have begun in an earlier record.
        continues: bool,
    },
    /// Ends a line that stands open, if one does.
    End,
    /// The first record of a file.
    Header,
}

/// One record of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Record<'a> {
    /// The time as it stands there.
    pub stamp: &'a [u8],
    pub stream: LogStream,
    pub tag: Tag,
    pub text: &'a [u8],
}

impl<'a> Record<'a> {
    /// Reads a full record, without its line end. `None` for what is none.
    pub(super) fn parse(record: &'a [u8]) -> Option<Self> {
        let (stamp, rest) = record.split_at_checked(STAMP)?;
        if stamp[STAMP - 1] != b'Z' {
            return None;
        }
        let ([b' ', rest @ ..], whole) = (rest, LINE) else {
            return None;
        };
        let of = |stream, tag, text| {
            Some(Self {
                stamp,
                stream,
                tag,
                text,
            })
        };
        // As an earlier version wrote them.
        if let Some(text) = rest.strip_prefix(b"[stdout] ") {
            return of(LogStream::Stdout, whole, text);
        } else if let Some(text) = rest.strip_prefix(b"[stderr] ") {
            return of(LogStream::Stderr, whole, text);
        }
        let (stream, rest) = if let Some(rest) = rest.strip_prefix(b"stdout ") {
            (LogStream::Stdout, rest)
        } else {
            (LogStream::Stderr, rest.strip_prefix(b"stderr ")?)
        };
        let end = memchr::memchr(b' ', &rest[..rest.len().min(8)])?;
        let tag = match &rest[..end] {
            b"F" => LINE,
            b"P" => Tag::Text {
                ends: false,
                continues: false,
            },
            b"F:c" => Tag::Text {
                ends: true,
                continues: true,
            },
            b"P:c" => Tag::Text {
                ends: false,
                continues: true,
            },
            b"E" => Tag::End,
            b"H" => Tag::Header,
            _ => return None,
        };
        of(stream, tag, &rest[end + 1..])
    }

    /// Its time.
    pub(super) fn at(&self) -> Option<Timestamp> {
        std::str::from_utf8(self.stamp).ok()?.parse().ok()
    }
}

const LINE: Tag = Tag::Text {
    ends: true,
    continues: false,
};

/// Whether a record is a short one.
pub(super) fn is_short(record: &[u8]) -> bool {
    record.first() == Some(&SHORT)
}

/// Reads the records of a file one after the other, from any full one on.
#[derive(Debug, Default)]
pub(super) struct Reader {
    /// What the short ones have in common with the last full one.
    stamp: [u8; STAMP],
    stream: Option<LogStream>,
}

impl Reader {
    /// Reads the next record, without its line end. `None` for what is none.
    pub(super) fn read<'a>(&'a mut self, record: &'a [u8]) -> Option<Record<'a>> {
        if is_short(record) {
            return Some(Record {
                stamp: &self.stamp,
                stream: self.stream?,
                tag: LINE,
                text: &record[1..],
            });
        }
        let record = Record::parse(record)?;
        self.stamp.copy_from_slice(record.stamp);
        self.stream = Some(record.stream);
        Some(record)
    }
}

/// The time as it stands in a log.
pub(super) fn stamp(at: Timestamp) -> String {
    at.strftime("%Y-%m-%dT%H:%M:%S.%6fZ").to_string()
}

/// Now, as exactly as a log says it.
pub(super) fn now() -> Timestamp {
    let now = Timestamp::now();
    Timestamp::from_microsecond(now.as_microsecond()).unwrap_or(now)
}

/// The first record of a file that follows on `before` bytes in older ones.
pub(super) fn header(at: Timestamp, before: u64) -> String {
    format!("{} stdout H {before}\n", stamp(at))
}

/// The record that ends a line whose process has ended.
pub(super) fn end(at: Timestamp, stream: LogStream) -> String {
    format!("{} {} E \n", stamp(at), stream.word())
}

/// One batch of one stream, to be written as records.
pub(super) struct Text<'a> {
    pub at: Timestamp,
    pub stream: LogStream,
    /// Whether a line may stand open before it.
    pub continues: bool,
    pub bytes: &'a [u8],
}

impl Text<'_> {
    /// Adds its records to `out`. At most twice as many bytes as the batch has, and a few.
    pub(super) fn write(&self, out: &mut Vec<u8>) {
        let head = format!("{} {} ", stamp(self.at), self.stream.word());
        let mut continues = if self.continues { ":c" } else { "" };
        let mut full = |out: &mut Vec<u8>, tag: &str, text: &[u8]| {
            for part in [head.as_str(), tag, std::mem::take(&mut continues), " "] {
                out.extend_from_slice(part.as_bytes());
            }
            out.extend_from_slice(text);
        };
        let end = memchr::memrchr(b'\n', self.bytes).map_or(0, |end| end + 1);
        let (mut lines, part) = self.bytes.split_at(end);
        let count = memchr::memchr_iter(b'\n', lines).count();
        let full_ones = if count < FLOOD { count } else { 1 };
        for _ in 0..full_ones {
            let end = memchr::memchr(b'\n', lines).map_or(lines.len(), |end| end + 1);
            let (line, rest) = lines.split_at(end);
            full(out, "F", line);
            lines = rest;
        }
        shorten(lines, count - full_ones, out);
        if !part.is_empty() {
            full(out, "P", part);
            out.push(b'\n');
        }
    }
}

/// Adds short records of so many lines. This is where the time of a flood goes.
fn shorten(lines: &[u8], count: usize, out: &mut Vec<u8>) {
    if lines.len() < count * WIDE {
        return shorten_narrow(lines, count, out);
    }
    out.reserve(lines.len() + count);
    let mut from = 0;
    for end in memchr::memchr_iter(b'\n', lines) {
        out.push(SHORT);
        out.extend_from_slice(&lines[from..=end]);
        from = end + 1;
    }
}

/// The same, faster for lines of few bytes: eight are looked at and copied at once, those behind a line
/// end to be overwritten.
fn shorten_narrow(lines: &[u8], count: usize, out: &mut Vec<u8>) {
    const ONES: u64 = u64::from_ne_bytes([1; 8]);
    const LINE_ENDS: u64 = u64::from_ne_bytes([b'\n'; 8]);
    let start = out.len();
    out.resize(start + lines.len() + count + 8, SHORT);
    let short = &mut out[start..];
    let (mut from, mut to) = (0, 1);
    while let Some(bytes) = lines[from..].first_chunk::<8>() {
        short[to..to + 8].copy_from_slice(bytes);
        // The lowest bit that is set belongs to the first byte that is zero.
        let unlike = u64::from_le_bytes(*bytes) ^ LINE_ENDS;
        let ends = unlike.wrapping_sub(ONES) & !unlike & (ONES << 7);
        let length = ends.trailing_zeros() as usize / 8;
        if length < 8 {
            short[to + length + 1] = SHORT;
            (from, to) = (from + length + 1, to + length + 2);
        } else {
            (from, to) = (from + 8, to + 8);
        }
    }
    for &byte in &lines[from..] {
        short[to] = byte;
        to += 1;
        if byte == b'\n' {
            short[to] = SHORT;
            to += 1;
        }
    }
    out.truncate(start + lines.len() + count);
}

/// Adds a line as the API tells it: `2026-01-05T10:30:00.123456Z [stdout] text`.
pub(in crate::supervisor) fn show_line(line: &LogLine, out: &mut Vec<u8>) {
    for part in [
        &stamp(line.at),
        " [",
        line.stream.word(),
        "] ",
        &line.text,
        "\n",
    ] {
        out.extend_from_slice(part.as_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(continues: bool, bytes: &[u8]) -> String {
        let at = Timestamp::from_microsecond(1_767_609_000_120_000).unwrap();
        let text = Text {
            at,
            stream: LogStream::Stderr,
            continues,
            bytes,
        };
        let mut out = Vec::new();
        text.write(&mut out);
        let out = String::from_utf8(out).unwrap();
        out.replace("2026-01-05T10:30:00.120000Z stderr", "T")
    }

    #[test]
    fn lines_and_parts_are_told_apart() {
        for (continues, bytes, records) in [
            (false, "", ""),
            (false, "a\n", "T F a\n"),
            (false, "a\n\nb", "T F a\nT F \nT P b\n"),
            (true, "c\nd\n", "T F:c c\nT F d\n"),
            (true, "\n", "T F:c \n"),
            (true, "e", "T P:c e\n"),
        ] {
            assert_eq!(written(continues, bytes.as_bytes()), records, "{bytes:?}");
        }
    }

    #[test]
    fn a_flood_is_written_short() {
        let few = "x\n".repeat(FLOOD - 1);
        assert_eq!(written(false, few.as_bytes()), "T F x\n".repeat(FLOOD - 1));
        for length in (0..20).chain(WIDE - 2..WIDE + 2) {
            let line = format!("{}\n", "x".repeat(length));
            let lines = line.repeat(FLOOD);
            let short = format!(" {line}").repeat(FLOOD - 1);
            let flood = format!("T F {line}{short}");
            assert_eq!(written(false, lines.as_bytes()), flood, "{length}");
            let flood = format!("T F:c {line}{short}T P y z\n");
            assert_eq!(
                written(true, format!("{lines}y z").as_bytes()),
                flood,
                "{length}"
            );
        }
    }

    #[test]
    fn short_records_are_those_of_the_last_full_one() {
        let mut reader = Reader::default();
        assert_eq!(reader.read(b" of nothing"), None);
        let full = b"2026-01-05T10:30:00.120000Z stderr F:c full";
        assert_eq!(reader.read(full), Record::parse(full));
        assert_eq!(reader.read(b"no record"), None);
        let full = Record::parse(full).unwrap();
        for text in [
            &b""[..],
            b"x",
            b" y",
            b"2026-01-05T10:30:00.120000Z stdout F z",
        ] {
            let short = [b" ", text].concat();
            let expected = Record {
                tag: LINE,
                text,
                ..full
            };
            assert_eq!(reader.read(&short), Some(expected));
        }
    }

    #[test]
    fn records_are_read_back() {
        let time = "2026-01-05T10:30:00.120000Z";
        let read = |rest: &str| {
            let record = format!("{time} {rest}");
            let record = Record::parse(record.as_bytes())?;
            let text = String::from_utf8(record.text.to_vec()).unwrap();
            Some((record.stream, record.tag, text))
        };
        let text = |ends, continues| Tag::Text { ends, continues };
        use LogStream::{Stderr, Stdout};
        for (rest, stream, tag, words) in [
            ("stdout F a b", Stdout, text(true, false), "a b"),
            ("stderr P ", Stderr, text(false, false), ""),
            (
                "stderr F:c stdout F x",
                Stderr,
                text(true, true),
                "stdout F x",
            ),
            ("stdout P:c x", Stdout, text(false, true), "x"),
            ("stdout H 12", Stdout, Tag::Header, "12"),
            ("stderr E ", Stderr, Tag::End, ""),
            ("[stderr] of old", Stderr, text(true, false), "of old"),
        ] {
            assert_eq!(read(rest), Some((stream, tag, words.to_owned())), "{rest}");
        }
        for bad in [
            "",
            "stdout",
            "stdout F",
            "stdout Q x",
            "std F x",
            "stdout  x",
        ] {
            assert_eq!(read(bad), None, "{bad}");
        }
        for bad in ["", "x", "2026-01-05T10:30:00Z stdout F x"] {
            assert_eq!(Record::parse(bad.as_bytes()), None, "{bad}");
        }
    }

    #[test]
    fn the_wire_is_read_back() {
        let at = Timestamp::from_microsecond(1_767_609_000_120_000).unwrap();
        let line = LogLine {
            at,
            stream: LogStream::Stdout,
            text: "x [stderr] y".into(),
        };
        let mut out = Vec::new();
        show_line(&line, &mut out);
        assert_eq!(out, b"2026-01-05T10:30:00.120000Z [stdout] x [stderr] y\n");
        assert_eq!(LogLine::parse(out.trim_ascii_end()), Some(line));
        for bad in [
            "",
            "x",
            "2026-01-05T10:30:00Z",
            "2026-01-05T10:30:00Z [x] y",
        ] {
            assert_eq!(LogLine::parse(bad.as_bytes()), None, "{bad}");
        }
    }
}
