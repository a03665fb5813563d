//! `gabion checkpoint list SANDBOX`.

use std::process::ExitCode;

use comfy_table::{Table, presets};

use super::{Target, names, print_json};
use crate::cli::context::{Context, paint, print};
use crate::cli::error::Result;
use crate::cli::progress::printable;
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
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table.set_header(["ID", "NAME", "MADE", "SIZE", "RUNNING"]);
    for checkpoint in listed {
        let running = match checkpoint.running.is_empty() {
            true => "–".to_owned(),
            false => names(&checkpoint.running),
        };
        let name = checkpoint.name.as_deref().unwrap_or("–");
        let made = checkpoint.created_at.to_zoned(jiff::tz::TimeZone::system());
        table.add_row([
            checkpoint.id.clone(),
            printable(name),
            made.strftime("%Y-%m-%d %H:%M:%S").to_string(),
            human_size(checkpoint.size_bytes),
            running,
        ]);
    }
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
    let mut out = String::new();
    for (index, line) in table.to_string().lines().enumerate() {
        let line = line.trim_end();
        match index {
            0 => out.push_str(&paint(
                context.color_stdout,
                anstyle::Style::new().bold(),
                line,
            )),
            _ => out.push_str(line),
        }
        out.push('\n');
    }
    out
}
