//! The steps by which a batch of output gets from a service's pipe into its log, exactly once even if
//! this process is killed between or within any two of them.
//!
//! 1. journal: *fill*; bytes move from the pipe into the stage.
//! 2. They are read from the stage, which keeps them.
//! 3. journal: *write*, with the size of the file; they are appended.
//! 4. journal: *drain*; they leave the stage.
//!
//! Who comes next goes on with what the stage holds after *fill*, cuts the file back and appends again
//! after *write*, with the same time, and empties the stage after *drain*.

use std::collections::HashMap;
use std::io;
use std::os::fd::BorrowedFd;
use std::path::{Path, PathBuf};

use jiff::Timestamp;

use super::CHUNK;
use super::file::Log;
use super::format::{self, Text};
use super::journal::{Entry, Journal, Whose};
use super::os::{Kept, Stage};
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
            Entry::Fill(whose) => _ = self.carry(whose, &mut |_| {})?,
            Entry::Write {
                whose,
                size,
                take,
                at,
                lost,
            } => {
                self.last = at;
                let log = self.log(&whose.name);
                log.lost = lost;
                // On a full disk it may not be mended; then its batch is lost, and nothing doubled.
                if log.prepare().is_ok() {
                    log.take_back(size)?;
                }
                let whose = self.carry_piece(whose, Some(take), &mut |_| {})?;
                self.carry(whose, &mut |_| {})?;
            }
            Entry::Drain { whose, left } => {
                self.empty(left)?;
                self.carry(whose, &mut |_| {})?;
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
        self.empty(0)?;
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
        let mut length = 0;
        let mut look = |bytes: &[u8]| {
            length += bytes.len() as u64;
            seen(bytes);
        };
        let open = self.carry(whose, &mut look)?;
        Ok(Taken::Bytes { length, open })
    }

    /// Carries what the stage holds. Says whether a line stands open after it.
    fn carry(&mut self, mut whose: Whose, seen: &mut dyn FnMut(&[u8])) -> io::Result<bool> {
        while self.stage.len()? > 0 {
            whose = self.carry_piece(whose, None, seen)?;
        }
        Ok(whose.continues)
    }

    /// Whether a line stands open after a batch. After one that is lost another begins: what is left of
    /// it is not put together with the beginning of another.
    fn stands_open(&self, name: &ServiceName, bytes: &[u8]) -> bool {
        bytes.last() != Some(&b'\n') && self.trouble(name).is_none()
    }

    /// Carries as much of it as is copied at once, which is nearly always all, and returns how the
    /// rest is to be labelled. `again` is how much it was when it was first tried.
    fn carry_piece(
        &mut self,
        whose: Whose,
        again: Option<u64>,
        seen: &mut dyn FnMut(&[u8]),
    ) -> io::Result<Whose> {
        step!(self);
        let most = again.map_or(CHUNK, |take| CHUNK.min(take as usize));
        let taken = self.stage.peek(&mut self.chunk[..most])?;
        let held = self.stage.len()?;
        if taken == 0 && held > 0 {
            return Err(io::Error::other("the stage cannot be read"));
        }
        let left = held.saturating_sub(taken) as u64;
        let chunk = std::mem::take(&mut self.chunk);
        seen(&chunk[..taken]);
        let at = match again {
            Some(_) => self.last,
            None => self.now(),
        };
        let written = self.write(&whose, at, &chunk[..taken]);
        self.chunk = chunk;
        written?;
        let after = Whose {
            continues: self.stands_open(&whose.name, &self.chunk[..taken]),
            ..whose
        };
        step!(self);
        self.put(&Entry::Drain {
            whose: after.clone(),
            left,
        })?;
        self.empty(left)?;
        Ok(after)
    }

    /// Appends one batch. Where that cannot be done its bytes are lost, which is noted.
    fn write(&mut self, whose: &Whose, at: Timestamp, bytes: &[u8]) -> io::Result<()> {
        let (take, lost) = (bytes.len() as u64, self.lost(&whose.name));
        let log = self.log(&whose.name);
        let size = match log.prepare() {
            Ok(size) => size,
            Err(error) => {
                log.lose(take, &error);
                return Ok(());
            }
        };
        step!(self);
        let write = Entry::Write {
            whose: whose.clone(),
            size,
            take,
            at,
            lost,
        };
        self.put(&write)?;
        step!(self);
        let appended = self.append(whose, at, bytes, lost);
        #[cfg(test)]
        self.mortal.check()?;
        let log = self.log(&whose.name);
        match appended {
            Ok(()) => (log.lost, log.trouble) = (0, None),
            Err(error) => {
                if let Err(error) = log.take_back(size) {
                    tracing::warn!(service = %whose.name, %error, "half a batch stays in its log");
                }
                log.lose(take, &error);
            }
        }
        Ok(())
    }

    fn append(&mut self, whose: &Whose, at: Timestamp, bytes: &[u8], lost: u64) -> io::Result<()> {
        let mut out = std::mem::take(&mut self.out);
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
        #[cfg(test)]
        let mortal = &mut self.mortal;
        let mut sink = |records: &[u8]| {
            #[cfg(test)]
            if mortal.dies_next() {
                log.append(&records[..records.len() / 2])?;
            }
            #[cfg(test)]
            mortal.step()?;
            log.append(records)
        };
        let written = notice
            .write(&mut out, &mut sink)
            .and_then(|()| text.write(&mut out, &mut sink));
        self.out = out;
        written
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
    fn empty(&mut self, left: u64) -> io::Result<()> {
        step!(self);
        loop {
            let length = (self.stage.len()? as u64).saturating_sub(left);
            let length = CHUNK.min(length as usize);
            if length == 0 {
                return Ok(());
            }
            self.stage.drain(&mut self.chunk[..length])?;
        }
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
        let dir = &self.dir;
        let new = || Log::new(dir, name);
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
