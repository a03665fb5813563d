//! The sandbox's folder: where things are, and what is kept of each service. Everything is written
//! whole or not at all, and is readable by its owner only.

use std::collections::BTreeMap;
use std::fs::{DirBuilder, File};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::keeper::SPEC;
use crate::model::{Exit, SandboxSpec, ServiceGoal, ServiceName, ServiceSpec};

/// Is there once a container was made: without it no engine is asked about this sandbox.
const CONTAINERS: &str = "run/containers";

/// What is kept of one service.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Record {
    /// Its definition. Secrets are placeholders.
    pub definition: ServiceSpec,
    /// Counts the changed definitions, from 1.
    pub revision: u64,
    /// What was asked for last: start or stop.
    pub goal: ServiceGoal,
    /// How its last process ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_exit: Option<Exit>,
    /// The last failure, in words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// The revision that a task last exited 0 with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub completed: Option<u64>,
}

impl Record {
    /// A definition that was never started.
    pub(super) fn new(definition: ServiceSpec) -> Self {
        Self {
            definition,
            revision: 1,
            goal: ServiceGoal::Stopped,
            last_exit: None,
            error: None,
            completed: None,
        }
    }
}

/// The identity of a service's main process, kept to find what a killed supervisor left behind.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Running {
    /// The boot of the machine that the other two belong to.
    pub boot_id: String,
    /// The process, which leads its own session.
    pub pid: u32,
    /// When it was started, in ticks since boot.
    pub start_time: Option<u64>,
}

/// The folder of one sandbox.
#[derive(Debug, Clone)]
pub(super) struct Store {
    dir: PathBuf,
}

impl Store {
    /// The folder as it is, to be read. What is missing in it counts as empty.
    pub(super) fn at(dir: &Path) -> io::Result<Self> {
        let dir = std::path::absolute(dir)?;
        Ok(Self { dir })
    }

    /// Makes the parts of the folder where they are missing. For the supervisor only, which holds
    /// the lock; the folder itself is its creator's.
    pub(super) fn prepare(&self) -> io::Result<()> {
        for part in ["services", "logs", "run", "workspace"] {
            let made = DirBuilder::new().mode(0o700).create(self.dir.join(part));
            match made {
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                other => other?,
            }
        }
        Ok(())
    }

    /// Whether there is a sandbox in the folder.
    pub(super) fn has_sandbox(&self) -> bool {
        self.dir.join(SPEC).is_file()
    }

    /// Makes this process the only supervisor of the folder, as long as the file lives. Waits for one that
    /// is about to end: the keeper of which is gone.
    pub(super) fn lock(&self) -> io::Result<File> {
        use rustix::fs::{FlockOperation, fcntl_lock};
        let file = File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .mode(0o600)
            .open(self.dir.join("supervisor.lock"))?;
        fcntl_lock(&file, FlockOperation::LockExclusive)?;
        Ok(file)
    }

    /// The folder itself.
    pub(super) fn dir(&self) -> &Path {
        &self.dir
    }

    /// The folder that services run in: the one `sandbox.json` names, or a private one.
    pub(super) fn workspace(&self) -> io::Result<PathBuf> {
        let named = self.spec()?.workspace;
        Ok(named.unwrap_or_else(|| self.dir.join("workspace")))
    }

    /// What the sandbox was last given by its platform.
    pub(super) fn spec(&self) -> io::Result<SandboxSpec> {
        #[derive(Deserialize)]
        struct Sandbox {
            spec: SandboxSpec,
        }
        let sandbox: Option<Sandbox> = read_json(&self.dir.join(SPEC))?;
        Ok(sandbox.map(|sandbox| sandbox.spec).unwrap_or_default())
    }

    fn definition_path(&self, name: &ServiceName) -> PathBuf {
        self.dir.join("services").join(format!("{name}.json"))
    }

    fn running_path(&self, name: &ServiceName) -> PathBuf {
        self.dir.join("run").join(format!("{name}.json"))
    }

    /// Every service, by name. A definition that is torn is put aside under another name: whoever
    /// wrote it writes it again. One that cannot be read at all is an error.
    pub(super) fn load(&self) -> io::Result<BTreeMap<ServiceName, Record>> {
        let mut records = BTreeMap::new();
        for name in names_in(&self.dir.join("services"))? {
            let path = self.definition_path(&name);
            match read_json(&path) {
                Ok(Some(record)) => drop(records.insert(name, record)),
                Ok(None) => {}
                Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                    tracing::error!(service = %name, %error, "its definition is damaged");
                    std::fs::rename(&path, path.with_extension("damaged"))?;
                }
                Err(error) => return Err(error),
            }
        }
        Ok(records)
    }

    /// Keeps a record.
    pub(super) fn save(&self, name: &ServiceName, record: &Record) -> io::Result<()> {
        write_json(&self.definition_path(name), record)
    }

    /// Forgets a definition. The log stays, and so does the identity of a process that still lives.
    pub(super) fn remove(&self, name: &ServiceName) -> io::Result<()> {
        remove_file(&self.definition_path(name))
    }

    /// The processes that were running when the last supervisor ended.
    pub(super) fn running(&self) -> io::Result<Vec<(ServiceName, Running)>> {
        let mut found = Vec::new();
        for name in names_in(&self.dir.join("run"))? {
            let path = self.running_path(&name);
            match read_json(&path) {
                Ok(Some(running)) => found.push((name, running)),
                Ok(None) => {}
                // One that is torn was being written when everything ended: nothing was executed
                // yet, or it is of an earlier boot.
                Err(error) if error.kind() == io::ErrorKind::InvalidData => remove_file(&path)?,
                Err(error) => tracing::warn!(service = %name, %error, "an identity is unknown"),
            }
        }
        Ok(found)
    }

    /// Notes the process of a service.
    pub(super) fn note_running(&self, name: &ServiceName, running: &Running) -> io::Result<()> {
        write_json(&self.running_path(name), running)
    }

    /// Notes that containers may be left of this sandbox, before the first one is made.
    pub(super) fn note_containers(&self) -> io::Result<()> {
        let path = self.dir.join(CONTAINERS);
        let mut options = File::options();
        options.create(true).append(true).mode(0o600);
        options.open(path).map(drop)
    }

    /// Whether there may be any.
    pub(super) fn has_containers(&self) -> bool {
        self.dir.join(CONTAINERS).exists()
    }

    /// Notes that a service has no live process.
    pub(super) fn clear_running(&self, name: &ServiceName) -> io::Result<()> {
        remove_file(&self.running_path(name))
    }
}

fn names_in(dir: &Path) -> io::Result<Vec<ServiceName>> {
    let mut names = Vec::new();
    let entries = match dir.read_dir() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(names),
        other => other?,
    };
    for entry in entries {
        let file = entry?.file_name();
        let name = file.to_str().and_then(|file| file.strip_suffix(".json"));
        if let Some(name) = name.and_then(ServiceName::of_either) {
            names.push(name);
        }
    }
    names.sort();
    Ok(names)
}

fn remove_file(path: &Path) -> io::Result<()> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

fn read_json<T: serde::de::DeserializeOwned>(path: &Path) -> io::Result<Option<T>> {
    let bytes = match std::fs::read(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        other => other?,
    };
    serde_json::from_slice(&bytes).map(Some).map_err(|error| {
        let message = format!("{}: {error}", path.display());
        io::Error::new(io::ErrorKind::InvalidData, message)
    })
}

/// What one write changes whole: a write within one page is not cut short by the end of its process.
const PAGE: usize = 4096;

/// Writes a file beside `path` and moves it into place, so that a killed process leaves the old or
/// the new one. The disk is not waited for: after a power cut a file may be missing or torn, but
/// then nothing runs any more either, and the apply that brings the sandbox up writes it again.
fn write_json<T: Serialize>(path: &Path, value: &T) -> io::Result<()> {
    let text = serde_json::to_vec_pretty(value)?;
    if text.len() <= PAGE && overwrite(path, &text)? {
        return Ok(());
    }
    let beside = path.with_extension("tmp");
    let mut file = File::options()
        .create(true)
        .truncate(true)
        .write(true)
        .mode(0o600)
        .open(&beside)?;
    file.write_all(&text)?;
    std::fs::rename(&beside, path)
}

/// Writes over a file that is exactly as long, which is a tenth of the work: of a record mostly `running`
/// becomes `stopped`, or the other way round. Says whether it was.
fn overwrite(path: &Path, text: &[u8]) -> io::Result<bool> {
    let file = match File::options().write(true).open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        other => other?,
    };
    let found = file.metadata()?;
    // One with other names is somebody's copy, too.
    if found.len() != text.len() as u64 || found.nlink() != 1 {
        return Ok(false);
    }
    let written = file.write_at(text, 0)?;
    if written != text.len() {
        return Err(io::ErrorKind::WriteZero.into());
    }
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_as_long_is_written_over_and_nobody_elses_copy_is() {
        let dir = tempfile::tempdir().unwrap();
        let (path, copy) = (dir.path().join("a.json"), dir.path().join("copy"));
        write_json(&path, &ServiceGoal::Running).unwrap();
        let inode = std::fs::metadata(&path).unwrap().ino();
        write_json(&path, &ServiceGoal::Stopped).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().ino(), inode);
        std::fs::hard_link(&path, &copy).unwrap();
        write_json(&path, &ServiceGoal::Running).unwrap();
        assert_eq!(read_json(&path).unwrap(), Some(ServiceGoal::Running));
        assert_eq!(read_json(&copy).unwrap(), Some(ServiceGoal::Stopped));
        write_json(&path, &[ServiceGoal::Stopped]).unwrap();
        assert_eq!(read_json(&path).unwrap(), Some([ServiceGoal::Stopped]));
    }

    #[test]
    fn torn_notes_are_removed() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::at(dir.path()).unwrap();
        store.prepare().unwrap();
        let name = ServiceName::new("web").unwrap();
        std::fs::write(store.running_path(&name), "{").unwrap();
        assert_eq!(store.running().unwrap(), []);
        assert!(!store.running_path(&name).exists());
        let running = Running {
            boot_id: "b".to_owned(),
            pid: 7,
            start_time: Some(8),
        };
        store.note_running(&name, &running).unwrap();
        assert_eq!(store.running().unwrap(), [(name, running)]);
    }
}
