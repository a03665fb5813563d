//! Holds every process of a sandbox still while its files are copied.
//!
//! What is stopped is written down first, so that the next supervisor can let it go on should this one
//! die. A process that somebody else has stopped stays stopped.

use std::collections::BTreeSet;
use std::io;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use rustix::process::{Signal, kill_process};
use serde::{Deserialize, Serialize};

use super::processes;
use super::store::write_durably;
use crate::keeper::number;
use crate::supervisor::os;
use crate::supervisor::store::Store;

/// How long a process may take to stop: one that waits for a disk does not stop before it has an answer.
const LIMIT: Duration = Duration::from_secs(5);

/// How often it is looked whether it has: the kernel tells nobody but the parent.
const LOOK: Duration = Duration::from_millis(1);

/// A process, for good: its number may change hands, not together with its start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
struct Held {
    pid: u32,
    start_time: u64,
}

#[derive(Debug, Default, Serialize, Deserialize)]
struct Note {
    boot_id: String,
    held: BTreeSet<Held>,
}

/// Processes that are held; they go on when this is dropped.
#[derive(Debug)]
pub(super) struct Frozen {
    path: PathBuf,
    note: Note,
}

fn path(store: &Store) -> PathBuf {
    store.dir().join("frozen.json")
}

impl Frozen {
    /// Stops the processes of these sessions, and everything else that the keeper has
    /// executed, but for this process. The keeper is told by its number, and whether its children are in
    /// namespaces of their own.
    /// Returns when they have stopped; `None` where this system cannot tell which they are.
    pub(super) fn freeze(
        store: &Store,
        keeper: (u32, bool),
        sessions: &BTreeSet<u32>,
    ) -> io::Result<Option<Self>> {
        let mut frozen = Self {
            path: path(store),
            note: Note {
                boot_id: os::boot_id()?,
                held: BTreeSet::new(),
            },
        };
        let own = std::process::id();
        // Again until nobody is left who could have started another one.
        loop {
            let Some(members) = processes::members(keeper, own, sessions)? else {
                return Ok(None);
            };
            let found = members
                .into_iter()
                .filter_map(|(pid, start_time, stopped)| {
                    let held = Held { pid, start_time };
                    (!stopped && !frozen.note.held.contains(&held)).then_some(held)
                });
            let found: BTreeSet<Held> = found.collect();
            if found.is_empty() {
                break;
            }
            frozen.note.held.extend(&found);
            write_durably(&frozen.path, &frozen.note)?;
            for held in &found {
                held.signal(Signal::STOP);
            }
        }
        let deadline = Instant::now() + LIMIT;
        for held in &frozen.note.held {
            while processes::runs(held.pid, held.start_time) {
                if Instant::now() > deadline {
                    let text = format!("process {} cannot be held still", held.pid);
                    return Err(io::Error::new(io::ErrorKind::TimedOut, text));
                }
                std::thread::sleep(LOOK);
            }
        }
        Ok(Some(frozen))
    }
}

impl Drop for Frozen {
    fn drop(&mut self) {
        self.note.thaw();
        if let Err(error) = std::fs::remove_file(&self.path)
            && error.kind() != io::ErrorKind::NotFound
        {
            tracing::warn!(%error, "a note of what was held stays");
        }
    }
}

impl Note {
    fn thaw(&self) {
        for held in &self.held {
            held.signal(Signal::CONT);
        }
    }
}

impl Held {
    fn signal(self, signal: Signal) {
        let pid = number(self.pid);
        if let Some(pid) = pid.filter(|_| os::start_time(self.pid) == Some(self.start_time)) {
            // One that has ended meanwhile does nothing any more either.
            let _ = kill_process(pid, signal);
        }
    }
}

/// Lets go what a supervisor that died has held.
pub(super) fn recover(store: &Store) -> io::Result<()> {
    let path = path(store);
    let text = match std::fs::read(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        other => other?,
    };
    let note: Note = serde_json::from_slice(&text)?;
    if os::boot_id().is_ok_and(|boot_id| boot_id == note.boot_id) {
        tracing::warn!("lets go on what was held for a checkpoint");
        note.thaw();
    }
    std::fs::remove_file(path)
}
