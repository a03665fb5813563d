//! `gabion fs`: what is done to files in a sandbox beside copying them in and out.

use std::process::ExitCode;

use jiff::tz::TimeZone;

use super::context::{Context, print, print_json, table};
use super::error::{Error, Result};
use super::place::PathIn;
use super::progress::printable;
use super::target::Target;
use crate::model::{SandboxName, human_size};
use crate::platforms::{FileChange, FileEntry};

#[derive(clap::Args)]
#[command(after_help = "Examples:
  gabion fs list web:/var/log
  gabion fs mkdir --parents web:/srv/app/cache
  gabion fs move web:/srv/new.html web:/srv/index.html
  gabion fs remove --recursive web:/srv/app/cache

A path is absolute or, where the platform has a folder that services run in,
relative to that. A file that a link leads to is another file: it is the link
that is moved or removed. `gabion cp` copies files in and out.")]
pub struct FsArgs {
    #[command(subcommand)]
    command: FsCommand,
}

#[derive(clap::Subcommand)]
enum FsCommand {
    /// Show what is in a folder
    #[command(visible_alias = "ls")]
    List(LookArgs),
    /// Show what is known of a file or folder
    Stat(LookArgs),
    /// Remove a file or a folder
    #[command(visible_alias = "rm")]
    Remove(RemoveArgs),
    /// Make a folder
    Mkdir(MkdirArgs),
    /// Give a file or folder another path
    #[command(visible_alias = "mv")]
    Move(MoveArgs),
    /// Copy a file or folder within a sandbox
    Copy(CopyArgs),
    /// Give a file or folder other permissions
    Chmod(ChmodArgs),
}

#[derive(clap::Args)]
#[command(after_help = "Examples:
  gabion fs list web:/var/log
  gabion fs stat web:/etc/hosts --json

What a platform does not tell is a dash. A link is shown as the platform tells
of it: as a file, or as what it leads to.")]
struct LookArgs {
    /// Which, as SANDBOX:PATH
    #[arg(value_name = "SANDBOX:PATH", add = super::address::completer())]
    at: PathIn,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(clap::Args)]
#[command(after_help = "Examples:
  gabion fs remove web:/srv/old.html
  gabion fs remove --recursive web:/srv/cache")]
struct RemoveArgs {
    /// Which, as SANDBOX:PATH
    #[arg(value_name = "SANDBOX:PATH", add = super::address::completer())]
    at: PathIn,
    /// A folder with all that is in it; without this, one that is empty
    #[arg(long, short)]
    recursive: bool,
}

#[derive(clap::Args)]
#[command(after_help = "Example:
  gabion fs mkdir --parents web:/srv/app/cache")]
struct MkdirArgs {
    /// Which, as SANDBOX:PATH
    #[arg(value_name = "SANDBOX:PATH", add = super::address::completer())]
    at: PathIn,
    /// Make those above it, too; one that is there is no error
    #[arg(long, short)]
    parents: bool,
}

#[derive(clap::Args)]
#[command(after_help = "Example:
  gabion fs move web:/srv/new.html web:/srv/index.html

A file at the new path is replaced.")]
struct MoveArgs {
    /// What is moved, as SANDBOX:PATH
    #[arg(value_name = "SANDBOX:FROM", add = super::address::completer())]
    from: PathIn,
    /// Its new path, in the same sandbox
    #[arg(value_name = "SANDBOX:TO", add = super::address::completer())]
    to: PathIn,
}

#[derive(clap::Args)]
#[command(after_help = "Examples:
  gabion fs copy web:/etc/app.conf web:/etc/app.conf.bak
  gabion fs copy --recursive web:/srv/app web:/srv/app.bak

A file at the new path is replaced.")]
struct CopyArgs {
    /// What is copied, as SANDBOX:PATH
    #[arg(value_name = "SANDBOX:FROM", add = super::address::completer())]
    from: PathIn,
    /// The path of the copy, in the same sandbox
    #[arg(value_name = "SANDBOX:TO", add = super::address::completer())]
    to: PathIn,
    /// It may be a folder, which is copied with all that is in it
    #[arg(long, short)]
    recursive: bool,
}

#[derive(clap::Args)]
#[command(after_help = "Examples:
  gabion fs chmod 755 web:/srv/run.sh
  gabion fs chmod --recursive 700 web:/srv/private")]
struct ChmodArgs {
    /// The permissions, in octal
    #[arg(value_name = "MODE", value_parser = mode)]
    mode: u32,
    /// Whose, as SANDBOX:PATH
    #[arg(value_name = "SANDBOX:PATH", add = super::address::completer())]
    at: PathIn,
    /// With all that is in a folder
    #[arg(long, short)]
    recursive: bool,
}

fn mode(text: &str) -> Result<u32, String> {
    match u32::from_str_radix(text, 8) {
        Ok(mode @ 0..=0o7777) => Ok(mode),
        _ => Err("write permissions in octal, as 644".to_owned()),
    }
}

impl FsArgs {
    pub fn changes_something(&self) -> bool {
        !matches!(self.command, FsCommand::List(_) | FsCommand::Stat(_))
    }
}

pub async fn run(context: &Context, args: FsArgs) -> Result<ExitCode> {
    match args.command {
        FsCommand::List(LookArgs { at, json }) => {
            let target = Target::open(context, &at.sandbox, None).await?;
            let secrets = &target.loaded.secrets;
            let platform = target.platform()?;
            let files = platform.list_files(&at.sandbox, &at.path, secrets).await?;
            if json {
                print_json(&serde_json::json!({ "version": 1, "files": files }))?;
            } else if files.is_empty() {
                print("Nothing is in it.\n")?;
            } else {
                show(context, &files)?;
            }
            Ok(ExitCode::SUCCESS)
        }
        FsCommand::Stat(LookArgs { at, json }) => {
            let target = Target::open(context, &at.sandbox, None).await?;
            let secrets = &target.loaded.secrets;
            let platform = target.platform()?;
            let file = platform.stat_file(&at.sandbox, &at.path, secrets).await?;
            match json {
                true => print_json(&serde_json::json!({ "version": 1, "file": file }))?,
                false => show(context, &[file])?,
            }
            Ok(ExitCode::SUCCESS)
        }
        FsCommand::Remove(RemoveArgs { at, recursive }) => {
            let PathIn { sandbox, path } = at;
            let remove = FileChange::Remove { path, recursive };
            change(context, &sandbox, &remove).await
        }
        FsCommand::Mkdir(MkdirArgs { at, parents }) => {
            let PathIn { sandbox, path } = at;
            let make = FileChange::MakeFolder { path, parents };
            change(context, &sandbox, &make).await
        }
        FsCommand::Move(MoveArgs { from, to }) => {
            let (sandbox, from, to) = within_one(from, to)?;
            change(context, &sandbox, &FileChange::Move { from, to }).await
        }
        FsCommand::Copy(CopyArgs {
            from,
            to,
            recursive,
        }) => {
            let (sandbox, from, to) = within_one(from, to)?;
            let copy = FileChange::Copy {
                from,
                to,
                recursive,
            };
            change(context, &sandbox, &copy).await
        }
        FsCommand::Chmod(ChmodArgs {
            mode,
            at,
            recursive,
        }) => {
            let PathIn { sandbox, path } = at;
            let set = FileChange::SetMode {
                path,
                mode,
                recursive,
            };
            change(context, &sandbox, &set).await
        }
    }
}

async fn change(context: &Context, sandbox: &SandboxName, change: &FileChange) -> Result<ExitCode> {
    let target = Target::open(context, sandbox, None).await?;
    let secrets = &target.loaded.secrets;
    let platform = target.platform()?;
    platform.change_files(sandbox, change, secrets).await?;
    Ok(ExitCode::SUCCESS)
}

/// The sandbox of both paths, and the paths.
fn within_one(from: PathIn, to: PathIn) -> Result<(SandboxName, String, String)> {
    match from.sandbox == to.sandbox {
        true => Ok((from.sandbox, from.path, to.path)),
        false => Err(Error::Usage {
            message: format!(
                "`{}` and `{}` are not one sandbox",
                from.sandbox, to.sandbox
            ),
            hint: Some("gabion cp takes files out of one and into another".to_owned()),
        }),
    }
}

fn show(context: &Context, files: &[FileEntry]) -> Result<()> {
    let dash = || "–".to_owned();
    let rows = files.iter().map(|file| {
        let modified = file.modified_at.map_or_else(dash, |at| {
            let at = at.to_zoned(TimeZone::system());
            at.strftime("%Y-%m-%d %H:%M").to_string()
        });
        let size = match file.folder {
            true => dash(),
            false => file.size.map_or_else(dash, human_size),
        };
        let name = printable(&file.name);
        let name = match file.folder && name != "/" {
            true => format!("{name}/"),
            false => name,
        };
        let mode = file.mode.as_deref().map_or_else(dash, printable);
        [mode, size, modified, name]
    });
    let heading = ["MODE", "SIZE", "MODIFIED", "NAME"];
    print(&table(context.color_stdout, heading, rows))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn permissions_are_octal() {
        assert_eq!(mode("0755"), Ok(0o755));
        for bad in ["", "u+x", "8", "77777", "-1"] {
            assert!(mode(bad).is_err(), "{bad}");
        }
    }
}
