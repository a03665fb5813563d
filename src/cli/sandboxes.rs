//! `gabion sandboxes`: what exists on the platforms, ours or not.

use std::process::ExitCode;

use serde::Serialize;

use super::context::{Context, print, print_json, table};
use super::error::{Error, Result};
use super::progress::printable;
use crate::platforms::{InventoryEntry, InventoryQuery};

#[derive(clap::Args)]
#[command(after_help = "Examples:
  gabion sandboxes                       on every platform there is access to
  gabion sandboxes --platform sprites
  gabion sandboxes --platform pocketenv --catalogue
  gabion sandboxes --json | jq '.sandboxes[] | select(.stack == null)'

Works without a manifest, too: for local sandboxes, and for the platforms whose
token is in the environment.")]
pub struct SandboxesArgs {
    /// Only this platform: an entry of `platforms:`, or a kind
    #[arg(long, value_name = "PLATFORM")]
    platform: Option<String>,
    /// Somebody else's, where the platform tells of them: a name or an id
    #[arg(long, value_name = "ACTOR")]
    actor: Option<String>,
    /// What sandboxes can be made from, instead of sandboxes
    #[arg(long, conflicts_with = "actor")]
    catalogue: bool,
    /// At most so many of each platform
    #[arg(long, value_name = "N")]
    limit: Option<usize>,
    /// Leave so many out at the beginning
    #[arg(long, value_name = "N", default_value_t = 0)]
    offset: usize,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// One row, and one element of `--json`.
#[derive(Serialize)]
struct Row {
    platform: String,
    #[serde(flatten)]
    entry: InventoryEntry,
}

pub async fn run(context: &Context, args: &SandboxesArgs) -> Result<ExitCode> {
    let platforms = context.all_platforms(args.platform.as_deref())?;
    let query = InventoryQuery {
        actor: args.actor.clone(),
        catalogue: args.catalogue,
        limit: args.limit,
        offset: args.offset,
    };
    let asked = platforms.iter().filter(|(name, platform)| {
        let wanted = args.platform.as_deref();
        wanted.is_none_or(|wanted| wanted == *name || wanted == platform.capabilities().kind)
    });
    let mut rows = Vec::new();
    let mut failed = None;
    for (name, platform) in asked {
        match platform.inventory(&query).await {
            Ok(entries) => rows.extend(entries.into_iter().map(|entry| Row {
                platform: name.to_owned(),
                entry,
            })),
            // The others are shown all the same.
            Err(error) if args.platform.is_none() => {
                let error = Error::from(error);
                context.report(&error);
                failed = Some(ExitCode::from(error.code()));
            }
            Err(error) => return Err(error.into()),
        }
    }
    if args.json {
        print_json(&serde_json::json!({ "version": 1, "sandboxes": rows }))?;
    } else if rows.is_empty() {
        print("There are none.\n")?;
    } else {
        print(&set(context, &rows))?;
    }
    Ok(failed.unwrap_or(ExitCode::SUCCESS))
}

fn set(context: &Context, rows: &[Row]) -> String {
    let dash = || "–".to_owned();
    let text = |text: &Option<String>| text.as_deref().map_or_else(dash, printable);
    let rows = rows.iter().map(|row| {
        let made = row.entry.created_at.map_or_else(dash, |at| {
            let at = at.to_zoned(jiff::tz::TimeZone::system());
            at.strftime("%Y-%m-%d %H:%M").to_string()
        });
        [
            row.platform.clone(),
            printable(&row.entry.name),
            printable(&row.entry.state),
            text(&row.entry.stack),
            made,
            text(&row.entry.url),
        ]
    });
    let heading = ["PLATFORM", "NAME", "STATE", "STACK", "MADE", "URL"];
    table(context.color_stdout, heading, rows)
}
