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
        let auto = match capabilities.support(Scope::Sandbox, "isolation: strict").0 {
            Support::Unsupported => Isolation::None,
            _ => Isolation::Strict,
        };
        let isolation = match observed.sandboxes.get(name) {
            Some(Listing::Known(known)) if known.state == SandboxState::Running => known.isolation,
            _ if !capabilities.shared_network => None,
            _ => Some(match sandbox.spec.isolation {
                IsolationWish::None => Isolation::None,
                IsolationWish::Strict => Isolation::Strict,
                IsolationWish::Auto => auto,
            }),
        };
        found.extend(isolation.map(|it| (name.clone(), it)));
    }
    found
}
