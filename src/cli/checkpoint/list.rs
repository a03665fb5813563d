//! `gabion checkpoint list SANDBOX`.

use std::process::ExitCode;

use super::{date, names};
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

/// Where a platform tells until when it keeps what, it tells neither sizes nor what ran.
fn table(listed: &[Checkpoint], context: &Context) -> String {
    let begin = |checkpoint: &Checkpoint| {
        let name = checkpoint.name.as_deref().unwrap_or("–");
        [
            checkpoint.id.clone(),
            printable(name),
            date(checkpoint.created_at),
        ]
    };
    let expires = |it: &Checkpoint| it.expires_at.is_some() || it.directory.is_some();
    if listed.iter().any(expires) {
        let rows = listed.iter().map(|it| {
            let [id, name, made] = begin(it);
            let end = it.expires_at.map_or_else(|| "–".to_owned(), date);
            let directory = printable(it.directory.as_deref().unwrap_or("–"));
            [id, name, made, end, directory]
        });
        let heading = ["ID", "NAME", "MADE", "EXPIRES", "DIRECTORY"];
        return context::table(context.color_stdout, heading, rows);
    }
    let rows = listed.iter().map(|it| {
        let [id, name, made] = begin(it);
        let running = match it.running.is_empty() {
            true => "–".to_owned(),
            false => names(&it.running),
        };
        [id, name, made, human_size(it.size_bytes), running]
    });
    let heading = ["ID", "NAME", "MADE", "SIZE", "RUNNING"];
    context::table(context.color_stdout, heading, rows)
}
