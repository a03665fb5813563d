//! Checkpoints and forks of local sandboxes: through the supervisor where one runs, else in the folder.

use std::collections::BTreeSet;

use futures_util::future::join_all;

use super::{Folder, Local, refused, values};
use crate::model::{Checkpoint, Forked, Listing, Restored, SandboxName, Secrets};
use crate::platforms::{ForkOptions, Observe, PlatformError, Result};
use crate::supervisor::{self, Client, ForkedFiles, OfflineError, Until};

fn offline(error: OfflineError) -> PlatformError {
    PlatformError::new(error.to_string())
}

fn failed(what: &str) -> impl Fn(std::io::Error) -> PlatformError + '_ {
    move |error| PlatformError::new(format!("{what}: {error}"))
}

/// Runs something that blocks.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(|error| PlatformError::new(error.to_string()))?
}

impl Local {
    /// The folder of a sandbox that is there.
    fn existing(&self, sandbox: &SandboxName) -> Result<Folder> {
        let folder = self.folder(sandbox);
        match folder.read_spec(&self.stack)? {
            Some(_) => Ok(folder),
            None => Err(PlatformError::no_sandbox(sandbox)),
        }
    }

    pub(super) async fn list_checkpoints(&self, sandbox: &SandboxName) -> Result<Vec<Checkpoint>> {
        let folder = self.existing(sandbox)?;
        let listed = supervisor::list_offline(folder.path());
        listed.map_err(failed("the checkpoints cannot be read"))
    }

    pub(super) async fn make_checkpoint(
        &self,
        sandbox: &SandboxName,
        name: Option<&str>,
        secrets: &Secrets,
    ) -> Result<Checkpoint> {
        let folder = self.existing(sandbox)?;
        if let Some(client) = self.open(sandbox)? {
            let made = client.create_checkpoint(name, secrets).await;
            return made.map_err(refused);
        }
        let occupied = self.occupy(&folder).await?;
        let name = name.map(str::to_owned);
        blocking(move || {
            let _occupied = occupied;
            let made = supervisor::create_offline(folder.path(), name);
            made.map_err(failed("the checkpoint failed"))
        })
        .await
    }

    pub(super) async fn await_checkpoint(
        &self,
        sandbox: &SandboxName,
        id: &str,
    ) -> Result<Checkpoint> {
        self.existing(sandbox)?;
        if let Some(client) = self.open(sandbox)? {
            return client.wait_checkpoint(id).await.map_err(refused);
        }
        let listed = self.list_checkpoints(sandbox).await?;
        let found = listed.into_iter().find(|checkpoint| checkpoint.id == id);
        found.ok_or_else(|| offline(OfflineError::NotFound(id.to_owned())))
    }

    pub(super) async fn rewind(
        &self,
        sandbox: &SandboxName,
        id: &str,
        secrets: &Secrets,
    ) -> Result<Restored> {
        let folder = self.existing(sandbox)?;
        if let Some(client) = self.open(sandbox)? {
            let restored = client.restore_checkpoint(id, secrets).await;
            return restored.map_err(refused);
        }
        let occupied = self.occupy(&folder).await?;
        let id = id.to_owned();
        blocking(move || {
            let _occupied = occupied;
            supervisor::restore_offline(folder.path(), &id).map_err(offline)
        })
        .await?;
        Ok(Restored::default())
    }

    pub(super) async fn remove_checkpoint(&self, sandbox: &SandboxName, id: &str) -> Result<()> {
        let folder = self.existing(sandbox)?;
        if let Some(client) = self.open(sandbox)? {
            return match client.delete_checkpoint(id).await {
                Err(error) if !error.is_not_found() => Err(refused(error)),
                _ => Ok(()),
            };
        }
        let _occupied = self.occupy(&folder).await?;
        match supervisor::delete_offline(folder.path(), id) {
            Ok(()) | Err(OfflineError::NotFound(_)) => Ok(()),
            Err(error) => Err(offline(error)),
        }
    }

    pub(super) async fn fork(
        &self,
        source: &SandboxName,
        fork: &SandboxName,
        options: &ForkOptions,
        secrets: &Secrets,
    ) -> Result<Forked> {
        self.existing(source)?;
        if self.folder(fork).path().exists() {
            return Err(PlatformError::taken(fork));
        }
        let (id, temporary) = match &options.from {
            Some(id) => (id.clone(), false),
            None => {
                let name = format!("fork to {fork}");
                let made = self.make_checkpoint(source, Some(&name), secrets).await?;
                (made.id, true)
            }
        };
        let forked = self.fork_from(source, fork, &id, options, secrets).await;
        if temporary {
            self.remove_checkpoint(source, &id).await?;
        }
        forked
    }

    async fn fork_from(
        &self,
        source: &SandboxName,
        fork: &SandboxName,
        id: &str,
        options: &ForkOptions,
        secrets: &Secrets,
    ) -> Result<Forked> {
        let from = self.existing(source)?;
        let spec = from.read_spec(&self.stack)?;
        let mut spec = spec.ok_or_else(|| PlatformError::new("the sandbox is gone"))?;
        // A folder of a user's own is not shared: the fork has a private copy.
        spec.workspace = None;
        let taken = self.ports_in_use().await?;
        let (stacks, stack, given) = (self.stacks.clone(), self.stack.clone(), spec.clone());
        let (name, id, stopped) = (fork.clone(), id.to_owned(), options.stopped);
        let files = blocking(move || {
            let mut files = None;
            stacks.create_with(&stack, &name, &given, |to| {
                let filled = supervisor::fork_offline(from.path(), &id, to, stopped);
                let filled = files.insert(filled.map_err(offline)?);
                check_ports(filled, &taken)
            })?;
            Ok(files)
        })
        .await?;
        self.launch(fork, &spec).await?;
        let client = self.client(fork)?;
        let files = files.ok_or_else(|| PlatformError::new("the fork is empty"))?;
        start(&client, files, secrets).await
    }

    /// The ports of everything that is up in the stack.
    async fn ports_in_use(&self) -> Result<BTreeSet<u16>> {
        let mut ports = BTreeSet::new();
        for listing in self.observe().await?.values() {
            if let Listing::Known(sandbox) = listing {
                let up = sandbox.services.values().filter(|it| it.state.is_up());
                ports.extend(
                    up.filter_map(|it| it.spec())
                        .flat_map(|spec| spec.all_ports()),
                );
            }
        }
        Ok(ports)
    }
}

/// All sandboxes share this machine's ports.
fn check_ports(files: &ForkedFiles, taken: &BTreeSet<u16>) -> Result<()> {
    for (name, spec) in &files.running {
        if let Some(port) = spec.all_ports().find(|port| taken.contains(port)) {
            let text = format!("`{name}` of the fork would need port {port}, which is in use");
            return Err(PlatformError::new(text)
                .hint("--stopped makes the fork without starting its services"));
        }
    }
    Ok(())
}

async fn start(client: &Client, files: ForkedFiles, secrets: &Secrets) -> Result<Forked> {
    let starts = files.running.iter().map(|(name, spec)| async move {
        // What it lacks is told by the supervisor.
        let values = values(spec, secrets).unwrap_or_default();
        (
            name.clone(),
            client.start(name, &values, Until::Settled).await,
        )
    });
    let mut forked = Forked {
        size_bytes: files.size_bytes,
        ..Forked::default()
    };
    for (name, started) in join_all(starts).await {
        match started {
            Ok(_) => forked.started_services.push(name),
            Err(_) => forked.failed_services.push(name),
        }
    }
    Ok(forked)
}
