//! The processes of a sandbox that are not services (protocol page miosa, §5): each has an owner as
//! a service has, but no definition on disk, and nothing observes or plans it.
//!
//! A process stays in the list when it has ended, until the supervisor ends or there are
//! [`NEWER`] newer ones.

mod client;

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures_util::future::join_all;
use serde::{Deserialize, Serialize};

use super::owner::{Await, Control, Hand, Inheritance, Origin, Owner, Refusal};
use super::sandbox::{Handle, Sandbox};
use super::store::{Record, Store};
use crate::model::{
    Condition, Secrets, ServiceGoal, ServiceKind, ServiceName, ServiceSpec, ServiceState,
};

pub use client::ProcessObject;

/// So many newer ones make one that has ended forgotten.
const NEWER: usize = 100;

/// So many may run at a time.
const RUNNING: usize = 1_000;

/// One process.
#[derive(Debug, Clone)]
pub(super) struct Entry {
    /// Its name for its log and its owner.
    pub key: ServiceName,
    /// What its starter calls it.
    pub name: Option<String>,
    /// What is executed, for people.
    pub command: String,
    /// The folder that was asked for.
    pub cwd: Option<String>,
    pub handle: Handle,
}

impl Entry {
    /// Its number, which stays its own in the list when it has ended.
    pub(super) fn pid(&self) -> Option<u32> {
        self.handle.object.borrow().pid
    }

    /// Whether it lives. One whose owner has failed does not.
    pub(super) fn is_running(&self) -> bool {
        let state = self.handle.object.borrow().fine_state();
        let down = matches!(
            state,
            ServiceState::Stopped | ServiceState::Completed | ServiceState::Failed
        );
        !down && self.handle.object.has_changed().is_ok()
    }
}

/// What the keeper holds about a process for the next supervisor.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct EntryNote {
    number: u64,
    name: Option<String>,
    command: String,
    cwd: Option<String>,
}

/// What the keeper knows that by.
fn note_key(key: &ServiceName) -> String {
    format!("entry/{key}")
}

/// Reads a note, if it is one of a process.
pub(super) fn of_note(key: &str, note: &str) -> Option<EntryNote> {
    key.strip_prefix("entry/")?;
    serde_json::from_str(note).ok()
}

/// What to start.
pub(super) struct Wanted {
    pub name: Option<String>,
    pub command: String,
    pub cwd: Option<String>,
    pub spec: ServiceSpec,
    pub secrets: Secrets,
}

/// The list, oldest first.
#[derive(Debug, Default)]
pub(super) struct Processes {
    list: Mutex<Vec<Entry>>,
    last: AtomicU64,
}

impl Processes {
    fn list(&self) -> MutexGuard<'_, Vec<Entry>> {
        // The list is whole after every statement, so a panic elsewhere cannot have torn it.
        self.list.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Every process, oldest first.
    pub(super) fn all(&self) -> Vec<Entry> {
        self.list().clone()
    }

    /// The newest process with this number.
    pub(super) fn find(&self, pid: u32) -> Option<Entry> {
        let all = self.all();
        all.into_iter().rev().find(|entry| entry.pid() == Some(pid))
    }

    /// The owners.
    pub(super) fn handles(&self) -> Vec<Handle> {
        let all = self.all().into_iter();
        all.map(|entry| entry.handle).collect()
    }

    /// Stops them all.
    pub(super) async fn halt(&self) {
        let handles = self.handles();
        join_all(handles.iter().map(|handle| handle.ask(Control::Halt))).await;
    }
}

impl Sandbox {
    /// Executes a process. It is in the list when this returns.
    pub(super) async fn start_process(self: &Arc<Self>, wanted: Wanted) -> Result<Entry, Refusal> {
        let processes = &self.processes;
        let running = processes.all().iter().filter(|e| e.is_running()).count();
        if running >= RUNNING {
            let text = format!("{running} processes run already");
            return Err(Refusal::new(429, "conflict", text));
        }
        let number = processes.last.fetch_add(1, Ordering::Relaxed) + 1;
        let key = ServiceName::of_process(number);
        let mut spec = wanted.spec;
        spec.kind = ServiceKind::Task;
        let note = EntryNote {
            number,
            name: wanted.name.clone(),
            command: wanted.command.clone(),
            cwd: wanted.cwd.clone(),
        };
        let note = serde_json::to_string(&note);
        let note = note.map_err(|error| Refusal::internal(error.to_string()))?;
        self.keeper.keep(&note_key(&key), note, Vec::new());
        let record = Record::new(spec);
        let handle = Owner::start(self.clone(), key.clone(), record, wanted.secrets, None);
        let entry = Entry {
            key,
            name: wanted.name,
            command: wanted.command,
            cwd: wanted.cwd,
            handle,
        };
        let start = |reply| Control::Start {
            until: Await::Condition(Condition::Started),
            origin: Origin::Request,
            secrets: Secrets::default(),
            reply,
        };
        if let Err(refusal) = entry.handle.ask(start).await {
            self.forget_process(entry).await;
            return Err(refusal);
        }
        processes.list().push(entry.clone());
        for old in self.outdated() {
            self.forget_process(old).await;
        }
        Ok(entry)
    }

    /// Takes those from the list that have ended and are older than enough others.
    fn outdated(&self) -> Vec<Entry> {
        let mut list = self.processes.list();
        let excess = list.len().saturating_sub(NEWER);
        let mut outdated = Vec::new();
        let mut index = 0;
        list.retain(|entry| {
            let old = index < excess && !entry.is_running();
            index += 1;
            if old {
                outdated.push(entry.clone());
            }
            !old
        });
        outdated
    }

    /// Goes on with the processes that an earlier supervisor has started and that it has not seen end.
    /// Those that it has are forgotten, with their logs.
    pub(super) fn take_processes_over(
        self: &Arc<Self>,
        inheritances: &mut BTreeMap<ServiceName, Inheritance>,
        mut notes: Vec<EntryNote>,
    ) -> io::Result<()> {
        notes.sort_by_key(|note| note.number);
        let mut list = Vec::new();
        for note in notes {
            let key = ServiceName::of_process(note.number);
            self.processes
                .last
                .fetch_max(note.number, Ordering::Relaxed);
            let hand = inheritances.get(&key).and_then(|left| left.hand.as_ref());
            let Some(spec) = hand.and_then(Hand::executed).cloned() else {
                self.keeper.forget(&note_key(&key));
                continue;
            };
            let mut record = Record::new(spec);
            record.goal = ServiceGoal::Running;
            let left = inheritances.remove(&key);
            let secrets = Secrets::default();
            let handle = Owner::start(self.clone(), key.clone(), record, secrets, left);
            list.push(Entry {
                key,
                name: note.name,
                command: note.command,
                cwd: note.cwd,
                handle,
            });
        }
        let live: BTreeSet<_> = list.iter().map(|entry| entry.key.clone()).collect();
        *self.processes.list() = list;
        remove_logs(&self.store, |name| {
            name.is_process() && !live.contains(name)
        })
    }

    async fn forget_process(&self, entry: Entry) {
        self.keeper.forget(&note_key(&entry.key));
        // An owner that is gone has nothing to remove.
        let _ = entry.handle.ask(Control::Delete).await;
        if let Err(error) = remove_logs(&self.store, |name| *name == entry.key) {
            tracing::warn!(process = %entry.key, %error, "its log stays");
        }
    }
}

fn remove_logs(store: &Store, whose: impl Fn(&ServiceName) -> bool) -> io::Result<()> {
    let entries = match store.dir().join("logs").read_dir() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        other => other?,
    };
    for entry in entries {
        let entry = entry?;
        let file = entry.file_name();
        let name = file.to_str().and_then(|file| file.split('.').next());
        if name
            .and_then(ServiceName::of_either)
            .is_some_and(|name| whose(&name))
        {
            std::fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}
