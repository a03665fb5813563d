//! `gabion import`: a manifest for what exists on a platform, and the mark that makes it a stack's.

mod manifest;

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use super::context::{Context, print, say};
use super::error::{Error, Result};
use super::run::{self, LockArgs};
use crate::manifest::{Loaded, PlatformConfig};
use crate::model::{Desired, DesiredSandbox, SandboxName, ServiceName};
use crate::platforms::{Act, Described};

#[derive(clap::Args)]
#[command(after_help = "Examples:
  gabion import sprites                            to read it
  gabion import sprites my-sprite --out gabion.yaml
  gabion import pocketenv my-shop --adopt          what gabion.yaml here says is the stack's from now on

No value of a variable or secret is written: they are looked up in the
environment, under the names that they have there. Fill in what is missing,
then adopt: the sandbox and its services get the mark of the stack, and nothing
that runs is touched (on Sprites, the mark of a service is a part of what runs:
--restart allows it). On Pocketenv, a sandbox that is nobody's is claimed first.
gabion plan shows what is different from the manifest.")]
pub struct ImportArgs {
    /// The platform: an entry of `platforms:`, or a kind
    #[arg(value_name = "PLATFORM")]
    platform: String,
    /// Only this sandbox, by its name or its id there
    #[arg(value_name = "SANDBOX")]
    sandbox: Option<String>,
    /// Write the manifest here, where there is no file yet; to stdout without it
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// The stack that the manifest is of
    #[arg(
        long,
        value_name = "NAME",
        default_value = "imported",
        conflicts_with = "adopt"
    )]
    stack: SandboxName,
    /// Mark what the manifest names as its stack's, instead of writing one
    #[arg(long, conflicts_with = "out")]
    adopt: bool,
    /// Adopt it although it carries the mark of this other stack, which then loses it
    #[arg(long, value_name = "STACK", requires = "adopt", requires = "sandbox")]
    take_over_from: Option<String>,
    /// Restart services where their marks cannot be had otherwise
    #[arg(long, requires = "adopt")]
    restart: bool,
    #[command(flatten)]
    lock: LockArgs,
}

impl ImportArgs {
    /// Whether it is to mark what it finds.
    pub fn changes_something(&self) -> bool {
        self.adopt
    }
}

pub async fn run(context: &Context, args: &ImportArgs) -> Result<ExitCode> {
    if args.adopt {
        return adopt(context, args).await;
    }
    let platforms = context.all_platforms(Some(&args.platform))?;
    let (entry, platform) = platforms
        .iter()
        .find(|(name, _)| *name == args.platform)
        .or_else(|| {
            platforms
                .iter()
                .find(|(_, it)| it.capabilities().kind == args.platform)
        })
        .ok_or_else(|| Error::failed(format!("there is no access to `{}`", args.platform)))?;
    let mut found = describe(platform, args).await?;
    if args.sandbox.is_none() {
        found.retain(|it| match &it.owner {
            Some(owner) => {
                say(format_args!(
                    "note: `{}` is of the stack `{}`, and is left out: name it to have it, too",
                    it.name, owner.stack
                ));
                false
            }
            None => true,
        });
    }
    let (configs, _) = context.all_configs(Some(&args.platform))?;
    let config = configs.get(entry).cloned();
    let config = config.unwrap_or_else(|| PlatformConfig::of_kind(entry));
    let text = manifest::write(args.stack.as_str(), (entry, &config), &found);
    match &args.out {
        None => print(&text)?,
        Some(path) => {
            write_new(path, &text)?;
            say(format_args!("Written to {}.", path.display()));
        }
    }
    Ok(ExitCode::SUCCESS)
}

async fn describe(platform: &dyn Act, args: &ImportArgs) -> Result<Vec<Described>> {
    let found = platform.describe(args.sandbox.as_deref()).await?;
    match &args.sandbox {
        Some(wanted) if found.is_empty() => Err(Error::Failed {
            message: format!("there is no sandbox `{wanted}` on `{}`", args.platform),
            hint: Some(format!("gabion sandboxes --platform {}", args.platform)),
        }),
        _ => Ok(found),
    }
}

/// Writes a file that is not there yet, readable by its owner only.
fn write_new(path: &Path, text: &str) -> Result<()> {
    use std::os::unix::fs::OpenOptionsExt;
    let mut options = std::fs::OpenOptions::new();
    let file = options.write(true).create_new(true).mode(0o600).open(path);
    let written = file.and_then(|mut file| file.write_all(text.as_bytes()));
    written.map_err(|error| Error::Failed {
        message: format!("cannot write {}: {error}", path.display()),
        hint: (error.kind() == std::io::ErrorKind::AlreadyExists)
            .then(|| "give it another name: nothing is ever written over".to_owned()),
    })
}

async fn adopt(context: &Context, args: &ImportArgs) -> Result<ExitCode> {
    let (loaded, desired) = context.load_valid()?;
    let entry = entry(&loaded, args)?;
    let stack = desired.stack.as_str();
    let timeout = args.lock.lock_timeout;
    let _lock = run::lock(context, stack, "gabion import --adopt", timeout).await?;
    let platforms = context.platforms(&loaded, stack)?;
    let platform = platforms.iter().find(|(name, _)| *name == entry);
    let (_, platform) =
        platform.ok_or_else(|| Error::failed(format!("there is no access to `{entry}`")))?;
    let mut adopted = 0;
    for found in describe(platform, args).await? {
        let Some((name, wanted)) = wanted(&desired, &entry, &found) else {
            if args.sandbox.is_none() {
                continue;
            }
            return Err(Error::Failed {
                message: format!("the manifest has no sandbox with `name: {}`", found.name),
                hint: Some(format!(
                    "gabion import {} {} writes one",
                    args.platform, found.name
                )),
            });
        };
        if let Some(owner) = &found.owner {
            if owner.stack == stack && owner.sandbox == *name {
                say(format_args!("{name}: is of this stack already"));
                continue;
            }
            if args.take_over_from.as_ref() != Some(&owner.stack) {
                return Err(Error::Failed {
                    message: format!("`{}` is of the stack `{}`", found.name, owner.stack),
                    hint: Some(format!(
                        "if that stack is to lose it: gabion import {} {} --adopt --take-over-from {}",
                        args.platform, found.name, owner.stack
                    )),
                });
            }
        }
        let restarted = platform.adopt(&found, name, wanted, args.restart).await?;
        adopted += 1;
        if found.unclaimed {
            say(format_args!("{name}: claimed, and adopted"));
        } else if restarted.is_empty() {
            say(format_args!(
                "{name}: adopted; nothing that runs was touched"
            ));
        } else {
            let restarted: Vec<_> = restarted.iter().map(ServiceName::as_str).collect();
            let restarted = restarted.join(", ");
            say(format_args!("{name}: adopted; restarted: {restarted}"));
        }
    }
    if adopted == 0 {
        say(format_args!("Nothing was adopted."));
    }
    Ok(ExitCode::SUCCESS)
}

/// The manifest's name for the platform.
fn entry(loaded: &Loaded, args: &ImportArgs) -> Result<String> {
    let mut all = loaded.platforms.iter();
    let named = loaded.platforms.contains_key(&args.platform);
    let found = named.then(|| args.platform.clone());
    let of_kind = || {
        all.find(|(_, it)| it.kind == args.platform)
            .map(|it| it.0.clone())
    };
    found.or_else(of_kind).ok_or_else(|| Error::Usage {
        message: format!("the manifest has no platform `{}`", args.platform),
        hint: None,
    })
}

/// The sandbox of the manifest that is meant by what was found.
fn wanted<'d>(
    desired: &'d Desired,
    entry: &str,
    found: &Described,
) -> Option<(&'d SandboxName, &'d DesiredSandbox)> {
    desired.sandboxes.iter().find(|(_, wanted)| {
        wanted.spec.platform == entry && wanted.spec.name.as_deref() == Some(&found.name)
    })
}
