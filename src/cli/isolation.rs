//! What keeps the sandboxes of a plan apart from this machine.

use std::collections::BTreeMap;

use crate::model::{
    Desired, Isolation, IsolationWish, Listing, Observed, SandboxName, SandboxState, Scope, Support,
};
use crate::platforms::Platforms;

/// What each sandbox has, or will have once it is up. Those elsewhere are apart from it anyway.
pub fn of(
    desired: &Desired,
    observed: &Observed,
    platforms: &Platforms,
) -> BTreeMap<SandboxName, Isolation> {
    let mut found = BTreeMap::new();
    for (name, sandbox) in &desired.sandboxes {
        let Ok(platform) = platforms.of(name) else {
            continue;
        };
        let capabilities = platform.capabilities();
        if !capabilities.shared_network {
            continue;
        }
        let support = |field| capabilities.support(Scope::Sandbox, field).0;
        let isolation = match observed.sandboxes.get(name) {
            Some(Listing::Known(known)) if known.state == SandboxState::Running => known.isolation,
            _ => match sandbox.spec.isolation {
                IsolationWish::None => Isolation::None,
                IsolationWish::Strict => Isolation::Strict,
                IsolationWish::Auto if support("isolation: strict") == Support::Unsupported => {
                    Isolation::None
                }
                IsolationWish::Auto => Isolation::Strict,
            },
        };
        found.insert(name.clone(), isolation);
    }
    found
}
