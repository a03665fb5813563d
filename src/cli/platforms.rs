//! `gabion platforms`: which platforms there are, and what each can honour.

use std::process::ExitCode;

use super::context::{Context, print};
use super::error::Result;
use crate::model::{Capabilities, Scope, Support};
use crate::platforms;

#[derive(clap::Args)]
#[command(after_help = "Examples:
  gabion platforms
  gabion platforms --json")]
pub struct PlatformsArgs {
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub fn run(_: &Context, args: &PlatformsArgs) -> Result<ExitCode> {
    let all = platforms::capabilities();
    let text = if args.json { json(&all) } else { table(&all) };
    print(&text)?;
    Ok(ExitCode::SUCCESS)
}

fn json(all: &[&Capabilities]) -> String {
    let platforms: Vec<_> = all
        .iter()
        .map(|platform| {
            let exceptions: Vec<_> = platform
                .exceptions
                .iter()
                .map(|(scope, field, support, why)| {
                    serde_json::json!({
                        "scope": scope_word(*scope),
                        "field": field,
                        "support": support_word(*support),
                        "reason": why,
                    })
                })
                .collect();
            serde_json::json!({
                "kind": platform.kind,
                "summary": platform.summary,
                "settings": platform.settings.iter().map(|(name, what)| {
                    serde_json::json!({ "name": name, "description": what })
                }).collect::<Vec<_>>(),
                "exceptions": exceptions,
            })
        })
        .collect();
    format!(
        "{:#}\n",
        serde_json::json!({ "version": 1, "platforms": platforms })
    )
}

fn table(all: &[&Capabilities]) -> String {
    let mut text = String::new();
    for platform in all {
        text.push_str(&format!("{}: {}\n", platform.kind, platform.summary));
        let wide = platform.settings.iter().map(|(name, _)| name.len()).max();
        let wide = wide.unwrap_or(0);
        for (at, (name, what)) in platform.settings.iter().enumerate() {
            let title = if at == 0 {
                "\n  settings in `platforms:`:\n"
            } else {
                ""
            };
            text.push_str(&format!("{title}    {name:<wide$}  {what}\n"));
        }
        let wide = platform
            .exceptions
            .iter()
            .map(|(_, field, ..)| field.len())
            .max()
            .unwrap_or(0);
        for (support, title) in [
            (Support::Supplied, "supplied by gabion"),
            (
                Support::Fixed,
                "cannot be changed once the sandbox is there",
            ),
            (Support::Unsupported, "not honoured"),
        ] {
            let rows = platform
                .exceptions
                .iter()
                .filter(|(_, _, it, _)| *it == support);
            let rows: Vec<String> = rows
                .map(|(scope, field, _, why)| {
                    format!("    {:<7}  {field:<wide$}  {why}\n", scope_word(*scope))
                })
                .collect();
            if !rows.is_empty() {
                text.push_str(&format!("\n  {title}:\n{}", rows.concat()));
            }
        }
        text.push_str("\n  Every other manifest field is honoured.\n");
    }
    text
}

fn scope_word(scope: Scope) -> &'static str {
    match scope {
        Scope::Sandbox => "sandbox",
        Scope::Service => "service",
    }
}

fn support_word(support: Support) -> &'static str {
    match support {
        Support::Native => "native",
        Support::Supplied => "supplied",
        Support::Fixed => "fixed",
        Support::Unsupported => "unsupported",
    }
}
