//! The sandbox that a command acts on.

use super::context::Context;
use super::error::{Error, Result};
use crate::apply::StackLock;
use crate::manifest::Loaded;
use crate::model::{HumanDuration, Observed, SandboxName};
use crate::platforms::{Act, Platforms};

/// A sandbox that is there, with what it takes to act on it.
pub struct Target {
    pub loaded: Loaded,
    pub platforms: Platforms,
    pub observed: Observed,
    pub sandbox: SandboxName,
    /// Its folder, if the manifest's author has named one.
    pub workspace: Option<std::path::PathBuf>,
    _lock: Option<StackLock>,
}

impl Target {
    /// Finds `sandbox`; with the stack's lock if something is to be changed.
    pub async fn open(
        context: &Context,
        sandbox: &SandboxName,
        lock: Option<(&str, HumanDuration)>,
    ) -> Result<Self> {
        let (loaded, desired) = context.load_stack()?;
        let lock = match lock {
            Some((command, timeout)) => {
                Some(super::run::lock(context, &desired.stack, command, timeout).await?)
            }
            None => None,
        };
        let mut platforms = context.platforms(&loaded, &desired.stack)?;
        let observed = context.observe(&mut platforms, &desired).await?;
        super::address::resolve(&[sandbox.clone().into()], &desired, &observed)?;
        if !observed.sandboxes.contains_key(sandbox) {
            return Err(Error::Failed {
                message: format!("sandbox `{sandbox}` is not there yet"),
                hint: Some("gabion apply makes it".to_owned()),
            });
        }
        let workspace = observed
            .known(sandbox)
            .and_then(|it| it.spec.workspace.clone());
        Ok(Self {
            loaded,
            platforms,
            observed,
            sandbox: sandbox.clone(),
            workspace,
            _lock: lock,
        })
    }

    pub fn platform(&self) -> Result<&dyn Act> {
        Ok(self.platforms.of(&self.sandbox)?)
    }
}
