//! `gabion checkpoint delete SANDBOX CHECKPOINT…`.

use std::process::ExitCode;

use super::{find, shown};
use crate::cli::context::{Context, print};
use crate::cli::error::Result;
use crate::cli::run::LockArgs;
use crate::cli::target::Target;
use crate::model::SandboxName;

#[derive(clap::Args)]
#[command(after_help = "Examples:
  gabion checkpoint delete data before-upgrade
  gabion checkpoint delete data cp_5f3a9c01 cp_77e0d2b4")]
pub struct DeleteArgs {
    /// The sandbox
    #[arg(value_name = "SANDBOX", add = crate::cli::address::completer())]
    sandbox: SandboxName,
    /// Ids or names of checkpoints
    #[arg(value_name = "CHECKPOINT", required = true)]
    checkpoints: Vec<String>,
    #[command(flatten)]
    lock: LockArgs,
}

pub async fn run(context: &Context, args: &DeleteArgs) -> Result<ExitCode> {
    let lock = Some(("gabion checkpoint delete", args.lock.lock_timeout));
    let target = Target::open(context, &args.sandbox, lock).await?;
    // All are found before the first is removed.
    let mut found = Vec::new();
    for text in &args.checkpoints {
        found.push(find(&target, text).await?);
    }
    let platform = target.platform()?;
    for checkpoint in found {
        platform
            .delete_checkpoint(&args.sandbox, &checkpoint.id)
            .await?;
        let sandbox = &args.sandbox;
        print(&format!(
            "{sandbox}: checkpoint {} deleted.\n",
            shown(&checkpoint)
        ))?;
    }
    Ok(ExitCode::SUCCESS)
}
