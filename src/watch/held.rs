//! Leaving actions out of a plan.

use crate::plan::{Action, After, Plan};

/// `plan` without the actions that `leave_out` names, and without whatever comes after one of them:
/// that would be done too early.
pub fn without(plan: &Plan, leave_out: impl Fn(&Action) -> bool) -> Plan {
    let mut place: Vec<Option<usize>> = Vec::with_capacity(plan.actions.len());
    let mut kept = Vec::new();
    for action in &plan.actions {
        let after: Option<Vec<After>> = action
            .after
            .iter()
            .map(|after| {
                place[after.action].map(|action| After {
                    action,
                    until: after.until,
                })
            })
            .collect();
        match after {
            Some(after) if !leave_out(action) => {
                place.push(Some(kept.len()));
                kept.push(Action {
                    after,
                    ..action.clone()
                });
            }
            _ => place.push(None),
        }
    }
    Plan {
        actions: kept,
        ..plan.clone()
    }
}
