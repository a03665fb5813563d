//! `gabion exec ADDRESS -- CMD`: run a command where the services run, or as one of them runs. `gabion attach`: join
//! one that runs.

use std::io::IsTerminal;
use std::process::ExitCode;

use tokio::sync::watch;

use super::context::Context;
use super::error::{Error, Result};
use super::target::Target;
use super::terminal::Raw;
use crate::model::{Address, SandboxName, Secrets, ServiceAddress};
use crate::platforms::{Act, Result as PlatformResult, Streams, TerminalSize};

/// As shells say it.
const NOT_EXECUTED: u8 = 127;

#[derive(clap::Args)]
#[command(after_help = "Examples:
  gabion exec data -- psql -h localhost
  gabion exec web -- sh
  gabion exec web/api -- env             as the service runs: its user,
                                         environment and folder
  gabion exec data/redis -- redis-cli    in its container, if it has one
  echo 'select 1' | gabion exec data -- psql

The command gets this terminal, or whatever stdin, stdout and stderr are; its
exit code is passed through. 127 if it cannot be executed.")]
pub struct ExecArgs {
    /// The sandbox, or one of its services
    #[arg(value_name = "ADDRESS", add = super::address::completer())]
    address: Address,
    /// The command and its arguments
    #[arg(
        value_name = "CMD",
        required = true,
        trailing_var_arg = true,
        allow_hyphen_values = true
    )]
    command: Vec<String>,
}

#[derive(clap::Args)]
#[command(after_help = "Examples:
  gabion attach web 12                   shows what `gabion ps web` lists as 12
  echo go | gabion attach web 12 --stdin

Shows what it writes from now on, or from its beginning where the platform has
kept that. Its exit code is passed through. Ctrl-C leaves it as it runs.")]
pub struct AttachArgs {
    /// The sandbox
    #[arg(value_name = "SANDBOX", add = super::address::completer())]
    sandbox: SandboxName,
    /// Which, as `gabion ps` shows it
    #[arg(value_name = "ID")]
    id: String,
    /// Pass stdin on to it, and its end
    #[arg(long)]
    stdin: bool,
}

/// Joins a command that runs.
pub async fn attach(context: &Context, args: &AttachArgs) -> Result<ExitCode> {
    let target = Target::open(context, &args.sandbox, None).await?;
    let mut streams = streams(None);
    // An input that never comes has no end, either.
    let (_never, silence) = tokio::io::duplex(1);
    if !args.stdin {
        streams.stdin = Box::new(silence);
    }
    let platform = target.platform()?;
    Ok(exit_code(
        platform.join(&args.sandbox, &args.id, streams).await?,
    ))
}

pub async fn run(context: &Context, args: &ExecArgs) -> Result<ExitCode> {
    let (loaded, desired) = context.load_stack()?;
    let mut platforms = context.platforms(&loaded, &desired.stack)?;
    let observed = context.observe(&mut platforms, &desired).await?;
    super::address::resolve(std::slice::from_ref(&args.address), &desired, &observed)?;
    let sandbox = args.address.sandbox();
    if !observed.sandboxes.contains_key(sandbox) {
        return Err(Error::Failed {
            message: format!("sandbox `{sandbox}` is not there yet"),
            hint: Some("gabion apply makes it".to_owned()),
        });
    }
    let platform = platforms.of(sandbox)?;
    let ran = match &args.address {
        Address::Sandbox(sandbox) => {
            let streams = streams(None);
            platform
                .exec(sandbox, &args.command, &loaded.secrets, streams)
                .await
        }
        Address::Service(service) => {
            let definition = observed
                .known(sandbox)
                .and_then(|there| there.services.get(&service.service));
            let container =
                definition.is_some_and(|there| there.spec().is_some_and(|spec| spec.container));
            in_service(platform, service, container, args, &loaded.secrets).await
        }
    };
    let code = match ran {
        Ok(code) => code,
        Err(error) => {
            context.report(&error.into());
            return Ok(ExitCode::from(NOT_EXECUTED));
        }
    };
    Ok(exit_code(code))
}

fn exit_code(code: i32) -> ExitCode {
    ExitCode::from(u8::try_from(code & 0xff).unwrap_or(u8::MAX))
}

/// Hands over the terminal only to a command in a container: any other one has it anyway.
async fn in_service(
    platform: &dyn Act,
    service: &ServiceAddress,
    container: bool,
    args: &ExecArgs,
    secrets: &Secrets,
) -> PlatformResult<i32> {
    let raw = if container { Raw::new() } else { None };
    let size = raw.as_ref().map(Raw::size).transpose();
    let streams = streams(size?);
    platform
        .exec_in_service(service, &args.command, secrets, streams)
        .await
}

/// This process's own. Whoever sits at a terminal that is not handed over types nothing for the command.
fn streams(terminal: Option<watch::Receiver<TerminalSize>>) -> Streams {
    let silent = terminal.is_none() && std::io::stdin().is_terminal();
    Streams {
        stdin: match silent {
            true => Box::new(tokio::io::empty()),
            false => Box::new(tokio::io::stdin()),
        },
        stdout: Box::new(tokio::io::stdout()),
        stderr: Box::new(tokio::io::stderr()),
        terminal,
    }
}
