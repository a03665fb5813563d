//! What is in a sandbox at a path, as `cp` and `fs` name it: `SANDBOX:PATH`.

use std::str::FromStr;

use crate::model::SandboxName;

/// A file or folder in a sandbox.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PathIn {
    /// The sandbox.
    pub sandbox: SandboxName,
    /// Absolute, or relative to where services run.
    pub path: String,
}

impl FromStr for PathIn {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (sandbox, path) = text.split_once(':').ok_or("write SANDBOX:PATH")?;
        let sandbox = SandboxName::new(sandbox).map_err(|error| error.to_string())?;
        match path.is_empty() {
            true => Err(format!("write {sandbox}:PATH")),
            false => Ok(Self {
                sandbox,
                path: path.to_owned(),
            }),
        }
    }
}
