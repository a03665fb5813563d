//! `gabion ps` and `gabion kill`: what runs in a sandbox beside its services.

use std::process::ExitCode;

use jiff::tz::TimeZone;

use super::context::{Context, print, print_json, table};
use super::error::Result;
use super::progress::printable;
use super::target::Target;
use crate::model::SandboxName;

#[derive(clap::Args)]
#[command(after_help = "Examples:
  gabion ps web
  gabion ps web --json

Shows what is no service: commands that somebody runs by `gabion exec`, and
processes that were started by the platform's own tools, as far as the platform
tells of them. What services run is in `gabion status`.")]
pub struct PsArgs {
    /// The sandbox
    #[arg(value_name = "SANDBOX", add = super::address::completer())]
    sandbox: SandboxName,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(clap::Args)]
#[command(after_help = "Examples:
  gabion kill web 4711                   by an id that `gabion ps web` shows
  gabion kill web 12 --signal INT

What ignores the signal is killed after a while. Services are stopped by
`gabion stop`, and get signals by `gabion signal`.")]
pub struct KillArgs {
    /// The sandbox
    #[arg(value_name = "SANDBOX", add = super::address::completer())]
    sandbox: SandboxName,
    /// Which, as `gabion ps` shows it
    #[arg(value_name = "ID")]
    id: String,
    /// The signal's name, with or without `SIG`, where the platform takes one [default: TERM]
    #[arg(long, value_name = "SIGNAL")]
    signal: Option<String>,
}

pub async fn ps(context: &Context, args: &PsArgs) -> Result<ExitCode> {
    let target = Target::open(context, &args.sandbox, None).await?;
    let processes = target.platform()?.processes(&args.sandbox).await?;
    if args.json {
        print_json(&serde_json::json!({ "version": 1, "processes": processes }))?;
    } else if processes.is_empty() {
        print("Nothing runs beside services.\n")?;
    } else {
        let dash = || "–".to_owned();
        let rows = processes.iter().map(|process| {
            let started = process.started_at.map_or_else(dash, |at| {
                let at = at.to_zoned(TimeZone::system());
                at.strftime("%Y-%m-%d %H:%M").to_string()
            });
            let dir = process.dir.as_deref().map_or_else(dash, printable);
            let id = printable(&process.id);
            [id, started, dir, printable(&process.command)]
        });
        let heading = ["ID", "STARTED", "FOLDER", "COMMAND"];
        print(&table(context.color_stdout, heading, rows))?;
    }
    Ok(ExitCode::SUCCESS)
}

pub async fn kill(context: &Context, args: &KillArgs) -> Result<ExitCode> {
    let target = Target::open(context, &args.sandbox, None).await?;
    let signal = args.signal.as_deref();
    let platform = target.platform()?;
    platform.kill(&args.sandbox, &args.id, signal).await?;
    Ok(ExitCode::SUCCESS)
}
