//! Sandboxes of other stacks of this home.

use super::Local;
use crate::model::{Listing, ObservedService, SandboxGoal, SandboxState};
use crate::platforms::cloud::mark::Owner;
use crate::platforms::described::{Described, is_asked_for};
use crate::platforms::{Observe, Result};

impl Local {
    pub(super) async fn describe_all(&self, wanted: Option<&str>) -> Result<Vec<Described>> {
        let mut all = Vec::new();
        for stack in self.stacks.names()? {
            let other = Self {
                stack: stack.clone(),
                clients: Default::default(),
                ..self.clone()
            };
            for (sandbox, listing) in other.observe().await? {
                let owner = Owner {
                    stack: stack.clone(),
                    sandbox: sandbox.clone(),
                };
                let id = format!("{stack}/{sandbox}");
                let mut described = Described::new(id, sandbox.as_str(), Some(owner));
                match listing {
                    Listing::Unknown { reason } => described.remarks.push(reason),
                    Listing::Known(found) => {
                        described.spec = found.spec.as_ref().clone();
                        if found.state == SandboxState::Stopped {
                            described.spec.state = SandboxGoal::Stopped;
                        }
                        let services = found.services.iter();
                        let known = services.filter_map(|(name, it)| {
                            Some((
                                name.to_string(),
                                ObservedService::spec(it)?.as_ref().clone(),
                            ))
                        });
                        described.services.extend(known);
                    }
                }
                all.push(described);
            }
        }
        all.retain(|it| is_asked_for(wanted, &it.name, &it.id));
        Ok(all)
    }
}
