//! `gabion supervise DIR`: how gabion keeps a local sandbox.

use std::path::PathBuf;
use std::process::ExitCode;

#[derive(clap::Args)]
pub struct SuperviseArgs {
    /// The sandbox's folder
    dir: PathBuf,
    /// What a supervisor inherits from its keeper; without it, this process is the keeper
    #[arg(long, hide = true)]
    inherited: Option<String>,
}

pub fn run(args: &SuperviseArgs) -> ExitCode {
    match &args.inherited {
        Some(inherited) => crate::supervisor::main(&args.dir, inherited),
        None => crate::keeper::main(&args.dir),
    }
}
