//! `gabion checkpoint wait SANDBOX ID`.

use std::process::ExitCode;

use super::shown;
use crate::cli::context::{Context, print, print_json};
use crate::cli::error::Result;
use crate::cli::target::Target;
use crate::model::{SandboxName, human_size};

#[derive(clap::Args)]
#[command(after_help = "Examples:
  gabion checkpoint wait data \"$(gabion checkpoint create data --no-wait)\"")]
pub struct WaitArgs {
    /// The sandbox
    #[arg(value_name = "SANDBOX", add = crate::cli::address::completer())]
    sandbox: SandboxName,
    /// The id that `create --no-wait` has printed
    #[arg(value_name = "ID")]
    id: String,
    /// Print it as JSON
    #[arg(long)]
    json: bool,
}

pub async fn run(context: &Context, args: &WaitArgs) -> Result<ExitCode> {
    let target = Target::open(context, &args.sandbox, None).await?;
    let made = target
        .platform()?
        .wait_checkpoint(&args.sandbox, &args.id)
        .await?;
    if args.json {
        print_json(&made)?;
    } else {
        let (sandbox, size) = (&args.sandbox, human_size(made.size_bytes));
        print(&format!(
            "{sandbox}: checkpoint {} is written, {size}.\n",
            shown(&made)
        ))?;
    }
    Ok(ExitCode::SUCCESS)
}
