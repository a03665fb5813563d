//! What one manifest wants, resolved and in normal form.
//!
//! A spec holds no sugar (`health_port` has become a probe, defaults are filled in), so equal
//! definitions compare equal.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{SandboxName, SandboxSpec, ServiceAddress, ServiceName, ServiceSpec};

/// Everything that one manifest declares, resolved.
#[derive(Debug, Clone, PartialEq)]
pub struct Desired {
    /// The stack's name: the owner mark on what it creates.
    pub stack: String,
    /// The sandboxes, by name.
    pub sandboxes: BTreeMap<SandboxName, DesiredSandbox>,
}

impl Desired {
    /// A stack without sandboxes: what `destroy` wants.
    pub fn empty(stack: impl Into<String>) -> Self {
        Self {
            stack: stack.into(),
            sandboxes: BTreeMap::new(),
        }
    }

    /// Every service with its address, in order.
    pub fn services(&self) -> impl Iterator<Item = (ServiceAddress, &Arc<ServiceSpec>)> {
        self.sandboxes.iter().flat_map(|(sandbox, wanted)| {
            wanted.services.iter().map(move |(service, spec)| {
                (ServiceAddress::new(sandbox.clone(), service.clone()), spec)
            })
        })
    }

    /// One service's spec.
    pub fn service(&self, address: &ServiceAddress) -> Option<&Arc<ServiceSpec>> {
        self.sandboxes
            .get(&address.sandbox)?
            .services
            .get(&address.service)
    }
}

/// One sandbox and its services.
#[derive(Debug, Clone, PartialEq)]
pub struct DesiredSandbox {
    /// The sandbox itself.
    pub spec: Arc<SandboxSpec>,
    /// Its services, by name.
    pub services: BTreeMap<ServiceName, Arc<ServiceSpec>>,
    /// What `gabion watch` does when files change. Not part of any definition.
    pub watch: BTreeMap<ServiceName, Vec<WatchRule>>,
}

/// What `gabion watch` does when files under a path change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WatchRule {
    /// A file or folder. Absolute.
    pub path: PathBuf,
    /// What to do.
    pub action: WatchAction,
}

/// The action of a [`WatchRule`].
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum WatchAction {
    /// Stop and start the service, or run the task again.
    #[default]
    Restart,
}
