//! The output of a command over HTTP: each chunk of the answer is a frame, whose first byte says what
//! it is (protocol page sprites, §5).

use std::collections::VecDeque;

use bytes::Bytes;

use crate::platforms::cloud::http::{Blocks, HttpError};
use crate::platforms::{LogStream, PlatformError, Result};

const STDOUT: u8 = 1;
const STDERR: u8 = 2;
const EXIT: u8 = 3;

/// A piece of what a command has to say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Frame {
    /// It wrote this.
    Output(LogStream, Bytes),
    /// It has ended with this code. The last frame.
    Exit(i32),
}

/// The frames of one command.
pub(super) struct Frames {
    blocks: Blocks,
    reader: Reader,
}

/// What is known between two blocks.
#[derive(Debug, Default)]
struct Reader {
    /// The stream that the last block was of.
    stream: Option<LogStream>,
    /// The byte that tells of the end has come, and its code has not.
    ending: bool,
    ready: VecDeque<Frame>,
}

impl Frames {
    pub fn new(blocks: Blocks) -> Self {
        Self {
            blocks,
            reader: Reader::default(),
        }
    }

    /// The next frame; `None` if the answer ended without an exit code.
    pub async fn next(&mut self) -> Result<Option<Frame>> {
        loop {
            if let Some(frame) = self.reader.ready.pop_front() {
                return Ok(Some(frame));
            }
            match self.blocks.next().await.map_err(PlatformError::from)? {
                Some(block) => self.reader.take(block).map_err(PlatformError::new)?,
                None => return Ok(None),
            }
        }
    }

    /// Everything it writes to its standard output, up to `longest` bytes, and its exit code.
    pub async fn collect(mut self, longest: usize) -> Result<(Option<i32>, String), HttpError> {
        let mut output = Vec::new();
        loop {
            while let Some(frame) = self.reader.ready.pop_front() {
                match frame {
                    Frame::Output(LogStream::Stdout, bytes) if output.len() < longest => {
                        output.extend_from_slice(&bytes);
                    }
                    Frame::Output(..) => {}
                    Frame::Exit(code) => {
                        let text = String::from_utf8_lossy(&output).into_owned();
                        return Ok((Some(code), text));
                    }
                }
            }
            let Some(block) = self.blocks.next().await? else {
                return Ok((None, String::from_utf8_lossy(&output).into_owned()));
            };
            if self.reader.take(block).is_err() {
                return Ok((None, String::new()));
            }
        }
    }
}

impl Reader {
    /// A long chunk comes in several blocks, and only the first of them begins with a byte that says
    /// what it is. In text that byte cannot be mistaken.
    fn take(&mut self, block: Bytes) -> std::result::Result<(), String> {
        let Some(first) = block.first().copied() else {
            return Ok(());
        };
        if self.ending {
            self.ending = false;
            self.ready.push_back(Frame::Exit(i32::from(first)));
            return Ok(());
        }
        match (first, self.stream) {
            (STDOUT, _) => self.output(LogStream::Stdout, block.slice(1..)),
            (STDERR, _) => self.output(LogStream::Stderr, block.slice(1..)),
            (EXIT, _) => match block.get(1) {
                Some(code) => self.ready.push_back(Frame::Exit(i32::from(*code))),
                None => self.ending = true,
            },
            (_, Some(stream)) => self.output(stream, block),
            (other, None) => {
                return Err(format!(
                    "the output of the command cannot be understood: it begins with byte {other}; \
                     is there a proxy in between?"
                ));
            }
        }
        Ok(())
    }

    fn output(&mut self, stream: LogStream, bytes: Bytes) {
        self.stream = Some(stream);
        if !bytes.is_empty() {
            self.ready.push_back(Frame::Output(stream, bytes));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(blocks: &[&'static [u8]]) -> std::result::Result<Vec<Frame>, String> {
        let mut reader = Reader::default();
        for block in blocks {
            reader.take(Bytes::from_static(block))?;
        }
        Ok(reader.ready.into())
    }

    #[test]
    fn blocks_are_frames_or_parts_of_them() {
        let out = |text: &'static str| Frame::Output(LogStream::Stdout, text.into());
        let err = |text: &'static str| Frame::Output(LogStream::Stderr, text.into());
        for (blocks, frames) in [
            (
                vec![&b"\x01hi\n"[..], b"\x03\x00"],
                vec![out("hi\n"), Frame::Exit(0)],
            ),
            (
                vec![
                    b"\x01a long",
                    b" line\n",
                    b"\x02oops",
                    b"!",
                    b"\x03",
                    b"\x03",
                ],
                vec![
                    out("a long"),
                    out(" line\n"),
                    err("oops"),
                    err("!"),
                    Frame::Exit(3),
                ],
            ),
            (
                vec![b"\x01", b"later", b"", b"\x03\x8f"],
                vec![out("later"), Frame::Exit(143)],
            ),
        ] {
            assert_eq!(read(&blocks).unwrap(), frames);
        }
        assert!(
            read(&[b"<html>"])
                .unwrap_err()
                .contains("begins with byte 60")
        );
    }
}
