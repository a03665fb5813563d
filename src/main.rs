//! The `gabion` command.

fn main() -> std::process::ExitCode {
    gabion::cli::main()
}
