//! Leaving deletions out of a plan, until they are allowed.

use std::collections::BTreeSet;

use crate::model::Address;
use crate::plan::{After, Cause, Plan};

/// `plan` without what it does to things that are no longer in the manifest, and what those are.
pub fn split(mut plan: Plan) -> (Plan, Vec<Address>) {
    let removed = |index: usize| plan.actions[index].cause == Cause::Removed;
    let mut held = BTreeSet::new();
    let mut place = Vec::with_capacity(plan.actions.len());
    let mut kept = 0;
    for index in 0..plan.actions.len() {
        if removed(index) {
            held.insert(plan.actions[index].address.clone());
            place.push(None);
        } else {
            place.push(Some(kept));
            kept += 1;
        }
    }
    plan.actions.retain(|action| action.cause != Cause::Removed);
    for action in &mut plan.actions {
        let moved = action.after.iter().filter_map(|after| {
            place[after.action].map(|action| After {
                action,
                until: after.until,
            })
        });
        action.after = moved.collect();
    }
    (plan, held.into_iter().collect())
}
