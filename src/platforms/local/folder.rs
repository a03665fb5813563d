//! Where local sandboxes are kept: `<home>/sandboxes/<stack>/<sandbox>/`.
//!
//! A sandbox folder appears and disappears whole: it is made and taken apart under a name that
//! starts with a dot, which no stack or sandbox name does.

use std::collections::BTreeMap;
use std::fs::{DirBuilder, File};
use std::io::{self, Write};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::Local;
use crate::model::{SandboxName, SandboxSpec};
use crate::platforms::{PlatformError, Result};

/// Beside the stacks; no stack's name starts with a dot.
const CONTAINERS: &str = ".containers";

const SPEC_FILE: &str = "sandbox.json";

/// What `sandbox.json` holds.
#[derive(Serialize, Deserialize)]
struct Stored<S> {
    version: u32,
    /// The stack that the sandbox belongs to.
    owner: String,
    sandbox: SandboxName,
    spec: S,
}

/// The folder that holds all local sandboxes.
#[derive(Debug, Clone)]
pub struct Stacks {
    root: PathBuf,
}

impl Stacks {
    pub fn new(home: impl Into<PathBuf>) -> Self {
        Self {
            root: home.into().join("sandboxes"),
        }
    }

    pub fn sandbox(&self, stack: &str, sandbox: &SandboxName) -> Folder {
        Folder(self.root.join(stack).join(sandbox.as_str()))
    }

    /// The stacks that there is something of, sorted.
    pub fn names(&self) -> Result<Vec<String>> {
        let entries = match std::fs::read_dir(&self.root) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(failed("read", &self.root)(error)),
        };
        let mut names = Vec::new();
        for entry in entries {
            let name = entry.map_err(failed("read", &self.root))?.file_name();
            // Stacks have names of the same kind as sandboxes.
            names.extend(
                name.to_str()
                    .filter(|name| SandboxName::new(*name).is_ok())
                    .map(str::to_owned),
            );
        }
        names.sort_unstable();
        Ok(names)
    }

    /// The folder that all stacks are in.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Notes that containers may be left of a sandbox that is gone, before the first one is made.
    pub fn note_containers(&self) -> Result<()> {
        let path = self.root.join(CONTAINERS);
        let made = File::options().create(true).append(true).open(&path);
        made.map(drop).map_err(failed("write", &path))
    }

    /// Whether there may be any: without that no engine is asked.
    pub fn has_containers(&self) -> bool {
        self.root.join(CONTAINERS).exists()
    }

    /// Forgets the note once nothing is left that it could be about.
    pub fn forget_containers(&self) {
        let entries = std::fs::read_dir(&self.root)
            .into_iter()
            .flatten()
            .flatten();
        if entries
            .into_iter()
            .all(|entry| entry.file_name() == CONTAINERS)
        {
            // Fails where somebody else was faster.
            let _ = std::fs::remove_file(self.root.join(CONTAINERS))
                .and_then(|()| std::fs::remove_dir(&self.root));
        }
    }

    /// The sandboxes of `stack`, by name.
    pub fn sandboxes(&self, stack: &str) -> Result<BTreeMap<SandboxName, Folder>> {
        let path = self.root.join(stack);
        let entries = match std::fs::read_dir(&path) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(BTreeMap::new()),
            Err(error) => return Err(failed("read", &path)(error)),
        };
        let mut found = BTreeMap::new();
        for entry in entries {
            let name = entry.map_err(failed("read", &path))?.file_name();
            if let Some(name) = name.to_str().and_then(|name| SandboxName::new(name).ok()) {
                let folder = self.sandbox(stack, &name);
                found.insert(name, folder);
            }
        }
        Ok(found)
    }

    /// Makes the folder of a sandbox, or takes the one that is there.
    pub fn create(&self, stack: &str, sandbox: &SandboxName, spec: &SandboxSpec) -> Result<Folder> {
        let folder = self.sandbox(stack, sandbox);
        if folder.read_spec(stack)?.is_some() {
            folder.write_spec(stack, sandbox, spec)?;
            return Ok(folder);
        }
        self.create_with(stack, sandbox, spec, |_| Ok(()))
    }

    /// Makes the folder of a sandbox that is not there, with what `fill` puts into it.
    pub fn create_with(
        &self,
        stack: &str,
        sandbox: &SandboxName,
        spec: &SandboxSpec,
        fill: impl FnOnce(&Path) -> Result<()>,
    ) -> Result<Folder> {
        let folder = self.sandbox(stack, sandbox);
        let parent = self.root.join(stack);
        private_dir(&parent).map_err(failed("make", &parent))?;
        let draft = Folder(parent.join(format!(".new-{sandbox}")));
        remove_tree(&draft.0).map_err(failed("remove", &draft.0))?;
        private_dir(&draft.0.join("workspace")).map_err(failed("make", &draft.0))?;
        draft.write_spec(stack, sandbox, spec)?;
        if let Err(error) = fill(&draft.0) {
            remove_tree(&draft.0).map_err(failed("remove", &draft.0))?;
            return Err(error);
        }
        std::fs::rename(&draft.0, &folder.0).map_err(failed("make", &folder.0))?;
        Ok(folder)
    }

    /// Removes the folder of a sandbox.
    pub fn delete(&self, stack: &str, sandbox: &SandboxName) -> Result<()> {
        let parent = self.root.join(stack);
        let folder = self.sandbox(stack, sandbox);
        let doomed = parent.join(format!(".old-{sandbox}"));
        remove_tree(&doomed).map_err(failed("remove", &doomed))?;
        match std::fs::rename(&folder.0, &doomed) {
            Ok(()) => remove_tree(&doomed).map_err(failed("remove", &doomed))?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(failed("remove", &folder.0)(error)),
        }
        Ok(())
    }

    /// Removes what interrupted work has left of a stack, and the stack's folder if it is empty.
    pub fn tidy(&self, stack: &str) -> Result<()> {
        let parent = self.root.join(stack);
        for entry in std::fs::read_dir(&parent).into_iter().flatten().flatten() {
            if entry.file_name().as_encoded_bytes().starts_with(b".") {
                remove_tree(&entry.path()).map_err(failed("remove", &entry.path()))?;
            }
        }
        // Each fails while something else is still in it, as it should.
        let _ = std::fs::remove_dir(&parent).and_then(|()| std::fs::remove_dir(&self.root));
        Ok(())
    }
}

impl Local {
    /// The names of the stack's sandboxes.
    pub fn sandboxes(&self) -> Result<Vec<SandboxName>> {
        let found = self.stacks.sandboxes(&self.stack)?;
        Ok(found.into_keys().collect())
    }

    /// The folder that a sandbox is kept in, whether or not it is there.
    pub fn dir(&self, sandbox: &SandboxName) -> PathBuf {
        self.folder(sandbox).0
    }

    /// What a sandbox was created with; `None` if there is none.
    pub fn spec(&self, sandbox: &SandboxName) -> Result<Option<SandboxSpec>> {
        self.folder(sandbox).read_spec(&self.stack)
    }
}

/// The folder of one sandbox.
#[derive(Debug, Clone)]
pub struct Folder(PathBuf);

impl Folder {
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// The spec that the sandbox was created with; `None` if there is no sandbox here. It is an
    /// error if the folder carries another owner's mark or cannot be read.
    pub fn read_spec(&self, stack: &str) -> Result<Option<SandboxSpec>> {
        let path = self.0.join(SPEC_FILE);
        let text = match std::fs::read(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(failed("read", &path)(error)),
        };
        let stored: Stored<SandboxSpec> = serde_json::from_slice(&text).map_err(|error| {
            PlatformError::new(format!("{} is damaged: {error}", path.display()))
                .hint("restore the file, or stop what runs in the sandbox and remove its folder")
        })?;
        if stored.owner != stack {
            let message = format!("{} belongs to stack `{}`", self.0.display(), stored.owner);
            return Err(PlatformError::new(message));
        }
        Ok(Some(stored.spec))
    }

    pub fn write_spec(&self, stack: &str, sandbox: &SandboxName, spec: &SandboxSpec) -> Result<()> {
        let path = self.0.join(SPEC_FILE);
        let stored = Stored {
            version: 1,
            owner: stack.to_owned(),
            sandbox: sandbox.clone(),
            spec,
        };
        self.write(&path, &stored).map_err(failed("write", &path))
    }

    fn write(&self, path: &Path, stored: &impl Serialize) -> io::Result<()> {
        let mut file = tempfile::NamedTempFile::new_in(&self.0)?;
        file.write_all(&serde_json::to_vec_pretty(stored)?)?;
        file.as_file().sync_all()?;
        file.persist(path)?;
        File::open(&self.0)?.sync_all()
    }
}

fn private_dir(path: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(path)
}

/// Removes a folder with everything in it; an absent one counts as removed.
fn remove_tree(path: &Path) -> io::Result<()> {
    match std::fs::remove_dir_all(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

fn failed<'a>(verb: &'a str, path: &'a Path) -> impl FnOnce(io::Error) -> PlatformError + 'a {
    move |error| PlatformError::new(format!("cannot {verb} {}: {error}", path.display()))
}
