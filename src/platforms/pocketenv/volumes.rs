//! Volumes of a sandbox. The platform mounts them when it starts one, and not before: so they are attached,
//! changed and removed while it is stopped, and whatever breaks off meanwhile, a start comes after it.
//!
//! Ours are those whose names are in the sandbox's mark. Others are neither shown nor touched.

use std::collections::BTreeSet;

use secrecy::SecretString;

use super::super::cloud::supply::shell::quote;
use super::Inner;
use super::wire::Attached;
use crate::model::{SandboxName, SandboxSpec, Volumes, is_plain_path};
use crate::platforms::{Attachment, PlatformError, Result};

/// The volume of this name. Paths are unique there, names are not: of several, the one at this path is meant.
fn find<'v>(there: &'v [Attached], name: &str, path: &str) -> Option<&'v Attached> {
    let mut called: Vec<_> = there.iter().filter(|it| it.name() == name).collect();
    called.sort_by_key(|it| (it.path() != Some(path), it.path()));
    called.first().copied()
}

impl Inner {
    /// The volumes that a sandbox's mark names, as far as they are there, at the paths that they have.
    pub(super) async fn volumes(&self, id: &str, marked: &Volumes) -> Result<Volumes> {
        if marked.is_empty() {
            return Ok(Volumes::new());
        }
        let there = self.api.attached(id, Attachment::Volume).await?;
        let found = marked.iter().filter_map(|(name, path)| {
            let path = find(&there, name, path)?.path().unwrap_or_default();
            Some((name.clone(), path.to_owned()))
        });
        Ok(found.collect())
    }

    /// Removes the volumes of a mark that are not wanted.
    pub(super) async fn detach_volumes(
        &self,
        id: &str,
        marked: &Volumes,
        wanted: &Volumes,
    ) -> Result<()> {
        let old = marked
            .iter()
            .filter(|(name, _)| !wanted.contains_key(*name));
        let old: Vec<_> = old.collect();
        if old.is_empty() {
            return Ok(());
        }
        let there = self.api.attached(id, Attachment::Volume).await?;
        for (name, path) in old {
            if let Some(it) = find(&there, name, path) {
                self.remove_attached(Attachment::Volume, id, &it.id).await?;
            }
        }
        Ok(())
    }

    /// Attaches the volumes that are wanted, each at its path.
    pub(super) async fn attach_volumes(&self, id: &str, wanted: &Volumes) -> Result<()> {
        if wanted.is_empty() {
            return Ok(());
        }
        let mut there = self.api.attached(id, Attachment::Volume).await?;
        let paths: BTreeSet<_> = wanted.values().map(String::as_str).collect();
        // No two can have one path, even for a moment: what another one is to have is given up first.
        for (name, path) in wanted {
            let known = find(&there, name, path).cloned();
            let Some((it, at)) = known.as_ref().and_then(|it| Some((it, it.path()?))) else {
                continue;
            };
            if at != path && paths.contains(at) {
                let aside = format!("{at}.gabion-moved");
                self.put_volume(id, Some(&it.id), name, &aside).await?;
                there.retain(|other| other.id != it.id);
                there.push(it.moved(aside));
            }
        }
        for (name, path) in wanted {
            let known = find(&there, name, path);
            if known.is_some_and(|it| it.path() == Some(path)) {
                continue;
            }
            if let Some(other) = there.iter().find(|it| it.path() == Some(path)) {
                let other = other.name();
                let text = format!("`{path}` is where volume `{other}` is mounted already");
                return Err(PlatformError::new(text).hint(format!(
                    "gabion has not attached `{other}`: give `{name}` another path, or remove the other one"
                )));
            }
            let known = known.map(|it| it.id.as_str());
            self.put_volume(id, known, name, path).await?;
        }
        Ok(())
    }

    async fn put_volume(
        &self,
        id: &str,
        known: Option<&str>,
        name: &str,
        path: &str,
    ) -> Result<()> {
        let path = SecretString::from(path);
        self.put_attached(id, Attachment::Volume, known, name, &path)
            .await
    }

    /// Waits until a sandbox that was started has its volumes, which come in the background.
    pub(super) async fn await_volumes(&self, id: &str, spec: &SandboxSpec) -> Result<()> {
        let tests = spec.volumes.values();
        let tests: Vec<_> = tests
            .map(|path| format!("[ -d {} ]", quote(path)))
            .collect();
        if tests.is_empty() || self.becomes_true(id, &tests.join(" && ")).await? {
            return Ok(());
        }
        Err(PlatformError::new(
            "the platform has not mounted the volumes of the sandbox",
        ))
    }
}

/// The volumes of a sandbox that a manifest can have, and the names of the others.
pub(super) fn described(there: &[Attached]) -> (Volumes, Vec<String>) {
    let (mut volumes, mut others) = (Volumes::new(), Vec::new());
    for it in there {
        let path = it.path().filter(|path| is_plain_path(path));
        let fits = SandboxName::new(it.name()).is_ok() && !volumes.contains_key(it.name());
        match path.filter(|_| fits) {
            Some(path) => {
                volumes.insert(it.name().to_owned(), path.to_owned());
            }
            None => others.push(it.name().to_owned()),
        }
    }
    (volumes, others)
}
