//! `gabion apply`: make what is there as the manifest says.

use std::process::ExitCode;

use super::context::Context;
use super::error::Result;
use super::limits::Limits;
use super::plan_file::{self, ApplyArg};
use super::run::{self, Execution, RunArgs};
use crate::plan::{self, Options};

#[derive(clap::Args)]
#[command(after_help = "Examples:
  gabion apply
  gabion apply --yes                     in CI
  gabion apply web/api                   only this service and what it needs
  gabion apply plan.json                 what gabion plan --out plan.json has shown
  gabion apply --atomic                  all of it, or back to what was
  gabion apply --yes --json              events for machines, one per line

The first Ctrl-C starts nothing new and awaits what is running; the second stops
at once. Either way the next apply goes on from what is really there.")]
pub struct ApplyArgs {
    /// Apply only these sandboxes and services, and what they need; or one plan file
    ///
    /// What ends in `.json` is a plan file, as `gabion plan --out` writes it. It is refused if
    /// anything it touches is not as it was when the plan was made.
    #[arg(value_name = "ADDRESS|FILE.json", add = super::address::completer())]
    targets: Vec<ApplyArg>,
    /// Bring everything back if it fails: each sandbox is checkpointed first
    ///
    /// If an action fails, or the apply is interrupted, files, definitions and running services of
    /// all sandboxes that the plan touches become what they were. A plan that deletes a sandbox is
    /// refused.
    #[arg(long)]
    atomic: bool,
    #[command(flatten)]
    limits: Limits,
    #[command(flatten)]
    run: RunArgs,
}

pub async fn run(context: &Context, args: &ApplyArgs) -> Result<ExitCode> {
    let (targets, file) = plan_file::sort(&args.targets)?;
    if let Some(file) = file {
        return plan_file::apply(context, &args.run, &args.limits, args.atomic, file).await;
    }
    let (loaded, desired) = context.load_plannable()?;
    let _lock = run::lock(
        context,
        &desired.stack,
        "gabion apply",
        args.run.lock.lock_timeout,
    )
    .await?;
    let mut platforms = context.platforms(&loaded, &desired.stack)?;
    let observed = context.observe(&mut platforms, &desired).await?;
    let targets = super::address::resolve(&targets, &desired, &observed)?;
    let plan = plan::plan(
        &desired,
        &observed,
        &Options {
            destroy: false,
            targets,
        },
    )?;
    args.limits.check(&plan, &observed)?;
    let execution = Execution {
        context,
        loaded: &loaded,
        platforms: &platforms,
        args: &args.run,
        success: "Everything is as the manifest says.",
        upgrades: true,
        atomic: args.atomic.then_some(&observed),
    };
    execution.ask_and_run(&plan, "Apply this plan?").await
}
