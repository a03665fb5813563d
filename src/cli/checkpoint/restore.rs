//! `gabion checkpoint restore SANDBOX CHECKPOINT`.

use std::process::ExitCode;
use std::time::Duration;

use super::{find, names, shown};
use crate::cli::context::{Context, print, print_json, say};
use crate::cli::error::Result;
use crate::cli::run::{LockArgs, confirm};
use crate::cli::target::Target;
use crate::model::{Checkpoint, Restored, SandboxName, show_duration};

#[derive(clap::Args)]
#[command(after_help = "Examples:
  gabion checkpoint restore data before-upgrade
  gabion checkpoint restore data cp_5f3a9c01 --yes

Everything in the sandbox stops, its files and definitions become what they were,
and what ran then is started. What was written since is lost. An interrupted
restore is completed at the next start. Exit status 1 if a service does not come
back.")]
pub struct RestoreArgs {
    /// The sandbox
    #[arg(value_name = "SANDBOX", add = crate::cli::address::completer())]
    sandbox: SandboxName,
    /// Id or name of a checkpoint
    #[arg(value_name = "CHECKPOINT")]
    checkpoint: String,
    /// Do not ask
    #[arg(short, long, env = "GABION_YES", hide_env = true,
          value_parser = clap::builder::FalseyValueParser::new(), action = clap::ArgAction::SetTrue)]
    yes: bool,
    /// Print what became of the services as JSON; needs --yes
    #[arg(long, requires = "yes")]
    json: bool,
    #[command(flatten)]
    lock: LockArgs,
}

pub async fn run(context: &Context, args: &RestoreArgs) -> Result<ExitCode> {
    let lock = Some(("gabion checkpoint restore", args.lock.lock_timeout));
    let target = Target::open(context, &args.sandbox, lock).await?;
    let checkpoint = find(&target, &args.checkpoint).await?;
    let sandbox = &args.sandbox;
    if !args.yes {
        let question = format!(
            "Rewind {sandbox} to {}? What was written since is lost.",
            shown(&checkpoint)
        );
        if !confirm(&question).await? {
            say(format_args!("Nothing was changed."));
            return Ok(ExitCode::FAILURE);
        }
    }
    let restored = target
        .platform()?
        .restore_checkpoint(sandbox, &checkpoint.id, &target.loaded.secrets)
        .await?;
    match args.json {
        true => print_json(&restored)?,
        false => print(&story(sandbox, &checkpoint, &restored))?,
    }
    Ok(match restored.failed_services.is_empty() {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    })
}

fn story(sandbox: &SandboxName, checkpoint: &Checkpoint, restored: &Restored) -> String {
    let took = show_duration(Duration::from_millis(restored.restore_duration_ms));
    let mut text = format!("{sandbox}: rewound to {} in {took}.\n", shown(checkpoint));
    for (what, services) in [
        ("started", &restored.started_services),
        ("stopped", &restored.stopped_services),
        ("failed", &restored.failed_services),
    ] {
        if !services.is_empty() {
            text.push_str(&format!("  {what:<8} {}\n", names(services)));
        }
    }
    for service in &restored.failed_services {
        text.push_str(&format!(
            "See what it said with: gabion logs {sandbox}/{service}\n"
        ));
    }
    text
}
