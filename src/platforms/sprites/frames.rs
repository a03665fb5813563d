//! What a command and whoever runs it say to each other (protocol page sprites, §5): frames, whose first byte
//! says what they are. Over a WebSocket each message is one; over HTTP each chunk of the answer is.

use std::collections::VecDeque;

use bytes::Bytes;

use crate::platforms::cloud::http::{Blocks, HttpError};
use crate::platforms::{LogStream, PlatformError, Result};

const STDIN: u8 = 0;
const STDOUT: u8 = 1;
const STDERR: u8 = 2;
const EXIT: u8 = 3;
const STDIN_EOF: u8 = 4;

/// A piece of what a command has to say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Frame {
    /// It wrote this.
    Output(LogStream, Bytes),
    /// It has ended with this code. The last frame.
    Exit(i32),
}

impl Frame {
    /// Reads a message; `None` for an empty one.
    pub fn of(message: &Bytes) -> std::result::Result<Option<Self>, String> {
        let rest = || message.slice(1..);
        match (message.first().copied(), message.get(1).copied()) {
            (None, _) => Ok(None),
            (Some(STDOUT), _) => Ok(Some(Self::Output(LogStream::Stdout, rest()))),
            (Some(STDERR), _) => Ok(Some(Self::Output(LogStream::Stderr, rest()))),
            (Some(EXIT), Some(code)) => Ok(Some(Self::Exit(i32::from(code)))),
            (Some(other), _) => Err(not_understood(other)),
        }
    }
}

/// Some of what a command reads.
pub(super) fn input(bytes: &[u8]) -> Bytes {
    [&[STDIN], bytes].concat().into()
}

/// The end of that.
pub(super) fn end_of_input() -> Bytes {
    Bytes::from_static(&[STDIN_EOF])
}

fn not_understood(first: u8) -> String {
    format!(
        "the output of the command cannot be understood: it begins with byte {first}; is there a proxy in between?"
    )
}

/// The frames of one command over HTTP.
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
    /// what it is. In text that byte cannot be mistaken; what may be anything else goes over a WebSocket.
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
                return Err(not_understood(other));
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

    #[test]
    fn messages_are_whole_frames() {
        let of = |message: &'static [u8]| Frame::of(&Bytes::from_static(message));
        let bytes = Bytes::from_static(b"\x03\x00");
        assert_eq!(
            of(b"\x01\x03\x00"),
            Ok(Some(Frame::Output(LogStream::Stdout, bytes)))
        );
        assert_eq!(of(b"\x03\x07"), Ok(Some(Frame::Exit(7))));
        assert_eq!(of(b""), Ok(None));
        for message in [&b"\x03"[..], b"hello"] {
            assert!(of(message).unwrap_err().contains("cannot be understood"));
        }
    }
}
