//! What the plan says about how sandboxes are kept apart from the machine.

use std::collections::BTreeMap;

use crate::model::{
    Desired, Isolation, IsolationWish, Listing, Observed, SandboxState, Scope, Support,
};
use crate::platforms::Platforms;

/// A line for people: what each sandbox has, or will have once it is up. Empty without sandboxes.
pub fn line(desired: &Desired, observed: &Observed, platforms: &Platforms) -> String {
    let mut by_kind: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for (name, sandbox) in &desired.sandboxes {
        let has = match observed.sandboxes.get(name) {
            Some(Listing::Known(known)) if known.state == SandboxState::Running => known.isolation,
            _ => will_have(sandbox.spec.isolation, || {
                let platform = platforms.of(name).ok()?;
                let capabilities = platform.capabilities();
                Some(capabilities.support(Scope::Sandbox, "isolation: strict").0)
            }),
        };
        let word = match has {
            Isolation::Strict => "strict",
            Isolation::None => "none (process groups only)",
        };
        by_kind.entry(word).or_default().push(name.as_str());
    }
    let one = by_kind.len() == 1;
    let parts = by_kind.into_iter().map(|(word, names)| match one {
        true => word.to_owned(),
        false => format!("{word}: {}", names.join(", ")),
    });
    let parts: Vec<_> = parts.collect();
    match parts.is_empty() {
        true => String::new(),
        false => format!("Isolation: {}.\n", parts.join("; ")),
    }
}

fn will_have(wish: IsolationWish, strict: impl Fn() -> Option<Support>) -> Isolation {
    match wish {
        IsolationWish::None => Isolation::None,
        IsolationWish::Strict => Isolation::Strict,
        IsolationWish::Auto if strict() == Some(Support::Unsupported) => Isolation::None,
        IsolationWish::Auto => Isolation::Strict,
    }
}
