//! What keeps sandboxes apart from the machine, in a sentence.

use std::collections::BTreeMap;

use super::super::Plan;
use crate::model::Isolation;

/// `Isolation: strict.` Empty if nothing is known.
pub fn isolation(plan: &Plan) -> String {
    let mut by_kind: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for (name, isolation) in &plan.isolation {
        let word = match isolation {
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
        false => format!("Isolation: {}.", parts.join("; ")),
    }
}
