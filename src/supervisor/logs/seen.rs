//! Looks for a text in what a service writes, over the borders of batches too.

use tokio::sync::watch;

use crate::platforms::{LogLine, LogStream};

/// A search that is going on.
#[derive(Debug)]
pub(super) struct Search {
    text: Vec<u8>,
    /// What of each stream may be the beginning of the text.
    tails: [Vec<u8>; 2],
    seen: watch::Sender<bool>,
}

impl Search {
    /// `seen` is told when it is found.
    pub(super) fn new(text: String, seen: watch::Sender<bool>) -> Self {
        let (text, tails) = (text.into_bytes(), Default::default());
        Self { text, tails, seen }
    }

    /// Whether it was found.
    pub(super) fn is_over(&self) -> bool {
        *self.seen.borrow()
    }

    /// Looks at the next bytes of a stream.
    pub(super) fn bytes(&mut self, stream: LogStream, bytes: &[u8]) {
        let tail = &mut self.tails[stream as usize];
        let most = self.text.len().saturating_sub(1);
        tail.extend_from_slice(&bytes[..bytes.len().min(most)]);
        let contains = |bytes: &[u8]| memchr::memmem::find(bytes, &self.text).is_some();
        if contains(tail) || contains(bytes) {
            self.seen.send_replace(true);
        }
        if bytes.len() > most {
            tail.clear();
            tail.extend_from_slice(&bytes[bytes.len() - most..]);
        } else {
            tail.drain(..tail.len().saturating_sub(most));
        }
    }

    /// Looks at a line that stands in the log already.
    pub(super) fn line(&mut self, line: &LogLine, ended: bool) {
        self.bytes(line.stream, line.text.as_bytes());
        if ended {
            self.bytes(line.stream, b"\n");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_found_wherever_it_is_cut() {
        let text = "server: ready on port";
        for parts in 1..text.len() {
            let (seen, sees) = watch::channel(false);
            let mut search = Search::new("ready".into(), seen);
            search.bytes(LogStream::Stderr, b"rea");
            for (index, part) in text.as_bytes().chunks(parts).enumerate() {
                search.bytes(LogStream::Stdout, part);
                let shown = &text[..text.len().min((index + 1) * parts)];
                assert_eq!(*sees.borrow(), shown.contains("ready"), "{parts}");
            }
            assert!(search.is_over());
        }
        let (seen, _sees) = watch::channel(false);
        let mut search = Search::new("ready".into(), seen);
        search.bytes(LogStream::Stdout, b"rea\n");
        search.bytes(LogStream::Stdout, b"dy\n");
        assert!(!search.is_over());
    }
}
