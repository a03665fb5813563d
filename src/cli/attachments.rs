//! `gabion env`, `secret`, `file` and `volume`: what is attached to a sandbox itself. Values are never
//! shown.

use std::process::ExitCode;

use secrecy::SecretString;

use super::context::{Context, print, print_json};
use super::error::{Error, Result};
use super::key_value;
use super::target::Target;
use crate::model::SandboxName;
use crate::platforms::Attachment;

pub const ENV_HELP: &str = "Examples:
  gabion env list web
  gabion env set web MODE=production
  gabion env unset web MODE

What the manifest sets with `env:` is its own business: the next apply sets it
again.";

pub const SECRET_HELP: &str = "Examples:
  gabion secret list web
  gabion secret set web API_KEY < api-key.txt
  gabion secret unset web API_KEY

The value is read from stdin, without its last line end, so that it is in no
history and no list of processes.";

pub const FILE_HELP: &str = "Examples:
  gabion file list web
  gabion file set web /etc/app.conf < app.conf
  gabion file unset web /etc/app.conf

The platform writes attached files when it starts the sandbox. `gabion cp`
copies files into one that runs. What the manifest sets with `files:` is its
own business: the next apply sets it again. Others are left alone.";

pub const VOLUME_HELP: &str = "Examples:
  gabion volume list web
  gabion volume set web data=/var/lib/data
  gabion volume unset web data

The platform mounts volumes when it starts the sandbox. What the manifest sets
with `volumes:` is its own business: the next apply sets it again. Others are
left alone.";

/// A command whose values may be in an argument.
#[derive(clap::Args)]
pub struct PairArgs {
    #[command(subcommand)]
    command: PairCommand,
}

#[derive(clap::Subcommand)]
enum PairCommand {
    /// Show the names
    List(ListArgs),
    /// Set some, in place of those with the same names
    Set {
        /// The sandbox
        #[arg(value_name = "SANDBOX", add = super::address::completer())]
        sandbox: SandboxName,
        /// What to set
        #[arg(value_name = "NAME=VALUE", required = true, value_parser = key_value)]
        values: Vec<(String, String)>,
    },
    /// Remove some
    Unset(UnsetArgs),
}

/// A command whose values are read from stdin.
#[derive(clap::Args)]
pub struct StdinArgs {
    #[command(subcommand)]
    command: StdinCommand,
}

#[derive(clap::Subcommand)]
enum StdinCommand {
    /// Show the names
    List(ListArgs),
    /// Set one to what stdin has
    Set {
        /// The sandbox
        #[arg(value_name = "SANDBOX", add = super::address::completer())]
        sandbox: SandboxName,
        /// Its name
        #[arg(value_name = "NAME")]
        name: String,
    },
    /// Remove some
    Unset(UnsetArgs),
}

#[derive(clap::Args)]
struct ListArgs {
    /// The sandbox
    #[arg(value_name = "SANDBOX", add = super::address::completer())]
    sandbox: SandboxName,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(clap::Args)]
struct UnsetArgs {
    /// The sandbox
    #[arg(value_name = "SANDBOX", add = super::address::completer())]
    sandbox: SandboxName,
    /// What to remove
    #[arg(value_name = "NAME", required = true)]
    names: Vec<String>,
}

impl PairArgs {
    /// Whether it changes something.
    pub fn changes_something(&self) -> bool {
        !matches!(self.command, PairCommand::List(_))
    }
}

impl StdinArgs {
    /// Whether it changes something.
    pub fn changes_something(&self) -> bool {
        !matches!(self.command, StdinCommand::List(_))
    }
}

pub async fn pairs(context: &Context, args: &PairArgs, kind: Attachment) -> Result<ExitCode> {
    match &args.command {
        PairCommand::List(args) => list(context, args, kind).await,
        PairCommand::Set { sandbox, values } => {
            let values = values.iter();
            let values = values.map(|(name, value)| (name.as_str(), value.clone().into()));
            set(context, sandbox, kind, values).await
        }
        PairCommand::Unset(args) => unset(context, args, kind).await,
    }
}

pub async fn from_stdin(context: &Context, args: &StdinArgs, kind: Attachment) -> Result<ExitCode> {
    match &args.command {
        StdinCommand::List(args) => list(context, args, kind).await,
        StdinCommand::Set { sandbox, name } => {
            let mut value = stdin_text()?;
            if kind == Attachment::Secret && value.ends_with('\n') {
                value.pop();
            }
            let values = [(name.as_str(), SecretString::from(value))];
            set(context, sandbox, kind, values).await
        }
        StdinCommand::Unset(args) => unset(context, args, kind).await,
    }
}

/// All that stdin has.
pub fn stdin_text() -> Result<String> {
    std::io::read_to_string(std::io::stdin())
        .map_err(|error| Error::failed(format!("stdin cannot be read as text: {error}")))
}

async fn list(context: &Context, args: &ListArgs, kind: Attachment) -> Result<ExitCode> {
    let target = Target::open(context, &args.sandbox, None).await?;
    let attached = target.platform()?.attached(&args.sandbox, kind).await?;
    if args.json {
        print_json(&attached)?;
    } else if attached.is_empty() {
        print(&format!("{}: no {}\n", args.sandbox, kind.plural()))?;
    } else {
        let line = |name, path: Option<&str>| match path {
            Some(path) => format!("{name}={path}\n"),
            None => format!("{name}\n"),
        };
        let lines = attached.iter();
        let lines: String = lines.map(|it| line(&it.name, it.path.as_deref())).collect();
        print(&lines)?;
    }
    Ok(ExitCode::SUCCESS)
}

async fn set(
    context: &Context,
    sandbox: &SandboxName,
    kind: Attachment,
    values: impl IntoIterator<Item = (&'_ str, SecretString)>,
) -> Result<ExitCode> {
    let target = Target::open(context, sandbox, None).await?;
    for (name, value) in values {
        let platform = target.platform()?;
        platform.attach(sandbox, kind, name, &value).await?;
    }
    Ok(ExitCode::SUCCESS)
}

async fn unset(context: &Context, args: &UnsetArgs, kind: Attachment) -> Result<ExitCode> {
    let target = Target::open(context, &args.sandbox, None).await?;
    for name in &args.names {
        let platform = target.platform()?;
        platform.detach(&args.sandbox, kind, name).await?;
    }
    Ok(ExitCode::SUCCESS)
}
