//! `gabion start|stop|restart`: act on services by hand, in the order of their needs.

use std::process::ExitCode;

use super::address::AddressArg;
use super::context::{Context, say};
use super::error::{Error, Result};
use super::run::{self, Execution, LockArgs, RunArgs};
use crate::model::Address;
use crate::plan::{self, Cause, Operation};
use crate::platforms::Platforms;

#[derive(clap::Args)]
struct ControlArgs {
    /// Services, or sandboxes for all their services
    #[arg(value_name = "ADDRESS", required = true, add = super::address::completer())]
    addresses: Vec<AddressArg>,
    #[command(flatten)]
    lock: LockArgs,
    /// Print events as JSON, one per line
    #[arg(long)]
    json: bool,
}

#[derive(clap::Args)]
#[command(after_help = "Examples:
  gabion start web/api                   and whatever it needs first
  gabion start web                       every service of the sandbox")]
pub struct StartArgs {
    #[command(flatten)]
    control: ControlArgs,
}

#[derive(clap::Args)]
#[command(after_help = "Examples:
  gabion stop web/api
  gabion stop web data/redis

They stay stopped until the next apply, start or watch round. To keep one
stopped for good, write `state: stopped` in the manifest.")]
pub struct StopArgs {
    #[command(flatten)]
    control: ControlArgs,
}

#[derive(clap::Args)]
#[command(after_help = "Examples:
  gabion restart web/api
  gabion restart web                     every service of the sandbox
  gabion restart --sandbox web           the sandbox itself

With --sandbox, all that runs in it ends, what was started by `gabion exec`
too, and the sandbox starts afresh; its files stay. Then the services that ran
are started again, in the order of their needs.")]
pub struct RestartArgs {
    #[command(flatten)]
    control: ControlArgs,
    /// Restart the sandboxes themselves, with all that runs in them
    #[arg(long)]
    sandbox: bool,
}

pub async fn start(context: &Context, args: &StartArgs) -> Result<ExitCode> {
    operate(context, &args.control, Operation::Start, "gabion start").await
}

pub async fn stop(context: &Context, args: &StopArgs) -> Result<ExitCode> {
    operate(context, &args.control, Operation::Stop, "gabion stop").await
}

pub async fn restart(context: &Context, args: &RestartArgs) -> Result<ExitCode> {
    let operation = match args.sandbox {
        true => Operation::RestartSandbox,
        false => Operation::Restart,
    };
    operate(context, &args.control, operation, "gabion restart").await
}

async fn operate(
    context: &Context,
    args: &ControlArgs,
    operation: Operation,
    command: &str,
) -> Result<ExitCode> {
    let (loaded, desired) = context.load_valid()?;
    let _lock = run::lock(context, &desired.stack, command, args.lock.lock_timeout).await?;
    let mut platforms = context.platforms(&loaded, &desired.stack)?;
    let observed = context.observe(&mut platforms, &desired).await?;
    let addresses = super::address::resolve(&args.addresses, &desired, &observed)?;
    if operation == Operation::RestartSandbox {
        check_restarts(&platforms, &addresses)?;
    }
    let plan = plan::operate(&desired, &observed, operation, &addresses, Cause::Requested)?;
    let run_args = RunArgs::unasked(args.lock.lock_timeout, args.json);
    let success = match operation {
        Operation::Stop => "They stay stopped until the next apply or start.",
        Operation::Start | Operation::Restart | Operation::RestartSandbox => "",
    };
    let execution = Execution {
        context,
        loaded: &loaded,
        platforms: &platforms,
        args: &run_args,
        success,
        upgrades: false,
        atomic: None,
    };
    if plan.is_empty() && plan.problems.is_empty() && !args.json {
        super::context::print(match operation {
            Operation::Start => "Nothing to do: already running.\n",
            Operation::Stop => "Nothing to do: already stopped.\n",
            Operation::Restart | Operation::RestartSandbox => {
                "Nothing to do: there is nothing to restart.\n"
            }
        })?;
        return Ok(ExitCode::SUCCESS);
    }
    for problem in &plan.problems {
        say(format_args!(
            "error: `{}` {}",
            problem.address, problem.message
        ));
    }
    execution.run(&plan).await
}

/// Whether all of them are sandboxes that can be restarted.
fn check_restarts(platforms: &Platforms, addresses: &[Address]) -> Result<()> {
    for address in addresses {
        if address.service().is_some() {
            return Err(Error::Usage {
                message: format!("`{address}` is a service: --sandbox restarts sandboxes"),
                hint: Some(format!("gabion restart --sandbox {}", address.sandbox())),
            });
        }
        let platform = platforms.of(address.sandbox())?;
        if !platform.restarts_sandboxes() {
            let what = "restart a sandbox itself: what runs in it outlives that it is suspended";
            let hint = format!("gabion restart {address} restarts every service of it");
            return Err(platform.cannot(what).hint(hint).into());
        }
    }
    Ok(())
}
