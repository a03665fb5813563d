//! The steps by which a batch of output gets from a service's pipe into its log, exactly once even if
//! this process is killed between or within any two of them.
//!
//! 1. journal: *fill*; bytes move from the pipe into the stage.
//! 2. They are read from the stage, which keeps them.
//! 3. journal: *write*, with the size of the file; they are appended, in one piece.
//! 4. They leave the stage.
//!
//! Who comes next goes on with what the stage holds after *fill*. After *write* it cuts the file back and
//! appends again, with the same time, as long as the stage holds all of the batch; where it does not
//! they have begun to leave it, and it is emptied. What cannot be written leaves it after *drain*.

use std::collections::HashMap;
use std::io;
use std::os::fd::BorrowedFd;
use std::path::{Path, PathBuf};

use jiff::Timestamp;

use super::file::Log;
use super::format::{self, Text};
use super::journal::{Entry, Journal, Whose};
use super::os::{Kept, Stage};
use super::{CHUNK, LIMIT};
use crate::model::ServiceName;
use crate::platforms::LogStream;

/// What a turn of one stream came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Taken {
    /// Nothing for now.
    Nothing,
    /// Nothing any more.
    End,
    /// So many; whether a line stands open after them.
    Bytes { length: u64, open: bool },
}

/// Carries batches, one at a time.
#[derive(Debug)]
pub(super) struct Carrier {
    dir: PathBuf,
    stage: Stage,
    journal: Journal,
    logs: HashMap<ServiceName, Log>,
    /// The size in bytes at which a log file is put aside.
    limit: u64,
    /// The most bytes that are copied out of the stage at once.
    piece: usize,
    chunk: Box<[u8]>,
    out: Vec<u8>,
    /// The time of the last batch: times in a log do not go back when the clock does.
    last: Timestamp,
    #[cfg(test)]
    pub mortal: tests::Mortal,
}

/// Stands where the tests let the process die: before each step.
macro_rules! step {
    ($carrier:expr) => {
        #[cfg(test)]
        $carrier.mortal.step()?;
    };
}

impl Carrier {
    /// Nothing is done yet about what was begun: [`Carrier::recover`] has to be called first.
    pub(super) fn new(dir: &Path, kept: Kept) -> io::Result<Self> {
        Ok(Self {
            dir: dir.to_owned(),
            stage: Stage::new(kept.stage)?,
            journal: Journal::new(kept.journal),
            logs: HashMap::new(),
            limit: LIMIT,
            piece: CHUNK,
            chunk: vec![0; CHUNK].into_boxed_slice(),
            out: Vec::new(),
            last: Timestamp::UNIX_EPOCH,
            #[cfg(test)]
            mortal: tests::Mortal::default(),
        })
    }

    /// Finishes what the journal says was begun.
    pub(super) fn recover(&mut self) -> io::Result<()> {
        match self.journal.get()? {
            Entry::Idle => {}
            Entry::Fill(whose) => {
                let held = self.stage.len()?;
                self.carry(whose, held, &mut |_| {})?;
            }
            Entry::Write {
                whose,
                size,
                take,
                left,
                at,
                lost,
            } if self.stage.len()? as u64 >= take + u64::from(left) => {
                self.last = at;
                let log = self.log(&whose.name);
                log.lost = lost;
                // On a full disk it may not be mended; then its batch is lost, and nothing doubled.
                if log.prepare().is_ok() {
                    log.take_back(size)?;
                }
                let held = self.stage.len()?;
                let (whose, held) = self.carry_piece(whose, held, Some(take), &mut |_| {})?;
                self.carry(whose, held, &mut |_| {})?;
            }
            Entry::Write {
                whose, left, at, ..
            } => {
                self.last = at;
                let whose = Whose {
                    continues: true,
                    ..whose
                };
                self.give_up(left as usize)?;
                self.carry(whose, left as usize, &mut |_| {})?;
            }
            Entry::Drain { whose, left } => {
                let left = left as usize;
                self.give_up(left)?;
                self.carry(whose, left, &mut |_| {})?;
            }
            Entry::Own { name, size } => {
                let log = self.log(&name);
                // On a full disk it may not be mended; then its batch is lost, and nothing doubled.
                if log.prepare().is_ok() {
                    log.take_back(size)?;
                }
            }
        }
        self.logs.clear();
        self.put(&Entry::Idle)
    }

    /// Gives up what the journal says was begun.
    pub(super) fn abandon(&mut self) -> io::Result<()> {
        self.logs.clear();
        self.give_up(0)?;
        self.put(&Entry::Idle)
    }

    /// Takes one batch from `source`. `seen` is shown its bytes.
    pub(super) fn take(
        &mut self,
        source: BorrowedFd<'_>,
        whose: Whose,
        most: usize,
        seen: &mut dyn FnMut(&[u8]),
    ) -> io::Result<Taken> {
        step!(self);
        self.put(&Entry::Fill(whose.clone()))?;
        step!(self);
        let most = most.min(CHUNK);
        match self.stage.fill(source, &mut self.chunk[..most]) {
            Ok(0) => return Ok(Taken::End),
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(Taken::Nothing),
            Err(error) => return Err(error),
        }
        // All of it, should something have been left there.
        let held = self.stage.len()?;
        let open = self.carry(whose, held, seen)?;
        let length = held as u64;
        Ok(Taken::Bytes { length, open })
    }

    /// Carries the bytes that the stage holds. Says whether a line stands open after them.
    fn carry(
        &mut self,
        mut whose: Whose,
        mut held: usize,
        seen: &mut dyn FnMut(&[u8]),
    ) -> io::Result<bool> {
        while held > 0 {
            (whose, held) = self.carry_piece(whose, held, None, seen)?;
        }
        Ok(whose.continues)
    }

    /// Whether a line stands open after a batch. After one that is lost another begins: what is left of
    /// it is not put together with the beginning of another.
    fn stands_open(&self, name: &ServiceName, bytes: &[u8]) -> bool {
        bytes.last() != Some(&b'\n') && self.trouble(name).is_none()
    }

    /// Carries as many of the bytes `held` as are copied at once, which is nearly always all, and returns
    /// how the rest is to be labelled and how much it is. `again` is how much it was when it was first
    /// tried.
    fn carry_piece(
        &mut self,
        whose: Whose,
        held: usize,
        again: Option<u64>,
        seen: &mut dyn FnMut(&[u8]),
    ) -> io::Result<(Whose, usize)> {
        step!(self);
        let most = again.map_or(self.piece, |take| CHUNK.min(take as usize));
        let taken = self.stage.peek(&mut self.chunk[..most])?;
        if taken == 0 {
            return Err(io::Error::other("the stage cannot be read"));
        }
        let left = held.saturating_sub(taken);
        let chunk = std::mem::take(&mut self.chunk);
        seen(&chunk[..taken]);
        let at = match again {
            Some(_) => self.last,
            None => self.now(),
        };
        let written = self.write(&whose, at, &chunk[..taken], left);
        self.chunk = chunk;
        let written = written?;
        let after = Whose {
            continues: self.stands_open(&whose.name, &self.chunk[..taken]),
            ..whose
        };
        if !written {
            step!(self);
            self.put(&Entry::Drain {
                whose: after.clone(),
                left: left as u64,
            })?;
        }
        self.empty(taken)?;
        Ok((after, left))
    }

    /// Appends one batch, with so much behind it in the stage. Where that cannot be done its bytes are
    /// lost, which is noted. Says whether it was done.
    fn write(
        &mut self,
        whose: &Whose,
        at: Timestamp,
        bytes: &[u8],
        left: usize,
    ) -> io::Result<bool> {
        let (take, lost) = (bytes.len() as u64, self.lost(&whose.name));
        let log = self.log(&whose.name);
        let size = match log.prepare() {
            Ok(size) => size,
            Err(error) => {
                log.lose(take, &error);
                return Ok(false);
            }
        };
        step!(self);
        let write = Entry::Write {
            whose: whose.clone(),
            size,
            take,
            left: u32::try_from(left).unwrap_or(u32::MAX),
            at,
            lost,
        };
        self.put(&write)?;
        step!(self);
        let appended = self.append(whose, at, bytes, lost);
        #[cfg(test)]
        self.mortal.check()?;
        let log = self.log(&whose.name);
        match &appended {
            Ok(()) => (log.lost, log.trouble) = (0, None),
            Err(error) => {
                if let Err(error) = log.take_back(size) {
                    tracing::warn!(service = %whose.name, %error, "half a batch stays in its log");
                }
                log.lose(take, error);
            }
        }
        Ok(appended.is_ok())
    }

    fn append(&mut self, whose: &Whose, at: Timestamp, bytes: &[u8], lost: u64) -> io::Result<()> {
        let Some(log) = self.logs.get_mut(&whose.name) else {
            return Ok(());
        };
        let notice = (lost > 0).then(|| {
            let why = log
                .trouble
                .as_deref()
                .unwrap_or("the log could not be written");
            format!("gabion: {lost} bytes of output are lost: {why}\n")
        });
        let notice = Text {
            at,
            stream: LogStream::Stderr,
            continues: false,
            bytes: notice.as_deref().unwrap_or_default().as_bytes(),
        };
        let text = Text {
            at,
            stream: whose.stream,
            continues: whose.continues,
            bytes,
        };
        self.out.clear();
        notice.write(&mut self.out);
        text.write(&mut self.out);
        #[cfg(test)]
        {
            if self.mortal.dies_next() {
                log.append(&self.out[..self.out.len() / 2])?;
            }
            self.mortal.step()?;
        }
        log.append(&self.out)
    }

    /// Ends the line that stands open in a stream whose process has ended, and tells of what was lost.
    pub(super) fn end_line(&mut self, whose: &Whose) -> io::Result<()> {
        step!(self);
        let at = self.now();
        let lost = self.lost(&whose.name);
        if !whose.continues && lost == 0 {
            return Ok(());
        }
        let log = self.log(&whose.name);
        let size = log.prepare()?;
        self.put(&Entry::Own {
            name: whose.name.clone(),
            size,
        })?;
        step!(self);
        let mut ended = self.append(whose, at, b"", lost);
        let log = self.log(&whose.name);
        if ended.is_ok() && whose.continues {
            ended = log.append(format::end(at, whose.stream).as_bytes());
        }
        match &ended {
            Ok(()) => (log.lost, log.trouble) = (0, None),
            Err(_) => log.take_back(size)?,
        }
        step!(self);
        self.put(&Entry::Idle)?;
        ended
    }

    /// Empties the stage down to its last `left` bytes.
    fn give_up(&mut self, left: usize) -> io::Result<()> {
        let length = self.stage.len()?.saturating_sub(left);
        self.empty(length)
    }

    /// Takes the first bytes out of the stage.
    fn empty(&mut self, mut length: usize) -> io::Result<()> {
        #[cfg(test)]
        if self.mortal.dies_next() {
            self.stage.drain(&mut self.chunk[..length / 2])?;
        }
        step!(self);
        while length > 0 {
            let now = CHUNK.min(length);
            self.stage.drain(&mut self.chunk[..now])?;
            length -= now;
        }
        Ok(())
    }

    fn put(&self, entry: &Entry) -> io::Result<()> {
        self.journal.put(entry)
    }

    fn now(&mut self) -> Timestamp {
        self.last = self.last.max(format::now());
        self.last
    }

    /// Opens a log before there is anything to write.
    pub(super) fn open(&mut self, name: &ServiceName) {
        let log = self.log(name);
        if let Err(error) = log.prepare() {
            log.lose(0, &error);
        }
    }

    fn log(&mut self, name: &ServiceName) -> &mut Log {
        let (dir, limit) = (&self.dir, self.limit);
        let new = || Log::new(dir, name).with_limit(limit);
        self.logs.entry(name.clone()).or_insert_with(new)
    }

    /// Closes a log.
    pub(super) fn forget(&mut self, name: &ServiceName) {
        self.logs.remove(name);
    }

    fn lost(&self, name: &ServiceName) -> u64 {
        self.logs.get(name).map_or(0, |log| log.lost)
    }

    /// Why the output of a service is being lost, if it is.
    pub(super) fn trouble(&self, name: &ServiceName) -> Option<String> {
        self.logs.get(name)?.trouble.clone()
    }
}

#[cfg(test)]
#[path = "batch_tests.rs"]
mod tests;
