//! What stands in a log file, and what a log is on the wire.
//!
//! A file holds records as the container runtimes write them: `TIME STREAM TAG TEXT`, with `F` for the
//! end of a line and `P` for a part that goes on. `:c` after it says that the record goes on with a
//! line that stands open, if one does; without it a line begins here, whatever an earlier process may
//! have left open. `E` ends a line that stands open, and is nothing where none does. `H` opens a file with the number of bytes that were put aside before it.

use std::io;

use jiff::Timestamp;

use crate::platforms::{LogLine, LogStream};

/// The length of a time: `2026-01-05T10:30:00.123456Z`.
const STAMP: usize = 27;

/// More than what stands before the text of any record.
pub(super) const HEAD_ROOM: usize = 64;

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
    /// Reads a record, without its line end. `None` for what is none.
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
    format!("{} {} E \n", stamp(at), stream_name(stream))
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
    /// Hands the records over in pieces of about a chunk. `out` is empty before and after.
    pub(super) fn write(
        &self,
        out: &mut Vec<u8>,
        sink: &mut impl FnMut(&[u8]) -> io::Result<()>,
    ) -> io::Result<()> {
        let label = |tag: &str| format!("{} {} {tag} ", stamp(self.at), stream_name(self.stream));
        let (whole, part) = (label("F"), label("P"));
        let mut rest = self.bytes;
        let mut continues = self.continues;
        while !rest.is_empty() {
            let end = memchr::memchr(b'\n', rest);
            match (end, continues) {
                (Some(_), false) => out.extend_from_slice(whole.as_bytes()),
                (None, false) => out.extend_from_slice(part.as_bytes()),
                (Some(_), true) => out.extend_from_slice(label("F:c").as_bytes()),
                (None, true) => out.extend_from_slice(label("P:c").as_bytes()),
            }
            let (text, later) = rest.split_at(end.unwrap_or(rest.len()));
            out.extend_from_slice(text);
            out.push(b'\n');
            rest = later.get(1..).unwrap_or_default();
            continues = false;
            if out.len() >= super::CHUNK {
                let written = sink(out);
                out.clear();
                written?;
            }
        }
        if out.is_empty() {
            return Ok(());
        }
        let written = sink(out);
        out.clear();
        written
    }
}

/// The name of a stream, in files and on the wire.
pub(in crate::supervisor) fn stream_name(stream: LogStream) -> &'static str {
    match stream {
        LogStream::Stdout => "stdout",
        LogStream::Stderr => "stderr",
    }
}

/// Adds a line as the API tells it: `2026-01-05T10:30:00.123456Z [stdout] text`.
pub(in crate::supervisor) fn show_line(line: &LogLine, out: &mut Vec<u8>) {
    for part in [
        &stamp(line.at),
        " [",
        stream_name(line.stream),
        "] ",
        &line.text,
        "\n",
    ] {
        out.extend_from_slice(part.as_bytes());
    }
}

/// Reads such a line.
pub(in crate::supervisor) fn parse_line(line: &[u8]) -> Option<LogLine> {
    let end = memchr::memchr(b' ', line)?;
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
        let (mut out, mut all) = (Vec::new(), Vec::new());
        let mut sink = |piece: &[u8]| {
            all.extend_from_slice(piece);
            Ok(())
        };
        text.write(&mut out, &mut sink).unwrap();
        let all = String::from_utf8(all).unwrap();
        all.replace("2026-01-05T10:30:00.120000Z stderr", "T")
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
        let flood = written(false, &[b'\n'; 10_000]);
        assert_eq!(flood, "T F \n".repeat(10_000));
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
        assert_eq!(parse_line(out.trim_ascii_end()), Some(line));
        for bad in [
            "",
            "x",
            "2026-01-05T10:30:00Z",
            "2026-01-05T10:30:00Z [x] y",
        ] {
            assert_eq!(parse_line(bad.as_bytes()), None, "{bad}");
        }
    }
}
