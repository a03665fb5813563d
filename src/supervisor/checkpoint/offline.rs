//! Checkpoints of a sandbox while no supervisor runs in it. The caller holds its folder, so that none
//! comes up meanwhile.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::CString;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use super::store::{Meta, Shelf, private_dir};
use super::swap::Swap;
use super::{copy, recover, take};
use crate::model::{Checkpoint, ServiceName, ServiceSpec};
use crate::supervisor::store::Store;

/// Why something could not be done without a supervisor.
#[derive(Debug, thiserror::Error)]
pub enum OfflineError {
    /// There is no such checkpoint.
    #[error("checkpoint not found: {0}")]
    NotFound(String),
    /// Files could not be read or written.
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// What was put into the folder of a fork.
#[derive(Debug, Clone)]
pub struct ForkedFiles {
    /// The services that are to run in it.
    pub running: BTreeMap<ServiceName, ServiceSpec>,
    /// The sizes of its files, in bytes.
    pub size_bytes: u64,
}

fn find(shelf: &Shelf, id: &str) -> Result<Meta, OfflineError> {
    shelf
        .get(id)?
        .ok_or_else(|| OfflineError::NotFound(id.to_owned()))
}

/// The checkpoints of the sandbox in `dir`, the oldest first. The folder need not be held.
pub fn list_offline(dir: &Path) -> io::Result<Vec<Checkpoint>> {
    let listed = Shelf::of(dir).list()?;
    Ok(listed.into_iter().map(|meta| meta.checkpoint).collect())
}

/// Makes a checkpoint; no hook is run, for nothing runs.
pub fn create_offline(dir: &Path, name: Option<String>) -> io::Result<Checkpoint> {
    let store = Store::at(dir)?;
    recover(&store)?;
    let id = Shelf::of(store.dir()).new_id();
    take(
        &store,
        &id,
        name,
        BTreeSet::new(),
        None,
        &Default::default(),
    )
}

/// Restores a checkpoint. What ran when it was made starts with the sandbox.
pub fn restore_offline(dir: &Path, id: &str) -> Result<(), OfflineError> {
    let store = Store::at(dir)?;
    recover(&store)?;
    let shelf = Shelf::of(store.dir());
    let meta = find(&shelf, id)?;
    Ok(Swap::stage(&store, &shelf.files(id), meta.wanted())?.all()?)
}

/// Removes a checkpoint; an absent one is an error.
pub fn delete_offline(dir: &Path, id: &str) -> Result<(), OfflineError> {
    match Shelf::of(dir).delete(id)? {
        true => Ok(()),
        false => Err(OfflineError::NotFound(id.to_owned())),
    }
}

/// Fills the folder of a new sandbox, which has its `sandbox.json` already, with the files and
/// definitions of a checkpoint of the sandbox in `from`. Returns which services are to run in it: those
/// that ran, or none if it is to be `stopped`.
pub fn fork_offline(
    from: &Path,
    id: &str,
    to: &Path,
    stopped: bool,
) -> Result<ForkedFiles, OfflineError> {
    let shelf = Shelf::of(from);
    let mut meta = find(&shelf, id)?;
    if stopped {
        meta.checkpoint.running.clear();
    }
    let store = Store::at(to)?;
    store.prepare()?;
    let workspace = to.join("workspace");
    let (Some(parent), Some(name)) = (workspace.parent(), workspace.file_name()) else {
        return Err(io::Error::from(io::ErrorKind::InvalidInput).into());
    };
    copy::remove_tree(
        copy::open_root(parent)?,
        &CString::new(name.as_bytes()).map_err(io::Error::from)?,
    )?;
    private_dir(&workspace)?;
    let files = copy::open_root(&shelf.files(id))?;
    let copied = copy::copy_tree(
        files,
        copy::open_root(&workspace)?,
        Default::default(),
        &Default::default(),
    );
    copied.map_err(io::Error::from)?;
    let mut running = BTreeMap::new();
    for (name, mut record) in meta.wanted() {
        record.last_exit = None;
        store.save(&name, &record)?;
        if meta.checkpoint.running.contains(&name) {
            running.insert(name, record.definition);
        }
    }
    Ok(ForkedFiles {
        running,
        size_bytes: meta.checkpoint.size_bytes,
    })
}
