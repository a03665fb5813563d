//! `gabion checkpoint create SANDBOX [NAME]`.

use std::process::ExitCode;
use std::time::Duration;

use super::shown;
use crate::cli::context::{Context, print, print_json};
use crate::cli::error::Result;
use crate::cli::run::LockArgs;
use crate::cli::target::Target;
use crate::model::{SandboxName, human_size, show_duration};

#[derive(clap::Args)]
#[command(after_help = "Examples:
  gabion checkpoint create data
  gabion checkpoint create data before-upgrade
  gabion checkpoint create data --no-wait        prints the id at once

What a database needs besides: `checkpoint: { before: CMD, after: CMD }` in the
manifest. Where the filesystem can share extents (Btrfs, XFS) it takes no time and
no space; elsewhere the files are copied, and processes stand still meanwhile.")]
pub struct CreateArgs {
    /// The sandbox
    #[arg(value_name = "SANDBOX", add = crate::cli::address::completer())]
    sandbox: SandboxName,
    /// What to call it
    #[arg(value_name = "NAME")]
    name: Option<String>,
    /// Do not wait until it is written
    #[arg(long)]
    no_wait: bool,
    /// Print it as JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    lock: LockArgs,
}

pub async fn run(context: &Context, args: &CreateArgs) -> Result<ExitCode> {
    let lock = Some(("gabion checkpoint create", args.lock.lock_timeout));
    let target = Target::open(context, &args.sandbox, lock).await?;
    let (platform, name) = (target.platform()?, args.name.as_deref());
    let secrets = &target.loaded.secrets;
    if args.no_wait {
        let id = platform
            .begin_checkpoint(&args.sandbox, name, secrets)
            .await?;
        match args.json {
            true => print_json(&serde_json::json!({ "id": id }))?,
            false => print(&format!("{id}\n"))?,
        }
        return Ok(ExitCode::SUCCESS);
    }
    let made = platform
        .create_checkpoint(&args.sandbox, name, secrets)
        .await?;
    if args.json {
        print_json(&made)?;
    } else {
        let (size, took) = (
            human_size(made.size_bytes),
            Duration::from_millis(made.copy_duration_ms),
        );
        let (sandbox, took) = (&args.sandbox, show_duration(took));
        print(&format!(
            "{sandbox}: checkpoint {} made, {size} in {took}.\n",
            shown(&made)
        ))?;
    }
    Ok(ExitCode::SUCCESS)
}
