//! `gabion destroy`: remove everything that carries the stack's mark.

use std::process::ExitCode;

use super::context::{Context, print};
use super::error::Result;
use super::run::{self, Execution, RunArgs};
use crate::model::Desired;
use crate::plan::{self, Options};

#[derive(clap::Args)]
#[command(after_help = "Examples:
  gabion destroy
  gabion destroy --yes

Private workspaces and logs go with their sandbox; a folder named as `workspace`
stays.")]
pub struct DestroyArgs {
    #[command(flatten)]
    run: RunArgs,
}

/// What is said when there is nothing of a stack to remove.
pub fn nothing(stack: &str) -> String {
    format!("Nothing to destroy: nothing of stack `{stack}` is there.\n")
}

pub async fn run(context: &Context, args: &DestroyArgs) -> Result<ExitCode> {
    let (loaded, desired) = context.load_stack()?;
    let stack = desired.stack.clone();
    let lock = run::lock(
        context,
        &stack,
        "gabion destroy",
        args.run.lock.lock_timeout,
    )
    .await?;
    let mut platforms = context.platforms(&loaded, &stack)?;
    let observed = context.observe(&mut platforms, &desired).await?;
    let options = Options {
        destroy: true,
        targets: Vec::new(),
    };
    let plan = plan::plan(&Desired::empty(stack.clone()), &observed, &options)?;
    if plan.is_empty() && plan.problems.is_empty() && !args.run.json {
        print(&nothing(&stack))?;
        platforms.tidy().await?;
        drop(lock);
        context.tidy_home(&stack)?;
        return Ok(ExitCode::SUCCESS);
    }
    let execution = Execution {
        context,
        loaded: &loaded,
        platforms: &platforms,
        args: &args.run,
        success: "Nothing of this stack is left.",
        upgrades: false,
        atomic: None,
    };
    let code = execution.ask_and_run(&plan, "Destroy all of this?").await?;
    if code == ExitCode::SUCCESS {
        platforms.tidy().await?;
    }
    drop(lock);
    if code == ExitCode::SUCCESS {
        context.tidy_home(&stack)?;
    }
    Ok(code)
}
