//! `gabion env` and `gabion secret`: the variables that are set on a sandbox itself. Values are never
//! shown.

use std::process::ExitCode;

use secrecy::SecretString;

use super::context::{Context, print, print_json};
use super::error::{Error, Result};
use super::key_value;
use super::target::Target;
use crate::model::SandboxName;
use crate::platforms::VariableKind;

#[derive(clap::Args)]
#[command(after_help = "Examples:
  gabion env list web
  gabion env set web MODE=production
  gabion env unset web MODE

What the manifest sets with `env:` is its own business: the next apply sets it
again.")]
pub struct EnvArgs {
    #[command(subcommand)]
    command: EnvCommand,
}

#[derive(clap::Subcommand)]
enum EnvCommand {
    /// Show the names of the variables of a sandbox
    List(ListArgs),
    /// Set variables
    Set {
        /// The sandbox
        #[arg(value_name = "SANDBOX", add = super::address::completer())]
        sandbox: SandboxName,
        /// What to set
        #[arg(value_name = "NAME=VALUE", required = true, value_parser = key_value)]
        values: Vec<(String, String)>,
    },
    /// Remove variables
    Unset(UnsetArgs),
}

#[derive(clap::Args)]
#[command(after_help = "Examples:
  gabion secret list web
  gabion secret set web API_KEY < api-key.txt
  gabion secret unset web API_KEY

The value is read from stdin, without its last line end, so that it is in no
history and no list of processes.")]
pub struct SecretArgs {
    #[command(subcommand)]
    command: SecretCommand,
}

#[derive(clap::Subcommand)]
enum SecretCommand {
    /// Show the names of the secrets of a sandbox
    List(ListArgs),
    /// Set a secret to what stdin has
    Set {
        /// The sandbox
        #[arg(value_name = "SANDBOX", add = super::address::completer())]
        sandbox: SandboxName,
        /// Its name
        #[arg(value_name = "NAME")]
        name: String,
    },
    /// Remove secrets
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

impl EnvArgs {
    /// Whether it changes something.
    pub fn changes_something(&self) -> bool {
        !matches!(self.command, EnvCommand::List(_))
    }
}

impl SecretArgs {
    /// Whether it changes something.
    pub fn changes_something(&self) -> bool {
        !matches!(self.command, SecretCommand::List(_))
    }
}

pub async fn env(context: &Context, args: &EnvArgs) -> Result<ExitCode> {
    match &args.command {
        EnvCommand::List(args) => list(context, args, VariableKind::Plain).await,
        EnvCommand::Set { sandbox, values } => {
            let values = values.iter();
            let values = values.map(|(name, value)| (name.as_str(), value.clone().into()));
            set(context, sandbox, VariableKind::Plain, values).await
        }
        EnvCommand::Unset(args) => unset(context, args, VariableKind::Plain).await,
    }
}

pub async fn secret(context: &Context, args: &SecretArgs) -> Result<ExitCode> {
    match &args.command {
        SecretCommand::List(args) => list(context, args, VariableKind::Secret).await,
        SecretCommand::Set { sandbox, name } => {
            let mut value = std::io::read_to_string(std::io::stdin())
                .map_err(|error| Error::failed(format!("stdin cannot be read as text: {error}")))?;
            if value.ends_with('\n') {
                value.pop();
            }
            let values = [(name.as_str(), SecretString::from(value))];
            set(context, sandbox, VariableKind::Secret, values).await
        }
        SecretCommand::Unset(args) => unset(context, args, VariableKind::Secret).await,
    }
}

async fn list(context: &Context, args: &ListArgs, kind: VariableKind) -> Result<ExitCode> {
    let target = Target::open(context, &args.sandbox, None).await?;
    let names = target.platform()?.variables(&args.sandbox, kind).await?;
    if args.json {
        print_json(&names)?;
    } else if names.is_empty() {
        print(&format!("{}: no {}\n", args.sandbox, kind.plural()))?;
    } else {
        print(&format!("{}\n", names.join("\n")))?;
    }
    Ok(ExitCode::SUCCESS)
}

async fn set(
    context: &Context,
    sandbox: &SandboxName,
    kind: VariableKind,
    values: impl IntoIterator<Item = (&'_ str, SecretString)>,
) -> Result<ExitCode> {
    let target = Target::open(context, sandbox, None).await?;
    for (name, value) in values {
        target
            .platform()?
            .set_variable(sandbox, kind, name, &value)
            .await?;
    }
    Ok(ExitCode::SUCCESS)
}

async fn unset(context: &Context, args: &UnsetArgs, kind: VariableKind) -> Result<ExitCode> {
    let target = Target::open(context, &args.sandbox, None).await?;
    for name in &args.names {
        target
            .platform()?
            .unset_variable(&args.sandbox, kind, name)
            .await?;
    }
    Ok(ExitCode::SUCCESS)
}
