//! What a command writes, kept for those who read it, now or later.
//!
//! Nothing is lost for a reader that is there: the command waits for the slowest. Without readers the last
//! [`KEPT`] bytes are kept.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use axum::body::Bytes;
use tokio::sync::watch;

use crate::platforms::LogStream;

/// So many bytes are kept, and a little more.
const KEPT: usize = 256 << 10;

/// A piece of output.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Piece {
    /// Standard output for everything on a terminal.
    pub stream: LogStream,
    /// As it was written.
    pub bytes: Bytes,
}

/// What a reader hears.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// It wrote something.
    Output(Piece),
    /// It has ended, with this code; everything was told.
    Exit(i32),
}

#[derive(Default)]
struct State {
    pieces: VecDeque<Piece>,
    /// The number of the first of `pieces`, counted from the beginning.
    first: u64,
    bytes: usize,
    /// The next piece of each reader.
    readers: BTreeMap<u64, u64>,
    last_reader: u64,
    exit: Option<i32>,
}

/// The output of one command.
pub(super) struct Backlog {
    state: Mutex<State>,
    /// Counts the changes.
    changed: watch::Sender<u64>,
}

impl Backlog {
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Self {
            state: Mutex::default(),
            changed: watch::Sender::new(0),
        })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Whole after every statement, so a panic elsewhere cannot have torn it.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn tell(&self) {
        self.changed.send_modify(|count| *count += 1);
    }

    /// Adds a piece once there is room for it.
    pub(super) async fn add(&self, piece: Piece) {
        let mut changed = self.changed.subscribe();
        loop {
            changed.mark_unchanged();
            if self.has_room() {
                break;
            }
            // The sender lives as long as `self`.
            let _ = changed.changed().await;
        }
        let mut state = self.state();
        state.bytes += piece.bytes.len();
        state.pieces.push_back(piece);
        drop(state);
        self.tell();
    }

    /// Whether there is room, once what nobody waits for is forgotten.
    fn has_room(&self) -> bool {
        let mut state = self.state();
        let awaited = state.readers.values().copied().min().unwrap_or(u64::MAX);
        while state.bytes > KEPT && state.first < awaited {
            let Some(piece) = state.pieces.pop_front() else {
                break;
            };
            state.bytes -= piece.bytes.len();
            state.first += 1;
        }
        state.bytes <= KEPT
    }

    /// Tells readers the end.
    pub(super) fn end(&self, code: i32) {
        self.state().exit = Some(code);
        self.tell();
    }

    /// The exit code, if it has ended.
    pub(super) fn exit(&self) -> Option<i32> {
        self.state().exit
    }

    /// Returns with the exit code.
    pub(super) async fn ended(&self) -> i32 {
        let mut changed = self.changed.subscribe();
        loop {
            changed.mark_unchanged();
            if let Some(code) = self.exit() {
                return code;
            }
            // The sender lives as long as `self`.
            let _ = changed.changed().await;
        }
    }

    /// Returns when nobody reads any more.
    pub(super) async fn left_alone(&self) {
        let mut changed = self.changed.subscribe();
        // As above.
        let _ = changed.wait_for(|_| self.state().readers.is_empty()).await;
    }

    /// Returns when somebody reads.
    pub(super) async fn read_again(&self) {
        let mut changed = self.changed.subscribe();
        // As above.
        let _ = changed.wait_for(|_| !self.state().readers.is_empty()).await;
    }

    /// Reads from the first piece that is kept.
    pub(super) fn reader(self: &Arc<Self>) -> Reader {
        let mut state = self.state();
        state.last_reader += 1;
        let (number, next) = (state.last_reader, state.first);
        state.readers.insert(number, next);
        drop(state);
        self.tell();
        Reader {
            backlog: self.clone(),
            changed: self.changed.subscribe(),
            number,
        }
    }
}

/// Reads the output of a command.
pub struct Reader {
    backlog: Arc<Backlog>,
    changed: watch::Receiver<u64>,
    number: u64,
}

impl Reader {
    /// The next event; after [`Event::Exit`] it is that again. Cancel-safe.
    pub async fn next(&mut self) -> Event {
        loop {
            self.changed.mark_unchanged();
            if let Some(event) = self.take() {
                return event;
            }
            // The sender lives as long as the backlog.
            let _ = self.changed.changed().await;
        }
    }

    /// The next piece, if it is there already and `wanted`.
    pub fn take_if(&mut self, wanted: impl FnOnce(&Piece) -> bool) -> Option<Piece> {
        let mut state = self.backlog.state();
        let next = *state.readers.get(&self.number)?;
        let index = usize::try_from(next - state.first).ok()?;
        let piece = state
            .pieces
            .get(index)
            .filter(|piece| wanted(piece))
            .cloned()?;
        state.readers.insert(self.number, next + 1);
        drop(state);
        self.backlog.tell();
        Some(piece)
    }

    fn take(&mut self) -> Option<Event> {
        // In this order: nothing is written after the end.
        let exit = self.backlog.exit();
        let piece = self.take_if(|_| true).map(Event::Output);
        piece.or(exit.map(Event::Exit))
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        self.backlog.state().readers.remove(&self.number);
        self.backlog.tell();
    }
}
