//! The size of a sandbox (§4): what it is made with, and another one for it where the entry says that this can be.
//!
//! A plan stops the sandbox before and starts it after, so it does not matter whether the platform wants that.

use serde_json::{Map, Value, json};

use super::act::{MIB, object};
use super::wire::{Resized, Stage};
use super::{Known, Miosa};
use crate::model::{SandboxName, SandboxSpec};
use crate::platforms::{PlatformError, Result};

/// The fields that a sandbox can then be given others of.
pub(super) const RESIZED: [&str; 2] = ["vcpus", "memory"];

/// Sizes with their processors, and memory and disk in MiB (§4).
const SIZES: [(&str, u32, u64, u64); 5] = [
    ("xs", 1, 2048, 10240),
    ("small", 2, 4096, 10240),
    ("medium", 4, 8192, 20480),
    ("large", 8, 16384, 40960),
    ("xl", 16, 32768, 81920),
];

/// The size that is asked for: all three numbers, or the smallest size that has what is wanted.
pub(super) fn size(spec: &SandboxSpec) -> Result<Map<String, Value>> {
    let mib = |bytes: u64| bytes.div_ceil(MIB);
    let (memory, disk) = (spec.memory.map(mib), spec.disk.map(mib));
    let fields = match (spec.vcpus, memory, disk) {
        (None, None, None) => json!({}),
        (Some(cpus), Some(memory), Some(disk)) => {
            json!({ "cpu_count": cpus, "memory_mb": memory, "disk_size_mb": disk })
        }
        (cpus, memory, disk) => {
            let (name, ..) = smallest(cpus, memory, disk)?;
            json!({ "size": name })
        }
    };
    Ok(object(fields))
}

/// The smallest size that has as much, memory and disk in MiB.
fn smallest(
    cpus: Option<u32>,
    memory: Option<u64>,
    disk: Option<u64>,
) -> Result<(&'static str, u32, u64, u64)> {
    let enough = |(_, has_cpus, has_memory, has_disk): &&(&str, u32, u64, u64)| {
        cpus.is_none_or(|it| it <= *has_cpus)
            && memory.is_none_or(|it| it <= *has_memory)
            && disk.is_none_or(|it| it <= *has_disk)
    };
    SIZES.iter().find(enough).copied().ok_or_else(|| {
        PlatformError::new("no size of Miosa has as many processors, memory and disk")
            .hint("say all three of `vcpus`, `memory` and `disk`")
    })
}

/// Processors and memory in MiB, of which what is not said is that of the size it would be made with.
fn resources(spec: &SandboxSpec) -> Result<(u32, u64)> {
    let mib = |bytes: u64| bytes.div_ceil(MIB);
    let (memory, disk) = (spec.memory.map(mib), spec.disk.map(mib));
    match (spec.vcpus, memory) {
        (Some(cpus), Some(memory)) => Ok((cpus, memory)),
        (cpus, memory) => {
            let (_, has_cpus, has_memory, _) = smallest(cpus, memory, disk)?;
            Ok((cpus.unwrap_or(has_cpus), memory.unwrap_or(has_memory)))
        }
    }
}

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
