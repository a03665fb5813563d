//! An apply that is done in full or not at all: a checkpoint of every sandbox it touches is made first,
//! and restored if it fails.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::model::{
    Address, Listing, NeedTarget, Observed, ObservedSandbox, SandboxName, SandboxSpec,
    SandboxState, Secrets,
};
use crate::plan::{Plan, StepKind};
use crate::platforms::{PlatformError, Platforms};

/// What the checkpoints are called.
const NAME: &str = "before apply --atomic";

/// Why an atomic apply does not begin. Nothing was changed.
#[derive(Debug, thiserror::Error)]
pub enum AtomicError {
    /// What is deleted cannot be brought back.
    #[error("the plan deletes sandbox `{0}`, which cannot be taken back")]
    Deletes(SandboxName),
    /// A sandbox that could not be read.
    #[error("sandbox `{0}` cannot be read, so it could not be brought back")]
    Unknown(SandboxName),
    /// One whose platform keeps files in them, and definitions elsewhere.
    #[error(
        "checkpoints of `{0}` do not hold how its services are defined there, so they could not be brought back"
    )]
    WithoutDefinitions(SandboxName),
    /// A checkpoint could not be made.
    #[error("no checkpoint of `{sandbox}` can be made: {error}")]
    Checkpoint {
        /// Of which sandbox.
        sandbox: SandboxName,
        /// Why not.
        error: PlatformError,
    },
}

/// What was put back, or could not be.
#[derive(Debug)]
pub struct RolledBack {
    /// The sandbox.
    pub sandbox: SandboxName,
    /// Whether the apply had made it, so that it was removed.
    pub removed: bool,
    /// What went wrong.
    pub error: Option<String>,
}

/// The state before an apply, kept until that has ended.
#[derive(Debug)]
pub struct SafePoint {
    kept: Vec<Kept>,
    /// What the plan creates.
    created: Vec<SandboxName>,
}

#[derive(Debug)]
struct Kept {
    sandbox: SandboxName,
    checkpoint: String,
    spec: Arc<SandboxSpec>,
    state: SandboxState,
    /// Whether the plan changes the sandbox itself, not only services in it.
    changes: bool,
}

impl SafePoint {
    /// Makes checkpoints of what `plan` touches.
    pub async fn take(
        platforms: &Platforms,
        plan: &Plan,
        observed: &Observed,
        secrets: &Secrets,
    ) -> Result<Self, AtomicError> {
        let mut touched = BTreeMap::<&SandboxName, BTreeSet<StepKind>>::new();
        for action in &plan.actions {
            let steps = touched.entry(action.address.sandbox()).or_default();
            if let Address::Sandbox(name) = &action.address {
                if action.step.kind() == StepKind::Delete {
                    return Err(AtomicError::Deletes(name.clone()));
                }
                steps.insert(action.step.kind());
            }
        }
        let mut point = Self {
            kept: Vec::new(),
            created: Vec::new(),
        };
        let mut there = BTreeMap::new();
        for name in touched.keys() {
            match observed.sandboxes.get(*name) {
                None => point.created.push((*name).clone()),
                Some(Listing::Known(sandbox)) => drop(there.insert((*name).clone(), sandbox)),
                Some(Listing::Unknown { .. }) => return Err(AtomicError::Unknown((*name).clone())),
            }
        }
        for sandbox in there.keys() {
            let platform = platforms.of(sandbox);
            if platform.is_ok_and(|it| !it.checkpoints_hold_definitions()) {
                return Err(AtomicError::WithoutDefinitions(sandbox.clone()));
            }
        }
        for (sandbox, it) in in_order_of_needs(there) {
            match keep(platforms, &sandbox, secrets).await {
                Ok(checkpoint) => point.kept.push(Kept {
                    changes: touched.get(&sandbox).is_some_and(|steps| !steps.is_empty()),
                    sandbox,
                    checkpoint,
                    spec: it.spec.clone(),
                    state: it.state,
                }),
                Err(error) => {
                    point.release(platforms).await;
                    return Err(AtomicError::Checkpoint { sandbox, error });
                }
            }
        }
        Ok(point)
    }

    /// Brings everything back. Goes on after an error, which is told with the others.
    pub async fn roll_back(self, platforms: &Platforms, secrets: &Secrets) -> Vec<RolledBack> {
        let mut told = Vec::new();
        for sandbox in &self.created {
            let removed = match platforms.of(sandbox) {
                Ok(platform) => platform.delete_sandbox(sandbox).await,
                Err(error) => Err(error),
            };
            told.push(RolledBack {
                sandbox: sandbox.clone(),
                removed: true,
                error: removed.err().map(|error| error.to_string()),
            });
        }
        for kept in &self.kept {
            let restored = bring_back(platforms, kept, secrets).await;
            told.push(RolledBack {
                sandbox: kept.sandbox.clone(),
                removed: false,
                error: restored.err().map(|error| error.to_string()),
            });
        }
        // What could not be brought back can be tried again by hand.
        if told.iter().all(|it| it.error.is_none()) {
            self.release(platforms).await;
        }
        told
    }

    /// Removes the checkpoints: they are not needed any more.
    pub async fn release(self, platforms: &Platforms) {
        for kept in self.kept {
            let Ok(platform) = platforms.of(&kept.sandbox) else {
                continue;
            };
            let removed = platform
                .delete_checkpoint(&kept.sandbox, &kept.checkpoint)
                .await;
            if let Err(error) = removed {
                tracing::warn!(sandbox = %kept.sandbox, %error, "a checkpoint stays");
            }
        }
    }
}

async fn keep(
    platforms: &Platforms,
    sandbox: &SandboxName,
    secrets: &Secrets,
) -> Result<String, PlatformError> {
    let platform = platforms.of(sandbox)?;
    let made = platform
        .create_checkpoint(sandbox, Some(NAME), secrets)
        .await?;
    Ok(made.id)
}

async fn bring_back(
    platforms: &Platforms,
    kept: &Kept,
    secrets: &Secrets,
) -> Result<(), PlatformError> {
    let (platform, sandbox) = (platforms.of(&kept.sandbox)?, &kept.sandbox);
    if kept.changes {
        platform.stop_sandbox(sandbox).await?;
        platform
            .update_sandbox(sandbox, &kept.spec, secrets)
            .await?;
    }
    match kept.state {
        SandboxState::Running => platform.start_sandbox(sandbox, &kept.spec).await?,
        SandboxState::Stopped => platform.stop_sandbox(sandbox).await?,
    }
    let restored = platform
        .restore_checkpoint(sandbox, &kept.checkpoint, secrets)
        .await?;
    let failed = restored.failed_services;
    if failed.is_empty() {
        return Ok(());
    }
    let failed: Vec<_> = failed
        .iter()
        .map(|name| format!("{sandbox}/{name}"))
        .collect();
    let text = format!(
        "its files are back, but {} did not start",
        failed.join(", ")
    );
    Err(PlatformError::new(text).hint(format!("gabion logs {}", failed.join(" "))))
}

/// What others need comes first. Of those that need each other, any.
fn in_order_of_needs(
    mut left: BTreeMap<SandboxName, &ObservedSandbox>,
) -> Vec<(SandboxName, &ObservedSandbox)> {
    let mut ordered = Vec::new();
    while !left.is_empty() {
        let free = left.iter().find(|(name, sandbox)| {
            let needed = needs_of(sandbox);
            !needed
                .iter()
                .any(|need| need != *name && left.contains_key(need))
        });
        let next = free.or_else(|| left.first_key_value());
        let Some(next) = next.map(|(name, _)| name.clone()) else {
            break;
        };
        ordered.extend(left.remove_entry(&next));
    }
    ordered
}

fn needs_of(sandbox: &ObservedSandbox) -> BTreeSet<SandboxName> {
    let services = sandbox
        .services
        .values()
        .filter_map(|service| service.spec());
    let needs = services
        .flat_map(|spec| &spec.needs)
        .chain(&sandbox.spec.needs);
    let of = needs.filter_map(|need| match &need.target {
        NeedTarget::Local(_) => None,
        NeedTarget::Remote(address) => Some(address.sandbox.clone()),
        NeedTarget::Sandbox(name) => Some(name.clone()),
    });
    of.collect()
}
