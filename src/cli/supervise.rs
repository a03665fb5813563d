//! `gabion supervise DIR`: how gabion starts the supervisor of a local sandbox.

use std::path::PathBuf;
use std::process::ExitCode;

#[derive(clap::Args)]
pub struct SuperviseArgs {
    /// The sandbox's folder
    dir: PathBuf,
}

pub fn run(args: &SuperviseArgs) -> ExitCode {
    crate::supervisor::main(&args.dir)
}
