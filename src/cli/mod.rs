//! The command line: one file per command; arguments, colours, progress, exit codes.
//!
//! The only room that reads the environment, the terminal and the home directory. Nothing imports
//! it. stdout carries the result, stderr the story.

mod address;
mod apply;
mod attachments;
mod checkpoint;
mod completions;
mod context;
mod control;
mod cp;
mod destroy;
mod error;
mod exec;
mod fork;
mod forward;
mod fs;
mod import;
mod init;
mod isolation;
mod key;
mod limits;
mod logs;
mod pause;
mod place;
mod plan;
mod plan_file;
mod platforms;
mod ports;
mod processes;
mod progress;
mod run;
mod sandboxes;
mod schema;
mod send;
mod serve;
mod share;
mod show;
mod status;
mod supervise;
mod target;
mod terminal;
mod upgrade;
mod validate;
mod watch;
mod watch_lines;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{ArgAction, Args, CommandFactory, Parser, Subcommand, ValueEnum};

use context::Context;
use error::Result;

use crate::platforms::Attachment;

/// Sandboxes and their services, held where a YAML manifest says they are.
#[derive(Parser)]
#[command(
    name = "gabion",
    version,
    about,
    propagate_version = true,
    max_term_width = 80,
    disable_help_subcommand = true,
    after_help = "Examples:
  gabion init                   write a starter gabion.yaml
  gabion plan                   what would change, and why
  gabion apply                  make it so
  gabion watch                  keep it so while you edit
  gabion logs -f web/api        follow one service
  gabion destroy                remove everything the manifest made

Exit status: 0 done, 1 failed, 2 changes (plan --detailed-exitcode), 64 usage,
65 bad manifest, 130 interrupted."
)]
struct Cli {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    command: Command,
}

/// Options that every command takes.
#[derive(Args)]
struct Global {
    /// Manifest file; repeat it to lay further files over the first
    ///
    /// Without it: `gabion.yaml` or `gabion.yml` of the current folder or the nearest parent.
    #[arg(
        short,
        long = "file",
        value_name = "FILE",
        global = true,
        env = "GABION_FILE",
        value_delimiter = ':',
        hide_env = true,
        help_heading = "Global options"
    )]
    files: Vec<PathBuf>,
    /// Take in what is marked with this profile; repeatable
    #[arg(
        long = "profile",
        value_name = "NAME",
        global = true,
        env = "GABION_PROFILE",
        value_delimiter = ',',
        hide_env = true,
        help_heading = "Global options"
    )]
    profiles: Vec<String>,
    /// Set a variable of the manifest's `vars`; repeatable
    #[arg(long = "var", value_name = "NAME=VALUE", global = true, value_parser = key_value,
          help_heading = "Global options")]
    vars: Vec<(String, String)>,
    /// When to use colour
    #[arg(
        long,
        value_name = "WHEN",
        global = true,
        env = "GABION_COLOR",
        hide_env = true,
        default_value = "auto",
        help_heading = "Global options"
    )]
    color: ColorWhen,
    /// Say more on stderr; repeat for still more
    #[arg(short, long, global = true, action = ArgAction::Count, help_heading = "Global options")]
    verbose: u8,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum ColorWhen {
    /// On a terminal, unless NO_COLOR is set
    Auto,
    Always,
    Never,
}

fn key_value(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').ok_or("write NAME=VALUE")?;
    Ok((key.to_owned(), value.to_owned()))
}

#[derive(Subcommand)]
enum Command {
    /// Write a commented starter manifest
    Init(init::InitArgs),
    /// Check the manifest and show every problem in it
    Validate(validate::ValidateArgs),
    /// Show what apply would do, and why
    Plan(plan::PlanArgs),
    /// Make what is there as the manifest says
    Apply(apply::ApplyArgs),
    /// Keep it as the manifest says while files and the world change
    Watch(watch::WatchArgs),
    /// Show the state of every service
    Status(status::StatusArgs),
    /// Show everything that is known of a sandbox or service
    Show(show::ShowArgs),
    /// List what exists on the platforms, ours or not
    Sandboxes(sandboxes::SandboxesArgs),
    /// Write a manifest for what exists on a platform, and adopt it
    Import(import::ImportArgs),
    /// Show where services are reached
    Ports(ports::PortsArgs),
    /// Print the URL of a service
    Url(ports::UrlArgs),
    /// Reach ports of a sandbox as ports of this machine
    Forward(forward::ForwardArgs),
    /// Show what services wrote
    Logs(logs::LogsArgs),
    /// Run a command in a sandbox
    Exec(exec::ExecArgs),
    /// List what runs in a sandbox beside its services
    Ps(processes::PsArgs),
    /// Show what a command writes that runs in a sandbox already
    Attach(exec::AttachArgs),
    /// End something that runs beside services
    Kill(processes::KillArgs),
    /// Start services, and what they need
    Start(control::StartArgs),
    /// Stop services until the next apply or start
    Stop(control::StopArgs),
    /// Stop and start services
    Restart(control::RestartArgs),
    /// Hold everything in a sandbox as it is
    Pause(pause::PauseArgs),
    /// Let a paused sandbox go on
    Resume(pause::ResumeArgs),
    /// Give a sandbox more time before its platform stops it
    Extend(pause::ExtendArgs),
    /// Write to the standard input of a running service
    Send(send::SendArgs),
    /// Send a signal to a running service
    Signal(send::SignalArgs),
    /// Copy files and folders in and out of sandboxes
    Cp(cp::CpArgs),
    /// List, remove, make, move and copy files in a sandbox
    Fs(fs::FsArgs),
    /// Make a port of a sandbox reachable from outside
    Expose(ports::ExposeArgs),
    /// End that
    Unexpose(ports::UnexposeArgs),
    /// Make a link that lets others in
    Share(share::ShareArgs),
    /// Take a link back
    Unshare(share::UnshareArgs),
    /// Open the platform's editor on a sandbox
    Vscode(ports::VscodeArgs),
    /// List, set and remove variables of a sandbox
    #[command(after_help = attachments::ENV_HELP)]
    Env(attachments::PairArgs),
    /// List, set and remove secrets of a sandbox
    #[command(after_help = attachments::SECRET_HELP)]
    Secret(attachments::StdinArgs),
    /// List, set and remove files that a platform writes into a sandbox
    #[command(after_help = attachments::FILE_HELP)]
    File(attachments::StdinArgs),
    /// List, set and remove volumes of a sandbox
    #[command(after_help = attachments::VOLUME_HELP)]
    Volume(attachments::PairArgs),
    /// List and set the keys of a sandbox
    Key(key::KeyArgs),
    /// Let this gabion supervise a sandbox that another version has started, or its platform upgrade it
    Upgrade(upgrade::UpgradeArgs),
    /// Keep what a sandbox is, and bring it back
    Checkpoint(checkpoint::CheckpointArgs),
    /// Make a second sandbox like one that is there
    Fork(fork::ForkArgs),
    /// Remove everything that carries this stack's mark
    Destroy(destroy::DestroyArgs),
    /// Speak the platforms' own protocols over sandboxes on this machine
    Serve(serve::ServeArgs),
    /// Show the platforms and what each can honour
    Platforms(platforms::PlatformsArgs),
    /// Print a JSON Schema
    Schema(schema::SchemaArgs),
    /// Print the completion script of a shell
    Completions(completions::CompletionsArgs),
    /// Run the supervisor of a local sandbox (used by gabion itself)
    #[command(hide = true)]
    Supervise(supervise::SuperviseArgs),
}

impl Command {
    fn changes_something(&self) -> bool {
        match self {
            Self::Checkpoint(args) => return args.changes_something(),
            Self::Env(args) | Self::Volume(args) => return args.changes_something(),
            Self::Key(args) => return args.changes_something(),
            Self::Secret(args) | Self::File(args) => return args.changes_something(),
            Self::Fs(args) => return args.changes_something(),
            Self::Import(args) => return args.changes_something(),
            Self::Share(args) => return args.changes_something(),
            _ => {}
        }
        matches!(
            self,
            Self::Apply(_)
                | Self::Watch(_)
                | Self::Start(_)
                | Self::Stop(_)
                | Self::Restart(_)
                | Self::Pause(_)
                | Self::Resume(_)
                | Self::Extend(_)
                | Self::Send(_)
                | Self::Signal(_)
                | Self::Attach(_)
                | Self::Kill(_)
                | Self::Cp(_)
                | Self::Expose(_)
                | Self::Unexpose(_)
                | Self::Unshare(_)
                | Self::Vscode(_)
                | Self::Upgrade(_)
                | Self::Fork(_)
                | Self::Destroy(_)
        )
    }
}

/// Runs the command line of this process.
pub fn main() -> ExitCode {
    clap_complete::CompleteEnv::with_factory(Cli::command).complete();
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // Nothing is left to tell anybody if this cannot be printed.
            let _ = error.print();
            return ExitCode::from(if error.use_stderr() { error::USAGE } else { 0 });
        }
    };
    if let Command::Supervise(args) = &cli.command {
        return supervise::run(args);
    }
    let context = Context::new(cli.global);
    let changes = cli.command.changes_something();
    match dispatch(&context, cli.command) {
        Ok(code) => code,
        // For a command that only shows, whoever stopped reading has seen enough. Another one was
        // kept from what it was asked to do.
        Err(error::Error::OutputClosed) if changes => ExitCode::FAILURE,
        Err(error) => context.report(&error),
    }
}

fn dispatch(context: &Context, command: Command) -> Result<ExitCode> {
    match command {
        Command::Init(args) => init::run(context, &args),
        Command::Validate(args) => validate::run(context, &args),
        Command::Schema(args) => schema::run(&args),
        Command::Platforms(args) => platforms::run(context, &args),
        Command::Completions(args) => completions::run(&args),
        Command::Supervise(args) => Ok(supervise::run(&args)),
        Command::Plan(args) => context.block_on(plan::run(context, &args)),
        Command::Apply(args) => context.block_on(apply::run(context, &args)),
        Command::Watch(args) => context.block_on(watch::run(context, &args)),
        Command::Status(args) => context.block_on(status::run(context, &args)),
        Command::Show(args) => context.block_on(show::run(context, &args)),
        Command::Import(args) => context.block_on(import::run(context, &args)),
        Command::Sandboxes(args) => context.block_on(sandboxes::run(context, &args)),
        Command::Ports(args) => context.block_on(ports::ports(context, &args)),
        Command::Url(args) => context.block_on(ports::url(context, &args)),
        Command::Cp(args) => context.block_on(cp::run(context, &args)),
        Command::Forward(args) => context.block_on(forward::run(context, &args)),
        Command::Fs(args) => context.block_on(fs::run(context, args)),
        Command::Expose(args) => context.block_on(ports::expose(context, &args)),
        Command::Unexpose(args) => context.block_on(ports::unexpose(context, &args)),
        Command::Share(args) => context.block_on(share::share(context, &args)),
        Command::Unshare(args) => context.block_on(share::unshare(context, &args)),
        Command::Vscode(args) => context.block_on(ports::vscode(context, &args)),
        Command::Env(args) => {
            context.block_on(attachments::pairs(context, &args, Attachment::Variable))
        }
        Command::Secret(args) => {
            context.block_on(attachments::from_stdin(context, &args, Attachment::Secret))
        }
        Command::File(args) => {
            context.block_on(attachments::from_stdin(context, &args, Attachment::File))
        }
        Command::Volume(args) => {
            context.block_on(attachments::pairs(context, &args, Attachment::Volume))
        }
        Command::Key(args) => context.block_on(key::run(context, &args)),
        Command::Logs(args) => context.block_on(logs::run(context, &args)),
        Command::Exec(args) => context.block_on(exec::run(context, &args)),
        Command::Ps(args) => context.block_on(processes::ps(context, &args)),
        Command::Attach(args) => context.block_on(exec::attach(context, &args)),
        Command::Kill(args) => context.block_on(processes::kill(context, &args)),
        Command::Start(args) => context.block_on(control::start(context, &args)),
        Command::Stop(args) => context.block_on(control::stop(context, &args)),
        Command::Restart(args) => context.block_on(control::restart(context, &args)),
        Command::Pause(args) => context.block_on(pause::pause(context, &args)),
        Command::Resume(args) => context.block_on(pause::resume(context, &args)),
        Command::Extend(args) => context.block_on(pause::extend(context, &args)),
        Command::Send(args) => context.block_on(send::send(context, &args)),
        Command::Signal(args) => context.block_on(send::signal(context, &args)),
        Command::Upgrade(args) => context.block_on(upgrade::run(context, &args)),
        Command::Checkpoint(args) => context.block_on(checkpoint::run(context, &args)),
        Command::Fork(args) => context.block_on(fork::run(context, &args)),
        Command::Serve(args) => context.block_on(serve::run(context, args)),
        Command::Destroy(args) => context.block_on(destroy::run(context, &args)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_well_formed_and_every_command_has_examples() {
        let mut command = Cli::command();
        command.build();
        command.clone().debug_assert();
        for sub in command.get_subcommands().filter(|sub| !sub.is_hide_set()) {
            let help = sub
                .get_after_help()
                .map(ToString::to_string)
                .unwrap_or_default();
            assert!(
                help.contains("Examples:"),
                "{} has no example",
                sub.get_name()
            );
        }
    }

    #[test]
    fn dash_f_follows_in_logs_and_names_a_file_elsewhere() {
        let logs = Cli::try_parse_from(["gabion", "-f", "a.yaml", "logs", "-f"]).unwrap();
        assert_eq!(logs.global.files, [PathBuf::from("a.yaml")]);
        let logs = Cli::try_parse_from(["gabion", "logs", "--file", "b.yaml"]).unwrap();
        assert_eq!(logs.global.files, [PathBuf::from("b.yaml")]);
        let plan = Cli::try_parse_from(["gabion", "plan", "-f", "c.yaml"]).unwrap();
        assert_eq!(plan.global.files, [PathBuf::from("c.yaml")]);
    }
}
