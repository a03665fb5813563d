//! `gabion exec ADDRESS -- CMD`: run a command where the services run, or as one of them runs. `gabion attach`: join
//! one that runs.

use std::future::pending;
use std::io::IsTerminal;
use std::process::ExitCode;

use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};

use super::context::{Context, say};
use super::error::{Error, Result};
use super::target::Target;
use super::terminal::Raw;
use crate::model::{Address, SandboxName, Secrets, ServiceAddress};
use crate::platforms::{Act, PlatformError, Result as PlatformResult, Streams};

/// As shells say it.
const NOT_EXECUTED: u8 = 127;

/// Ctrl-], as telnet has it: no program means much by it.
const LEAVE: u8 = 0x1d;

/// So many keys are read at once.
const KEYS: usize = 1024;

#[derive(clap::Args)]
#[command(after_help = "Examples:
  gabion exec data -- psql -h localhost
  gabion exec web -- sh
  gabion exec web/api -- env             as the service runs: its user,
                                         environment and folder
  gabion exec data/redis -- redis-cli    in its container, if it has one
  echo 'select 1' | gabion exec data -- psql

The command gets this terminal, or whatever stdin, stdout and stderr are; its
exit code is passed through. 127 if it cannot be executed. On iris, Pocketenv
and Miosa there is no terminal to be had.")]
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
  gabion attach web 12 --stdin           the keys of this terminal, if it has one

Shows what it writes from now on, or from its beginning where the platform has
kept that. Its exit code is passed through. Ctrl-C leaves it as it runs; where
the keys go to a terminal of its own, Ctrl-] does.")]
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
    let AttachArgs { sandbox, id, stdin } = args;
    let target = Target::open(context, sandbox, None).await?;
    let platform = target.platform()?;
    if !platform.joins_processes() {
        return Err(platform.cannot("join what runs already").into());
    }
    let listed = platform.processes(sandbox).await?;
    let process = listed.into_iter().find(|process| process.id == *id);
    let process = process.ok_or_else(|| PlatformError::no_process(sandbox, id))?;
    let raw = (*stdin && process.terminal).then(Raw::new).flatten();
    let mut streams = streams(raw.as_ref())?;
    // An input that is not passed on has no end, either.
    let (typed, keys) = tokio::io::duplex(KEYS);
    if raw.is_some() || !stdin {
        streams.stdin = Box::new(keys);
    }
    tokio::select! {
        code = platform.join(sandbox, &process, streams) => Ok(exit_code(code?)),
        () = left(typed), if raw.is_some() => {
            drop(raw);
            say(format_args!("\nLeft: `{id}` goes on."));
            Ok(ExitCode::SUCCESS)
        }
    }
}

/// Passes on what is typed, until a key says to leave.
async fn left(mut to: DuplexStream) {
    let mut stdin = tokio::io::stdin();
    let mut keys = [0; KEYS];
    while let Ok(length @ 1..) = stdin.read(&mut keys).await {
        let leaves = keys[..length].iter().position(|&key| key == LEAVE);
        let passed = to.write_all(&keys[..leaves.unwrap_or(length)]).await;
        if leaves.is_some() {
            return;
        }
        if passed.is_err() {
            break;
        }
    }
    pending().await
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
            let raw = platform.gives_terminals().then(Raw::new).flatten();
            let streams = streams(raw.as_ref())?;
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

/// Here the terminal is handed over only to a command in a container: any other one has it anyway.
async fn in_service(
    platform: &dyn Act,
    service: &ServiceAddress,
    container: bool,
    args: &ExecArgs,
    secrets: &Secrets,
) -> PlatformResult<i32> {
    let handed = container || platform.gives_terminals();
    let raw = handed.then(Raw::new).flatten();
    let streams = streams(raw.as_ref())?;
    platform
        .exec_in_service(service, &args.command, secrets, streams)
        .await
}

/// This process's own. Whoever sits at a terminal that is not handed over types nothing for the command.
fn streams(terminal: Option<&Raw>) -> std::io::Result<Streams> {
    let silent = terminal.is_none() && std::io::stdin().is_terminal();
    Ok(Streams {
        stdin: match silent {
            true => Box::new(tokio::io::empty()),
            false => Box::new(tokio::io::stdin()),
        },
        stdout: Box::new(tokio::io::stdout()),
        stderr: Box::new(tokio::io::stderr()),
        terminal: terminal.map(Raw::size).transpose()?,
        term: std::env::var("TERM").ok(),
    })
}
