//! Plan files on disk: written by `plan --out`, carried out by `apply FILE.json`.

use std::fs::File;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::str::FromStr;

use super::address::AddressArg;
use super::context::{Context, count};
use super::error::{Error, Result};
use super::limits::Limits;
use super::run::{self, Execution, RunArgs};
use crate::model::{Desired, Observed};
use crate::plan::Plan;
use crate::plan::file::{self, FileError, PlanFile};

/// The largest plan file that is read, in bytes: enough for some ten thousand services.
const LARGEST: u64 = 64 << 20;

/// What tells a plan file from an address, in which there is never a dot.
const ENDING: &str = ".json";

/// An argument of `apply`: a plan file if it ends in `.json`, an address otherwise.
#[derive(Debug, Clone)]
pub enum ApplyArg {
    Address(AddressArg),
    File(PathBuf),
}

impl FromStr for ApplyArg {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        if text.ends_with(ENDING) {
            return Ok(Self::File(text.into()));
        }
        let address = text.parse().map(Self::Address);
        address.map_err(|error| format!("{error}; the name of a plan file ends in `{ENDING}`"))
    }
}

/// The addresses, or the one plan file.
pub fn sort(given: &[ApplyArg]) -> Result<(Vec<AddressArg>, Option<&Path>)> {
    let mut addresses = Vec::new();
    let mut files = Vec::new();
    for argument in given {
        match argument {
            ApplyArg::Address(address) => addresses.push(address.clone()),
            ApplyArg::File(path) => files.push(path.as_path()),
        }
    }
    match &files[..] {
        [] => Ok((addresses, None)),
        [one] if addresses.is_empty() => Ok((addresses, Some(one))),
        _ => Err(Error::Usage {
            message: "a plan file is applied alone, and whole".to_owned(),
            hint: Some("limit the plan when it is made: gabion plan ADDRESS --out FILE".to_owned()),
        }),
    }
}

/// Checks the value of `--out`.
pub fn out_path(text: &str) -> Result<PathBuf, String> {
    if text.ends_with(ENDING) {
        Ok(text.into())
    } else {
        Err(format!("the name of a plan file ends in `{ENDING}`"))
    }
}

/// Writes `plan` to `path`: whole or not at all, and readable by its owner only.
pub fn write(path: &Path, plan: &Plan, desired: &Desired, observed: &Observed) -> Result<()> {
    let text = file::save(plan, desired, observed);
    let folder = path.parent().filter(|it| !it.as_os_str().is_empty());
    let folder = folder.unwrap_or(Path::new("."));
    // Temporary files have mode 0600, and keep it.
    let written = tempfile::NamedTempFile::new_in(folder).and_then(|mut file| {
        file.write_all(text.as_bytes())?;
        file.as_file().sync_all()?;
        file.persist(path).map_err(|error| error.error)
    });
    written
        .map(drop)
        .map_err(|error| Error::failed(format!("cannot write {}: {error}", path.display())))
}

fn read(path: &Path) -> Result<PlanFile> {
    let failed = |why: String| Error::failed(format!("cannot read {}: {why}", path.display()));
    let mut text = String::new();
    let file = File::open(path).map_err(|error| failed(error.to_string()))?;
    let read = file.take(LARGEST + 1).read_to_string(&mut text);
    read.map_err(|error| failed(error.to_string()))?;
    if text.len() as u64 > LARGEST {
        let most = LARGEST >> 20;
        return Err(failed(format!("it is larger than {most} MiB")));
    }
    PlanFile::parse(&text).map_err(|error| refused(path, &error))
}

fn refused(path: &Path, error: &FileError) -> Error {
    Error::Failed {
        message: format!("cannot apply {}: {error}", path.display()),
        hint: Some(again(path)),
    }
}

/// What to do about a file that is of no use.
fn again(path: &Path) -> String {
    format!(
        "nothing was changed; make a new plan with: gabion plan --out {}",
        path.display()
    )
}

/// `gabion apply FILE.json`.
pub async fn apply(
    context: &Context,
    args: &RunArgs,
    limits: &Limits,
    atomic: bool,
    path: &Path,
) -> Result<ExitCode> {
    let file = read(path)?;
    let (loaded, manifest) = context.load_plannable()?;
    usable(path, &file, &manifest)?;
    let definitions = file.definitions(&manifest);
    let definitions = definitions.map_err(|error| refused(path, &error))?;
    for (name, spec) in &definitions.sandboxes {
        if spec.platform != "local" && !loaded.platforms.contains_key(&spec.platform) {
            let why = format!(
                "{name} is on the platform `{}`, which the manifest does not have",
                spec.platform
            );
            return Err(refused(path, &FileError::Malformed(why)));
        }
    }
    let _lock = run::lock(context, &file.stack, "gabion apply", args.lock.lock_timeout).await?;
    let mut platforms = context.platforms(&loaded, &file.stack)?;
    let observed = platforms.observe(&definitions.over(&manifest)).await?;
    fresh(path, &file, &definitions, &observed)?;
    let plan = file.rebuild(&definitions, &observed);
    let plan = plan.map_err(|error| refused(path, &error))?;
    limits.check(&plan, &observed)?;
    let execution = Execution {
        context,
        loaded: &loaded,
        platforms: &platforms,
        args,
        success: "Everything is as the plan says.",
        upgrades: true,
        atomic: atomic.then_some(&observed),
    };
    execution.ask_and_run(&plan, "Apply this plan?").await
}

/// What can be told without looking at a platform.
fn usable(path: &Path, file: &PlanFile, manifest: &Desired) -> Result<()> {
    if file.stack != manifest.stack {
        return Err(Error::failed(format!(
            "{} is a plan for the stack `{}`, and the manifest is of the stack `{}`",
            path.display(),
            file.stack.escape_debug(),
            manifest.stack
        )));
    }
    if file.problems.is_empty() {
        return Ok(());
    }
    let mut message = format!(
        "the plan in {} has {} and is not applied:",
        path.display(),
        count(file.problems.len(), "problem")
    );
    for problem in &file.problems {
        let words = problem.message.escape_debug();
        message.push_str(&format!("\n  {} {words}", problem.address));
    }
    let hint = Some(again(path));
    Err(Error::Failed { message, hint })
}

fn fresh(
    path: &Path,
    file: &PlanFile,
    definitions: &file::Definitions,
    observed: &Observed,
) -> Result<()> {
    let stale = file.stale(definitions, observed);
    if stale.is_empty() {
        return Ok(());
    }
    let mut message = format!(
        "the plan in {} is stale. Since it was made:",
        path.display()
    );
    for it in &stale {
        message.push_str(&format!("\n  {it}"));
    }
    let hint = Some(again(path));
    Err(Error::Failed { message, hint })
}
