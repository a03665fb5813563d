//! `gabion pause|resume|extend`: whole sandboxes, for a while.

use std::process::ExitCode;

use super::context::{Context, print};
use super::error::Result;
use super::run::LockArgs;
use super::target::Target;
use crate::model::{HumanDuration, SandboxName};

#[derive(clap::Args)]
#[command(after_help = "Examples:
  gabion pause web

Everything in it is held, and goes on where it was: unlike `gabion stop`, which
ends services. The next apply or watch round resumes it. To keep a sandbox down
for good, write `state: stopped` in the manifest.")]
pub struct PauseArgs {
    #[command(flatten)]
    whole: WholeArgs,
}

#[derive(clap::Args)]
#[command(after_help = "Examples:
  gabion resume web")]
pub struct ResumeArgs {
    #[command(flatten)]
    whole: WholeArgs,
}

#[derive(clap::Args)]
#[command(after_help = "Examples:
  gabion extend web                      as long as it was given at first
  gabion extend web --for 2h

For platforms that stop a sandbox after a time: that time begins again. With
`keep_alive` in the manifest the next apply sets it as it is written there.")]
pub struct ExtendArgs {
    #[command(flatten)]
    whole: WholeArgs,
    /// How long it is to live from now on
    #[arg(long = "for", value_name = "TIME")]
    time: Option<HumanDuration>,
}

#[derive(clap::Args)]
struct WholeArgs {
    /// The sandbox
    #[arg(value_name = "SANDBOX", add = super::address::completer())]
    sandbox: SandboxName,
    #[command(flatten)]
    lock: LockArgs,
}

pub async fn pause(context: &Context, args: &PauseArgs) -> Result<ExitCode> {
    let (target, sandbox) = open(context, &args.whole, "gabion pause").await?;
    target.platform()?.pause(sandbox).await?;
    print(&format!("{sandbox}: paused; gabion resume {sandbox}\n"))?;
    Ok(ExitCode::SUCCESS)
}

pub async fn resume(context: &Context, args: &ResumeArgs) -> Result<ExitCode> {
    let (target, sandbox) = open(context, &args.whole, "gabion resume").await?;
    target.platform()?.resume(sandbox).await?;
    print(&format!("{sandbox}: goes on\n"))?;
    Ok(ExitCode::SUCCESS)
}

pub async fn extend(context: &Context, args: &ExtendArgs) -> Result<ExitCode> {
    let (target, sandbox) = open(context, &args.whole, "gabion extend").await?;
    let time = args.time.map(|time| time.0);
    target.platform()?.extend(sandbox, time).await?;
    print(&match args.time {
        Some(time) => format!("{sandbox}: has {time} from now on\n"),
        None => format!("{sandbox}: its time begins again\n"),
    })?;
    Ok(ExitCode::SUCCESS)
}

async fn open<'a>(
    context: &Context,
    args: &'a WholeArgs,
    command: &str,
) -> Result<(Target, &'a SandboxName)> {
    let lock = Some((command, args.lock.lock_timeout));
    let target = Target::open(context, &args.sandbox, lock).await?;
    Ok((target, &args.sandbox))
}
