//! `gabion fork SANDBOX NEW`: a second sandbox like the first.

use std::process::ExitCode;

use super::checkpoint::{find, names};
use super::context::{Context, print, print_json, say};
use super::error::Result;
use super::run::LockArgs;
use super::target::Target;
use crate::model::{SandboxName, human_size};
use crate::platforms::ForkOptions;

#[derive(clap::Args)]
#[command(after_help = "Examples:
  gabion fork data data-copy
  gabion fork data try-upgrade --stopped          services defined, not started
  gabion fork data old --from before-upgrade

The fork gets a copy of the files, the definitions, and starts what runs in the
source, which goes on. It is not in the manifest, so the next apply of the whole
manifest deletes it unless you add it there.")]
pub struct ForkArgs {
    /// The sandbox to copy
    #[arg(value_name = "SANDBOX", add = super::address::completer())]
    sandbox: SandboxName,
    /// The name of the new one
    #[arg(value_name = "NEW")]
    fork: SandboxName,
    /// Fork from this checkpoint instead of the present state
    #[arg(long, value_name = "CHECKPOINT")]
    from: Option<String>,
    /// Do not start its services; both would need the same ports
    #[arg(long)]
    stopped: bool,
    /// Print what became of it as JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    lock: LockArgs,
}

pub async fn run(context: &Context, args: &ForkArgs) -> Result<ExitCode> {
    let lock = Some(("gabion fork", args.lock.lock_timeout));
    let target = Target::open(context, &args.sandbox, lock).await?;
    let from = match &args.from {
        Some(text) => Some(find(&target, text).await?.id),
        None => None,
    };
    let options = ForkOptions {
        from,
        stopped: args.stopped,
    };
    let (platform, secrets) = (target.platform()?, &target.loaded.secrets);
    let forked = platform
        .fork_sandbox(&args.sandbox, &args.fork, &options, secrets)
        .await?;
    let (source, fork) = (&args.sandbox, &args.fork);
    if args.json {
        print_json(&forked)?;
    } else {
        let mut text = format!(
            "{fork}: forked from {source}, {}.\n",
            human_size(forked.size_bytes)
        );
        for (what, services) in [
            ("started", &forked.started_services),
            ("failed", &forked.failed_services),
        ] {
            if !services.is_empty() {
                text.push_str(&format!("  {what:<8} {}\n", names(services)));
            }
        }
        print(&text)?;
    }
    if target.workspace.is_some() {
        say(format_args!(
            "note: `{source}` has a workspace of its own choice; `{fork}` has a private copy of it"
        ));
    }
    say(format_args!(
        "note: `{fork}` is not in the manifest; the next apply deletes it unless you add it there"
    ));
    Ok(match forked.failed_services.is_empty() {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    })
}
