//! Files of a sandbox, as a manifest has them: attached sealed, and written by the platform when it starts one. So
//! they are attached, as volumes are, while it is stopped.
//!
//! The platform tells a file's path and id, and never its content. What the content was attached from is in the
//! sandbox's mark, as a digest, and so is the id that it got: where another id is found, it was replaced by hand.
//! Ours are those whose paths are in the mark. Others are neither shown nor touched.

use std::collections::BTreeMap;

use super::super::cloud::supply::shell::quote;
use super::Inner;
use super::wire::Attached;
use crate::model::{MissingSecret, SandboxName, SandboxSpec, Secrets};
use crate::platforms::{Attachment, PlatformError, Result};

/// The platform's ids of files, by path.
pub(super) type FileIds = BTreeMap<String, String>;

fn find<'f>(there: &'f [Attached], path: &str) -> Option<&'f Attached> {
    there.iter().find(|it| it.name() == path)
}

/// Takes out of a mark's spec the files that are gone, and the digests of those that are other ones.
pub(super) fn settle(spec: &mut SandboxSpec, ids: &FileIds, there: &[Attached]) {
    for (path, secret) in spec.files.clone() {
        match find(there, &path) {
            None => spec.remove_file(&path),
            Some(it) if ids.get(&path) != Some(&it.id) => drop(spec.secrets.remove(&secret)),
            Some(_) => {}
        }
    }
}

/// Those of the ids in a mark whose files are there with the content that is wanted.
pub(super) fn kept(
    mut ids: FileIds,
    marked: &SandboxSpec,
    wanted: &SandboxSpec,
    there: &[Attached],
) -> FileIds {
    ids.retain(|path, id| {
        find(there, path).is_some_and(|it| it.id == *id) && marked.has_same_file(wanted, path)
    });
    ids
}

/// Refuses to take the path of a file that somebody else has attached.
pub(super) fn none_is_taken(
    marked: &SandboxSpec,
    wanted: &SandboxSpec,
    there: &[Attached],
) -> Result<()> {
    let mut new = wanted.files.keys();
    let taken = new.find(|path| !marked.files.contains_key(*path) && find(there, path).is_some());
    match taken {
        None => Ok(()),
        Some(path) => Err(PlatformError::new(format!(
            "there is a file at `{path}` that gabion has not attached"
        ))
        .hint("give yours another path, or remove the other one: gabion file unset")),
    }
}

impl Inner {
    /// The files that are attached to a sandbox, whoever did it. Nobody is asked if the spec has none.
    pub(super) async fn attached_files(
        &self,
        id: &str,
        spec: &SandboxSpec,
    ) -> Result<Vec<Attached>> {
        match spec.files.is_empty() {
            true => Ok(Vec::new()),
            false => Ok(self.api.attached(id, Attachment::File).await?),
        }
    }

    /// Removes the files of a mark that are not wanted, wherever they were moved to.
    pub(super) async fn detach_files(
        &self,
        id: &str,
        (marked, ids): (&SandboxSpec, &FileIds),
        wanted: &SandboxSpec,
        there: &[Attached],
    ) -> Result<()> {
        let is_ours = |it: &Attached| {
            marked.files.contains_key(it.name()) || ids.values().any(|known| *known == it.id)
        };
        for it in there {
            if is_ours(it) && !wanted.files.contains_key(it.name()) {
                self.remove_attached(Attachment::File, id, &it.id).await?;
            }
        }
        Ok(())
    }

    /// Attaches the files that are wanted and not among those that are `kept`, in place of what is there. Then
    /// the mark gets their ids: until it has them, nobody takes them for what they are to be.
    pub(super) async fn attach_files(
        &self,
        id: &str,
        (sandbox, wanted): (&SandboxName, &SandboxSpec),
        kept: &FileIds,
        there: &[Attached],
        secrets: &Secrets,
    ) -> Result<()> {
        let new = wanted.files.iter();
        let new: Vec<_> = new.filter(|(path, _)| !kept.contains_key(*path)).collect();
        if new.is_empty() {
            return Ok(());
        }
        for (path, secret) in new {
            let content = secrets.get(secret);
            let missing = || PlatformError::new(MissingSecret(secret.clone()).to_string());
            let content = content.ok_or_else(missing)?;
            // The platform changes a file's path, but not its content.
            if let Some(old) = find(there, path) {
                self.remove_attached(Attachment::File, id, &old.id).await?;
            }
            self.put_attached(id, Attachment::File, None, path, content)
                .await?;
        }
        let there = self.api.attached(id, Attachment::File).await?;
        let ours = there
            .iter()
            .filter(|it| wanted.files.contains_key(it.name()));
        let ids = ours
            .map(|it| (it.name().to_owned(), it.id.clone()))
            .collect();
        self.describe(id, sandbox, wanted, &ids).await
    }

    /// Waits until a sandbox that was started has its files, which come in the background.
    pub(super) async fn await_files(&self, id: &str, spec: &SandboxSpec) -> Result<()> {
        let paths = spec.files.keys().map(|path| quote(path));
        let paths = paths.collect::<Vec<_>>().join(" ");
        let missing = format!("for path in {paths}; do [ -e \"$path\" ] || echo \"$path\"; done");
        let none = format!("[ -z \"$({missing})\" ]");
        if paths.is_empty() || self.becomes_true(id, &none).await? {
            return Ok(());
        }
        let missing = format!("/bin/sh -c {}", quote(&missing));
        let missing = self.api.exec(id, &missing).await?.stdout;
        let missing: Vec<_> = missing.lines().map(|path| format!("`{path}`")).collect();
        let text = format!("the platform has not written {}", missing.join(", "));
        Err(PlatformError::new(text).hint("it may not be able to write there: choose another path"))
    }
}
