//! `gabion checkpoint list SANDBOX`.

use std::process::ExitCode;

use super::names;
use crate::cli::context::{self, Context, print, print_json};
use crate::cli::error::Result;
use crate::cli::progress::printable;
use crate::cli::target::Target;
use crate::model::{Checkpoint, SandboxName, human_size};

#[derive(clap::Args)]
#[command(after_help = "Examples:
  gabion checkpoint list data
  gabion checkpoint list data --json")]
pub struct ListArgs {
    /// The sandbox
    #[arg(value_name = "SANDBOX", add = crate::cli::address::completer())]
    sandbox: SandboxName,
    /// Print them as JSON
    #[arg(long)]
    json: bool,
}

pub async fn run(context: &Context, args: &ListArgs) -> Result<ExitCode> {
    let target = Target::open(context, &args.sandbox, None).await?;
    let listed = target.platform()?.checkpoints(&args.sandbox).await?;
    if args.json {
        print_json(&serde_json::json!({ "checkpoints": listed }))?;
    } else if listed.is_empty() {
        let sandbox = &args.sandbox;
        print(&format!(
            "{sandbox}: no checkpoints. Make one with: gabion checkpoint create {sandbox}\n"
        ))?;
    } else {
        print(&table(&listed, context))?;
    }
    Ok(ExitCode::SUCCESS)
}

fn table(listed: &[Checkpoint], context: &Context) -> String {
    let rows = listed.iter().map(|checkpoint| {
        let running = match checkpoint.running.is_empty() {
            true => "–".to_owned(),
            false => names(&checkpoint.running),
        };
        let name = checkpoint.name.as_deref().unwrap_or("–");
        let made = checkpoint.created_at.to_zoned(jiff::tz::TimeZone::system());
        [
            checkpoint.id.clone(),
            printable(name),
            made.strftime("%Y-%m-%d %H:%M:%S").to_string(),
            human_size(checkpoint.size_bytes),
            running,
        ]
    });
    let heading = ["ID", "NAME", "MADE", "SIZE", "RUNNING"];
    context::table(context.color_stdout, heading, rows)
}
