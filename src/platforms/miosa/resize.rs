//! Another size for a sandbox that is there (§4), where the entry says that this can be.
//!
//! A plan stops the sandbox before and starts it after, so it does not matter whether the platform wants that.

use super::act::resources;
use super::wire::{Resized, Stage};
use super::{Known, Miosa};
use crate::model::{SandboxName, SandboxSpec};
use crate::platforms::{PlatformError, Result};

/// The fields that a sandbox can then be given others of.
pub(super) const RESIZED: [&str; 2] = ["vcpus", "memory"];

impl Miosa {
    /// Gives a sandbox the size that is wanted, if it has another.
    pub(super) async fn resize(
        &self,
        sandbox: &SandboxName,
        known: &Known,
        spec: &SandboxSpec,
    ) -> Result<()> {
        if !self.options.resizes_in_place || (spec.vcpus, spec.memory) == (None, None) {
            return Ok(());
        }
        let record = self.record(known).await?;
        let before = self.echoed(&record);
        if (before.vcpus, before.memory) == (spec.vcpus, spec.memory) {
            return Ok(());
        }
        let (cpus, mib) = resources(spec)?;
        match self.api.resize(&known.id, cpus, mib).await? {
            Resized::InPlace => Ok(()),
            Resized::Not => Err(PlatformError::new(format!(
                "Miosa has left the size of `{sandbox}` as it is"
            ))),
            Resized::Elsewhere(other) => self.made_elsewhere(sandbox, known, &other).await,
        }
    }

    /// Nothing is taken over: what the other one has of this one is not known.
    async fn made_elsewhere(
        &self,
        sandbox: &SandboxName,
        known: &Known,
        other: &str,
    ) -> Result<()> {
        self.disown(other).await?;
        let left = self.api.show(&known.id).await?;
        let left = left.is_some_and(|record| record.stage() != Stage::Destroyed);
        let (what, hint) = match left {
            true => (
                format!("and left `{sandbox}` as it is"),
                "remove the other one on Miosa, and leave out `resizes_in_place`",
            ),
            false => (
                format!("and removed `{sandbox}`"),
                "take from it what you need, and apply again: that makes the sandbox anew",
            ),
        };
        let text = format!("Miosa has made another sandbox of the new size, {other}, {what}");
        Err(PlatformError::new(text).hint(hint))
    }
}
