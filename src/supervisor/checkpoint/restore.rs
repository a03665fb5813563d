//! Restoring a checkpoint in a sandbox that is up: stop everything, swap files and definitions, start
//! what ran (protocol page iris, §6).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use futures_util::future::join_all;

use super::store::Shelf;
use super::swap::Swap;
use super::{blocking, running};
use crate::model::{Restored, Secrets, ServiceName};
use crate::supervisor::owner::{Await, Control, Origin, Refusal};
use crate::supervisor::sandbox::Sandbox;
use crate::supervisor::store::Record;

/// Keeps services from starting for as long as it lives.
struct Restoring<'a>(&'a AtomicBool);

impl<'a> Restoring<'a> {
    fn new(flag: &'a AtomicBool) -> Self {
        flag.store(true, Ordering::Release);
        Self(flag)
    }
}

impl Drop for Restoring<'_> {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Release);
    }
}

/// Restores the checkpoint `id`. To be run in a task of its own: it must not end half-way because a
/// client hangs up.
pub(in crate::supervisor) async fn restore(
    sandbox: Arc<Sandbox>,
    id: String,
    secrets: Secrets,
) -> Result<Restored, Refusal> {
    let began = Instant::now();
    let _busy = sandbox.checkpoints.begin()?;
    let shelf = Shelf::of(sandbox.store.dir());
    let (place, key) = (shelf.clone(), id.clone());
    let meta = blocking("the checkpoint cannot be read", move || place.get(&key)).await?;
    let meta = meta.ok_or_else(|| not_found(&id))?;
    let wanted = meta.wanted();
    let (store, records) = (sandbox.store.clone(), wanted.clone());
    let files = shelf.files(&id);
    // Before anything is stopped: should the disk be full, nothing has happened.
    let staged = blocking("the restore failed; nothing was changed", move || {
        Swap::stage(&store, &files, records)
    });
    let swap = staged.await?;

    let no_definitions = sandbox.defining.lock().await;
    let restoring = Restoring::new(&sandbox.checkpoints.restoring);
    let before = running(&sandbox);
    let begun = blocking("the restore failed; nothing was changed", move || {
        let mut swap = swap;
        swap.begin().inspect_err(|_| swap.cancel())?;
        Ok(swap)
    });
    let swap = begun.await?;
    // What else runs in it has the old files open, and does not come back.
    tokio::join!(sandbox.halt_services(), sandbox.processes.halt());
    let swapped = blocking("the restore failed", move || {
        let mut swap = swap;
        swap.files().map(|()| swap)
    });
    let swap = match swapped.await {
        Ok(swap) => swap,
        Err(refusal) => {
            drop(restoring);
            sandbox.bring_back();
            return Err(refusal);
        }
    };
    rewind(&sandbox, &wanted, &secrets).await?;
    let done = blocking("the restore is not noted as done", move || {
        swap.commit()?;
        Ok(swap)
    });
    let swap = done.await?;
    drop((restoring, no_definitions));
    let recorded: BTreeSet<_> = meta.checkpoint.running.into_iter().collect();
    let started = start(&sandbox, &recorded).await;
    // Nobody waits for the removal of the old files.
    tokio::task::spawn_blocking(move || {
        if let Err(error) = swap.remove_staging() {
            tracing::warn!(%error, "files from before a restore stay");
        }
    });
    Ok(Restored {
        restore_duration_ms: u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX),
        stopped_services: before.difference(&recorded).cloned().collect(),
        failed_services: recorded.difference(&started).cloned().collect(),
        started_services: started.into_iter().collect(),
    })
}

pub(in crate::supervisor) fn not_found(id: &str) -> Refusal {
    Refusal::new(404, "not_found", format!("checkpoint not found: {id}"))
}

/// Makes the owners what the checkpoint says.
async fn rewind(
    sandbox: &Arc<Sandbox>,
    wanted: &BTreeMap<ServiceName, Record>,
    secrets: &Secrets,
) -> Result<(), Refusal> {
    let handles = sandbox.handles();
    let gone = handles
        .iter()
        .filter(|(name, _)| !wanted.contains_key(*name));
    for answer in join_all(gone.map(|(_, handle)| handle.ask(Control::Delete))).await {
        match answer {
            // Deleted by somebody else first.
            Err(refusal) if refusal == Refusal::gone() => {}
            other => other?,
        }
    }
    for (name, record) in wanted {
        if let Some(handle) = handles.get(name) {
            let (record, secrets) = (Box::new(record.clone()), secrets.clone());
            let rewound = handle.ask(|reply| Control::Rewind {
                record,
                secrets,
                reply,
            });
            match rewound.await {
                Err(refusal) if refusal == Refusal::gone() => {}
                other => {
                    other?;
                    continue;
                }
            }
        }
        let (store, key, kept) = (sandbox.store.clone(), name.clone(), record.clone());
        blocking("a definition is not stored", move || {
            store.save(&key, &kept)
        })
        .await?;
        sandbox.register(name.clone(), record.clone(), secrets.clone(), None);
    }
    Ok(())
}

/// Starts what ran, each after what it needs, and returns those that are up.
async fn start(sandbox: &Arc<Sandbox>, names: &BTreeSet<ServiceName>) -> BTreeSet<ServiceName> {
    let handles = sandbox.handles();
    let starts = names.iter().map(|name| {
        let handle = handles.get(name);
        async move {
            let started = handle?.ask(|reply| Control::Start {
                until: Await::Settled,
                origin: Origin::Request,
                secrets: Secrets::default(),
                reply,
            });
            match started.await {
                Ok(()) => Some(name.clone()),
                Err(refusal) => {
                    tracing::warn!(service = %name, error = refusal.message, "not restored");
                    None
                }
            }
        }
    });
    join_all(starts).await.into_iter().flatten().collect()
}
