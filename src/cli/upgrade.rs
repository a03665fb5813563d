//! `gabion upgrade SANDBOX`: let this gabion supervise a sandbox that another one has started, or its
//! platform upgrade it.

use std::process::ExitCode;

use super::context::{Context, print};
use super::error::Result;
use crate::model::SandboxName;
use crate::platforms::Upgraded;

#[derive(clap::Args)]
#[command(after_help = "Examples:
  gabion upgrade web
  gabion upgrade web data

On this machine, this gabion takes over from an older one. Its services are not
touched: they keep running, with the same pids. An apply does the same by
itself.

On Sprites, the platform upgrades the sprite. Whether services go on meanwhile
is up to the platform; gabion plan shows what came of it.")]
pub struct UpgradeArgs {
    /// The sandboxes
    #[arg(value_name = "SANDBOX", required = true, add = super::address::completer())]
    sandboxes: Vec<SandboxName>,
}

pub async fn run(context: &Context, args: &UpgradeArgs) -> Result<ExitCode> {
    let (loaded, desired) = context.load_stack()?;
    let mut platforms = context.platforms(&loaded, &desired.stack)?;
    let observed = context.observe(&mut platforms, &desired).await?;
    let addresses: Vec<_> = args.sandboxes.iter().cloned().map(Into::into).collect();
    super::address::resolve(&addresses, &desired, &observed)?;
    for sandbox in &args.sandboxes {
        let upgraded = platforms.of(sandbox)?.upgrade(sandbox).await?;
        print(&match upgraded {
            Some(Upgraded { from, to }) => {
                format!("{sandbox}: supervised by gabion {to}, before by {from}\n")
            }
            None => format!("{sandbox}: upgraded\n"),
        })?;
    }
    Ok(ExitCode::SUCCESS)
}
