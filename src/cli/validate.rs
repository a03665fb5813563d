//! `gabion validate`: every problem in the manifest, at once.

use std::process::ExitCode;

use super::context::{Context, count, print};
use super::error::{BAD_MANIFEST, Result};

#[derive(clap::Args)]
#[command(after_help = "Examples:
  gabion validate
  gabion validate --format github        annotations in a pull request
  gabion validate --format sarif > gabion.sarif")]
pub struct ValidateArgs {
    /// How problems are written
    #[arg(
        long,
        value_enum,
        default_value = "text",
        env = "GABION_FORMAT",
        hide_env = true
    )]
    format: Format,
}

#[derive(Clone, Copy, clap::ValueEnum)]
enum Format {
    /// For people, with the source lines
    Text,
    /// One JSON object
    Json,
    /// SARIF 2.1.0, for code scanning
    Sarif,
    /// GitHub workflow commands
    Github,
}

pub fn run(context: &Context, args: &ValidateArgs) -> Result<ExitCode> {
    let loaded = context.load()?;
    let report = &loaded.report;
    let text = match args.format {
        Format::Json => report.render_json(),
        Format::Sarif => report.render_sarif(),
        Format::Github => report.render_github(),
        Format::Text => {
            let mut text = report.render_text(context.color_stdout, context.width_stdout());
            if let Some(desired) = &loaded.desired {
                let (sandboxes, services) = (desired.sandboxes.len(), desired.services().count());
                text.push_str(&format!(
                    "{} is valid: {}, {}.\n",
                    desired.stack,
                    count(sandboxes, "sandbox"),
                    count(services, "service"),
                ));
            }
            text
        }
    };
    print(&text)?;
    Ok(if report.has_errors() {
        ExitCode::from(BAD_MANIFEST)
    } else {
        ExitCode::SUCCESS
    })
}
