//! `gabion init`: a starter manifest.

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use super::context::{Context, print};
use super::error::{Error, Result};

const STARTER: &str = include_str!("starter.yaml");

#[derive(clap::Args)]
#[command(after_help = "Examples:
  gabion init
  gabion init infra/gabion.yaml")]
pub struct InitArgs {
    /// Where to write it
    #[arg(default_value = "gabion.yaml")]
    path: PathBuf,
}

pub fn run(_: &Context, args: &InitArgs) -> Result<ExitCode> {
    let path = args.path.display();
    let created = std::fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .open(&args.path);
    let mut file = created.map_err(|error| match error.kind() {
        std::io::ErrorKind::AlreadyExists => Error::Failed {
            message: format!("{path} is there already; nothing was written"),
            hint: Some("gabion validate checks it".to_owned()),
        },
        _ => Error::failed(format!("cannot write {path}: {error}")),
    })?;
    file.write_all(STARTER.as_bytes())?;
    print(&format!("Wrote {path}. Try it with: gabion apply\n"))?;
    Ok(ExitCode::SUCCESS)
}
