//! `gabion apply`: make what is there as the manifest says.

use std::process::ExitCode;

use super::address::AddressArg;
use super::context::Context;
use super::error::Result;
use super::run::{self, Execution, RunArgs};
use crate::plan::{self, Options};

#[derive(clap::Args)]
#[command(after_help = "Examples:
  gabion apply
  gabion apply --yes                     in CI
  gabion apply web/api                   only this service and what it needs
  gabion apply --yes --json              events for machines, one per line

The first Ctrl-C starts nothing new and awaits what is running; the second stops
at once. Either way the next apply goes on from what is really there.")]
pub struct ApplyArgs {
    /// Apply only these sandboxes and services, and what they need
    #[arg(value_name = "ADDRESS", add = super::address::completer())]
    targets: Vec<AddressArg>,
    #[command(flatten)]
    run: RunArgs,
}

pub async fn run(context: &Context, args: &ApplyArgs) -> Result<ExitCode> {
    let (loaded, desired) = context.load_valid()?;
    let _lock = run::lock(
        context,
        &desired.stack,
        "gabion apply",
        args.run.lock_timeout,
    )
    .await?;
    let mut platforms = context.platforms(&loaded, &desired.stack)?;
    let observed = platforms.observe(&desired).await?;
    let targets = super::address::resolve(&args.targets, &desired, &observed)?;
    let plan = plan::plan(
        &desired,
        &observed,
        &Options {
            destroy: false,
            targets,
        },
    )?;
    let execution = Execution {
        context,
        loaded: &loaded,
        platforms: &platforms,
        args: &args.run,
        success: "Everything is as the manifest says.",
    };
    execution.ask_and_run(&plan, "Apply this plan?").await
}
