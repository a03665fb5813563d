//! Where checkpoints are kept: `<sandbox>/checkpoints/<id>/`, with the files in `files/` and the rest
//! in `meta.json`. One appears and disappears whole, by a rename; what begins with a dot is not one.

use std::collections::BTreeMap;
use std::ffi::CString;
use std::fs::{DirBuilder, File};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::copy;
use crate::model::{Checkpoint, ServiceGoal, ServiceKind, ServiceName};
use crate::supervisor::store::Record;

const META: &str = "meta.json";
const FILES: &str = "files";

/// What `meta.json` holds.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(in crate::supervisor) struct Meta {
    version: u32,
    #[serde(flatten)]
    pub checkpoint: Checkpoint,
    /// Every service as it was.
    pub records: BTreeMap<ServiceName, Record>,
}

impl Meta {
    pub(super) fn new(checkpoint: Checkpoint, records: BTreeMap<ServiceName, Record>) -> Self {
        Self {
            version: 1,
            checkpoint,
            records,
        }
    }

    /// The records to be restored: what ran is to run again, and nothing else.
    pub(super) fn wanted(&self) -> BTreeMap<ServiceName, Record> {
        let mut records = self.records.clone();
        for (name, record) in &mut records {
            if record.definition.kind == ServiceKind::Service {
                record.goal = match self.checkpoint.running.contains(name) {
                    true => ServiceGoal::Running,
                    false => ServiceGoal::Stopped,
                };
            }
        }
        records
    }
}

/// Whether `text` has the form of an id, so that it can be part of a path.
pub(super) fn is_id(text: &str) -> bool {
    let digits = text.strip_prefix("cp_").unwrap_or_default();
    (1..=32).contains(&digits.len()) && digits.bytes().all(|byte| byte.is_ascii_alphanumeric())
}

/// The checkpoints of one sandbox.
#[derive(Debug, Clone)]
pub(in crate::supervisor) struct Shelf(PathBuf);

impl Shelf {
    pub(in crate::supervisor) fn of(sandbox: &Path) -> Self {
        Self(sandbox.join("checkpoints"))
    }

    /// The oldest first. One that cannot be read is not listed.
    pub(in crate::supervisor) fn list(&self) -> io::Result<Vec<Meta>> {
        let entries = match self.0.read_dir() {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            other => other?,
        };
        let mut found = Vec::new();
        for entry in entries {
            let name = entry?.file_name();
            let Some(id) = name.to_str().filter(|name| is_id(name)) else {
                continue;
            };
            match self.get(id) {
                Ok(meta) => found.extend(meta),
                Err(error) => tracing::error!(id, %error, "a checkpoint is damaged"),
            }
        }
        found.sort_by(|a, b| {
            let key = |meta: &Meta| (meta.checkpoint.created_at, meta.checkpoint.id.clone());
            key(a).cmp(&key(b))
        });
        Ok(found)
    }

    /// The checkpoint with this id.
    pub(in crate::supervisor) fn get(&self, id: &str) -> io::Result<Option<Meta>> {
        if !is_id(id) {
            return Ok(None);
        }
        let text = match std::fs::read(self.0.join(id).join(META)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            other => other?,
        };
        Ok(Some(serde_json::from_slice(&text)?))
    }

    /// Its files.
    pub(in crate::supervisor) fn files(&self, id: &str) -> PathBuf {
        self.0.join(id).join(FILES)
    }

    /// An id that is not taken.
    pub(in crate::supervisor) fn new_id(&self) -> String {
        loop {
            let id = format!("cp_{:08x}", fastrand::u32(..));
            if !self.0.join(&id).exists() {
                return id;
            }
        }
    }

    /// Makes the folder that a checkpoint is written into.
    pub(in crate::supervisor) fn begin(&self, id: &str) -> io::Result<Draft> {
        private_dir(&self.0)?;
        let path = self.0.join(format!(".new-{id}"));
        private_dir(&path.join(FILES))?;
        let shelf = self.clone();
        Ok(Draft {
            shelf,
            id: id.to_owned(),
            path,
            done: false,
        })
    }

    /// Removes a checkpoint. Says whether there was one.
    pub(in crate::supervisor) fn delete(&self, id: &str) -> io::Result<bool> {
        if !is_id(id) {
            return Ok(false);
        }
        let doomed = format!(".old-{id}");
        self.remove(&doomed)?;
        match std::fs::rename(self.0.join(id), self.0.join(&doomed)) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
            Err(error) => return Err(error),
        }
        self.remove(&doomed)?;
        Ok(true)
    }

    /// What interrupted work has left.
    pub(in crate::supervisor) fn leftovers(&self) -> Vec<String> {
        let entries = self.0.read_dir().into_iter().flatten().flatten();
        let names = entries.filter_map(|entry| entry.file_name().into_string().ok());
        names.filter(|name| name.starts_with('.')).collect()
    }

    /// Removes something in the folder.
    pub(in crate::supervisor) fn remove(&self, name: &str) -> io::Result<()> {
        match copy::open_root(&self.0) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            other => copy::remove_tree(other?, &CString::new(name)?),
        }
    }
}

/// A checkpoint that is being written; it goes away unless it is finished.
#[derive(Debug)]
pub(in crate::supervisor) struct Draft {
    shelf: Shelf,
    id: String,
    path: PathBuf,
    done: bool,
}

impl Draft {
    pub(in crate::supervisor) fn files(&self) -> PathBuf {
        self.path.join(FILES)
    }

    /// Makes the checkpoint appear; it is on the disk then.
    pub(in crate::supervisor) fn finish(mut self, meta: &Meta) -> io::Result<()> {
        write_durably(&self.path.join(META), meta)?;
        std::fs::rename(&self.path, self.shelf.0.join(&self.id))?;
        self.done = true;
        File::open(&self.shelf.0)?.sync_all()
    }
}

impl Drop for Draft {
    fn drop(&mut self) {
        if !self.done
            && let Err(error) = self.shelf.remove(&format!(".new-{}", self.id))
        {
            tracing::warn!(%error, "a checkpoint that failed leaves something behind");
        }
    }
}

pub(in crate::supervisor) fn private_dir(path: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(path)
}

/// Writes a file that is whole, and on the disk, when this returns.
pub(in crate::supervisor) fn write_durably(path: &Path, value: &impl Serialize) -> io::Result<()> {
    let mut beside = path.as_os_str().to_owned();
    beside.push(".tmp");
    let beside = PathBuf::from(beside);
    let mut file = File::options()
        .create(true)
        .truncate(true)
        .write(true)
        .mode(0o600)
        .open(&beside)?;
    file.write_all(&serde_json::to_vec_pretty(value)?)?;
    file.sync_all()?;
    std::fs::rename(&beside, path)?;
    match path.parent() {
        Some(parent) => File::open(parent)?.sync_all(),
        None => Ok(()),
    }
}
