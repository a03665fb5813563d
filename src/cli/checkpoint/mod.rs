//! `gabion checkpoint …`: what a sandbox was, kept and brought back.

mod create;
mod delete;
mod list;
mod restore;
mod wait;

use std::process::ExitCode;

use super::context::Context;
use super::error::{Error, Result};
use crate::apply::StackLock;
use crate::manifest::Loaded;
use crate::model::{Checkpoint, HumanDuration, SandboxName};
use crate::platforms::{Act, Platforms};

#[derive(clap::Args)]
#[command(after_help = "Examples:
  gabion checkpoint create data before-upgrade
  gabion checkpoint list data
  gabion checkpoint restore data before-upgrade
  gabion checkpoint delete data before-upgrade

A checkpoint holds the files of a sandbox's workspace, the definitions of its
services, and which of them ran. Its processes are held still while the files
are copied, unless the manifest says `checkpoint: { freeze: false }`: so the copy
is of one moment, as after a power cut, and a database recovers from it.")]
pub struct CheckpointArgs {
    #[command(subcommand)]
    command: CheckpointCommand,
}

#[derive(clap::Subcommand)]
enum CheckpointCommand {
    /// Keep a sandbox as it is now
    Create(create::CreateArgs),
    /// Show the checkpoints of a sandbox
    List(list::ListArgs),
    /// Make a sandbox what it was
    Restore(restore::RestoreArgs),
    /// Remove a checkpoint
    Delete(delete::DeleteArgs),
    /// Wait until a checkpoint is written
    Wait(wait::WaitArgs),
}

impl CheckpointArgs {
    /// Whether it changes something.
    pub fn changes_something(&self) -> bool {
        !matches!(self.command, CheckpointCommand::List(_))
    }
}

pub async fn run(context: &Context, args: &CheckpointArgs) -> Result<ExitCode> {
    match &args.command {
        CheckpointCommand::Create(args) => create::run(context, args).await,
        CheckpointCommand::List(args) => list::run(context, args).await,
        CheckpointCommand::Restore(args) => restore::run(context, args).await,
        CheckpointCommand::Delete(args) => delete::run(context, args).await,
        CheckpointCommand::Wait(args) => wait::run(context, args).await,
    }
}

/// A sandbox that is there, with what it takes to act on it.
pub struct Target {
    pub loaded: Loaded,
    pub platforms: Platforms,
    pub sandbox: SandboxName,
    /// Its folder, if the manifest's author has named one.
    pub workspace: Option<std::path::PathBuf>,
    _lock: Option<StackLock>,
}

impl Target {
    /// Finds `sandbox`; with the stack's lock if something is to be changed.
    pub async fn open(
        context: &Context,
        sandbox: &SandboxName,
        lock: Option<(&str, HumanDuration)>,
    ) -> Result<Self> {
        let (loaded, desired) = context.load_stack()?;
        let lock = match lock {
            Some((command, timeout)) => {
                Some(super::run::lock(context, &desired.stack, command, timeout).await?)
            }
            None => None,
        };
        let mut platforms = context.platforms(&loaded, &desired.stack)?;
        let observed = context.observe(&mut platforms, &desired).await?;
        super::address::resolve(&[sandbox.clone().into()], &desired, &observed)?;
        if !observed.sandboxes.contains_key(sandbox) {
            return Err(Error::Failed {
                message: format!("sandbox `{sandbox}` is not there yet"),
                hint: Some("gabion apply makes it".to_owned()),
            });
        }
        let workspace = observed
            .known(sandbox)
            .and_then(|it| it.spec.workspace.clone());
        Ok(Self {
            loaded,
            platforms,
            sandbox: sandbox.clone(),
            workspace,
            _lock: lock,
        })
    }

    pub fn platform(&self) -> Result<&dyn Act> {
        Ok(self.platforms.of(&self.sandbox)?)
    }

    /// The checkpoint that is meant by an id or a name.
    pub async fn find(&self, text: &str) -> Result<Checkpoint> {
        let all = self.platform()?.checkpoints(&self.sandbox).await?;
        let sandbox = &self.sandbox;
        let named = |checkpoint: &&Checkpoint| {
            checkpoint.id == text || checkpoint.name.as_deref() == Some(text)
        };
        let found: Vec<_> = all.iter().filter(named).collect();
        match found[..] {
            [one] => Ok(one.clone()),
            [] => Err(Error::Usage {
                message: format!("sandbox `{sandbox}` has no checkpoint `{text}`"),
                hint: Some(format!("gabion checkpoint list {sandbox}")),
            }),
            _ => {
                let ids: Vec<_> = found
                    .iter()
                    .map(|checkpoint| checkpoint.id.as_str())
                    .collect();
                let number = ids.len();
                Err(Error::Usage {
                    message: format!("{number} checkpoints of `{sandbox}` are called `{text}`"),
                    hint: Some(format!("name one by its id: {}", ids.join(", "))),
                })
            }
        }
    }
}

/// `cp_01 (before-upgrade)`.
fn shown(checkpoint: &Checkpoint) -> String {
    match &checkpoint.name {
        Some(name) => format!("{} ({name})", checkpoint.id),
        None => checkpoint.id.clone(),
    }
}

/// `a, b, c`.
pub fn names<T: std::fmt::Display>(names: &[T]) -> String {
    let texts: Vec<_> = names.iter().map(ToString::to_string).collect();
    texts.join(", ")
}

/// Prints a value as JSON.
pub fn print_json(value: &impl serde::Serialize) -> Result<()> {
    let text = serde_json::to_string_pretty(value);
    let text = text.map_err(|error| Error::failed(error.to_string()))?;
    super::context::print(&format!("{text}\n"))
}
