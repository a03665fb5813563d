//! `gabion schema`: the JSON Schemas of what we read and write.

use std::process::ExitCode;

use super::context::print;
use super::error::Result;

#[derive(clap::Args)]
#[command(after_help = "Examples:
  gabion schema > gabion.schema.json      for an editor
  gabion schema plan                      the shape of `gabion plan --json`
  gabion schema plan-file                 the shape of a plan file
  gabion schema supervisor                the API inside a sandbox (OpenAPI)
  gabion schema --markdown                every manifest field, for people")]
pub struct SchemaArgs {
    /// Which one
    #[arg(value_enum, default_value = "manifest")]
    which: Which,
    /// Print the manifest's field reference as Markdown instead
    #[arg(long, conflicts_with = "which")]
    markdown: bool,
}

#[derive(Clone, Copy, clap::ValueEnum)]
enum Which {
    /// The manifest
    Manifest,
    /// `gabion plan --json`
    Plan,
    /// `gabion plan --out`
    PlanFile,
    /// What a supervisor serves, as an OpenAPI document
    Supervisor,
}

pub fn run(args: &SchemaArgs) -> Result<ExitCode> {
    if args.markdown {
        print(&crate::manifest::reference_markdown())?;
        return Ok(ExitCode::SUCCESS);
    }
    let schema = match args.which {
        Which::Manifest => crate::manifest::schema(),
        Which::Plan => crate::plan::render::json_schema(),
        Which::PlanFile => crate::plan::file::json_schema(),
        Which::Supervisor => crate::supervisor::openapi(),
    };
    print(&format!("{schema:#}\n"))?;
    Ok(ExitCode::SUCCESS)
}
