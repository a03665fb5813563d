//! `gabion completions`: the script that lets a shell complete commands, options and addresses.

use std::path::PathBuf;
use std::process::ExitCode;

use super::error::{Error, Result};
use super::{ColorWhen, Global};
use crate::model::Desired;

#[derive(clap::Args)]
#[command(after_help = "Examples:
  source <(gabion completions bash)
  gabion completions fish > ~/.config/fish/completions/gabion.fish
  source <(gabion completions zsh)

Names of sandboxes and services are completed from the manifest of the current
folder.")]
pub struct CompletionsArgs {
    /// The shell: bash, elvish, fish, powershell or zsh
    #[arg(value_parser = ["bash", "elvish", "fish", "powershell", "zsh"])]
    shell: String,
}

pub fn run(args: &CompletionsArgs) -> Result<ExitCode> {
    let shells = clap_complete::env::Shells::builtins();
    let shell = shells.completer(&args.shell);
    let shell = shell.ok_or_else(|| Error::usage(format!("unknown shell `{}`", args.shell)))?;
    let mut script = Vec::new();
    shell.write_registration("COMPLETE", "gabion", "gabion", "gabion", &mut script)?;
    super::context::print(&String::from_utf8_lossy(&script))?;
    Ok(ExitCode::SUCCESS)
}

/// What the manifest wants that a command without options would use here.
pub fn manifest_here() -> Option<Desired> {
    let files = std::env::var_os("GABION_FILE")
        .map(PathBuf::from)
        .into_iter()
        .collect();
    let global = Global {
        files,
        profiles: Vec::new(),
        vars: Vec::new(),
        color: ColorWhen::Never,
        verbose: 0,
    };
    super::context::Context::quiet(global).load().ok()?.desired
}
