//! `gabion plan`: what apply would do, and why.

use std::process::ExitCode;

use super::address::AddressArg;
use super::context::{Context, print};
use super::error::Result;
use crate::plan::{self, Options, render};

#[derive(clap::Args)]
#[command(after_help = "Examples:
  gabion plan
  gabion plan web/api                    only this service and what it needs
  gabion plan --json | jq .summary
  gabion plan --detailed-exitcode        exit with 2 if anything would change")]
pub struct PlanArgs {
    /// Plan only these sandboxes and services, and what they need
    #[arg(value_name = "ADDRESS", add = super::address::completer())]
    targets: Vec<AddressArg>,
    /// Print the plan as JSON (gabion schema plan describes it)
    #[arg(long)]
    json: bool,
    /// Plan the removal of the whole stack
    #[arg(long)]
    destroy: bool,
    /// Exit with 2 if the plan has changes
    #[arg(long)]
    detailed_exitcode: bool,
}

pub async fn run(context: &Context, args: &PlanArgs) -> Result<ExitCode> {
    let (loaded, mut desired) = context.load_valid()?;
    let mut platforms = context.platforms(&loaded, &desired.stack)?;
    let observed = platforms.observe(&desired).await?;
    if args.destroy {
        desired.sandboxes.clear();
    }
    let targets = super::address::resolve(&args.targets, &desired, &observed)?;
    let plan = plan::plan(
        &desired,
        &observed,
        &Options {
            destroy: args.destroy,
            targets,
        },
    )?;
    let forecast = plan::forecast(&plan, &context.journal(&desired.stack)?.history());
    if args.json {
        print(&format!("{:#}\n", render::json(&plan, forecast.as_ref())))?;
    } else if args.destroy && plan.is_empty() && plan.problems.is_empty() {
        print(&super::destroy::nothing(&desired.stack))?;
    } else {
        print(&render::text(
            &plan,
            forecast.as_ref(),
            &context.plan_style(),
        ))?;
        if !plan.is_empty() {
            let command = if args.destroy {
                "gabion destroy"
            } else {
                "gabion apply"
            };
            print(&format!("Apply it with: {command}\n"))?;
        }
    }
    Ok(if !plan.problems.is_empty() {
        ExitCode::FAILURE
    } else if args.detailed_exitcode && !plan.is_empty() {
        ExitCode::from(2)
    } else {
        ExitCode::SUCCESS
    })
}
