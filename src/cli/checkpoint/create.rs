//! `gabion checkpoint create SANDBOX [NAME]`.

use std::process::ExitCode;
use std::time::Duration;

use jiff::{Span, SpanRelativeTo};

use super::{date, shown};
use crate::cli::context::{Context, print, print_json};
use crate::cli::error::Result;
use crate::cli::progress::printable;
use crate::cli::run::LockArgs;
use crate::cli::target::Target;
use crate::model::{SandboxName, human_size, show_duration};

#[derive(clap::Args)]
#[command(after_help = "Examples:
  gabion checkpoint create data
  gabion checkpoint create data before-upgrade
  gabion checkpoint create data --no-wait        prints the id at once
  gabion checkpoint create data --expires-in 7d  where the platform removes it

What a database needs besides: `checkpoint: { before: CMD, after: CMD }` in the
manifest. Where the filesystem can share extents (Btrfs, XFS) it takes no time and
no space; elsewhere the files are copied, and processes stand still meanwhile.")]
pub struct CreateArgs {
    /// The sandbox
    #[arg(value_name = "SANDBOX", add = crate::cli::address::completer())]
    sandbox: SandboxName,
    /// What to call it
    #[arg(value_name = "NAME")]
    name: Option<String>,
    /// Do not wait until it is written
    #[arg(long)]
    no_wait: bool,
    /// How long the platform keeps it; without it, as long as it likes
    #[arg(long, value_name = "DURATION", value_parser = lasting)]
    expires_in: Option<Duration>,
    /// Print it as JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    lock: LockArgs,
}

pub async fn run(context: &Context, args: &CreateArgs) -> Result<ExitCode> {
    let lock = Some(("gabion checkpoint create", args.lock.lock_timeout));
    let target = Target::open(context, &args.sandbox, lock).await?;
    let (platform, name) = (target.platform()?, args.name.as_deref());
    let secrets = &target.loaded.secrets;
    let passing = async |time| {
        platform
            .create_passing_checkpoint(&args.sandbox, name, time)
            .await
    };
    if args.no_wait {
        let id = match args.expires_in {
            Some(time) => passing(time).await?.id,
            None => {
                platform
                    .begin_checkpoint(&args.sandbox, name, secrets)
                    .await?
            }
        };
        match args.json {
            true => print_json(&serde_json::json!({ "id": id }))?,
            false => print(&format!("{id}\n"))?,
        }
        return Ok(ExitCode::SUCCESS);
    }
    let made = match args.expires_in {
        Some(time) => passing(time).await?,
        None => {
            platform
                .create_checkpoint(&args.sandbox, name, secrets)
                .await?
        }
    };
    if args.json {
        print_json(&made)?;
    } else if let (Some(directory), Some(end)) = (&made.directory, made.expires_at) {
        let (sandbox, end) = (&args.sandbox, date(end));
        print(&format!(
            "{sandbox}: checkpoint {} of {} made, kept until {end}.\n",
            shown(&made),
            printable(directory)
        ))?;
    } else {
        let (size, took) = (
            human_size(made.size_bytes),
            Duration::from_millis(made.copy_duration_ms),
        );
        let (sandbox, took) = (&args.sandbox, show_duration(took));
        print(&format!(
            "{sandbox}: checkpoint {} made, {size} in {took}.\n",
            shown(&made)
        ))?;
    }
    Ok(ExitCode::SUCCESS)
}

/// A time in which days and weeks may be told, too; platforms count it in seconds.
fn lasting(text: &str) -> Result<Duration, String> {
    let span: Option<Span> = text.parse().ok();
    let time = span.and_then(|span| span.to_duration(SpanRelativeTo::days_are_24_hours()).ok());
    let time = time.and_then(|time| Duration::try_from(time).ok());
    let time = time.filter(|time| time.as_secs() > 0);
    time.ok_or_else(|| format!("`{text}` is not a time to keep something: write for example `7d`"))
}

#[test]
fn times_to_keep_something() {
    for (text, seconds) in [
        ("7d", 604_800),
        ("1w", 604_800),
        ("36h", 129_600),
        ("1d 12h", 129_600),
        ("90s", 90),
    ] {
        assert_eq!(lasting(text), Ok(Duration::from_secs(seconds)), "{text}");
    }
    for text in ["", "7", "-1d", "0s", "500ms", "soon"] {
        assert!(lasting(text).is_err(), "{text}");
    }
}
