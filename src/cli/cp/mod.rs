//! `gabion cp FROM TO`: files and folders in and out of sandboxes.

mod folder;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::str::FromStr;

use tokio::io::AsyncWriteExt;

use super::context::Context;
use super::error::{Error, Result};
use super::place::PathIn;
use super::target::Target;

#[derive(clap::Args)]
#[command(after_help = "Examples:
  gabion cp dump.sql data:dump.sql       into where its services run
  gabion cp data:/var/log/db.log .       out of it
  gabion cp data:dump.sql - | head       `-` is stdin or stdout
  gabion cp dist web:public              a folder and all that is in it

A path in a sandbox is absolute, or relative to where services run. A file is
replaced whole or not at all, and keeps its permissions. A folder is copied
with all that is in it; into a folder that is there, under its own name.
FOLDER/. stands for what is in it.")]
pub struct CpArgs {
    /// What to copy: FILE, FOLDER, SANDBOX:PATH or `-`
    #[arg(value_name = "FROM", add = super::address::completer())]
    from: Place,
    /// Where to: FILE, FOLDER, SANDBOX:PATH or `-`
    #[arg(value_name = "TO", add = super::address::completer())]
    to: Place,
}

/// An end of a copy.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Place {
    /// Standard input or output.
    Stream,
    /// A file here.
    Here(PathBuf),
    /// A file in a sandbox.
    There(PathIn),
}

impl FromStr for Place {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "-" {
            return Ok(Self::Stream);
        }
        // `./a:b` is a file here.
        match text.split_once(':') {
            Some((sandbox, _)) if !sandbox.contains('/') => text.parse().map(Self::There),
            _ => Ok(Self::Here(text.into())),
        }
    }
}

/// The permissions of what comes from stdin.
const MODE: u32 = 0o644;

pub async fn run(context: &Context, args: &CpArgs) -> Result<ExitCode> {
    match (&args.from, &args.to) {
        (Place::There(PathIn { sandbox, path }), Place::Stream) => {
            let target = Target::open(context, sandbox, None).await?;
            let mut out = tokio::io::stdout();
            target
                .platform()?
                .read_file(sandbox, path, &mut out)
                .await?;
        }
        (Place::There(PathIn { sandbox, path }), Place::Here(file)) => {
            let target = Target::open(context, sandbox, None).await?;
            let secrets = &target.loaded.secrets;
            match target.platform()?.is_folder(sandbox, path, secrets).await? {
                true => folder::copy_out(&target, path, file).await?,
                false => copy_out(&target, path, file).await?,
            }
        }
        (Place::Stream, Place::There(PathIn { sandbox, path })) => {
            let target = Target::open(context, sandbox, None).await?;
            let mut input = tokio::io::stdin();
            let path = with_name(path, None)?;
            target
                .platform()?
                .write_file(sandbox, &path, &mut input, MODE)
                .await?;
        }
        (Place::Here(file), Place::There(PathIn { sandbox, path })) => {
            use std::os::unix::fs::PermissionsExt;
            let failed = |error| Error::failed(format!("{}: {error}", file.display()));
            let mut from = tokio::fs::File::open(file).await.map_err(failed)?;
            let found = from.metadata().await.map_err(failed)?;
            if found.is_dir() {
                let target = Target::open(context, sandbox, None).await?;
                folder::copy_in(&target, file, path).await?;
                return Ok(ExitCode::SUCCESS);
            }
            let path = with_name(path, file.file_name().and_then(|name| name.to_str()))?;
            let target = Target::open(context, sandbox, None).await?;
            let mode = found.permissions().mode() & 0o777;
            target
                .platform()?
                .write_file(sandbox, &path, &mut from, mode)
                .await?;
        }
        _ => {
            return Err(Error::Usage {
                message: "one end of a copy has to be in a sandbox, the other one here".to_owned(),
                hint: Some("a file in a sandbox is written SANDBOX:PATH".to_owned()),
            });
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// The path of a file: in a folder, which ends with a slash, under the name it has.
fn with_name(path: &str, name: Option<&str>) -> Result<String> {
    match (path.ends_with('/') || path == ".", name) {
        (false, _) => Ok(path.to_owned()),
        (true, Some(name)) => Ok(format!("{}/{name}", path.trim_end_matches('/'))),
        (true, None) => Err(Error::usage(format!(
            "`{path}` is a folder: name a file in it"
        ))),
    }
}

/// Written beside the file and moved there once it is whole.
async fn copy_out(target: &Target, path: &str, to: &Path) -> Result<()> {
    let name = Path::new(path).file_name();
    let file = match (to.is_dir(), name) {
        (true, Some(name)) => to.join(name),
        (true, None) => return Err(Error::usage(format!("`{path}` is a folder"))),
        (false, _) => to.to_owned(),
    };
    let folder = match file.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent.to_owned(),
        _ => PathBuf::from("."),
    };
    let failed = |error: std::io::Error| Error::failed(format!("{}: {error}", file.display()));
    let beside = tempfile::Builder::new()
        .prefix(".gabion-cp")
        .permissions(std::os::unix::fs::PermissionsExt::from_mode(MODE))
        .tempfile_in(folder)
        .map_err(failed)?;
    let mut out = tokio::fs::File::from_std(beside.as_file().try_clone().map_err(failed)?);
    target
        .platform()?
        .read_file(&target.sandbox, path, &mut out)
        .await?;
    out.flush().await.map_err(failed)?;
    beside.persist(&file).map_err(|error| failed(error.error))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::SandboxName;

    #[test]
    fn places_are_told_apart() {
        let there = |path: &str| {
            Place::There(PathIn {
                sandbox: SandboxName::new("data").unwrap(),
                path: path.to_owned(),
            })
        };
        for (text, place) in [
            ("-", Place::Stream),
            ("a.txt", Place::Here("a.txt".into())),
            ("./a:b", Place::Here("./a:b".into())),
            ("data:x/y:z", there("x/y:z")),
        ] {
            assert_eq!(text.parse(), Ok(place), "{text}");
        }
        for bad in ["data:", "Da ta:x", ":x"] {
            assert!(bad.parse::<Place>().is_err(), "{bad}");
        }
    }

    #[test]
    fn a_file_keeps_its_name_in_a_folder() {
        assert_eq!(with_name("a", Some("b")).unwrap(), "a");
        assert_eq!(with_name("a/", Some("b")).unwrap(), "a/b");
        assert_eq!(with_name(".", Some("b")).unwrap(), "./b");
        assert_eq!(with_name("/", Some("b")).unwrap(), "/b");
        assert!(with_name("a/", None).is_err());
    }
}
