//! `gabion watch`: keep it as the manifest says.

use std::io::BufRead;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use tokio::sync::{mpsc, watch};

use super::context::{Context, say};
use super::error::{Error, Result};
use super::run::{self, Execution, RunArgs};
use super::watch_lines::Lines;
use crate::apply::Interrupt;
use crate::manifest::Loaded;
use crate::model::{Address, HumanDuration};
use crate::plan::{self, Cause, Operation};
use crate::platforms::Platforms;
use crate::watch::{Settings, WatchError, Watcher, World};

#[derive(clap::Args)]
#[command(after_help = "Examples:
  gabion watch
  gabion watch --allow-delete            also delete what leaves the manifest
  gabion watch --on-exit stop            take everything down with Ctrl-C

Follows the manifest, the files it reads, the `watch` paths of its services, and
the services themselves. While the manifest is not valid, everything stays as it
is.")]
pub struct WatchArgs {
    /// Delete what is no longer in the manifest; without it, only after a yes
    #[arg(long, env = "GABION_ALLOW_DELETE", hide_env = true,
          value_parser = clap::builder::FalseyValueParser::new(), action = clap::ArgAction::SetTrue)]
    allow_delete: bool,
    /// What Ctrl-C does with the services
    #[arg(
        long,
        value_enum,
        default_value = "leave",
        env = "GABION_ON_EXIT",
        hide_env = true
    )]
    on_exit: OnExit,
    /// How often to look whether the services are still as they should be
    #[arg(
        long,
        value_name = "DURATION",
        default_value = "1s",
        env = "GABION_WATCH_INTERVAL",
        hide_env = true
    )]
    interval: HumanDuration,
    /// Print events as JSON, one per line
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum OnExit {
    /// Leave them running
    Leave,
    /// Stop them
    Stop,
}

pub async fn run(context: &Context, args: &WatchArgs) -> Result<ExitCode> {
    let settings = Settings {
        allow_delete: args.allow_delete,
        interval: args.interval.0.max(Duration::from_millis(50)),
    };
    let (events, received) = mpsc::unbounded_channel();
    let (interrupt, wish) = watch::channel(Interrupt::None);
    let signals = tokio::spawn(run::forward_signals(interrupt));
    // Once: a manifest that is gone for a moment is a broken one, and its parent's is another.
    let world = CliWorld {
        context,
        files: context.files()?,
    };
    let mut watcher = Watcher::new(settings, world, events, wish, consent()).map_err(ended)?;
    let lines = Lines::new(context, args.json);
    let watching = async {
        let result = watcher.run().await.map_err(ended);
        // Closes the channel, which ends the lines.
        drop(watcher);
        result
    };
    let (watched, shown) = tokio::join!(watching, lines.run(received));
    signals.abort();
    watched?;
    shown?;
    if args.on_exit == OnExit::Stop {
        return stop_all(context, args.json).await;
    }
    if !args.json {
        say(format_args!("Left running. See them with: gabion status"));
    }
    Ok(ExitCode::SUCCESS)
}

async fn stop_all(context: &Context, json: bool) -> Result<ExitCode> {
    let (loaded, desired) = context.load_stack()?;
    let _lock = run::lock(
        context,
        &desired.stack,
        "gabion watch",
        HumanDuration::from_secs(60),
    )
    .await?;
    let mut platforms = context.platforms(&loaded, &desired.stack)?;
    let observed = context.observe(&mut platforms, &desired).await?;
    let all: Vec<Address> = observed
        .sandboxes
        .keys()
        .cloned()
        .map(Address::Sandbox)
        .collect();
    let plan = plan::operate(&desired, &observed, Operation::Stop, &all, Cause::Requested)?;
    let args = RunArgs::unasked(HumanDuration::default(), json);
    let success = "Everything is stopped.";
    Execution {
        context,
        loaded: &loaded,
        platforms: &platforms,
        args: &args,
        success,
        upgrades: false,
        atomic: None,
    }
    .run(&plan)
    .await
}

/// Sends a message for every line with `y` or `yes` that is typed.
fn consent() -> mpsc::UnboundedReceiver<()> {
    use std::io::IsTerminal;
    let (sender, receiver) = mpsc::unbounded_channel();
    if std::io::stdin().is_terminal() {
        std::thread::spawn(move || {
            for line in std::io::stdin().lock().lines().map_while(Result::ok) {
                let yes = matches!(line.trim().to_ascii_lowercase().as_str(), "y" | "yes");
                if yes && sender.send(()).is_err() {
                    break;
                }
            }
        });
    }
    receiver
}

fn ended(error: WatchError) -> Error {
    Error::failed(error.to_string())
}

/// What the watcher reaches the world through.
struct CliWorld<'a> {
    context: &'a Context,
    files: Vec<PathBuf>,
}

fn world(error: Error) -> WatchError {
    WatchError::World(error.to_string())
}

impl World for CliWorld<'_> {
    fn load(&self) -> Result<Loaded, WatchError> {
        Ok(self.context.load_files(self.files.clone()))
    }

    fn platforms(&self, loaded: &Loaded, stack: &str) -> Result<Platforms, WatchError> {
        self.context.platforms(loaded, stack).map_err(world)
    }

    fn lock_file(&self, stack: &str) -> Result<PathBuf, WatchError> {
        self.context.lock_file(stack).map_err(world)
    }
}
