//! The command line: one file per command; arguments, colours, progress, exit codes.
//!
//! The only room that reads the environment, the terminal and the home directory. Nothing imports it.

use std::path::Path;
use std::process::ExitCode;

/// Runs the command line of this process.
pub fn main() -> ExitCode {
    let args: Vec<_> = std::env::args_os().collect();
    match args.get(1).and_then(|arg| arg.to_str()) {
        Some("supervise") if args.len() == 3 => crate::supervisor::main(Path::new(&args[2])),
        _ => ExitCode::from(64),
    }
}
