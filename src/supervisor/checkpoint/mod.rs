//! Checkpoints of a sandbox: the files of its workspace, the definitions of its services, and which of
//! them ran; restoring one; a fork made of one.
//!
//! In: the sandbox, or its folder while no supervisor runs. Out: folders below `checkpoints/`, and a
//! workspace as it was. A crash at any moment leaves the old or the new state: `recover` sees to that
//! before anything else is read.

mod client;
mod copy;
mod freeze;
mod hooks;
mod offline;
mod processes;
mod restore;
mod store;
mod swap;

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use tokio::sync::{OwnedMutexGuard, OwnedRwLockReadGuard, RwLock, watch};

pub use offline::{
    ForkedFiles, OfflineError, create_offline, delete_offline, fork_offline, list_offline,
    restore_offline,
};
pub(in crate::supervisor) use restore::{not_found, restore};
pub(in crate::supervisor) use store::Shelf;

use freeze::Frozen;
use store::Meta;

use super::owner::Refusal;
use super::sandbox::Sandbox;
use super::store::Store;
use crate::model::{Checkpoint, Secrets, ServiceKind, ServiceName, ServiceState};

/// How many failed creations are remembered for those who ask later.
const REMEMBERED: usize = 16;

/// What has become of a creation; `None` while it goes on.
type Made = Option<Result<Checkpoint, Refusal>>;

/// What goes on in a sandbox with regard to checkpoints.
#[derive(Debug, Default)]
pub(super) struct Checkpoints {
    /// Held by the one checkpoint or restore that goes on.
    busy: Arc<tokio::sync::Mutex<()>>,
    restoring: AtomicBool,
    /// Written to while processes are held: whoever is about to execute something reads.
    starts: Arc<RwLock<()>>,
    /// When processes were held last.
    held: Mutex<Option<Held>>,
    /// Creations that go on or have failed, by id.
    made: Mutex<BTreeMap<String, watch::Receiver<Made>>>,
}

/// When processes were held.
#[derive(Debug, Clone, Copy)]
enum Held {
    Now,
    Until(Instant),
}

/// For how long after processes were held a probe's failure may come from that.
const AFTERMATH: Duration = Duration::from_secs(5);

impl Checkpoints {
    /// Whether a service that does not answer may have been held still.
    pub(super) fn explains_silence(&self) -> bool {
        match *self.held.lock().unwrap_or_else(PoisonError::into_inner) {
            None => false,
            Some(Held::Now) => true,
            Some(Held::Until(end)) => end.elapsed() < AFTERMATH,
        }
    }

    fn note_held(&self, held: Held) {
        *self.held.lock().unwrap_or_else(PoisonError::into_inner) = Some(held);
    }

    /// Whether services are kept from starting.
    pub(super) fn is_restoring(&self) -> bool {
        self.restoring.load(Ordering::Acquire)
    }

    /// To be held while something is executed, so that it does not begin to run amid held processes.
    pub(super) async fn starting(&self) -> OwnedRwLockReadGuard<()> {
        self.starts.clone().read_owned().await
    }

    pub(in crate::supervisor) fn begin(&self) -> Result<OwnedMutexGuard<()>, Refusal> {
        let busy = self.busy.clone().try_lock_owned();
        busy.map_err(|_| Refusal::conflict("another checkpoint or restore is going on"))
    }

    pub(in crate::supervisor) fn made(
        &self,
    ) -> MutexGuard<'_, BTreeMap<String, watch::Receiver<Made>>> {
        // The map is whole after every statement.
        self.made.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether a restore was interrupted that [`recover`] completes: whatever still runs in the sandbox is to
/// be ended before.
pub(super) fn is_interrupted(store: &Store) -> io::Result<bool> {
    swap::is_interrupted(store)
}

/// Lets go on what was held, and completes or forgets what was interrupted. To be called before
/// anything else of the folder is read, while no supervisor serves it.
pub(super) fn recover(store: &Store) -> io::Result<()> {
    freeze::recover(store)?;
    swap::recover(store)?;
    let (shelf, store) = (Shelf::of(store.dir()), store.clone());
    let (drafts, swapped) = (shelf.leftovers(), swap::leftovers(&store));
    if drafts.is_empty() && swapped.is_empty() {
        return Ok(());
    }
    // It may be much, and nothing waits for it.
    std::thread::spawn(move || {
        let removed = drafts.iter().try_for_each(|name| shelf.remove(name));
        if let Err(error) = removed.and_then(|()| swap::remove_leftovers(&store, &swapped)) {
            tracing::warn!(%error, "leftovers of interrupted checkpoints stay");
        }
    });
    Ok(())
}

/// A refusal that says what was being done.
fn refused(what: &str) -> impl Fn(io::Error) -> Refusal + '_ {
    move |error| match error.kind() {
        io::ErrorKind::ResourceBusy => Refusal::conflict(format!("{what}: {error}")),
        _ => Refusal::new(500, "checkpoint_failed", format!("{what}: {error}")),
    }
}

/// Runs something that blocks.
pub(in crate::supervisor) async fn blocking<T: Send + 'static>(
    what: &str,
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> Result<T, Refusal> {
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(io::Error::other)
        .and_then(|done| done)
        .map_err(refused(what))
}

/// The services that run, or are on their way to.
fn running(sandbox: &Sandbox) -> BTreeSet<ServiceName> {
    let handles = sandbox.handles().into_iter();
    let runs = handles.filter(|(_, handle)| {
        let object = handle.object.borrow();
        let kind = object.definition.as_ref().map(|spec| spec.kind);
        kind == Some(ServiceKind::Service)
            && match object.fine_state() {
                ServiceState::Running | ServiceState::Unhealthy => true,
                ServiceState::Starting | ServiceState::BackingOff => object.desired == "up",
                _ => false,
            }
    });
    runs.map(|(name, _)| name).collect()
}

/// Begins a checkpoint; returns its id and where its end is told. At most one goes on at a time.
pub(in crate::supervisor) fn create(
    sandbox: &Arc<Sandbox>,
    name: Option<String>,
    secrets: Secrets,
) -> Result<(String, watch::Receiver<Made>), Refusal> {
    let busy = sandbox.checkpoints.begin()?;
    let id = Shelf::of(sandbox.store.dir()).new_id();
    let (sender, receiver) = watch::channel(None);
    {
        let mut made = sandbox.checkpoints.made();
        if made.len() >= REMEMBERED {
            made.clear();
        }
        made.insert(id.clone(), receiver.clone());
    }
    let (sandbox, key) = (sandbox.clone(), id.clone());
    tokio::spawn(async move {
        let made = make(&sandbox, &key, name, &secrets).await;
        drop(busy);
        if made.is_ok() {
            sandbox.checkpoints.made().remove(&key);
        }
        sender.send_replace(Some(made));
    });
    Ok((id, receiver))
}

/// Waits for the end of a creation.
pub(in crate::supervisor) async fn finished(
    mut made: watch::Receiver<Made>,
) -> Result<Checkpoint, Refusal> {
    let ended = || Refusal::internal("the checkpoint was given up");
    let made = made.wait_for(Option::is_some).await.map_err(|_| ended())?;
    made.clone().unwrap_or_else(|| Err(ended()))
}

async fn make(
    sandbox: &Arc<Sandbox>,
    id: &str,
    name: Option<String>,
    secrets: &Secrets,
) -> Result<Checkpoint, Refusal> {
    let store = sandbox.store.clone();
    let spec = blocking("sandbox.json cannot be read", move || store.spec()).await?;
    let hooks = &spec.checkpoint;
    if let Some(before) = &hooks.before {
        let ran = hooks::run(sandbox, &spec, "before", before, secrets).await;
        if let Err(refusal) = ran {
            after(sandbox, &spec, secrets).await.ok();
            return Err(refusal);
        }
    }
    let copied = copy(sandbox, id, name, hooks.freezes()).await;
    let after = after(sandbox, &spec, secrets).await;
    let checkpoint = copied?;
    match after {
        Ok(()) => Ok(checkpoint),
        Err(refusal) => {
            let message = format!("checkpoint {id} is made, but {}", refusal.message);
            Err(Refusal { message, ..refusal })
        }
    }
}

async fn after(
    sandbox: &Sandbox,
    spec: &crate::model::SandboxSpec,
    secrets: &Secrets,
) -> Result<(), Refusal> {
    match &spec.checkpoint.after {
        Some(argv) => hooks::run(sandbox, spec, "after", argv, secrets).await,
        None => Ok(()),
    }
}

/// Holds the processes, copies the files, lets the processes go on, and puts the checkpoint on its
/// shelf.
async fn copy(
    sandbox: &Arc<Sandbox>,
    id: &str,
    name: Option<String>,
    freezes: bool,
) -> Result<Checkpoint, Refusal> {
    let _no_starts = sandbox.checkpoints.starts.clone().write_owned().await;
    let _no_definitions = sandbox.defining.lock().await;
    let running = running(sandbox);
    let pids = sandbox.handles().into_values();
    let sessions: BTreeSet<u32> = pids
        .filter_map(|handle| handle.object.borrow().pid)
        .collect();
    let keeper = (sandbox.hello.pid, sandbox.hello.strict);
    let (store, id) = (sandbox.store.clone(), id.to_owned());
    let stop = Arc::new(AtomicBool::new(false));
    let stopping = stop.clone();
    if freezes {
        sandbox.checkpoints.note_held(Held::Now);
    }
    let copying = blocking("the checkpoint failed", move || {
        let frozen = match freezes {
            true => Frozen::freeze(&store, keeper, &sessions)?,
            false => None,
        };
        take(&store, &id, name, running, frozen, &stop)
    });
    let mut copying = std::pin::pin!(copying);
    let copied = tokio::select! {
        copied = &mut copying => copied,
        () = sandbox.closing.cancelled() => {
            stopping.store(true, Ordering::Relaxed);
            copying.await
        }
    };
    if freezes {
        sandbox.checkpoints.note_held(Held::Until(Instant::now()));
    }
    copied
}

/// Copies files and definitions, and puts the checkpoint on its shelf. `frozen` is let go as soon as
/// the copy is complete.
fn take(
    store: &Store,
    id: &str,
    name: Option<String>,
    running: BTreeSet<ServiceName>,
    frozen: Option<Frozen>,
    stop: &Arc<AtomicBool>,
) -> io::Result<Checkpoint> {
    let began = Instant::now();
    let created_at = Timestamp::now();
    let workspace = store.workspace()?;
    let left_out = swap::left_out(&workspace, store.dir())?;
    let draft = Shelf::of(store.dir()).begin(id)?;
    let files = copy::open_root(&draft.files())?;
    let copied = copy::copy_tree(copy::open_root(&workspace)?, files, left_out, stop)?;
    let records = store.load()?;
    let was_frozen = frozen.is_some();
    drop(frozen);
    let checkpoint = Checkpoint {
        id: id.to_owned(),
        name,
        created_at,
        size_bytes: copied.bytes,
        copy_duration_ms: u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX),
        running: running.into_iter().collect(),
        frozen: was_frozen,
        ..Checkpoint::default()
    };
    draft.finish(&Meta::new(checkpoint.clone(), records))?;
    Ok(checkpoint)
}
