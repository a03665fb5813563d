//! Lines of logs, and which are wanted.

/// Which log lines are wanted.
#[derive(Debug, Clone, Default)]
pub struct LogQuery {
    /// Only the last so many lines of what there is.
    pub tail: Option<usize>,
    /// Only lines at or after this time.
    pub since: Option<jiff::Timestamp>,
    /// Only lines of this stream.
    pub stream: Option<LogStream>,
    /// Whether to go on with new lines as they come.
    pub follow: bool,
}

/// One line of a service's output.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogLine {
    /// When its end was read.
    pub at: jiff::Timestamp,
    /// Which stream it was written to.
    pub stream: LogStream,
    /// The text without its line end; invalid UTF-8 is replaced.
    pub text: String,
}

impl LogLine {
    /// Reads a line of the iris API: `2026-01-05T10:30:00.123456Z [stdout] text`. `None` for any other.
    pub fn parse(line: &[u8]) -> Option<Self> {
        let end = memchr::memchr(b' ', line)?;
        let at = std::str::from_utf8(&line[..end]).ok()?.parse().ok()?;
        let rest = line[end..].strip_prefix(b" [")?;
        let (name, text) = rest.split_at(memchr::memchr(b']', rest)?);
        let stream = [LogStream::Stdout, LogStream::Stderr]
            .into_iter()
            .find(|stream| stream.word().as_bytes() == name)?;
        let text = text.strip_prefix(b"] ")?;
        Some(Self {
            at,
            stream,
            text: String::from_utf8_lossy(text).into_owned(),
        })
    }
}

/// A service's output streams.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize, schemars::JsonSchema,
)]
#[serde(rename_all = "lowercase")]
pub enum LogStream {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

impl LogStream {
    /// Its name, in files and on the wire.
    pub fn word(self) -> &'static str {
        match self {
            Self::Stdout => "stdout",
            Self::Stderr => "stderr",
        }
    }
}
