//! `gabion checkpoint …`: what a sandbox was, kept and brought back.

mod create;
mod delete;
mod list;
mod restore;
mod wait;

use std::process::ExitCode;

use jiff::Timestamp;
use jiff::tz::TimeZone;

use super::context::Context;
use super::error::{Error, Result};
use super::target::Target;
use crate::model::Checkpoint;

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

/// The checkpoint that is meant by an id or a name.
pub async fn find(target: &Target, text: &str) -> Result<Checkpoint> {
    let all = target.platform()?.checkpoints(&target.sandbox).await?;
    let sandbox = &target.sandbox;
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

/// `cp_01 (before-upgrade)`.
fn shown(checkpoint: &Checkpoint) -> String {
    match &checkpoint.name {
        Some(name) => format!("{} ({name})", checkpoint.id),
        None => checkpoint.id.clone(),
    }
}

/// `2026-01-05 10:30:00`, where we are.
fn date(time: Timestamp) -> String {
    let here = time.to_zoned(TimeZone::system());
    here.strftime("%Y-%m-%d %H:%M:%S").to_string()
}

/// `a, b, c`.
pub fn names<T: std::fmt::Display>(names: &[T]) -> String {
    let texts: Vec<_> = names.iter().map(ToString::to_string).collect();
    texts.join(", ")
}
