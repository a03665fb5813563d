//! `gabion plan`: what apply would do, and why.

use std::path::PathBuf;
use std::process::ExitCode;

use super::address::AddressArg;
use super::context::{Context, print};
use super::error::Result;
use super::limits::Limits;
use super::plan_file;
use crate::plan::{self, Forecast, Options, Plan, render};

#[derive(clap::Args)]
#[command(after_help = "Examples:
  gabion plan
  gabion plan web/api                    only this service and what it needs
  gabion plan --json | jq .summary
  gabion plan --out plan.json            keep it, for gabion apply plan.json
  gabion plan --format markdown          for a comment on a pull request
  gabion plan --detailed-exitcode        exit with 2 if anything would change")]
pub struct PlanArgs {
    /// Plan only these sandboxes and services, and what they need
    #[arg(value_name = "ADDRESS", add = super::address::completer())]
    targets: Vec<AddressArg>,
    /// Print the plan as JSON, like `--format json` (gabion schema plan describes it)
    #[arg(long, conflicts_with = "format")]
    json: bool,
    /// How to print the plan
    #[arg(long, value_name = "FORMAT", default_value = "text")]
    format: Format,
    /// Also write the plan to this file, for gabion apply FILE.json
    #[arg(long, value_name = "FILE.json", value_parser = plan_file::out_path)]
    out: Option<PathBuf>,
    #[command(flatten)]
    limits: Limits,
    /// Plan the removal of the whole stack
    #[arg(long)]
    destroy: bool,
    /// Exit with 2 if the plan has changes
    #[arg(long)]
    detailed_exitcode: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Format {
    /// For people
    Text,
    /// For machines
    Json,
    /// For a comment on a pull request
    Markdown,
    /// The order of the actions, for Graphviz
    Dot,
    /// The order of the actions, for Mermaid
    Mermaid,
}

pub async fn run(context: &Context, args: &PlanArgs) -> Result<ExitCode> {
    let (loaded, mut desired) = context.load_plannable()?;
    let mut platforms = context.platforms(&loaded, &desired.stack)?;
    let observed = context.observe(&mut platforms, &desired).await?;
    if args.destroy {
        desired.sandboxes.clear();
    }
    let targets = super::address::resolve(&args.targets, &desired, &observed)?;
    let mut plan = plan::plan(
        &desired,
        &observed,
        &Options {
            destroy: args.destroy,
            targets,
        },
    )?;
    plan.isolation = super::isolation::of(&desired, &observed, &platforms);
    let forecast = plan::forecast(&plan, &context.journal(&desired.stack)?.history());
    show(context, args, &plan, forecast.as_ref())?;
    args.limits.check(&plan, &observed)?;
    if let Some(path) = &args.out {
        plan_file::write(path, &plan, &desired, &observed)?;
    }
    if args.format() == Format::Text && !plan.is_empty() {
        let isolation = render::isolation(&plan);
        if !isolation.is_empty() {
            print(&format!("{isolation}\n"))?;
        }
        let command = match &args.out {
            Some(path) => format!("gabion apply {}", path.display()),
            None if args.destroy => "gabion destroy".to_owned(),
            None => "gabion apply".to_owned(),
        };
        print(&format!("Apply it with: {command}\n"))?;
    }
    Ok(if !plan.problems.is_empty() {
        ExitCode::FAILURE
    } else if args.detailed_exitcode && !plan.is_empty() {
        ExitCode::from(2)
    } else {
        ExitCode::SUCCESS
    })
}

impl PlanArgs {
    fn format(&self) -> Format {
        if self.json { Format::Json } else { self.format }
    }
}

fn show(
    context: &Context,
    args: &PlanArgs,
    plan: &Plan,
    forecast: Option<&Forecast>,
) -> Result<()> {
    print(&match args.format() {
        Format::Text if args.destroy && plan.is_empty() && plan.problems.is_empty() => {
            super::destroy::nothing(&plan.stack)
        }
        Format::Text => render::text(plan, forecast, &context.plan_style()),
        Format::Json => format!("{:#}\n", render::json(plan, forecast)),
        Format::Markdown => render::markdown(plan, forecast),
        Format::Dot => render::dot(plan),
        Format::Mermaid => render::mermaid(plan),
    })
}
