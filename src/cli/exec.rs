//! `gabion exec SANDBOX -- CMD`: run a command where the services run.

use std::process::ExitCode;

use super::context::Context;
use super::error::{Error, Result};
use crate::model::SandboxName;

/// As shells say it.
const NOT_EXECUTED: u8 = 127;

#[derive(clap::Args)]
#[command(after_help = "Examples:
  gabion exec data -- psql -h localhost
  gabion exec web -- sh
  echo 'select 1' | gabion exec data -- psql

The command gets this terminal, or whatever stdin, stdout and stderr are; its
exit code is passed through. 127 if it cannot be executed.")]
pub struct ExecArgs {
    /// The sandbox
    #[arg(value_name = "SANDBOX", add = super::address::sandbox_completer())]
    sandbox: SandboxName,
    /// The command and its arguments
    #[arg(
        value_name = "CMD",
        required = true,
        trailing_var_arg = true,
        allow_hyphen_values = true
    )]
    command: Vec<String>,
}

pub async fn run(context: &Context, args: &ExecArgs) -> Result<ExitCode> {
    let (loaded, desired) = context.load_stack()?;
    let mut platforms = context.platforms(&loaded, &desired.stack)?;
    let observed = context.observe(&mut platforms, &desired).await?;
    super::address::resolve(&[args.sandbox.clone().into()], &desired, &observed)?;
    if !observed.sandboxes.contains_key(&args.sandbox) {
        return Err(Error::Failed {
            message: format!("sandbox `{}` is not there yet", args.sandbox),
            hint: Some("gabion apply makes it".to_owned()),
        });
    }
    let platform = platforms.of(&args.sandbox)?;
    let ran = platform
        .exec(&args.sandbox, &args.command, &loaded.secrets)
        .await;
    let code = match ran {
        Ok(code) => code,
        Err(error) => {
            context.report(&error.into());
            return Ok(ExitCode::from(NOT_EXECUTED));
        }
    };
    Ok(ExitCode::from(u8::try_from(code & 0xff).unwrap_or(u8::MAX)))
}
