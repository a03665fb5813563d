//! Which files changed: events are only hints, contents decide.
//!
//! Folders are watched, never files: an editor that saves by renaming would otherwise be seen once
//! and never again. Reading a file makes an event too, so `Access` events are dropped.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use notify::{Config, PollWatcher, RecommendedWatcher, RecursiveMode, Watcher};
use sha2::{Digest, Sha256};
use tokio::sync::mpsc;
use tokio::time::Instant;

use crate::model::{Desired, ServiceAddress};

/// Folders that tools fill by themselves; nothing in them is a source.
const IGNORED: [&str; 6] = [
    ".git",
    "node_modules",
    "target",
    "__pycache__",
    ".venv",
    ".gabion",
];
/// Files larger than this are compared by size and time only.
const HASH_LIMIT: u64 = 16 << 20;

/// How often folders are looked at that cannot be watched.
const LOOK_AGAIN: Duration = Duration::from_millis(500);

/// Watches the manifest's files and the `watch` paths of services.
pub struct FileWatch {
    notify: Box<dyn Watcher + Send + Sync>,
    hints: mpsc::UnboundedReceiver<()>,
    /// The burst that was not told yet.
    burst: Option<Burst>,
    folders: BTreeSet<PathBuf>,
    manifest: BTreeMap<PathBuf, Fingerprint>,
    sources: Vec<Source>,
}

/// When the first and the last event of a burst came.
struct Burst {
    first: Instant,
    last: Instant,
}

/// One `watch` path of one service.
struct Source {
    service: ServiceAddress,
    root: PathBuf,
    files: BTreeMap<PathBuf, (u64, Option<SystemTime>)>,
}

/// What a file held; `None` if it could not be read.
type Fingerprint = Option<[u8; 32]>;

/// What changed since the last look.
#[derive(Debug, Default)]
pub struct Changes {
    /// Files of the manifest, as the user named them.
    pub manifest: Vec<String>,
    /// Services with a changed source, and the first such file.
    pub sources: Vec<(ServiceAddress, String)>,
}

impl Changes {
    /// Whether nothing changed.
    pub fn is_empty(&self) -> bool {
        self.manifest.is_empty() && self.sources.is_empty()
    }

    /// Adds what changed since; each service is named once.
    pub fn add(&mut self, later: Changes) {
        self.manifest.extend(later.manifest);
        for (service, path) in later.sources {
            if !self.sources.iter().any(|(known, _)| *known == service) {
                self.sources.push((service, path));
            }
        }
    }
}

impl FileWatch {
    /// Watches nothing yet.
    pub fn new() -> notify::Result<Self> {
        let (sender, hints) = mpsc::unbounded_channel();
        let hint = move |event: notify::Result<notify::Event>| {
            if event.is_ok_and(|event| !event.kind.is_access()) {
                // The receiver is gone only while the watcher is being dropped.
                let _ = sender.send(());
            }
        };
        let notify: Box<dyn Watcher + Send + Sync> =
            match RecommendedWatcher::new(hint.clone(), Config::default()) {
                Ok(watcher) => Box::new(watcher),
                // A user has few of them: 128 on Linux.
                Err(error) => {
                    tracing::warn!(%error, "files cannot be watched, and are looked at instead");
                    let config = Config::default().with_poll_interval(LOOK_AGAIN);
                    Box::new(PollWatcher::new(hint, config)?)
                }
            };
        Ok(Self {
            notify,
            hints,
            burst: None,
            folders: BTreeSet::new(),
            manifest: BTreeMap::new(),
            sources: Vec::new(),
        })
    }

    /// Follows exactly these files and, unless there is no valid manifest, these `watch` paths.
    pub fn follow(&mut self, files: &[PathBuf], desired: Option<&Desired>) {
        self.manifest = files
            .iter()
            .map(|file| (file.clone(), fingerprint(file)))
            .collect();
        if let Some(desired) = desired {
            self.sources = sources(desired);
        }
        self.follow_folders();
    }

    /// How many files are followed: the manifest's, and sources.
    pub fn count(&self) -> (Vec<PathBuf>, usize) {
        let sources: BTreeSet<&PathBuf> = self
            .sources
            .iter()
            .flat_map(|source| source.files.keys())
            .collect();
        (self.manifest.keys().cloned().collect(), sources.len())
    }

    /// Returns after a burst of events: once none has come for `quiet`, at most `longest` after the
    /// first. Cancel-safe: a burst that was begun is remembered.
    pub async fn burst(&mut self, quiet: Duration, longest: Duration) {
        loop {
            let next = match self.burst {
                None => self.hints.recv().await,
                Some(Burst { first, last }) => {
                    let until = (first + longest).min(last + quiet);
                    match tokio::time::timeout_at(until, self.hints.recv()).await {
                        Ok(next) => next,
                        Err(_) => {
                            self.burst = None;
                            return;
                        }
                    }
                }
            };
            if next.is_none() {
                // Cannot happen while `notify` lives; waiting is then left to other branches.
                return std::future::pending().await;
            }
            let last = Instant::now();
            let first = self.burst.as_ref().map_or(last, |burst| burst.first);
            self.burst = Some(Burst { first, last });
        }
    }

    /// What really changed since the last look.
    pub fn changes(&mut self) -> Changes {
        let mut changes = Changes::default();
        for (file, known) in &mut self.manifest {
            let now = fingerprint(file);
            if now != *known {
                *known = now;
                changes.manifest.push(file.display().to_string());
            }
        }
        for source in &mut self.sources {
            let now = snapshot(&source.root);
            if let Some(changed) = first_difference(&source.files, &now) {
                changes
                    .sources
                    .push((source.service.clone(), short(&changed)));
                source.files = now;
            }
        }
        self.follow_folders();
        changes
    }

    fn follow_folders(&mut self) {
        let mut wanted = BTreeSet::new();
        for file in self.manifest.keys() {
            for path in [Some(file.clone()), file.canonicalize().ok()]
                .into_iter()
                .flatten()
            {
                let folder = path
                    .parent()
                    .filter(|folder| !folder.as_os_str().is_empty());
                wanted.insert(folder.unwrap_or(Path::new(".")).to_owned());
            }
        }
        for source in &self.sources {
            wanted.extend(folders(&source.root));
        }
        for gone in self.folders.difference(&wanted) {
            // A folder that no longer exists has lost its watch already.
            let _ = self.notify.unwatch(gone);
        }
        let mut followed = BTreeSet::new();
        for folder in wanted {
            let known = self.folders.contains(&folder) && folder.exists();
            match known
                || self
                    .notify
                    .watch(&folder, RecursiveMode::NonRecursive)
                    .is_ok()
            {
                true => drop(followed.insert(folder)),
                false => tracing::info!("{} is looked at by time only", folder.display()),
            }
        }
        self.folders = followed;
    }
}

fn sources(desired: &Desired) -> Vec<Source> {
    let mut sources = Vec::new();
    for (sandbox, wanted) in &desired.sandboxes {
        for (service, rules) in &wanted.watch {
            for rule in rules {
                sources.push(Source {
                    service: ServiceAddress::new(sandbox.clone(), service.clone()),
                    root: rule.path.clone(),
                    files: snapshot(&rule.path),
                });
            }
        }
    }
    sources
}

fn fingerprint(file: &Path) -> Fingerprint {
    let metadata = std::fs::metadata(file).ok()?;
    let mut hash = Sha256::new();
    if metadata.is_file() && metadata.len() <= HASH_LIMIT {
        hash.update(std::fs::read(file).ok()?);
    } else {
        hash.update(format!("{} {:?}", metadata.len(), metadata.modified().ok()));
    }
    Some(hash.finalize().into())
}

fn ignored(path: &Path) -> bool {
    path.file_name()
        .and_then(|name| name.to_str())
        .is_some_and(|name| IGNORED.contains(&name))
}

/// Every folder under `root` with sources in it; the parent if `root` is a file or absent.
fn folders(root: &Path) -> Vec<PathBuf> {
    if !root.is_dir() {
        return root.parent().map(Path::to_owned).into_iter().collect();
    }
    let mut found = vec![root.to_owned()];
    let mut next = 0;
    while next < found.len() {
        let children = std::fs::read_dir(&found[next])
            .into_iter()
            .flatten()
            .flatten();
        let children: Vec<PathBuf> = children
            .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
            .map(|entry| entry.path())
            .filter(|path| !ignored(path))
            .collect();
        found.extend(children);
        next += 1;
    }
    found
}

/// Size and time of every source under `root`.
fn snapshot(root: &Path) -> BTreeMap<PathBuf, (u64, Option<SystemTime>)> {
    let state = |path: &Path| {
        let metadata = std::fs::metadata(path)
            .ok()
            .filter(std::fs::Metadata::is_file)?;
        Some((metadata.len(), metadata.modified().ok()))
    };
    if !root.is_dir() {
        return state(root)
            .map(|state| (root.to_owned(), state))
            .into_iter()
            .collect();
    }
    let mut files = BTreeMap::new();
    for folder in folders(root) {
        for entry in std::fs::read_dir(&folder).into_iter().flatten().flatten() {
            let path = entry.path();
            if let Some(state) = state(&path) {
                files.insert(path, state);
            }
        }
    }
    files
}

fn first_difference<T: PartialEq>(
    before: &BTreeMap<PathBuf, T>,
    after: &BTreeMap<PathBuf, T>,
) -> Option<PathBuf> {
    let changed = after
        .iter()
        .find(|(path, state)| before.get(*path) != Some(*state));
    let gone = before.keys().find(|path| !after.contains_key(*path));
    changed.map(|(path, _)| path).or(gone).cloned()
}

/// The last two parts of a path: enough to know the file by.
fn short(path: &Path) -> String {
    let parts: Vec<_> = path.iter().collect();
    let tail: PathBuf = parts[parts.len().saturating_sub(2)..].iter().collect();
    tail.display().to_string()
}
