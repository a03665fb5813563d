//! How far the batch in hand has come, in a file of memory that outlives this process. It protects
//! from the death of the process, not from that of the machine: the order of system calls is enough.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;

use jiff::Timestamp;

use crate::model::ServiceName;
use crate::platforms::LogStream;

/// The size of the one record. Less than a page, so it is written whole or not at all.
const SIZE: usize = 128;

/// One stream of one service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Whose {
    pub name: ServiceName,
    pub stream: LogStream,
    /// Whether a line of it may stand open before the batch.
    pub continues: bool,
}

/// What was begun.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Entry {
    /// Nothing.
    Idle,
    /// What the stage holds, if anything, is of this stream.
    Fill(Whose),
    /// The first `take` bytes of the stage are being appended to a file of `size` bytes, and leave it
    /// once they are: if it holds less than these and the `left` behind them, they stand in the file.
    Write {
        whose: Whose,
        size: u64,
        take: u64,
        left: u32,
        at: Timestamp,
        lost: u64,
    },
    /// Bytes are given up: the stage is being emptied down to `left` bytes of the same stream.
    Drain { whose: Whose, left: u64 },
    /// A line of our own is being appended to a file of `size` bytes.
    Own { name: ServiceName, size: u64 },
}

/// The file.
#[derive(Debug)]
pub(super) struct Journal(File);

impl Journal {
    pub(super) fn new(kept: OwnedFd) -> Self {
        Self(kept.into())
    }

    /// Notes what is begun now.
    pub(super) fn put(&self, entry: &Entry) -> io::Result<()> {
        self.0.write_all_at(&encode(entry), 0)
    }

    /// What was begun last; nothing if the file is new.
    pub(super) fn get(&self) -> io::Result<Entry> {
        let mut bytes = [0; SIZE];
        match self.0.read_exact_at(&mut bytes, 0) {
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(Entry::Idle),
            other => other?,
        }
        let unknown = || io::Error::new(io::ErrorKind::InvalidData, "not a journal of a log");
        decode(&bytes).ok_or_else(unknown)
    }
}

/// One byte each for kind, stream, `continues` and the length of the name; four bytes for what is left;
/// four numbers; the name.
fn encode(entry: &Entry) -> [u8; SIZE] {
    let mut behind = 0;
    let (kind, whose, numbers) = match entry {
        Entry::Idle => (0, None, [0; 4]),
        Entry::Fill(whose) => (1, Some(whose), [0; 4]),
        Entry::Write {
            whose,
            size,
            take,
            left,
            at,
            lost,
        } => {
            behind = *left;
            let at = at.as_microsecond().cast_unsigned();
            (2, Some(whose), [*size, *take, at, *lost])
        }
        Entry::Drain { whose, left } => (3, Some(whose), [*left, 0, 0, 0]),
        Entry::Own { size, .. } => (4, None, [*size, 0, 0, 0]),
    };
    let name = match entry {
        Entry::Own { name, .. } => name.as_str(),
        _ => whose.map_or("", |whose| whose.name.as_str()),
    };
    let mut bytes = [0; SIZE];
    bytes[0] = kind;
    bytes[1] = u8::from(whose.is_some_and(|whose| whose.stream == LogStream::Stderr));
    bytes[2] = u8::from(whose.is_some_and(|whose| whose.continues));
    bytes[3] = name.len() as u8;
    bytes[4..8].copy_from_slice(&behind.to_le_bytes());
    for (place, number) in bytes[8..40].chunks_exact_mut(8).zip(numbers) {
        place.copy_from_slice(&number.to_le_bytes());
    }
    // A name has at most 63 bytes.
    bytes[40..40 + name.len()].copy_from_slice(name.as_bytes());
    bytes
}

fn decode(bytes: &[u8; SIZE]) -> Option<Entry> {
    let number = |index: usize| {
        let place = bytes[8 + index * 8..].first_chunk().copied();
        u64::from_le_bytes(place.unwrap_or_default())
    };
    let name = || {
        let name = bytes[40..].get(..usize::from(bytes[3]))?;
        ServiceName::of_either(std::str::from_utf8(name).ok()?)
    };
    let whose = || {
        let stream = match bytes[1] {
            0 => LogStream::Stdout,
            _ => LogStream::Stderr,
        };
        Some(Whose {
            name: name()?,
            stream,
            continues: bytes[2] != 0,
        })
    };
    Some(match bytes[0] {
        0 => Entry::Idle,
        1 => Entry::Fill(whose()?),
        2 => Entry::Write {
            whose: whose()?,
            size: number(0),
            take: number(1),
            left: u32::from_le_bytes(bytes[4..].first_chunk().copied()?),
            at: Timestamp::from_microsecond(number(2).cast_signed()).ok()?,
            lost: number(3),
        },
        3 => Entry::Drain {
            whose: whose()?,
            left: number(0),
        },
        4 => Entry::Own {
            name: name()?,
            size: number(0),
        },
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_begun_is_read_back() {
        let journal = Journal::new(tempfile::tempfile().unwrap().into());
        assert_eq!(journal.get().unwrap(), Entry::Idle);
        let name = ServiceName::new("a".repeat(63)).unwrap();
        let whose = Whose {
            name: name.clone(),
            stream: LogStream::Stderr,
            continues: true,
        };
        let at = Timestamp::from_microsecond(1_767_609_000_120_001).unwrap();
        for entry in [
            Entry::Fill(whose.clone()),
            Entry::Write {
                whose: whose.clone(),
                size: 1,
                take: 2,
                left: u32::MAX,
                at,
                lost: 3,
            },
            Entry::Drain {
                whose,
                left: u64::MAX,
            },
            Entry::Own { name, size: 9 },
            Entry::Idle,
        ] {
            journal.put(&entry).unwrap();
            assert_eq!(journal.get().unwrap(), entry);
        }
        journal.0.write_all_at(&[9], 0).unwrap();
        assert!(journal.get().is_err());
    }
}
