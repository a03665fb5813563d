//! How long a plan will take, from how long its actions took before.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Serialize;

use super::{Plan, StepKind, Until};

/// Durations of earlier applies, the most recent last, by action id (`web/api:start`).
pub type History = BTreeMap<String, Vec<Duration>>;

/// What is expected of a plan.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Forecast {
    /// The time from the first action to the last, if everything runs as early as it can.
    pub total: Duration,
    /// The longest path: indexes into [`Plan::actions`], in order.
    pub path: Vec<usize>,
}

/// The forecast for `plan`; `None` until every create, start and run in it was seen before.
///
/// What else was never seen is quick, and counts as no time.
pub fn forecast(plan: &Plan, history: &History) -> Option<Forecast> {
    let mut ends: Vec<(Duration, Option<usize>)> = Vec::with_capacity(plan.actions.len());
    let mut starts = Vec::with_capacity(plan.actions.len());
    for action in &plan.actions {
        let took = history
            .get(&action.id())
            .and_then(|durations| median(durations));
        let slow = matches!(
            action.step.kind(),
            StepKind::Create | StepKind::Start | StepKind::Run
        );
        let took = if slow {
            took?
        } else {
            took.unwrap_or_default()
        };
        let mut begins = (Duration::ZERO, None);
        for after in &action.after {
            let free = match after.until {
                Until::Done => ends.get(after.action).map(|end| end.0),
                Until::Executed => starts.get(after.action).copied(),
            };
            if let Some(free) = free.filter(|free| begins.1.is_none() || *free > begins.0) {
                begins = (free, Some(after.action));
            }
        }
        starts.push(begins.0);
        ends.push((begins.0 + took, begins.1));
    }
    let mut at = (0..ends.len()).rev().max_by_key(|at| ends[*at].0)?;
    let total = ends[at].0;
    let mut path = vec![at];
    while let Some(previous) = ends[at].1 {
        path.push(previous);
        at = previous;
    }
    path.reverse();
    Some(Forecast { total, path })
}

fn median(durations: &[Duration]) -> Option<Duration> {
    let mut sorted = durations.to_vec();
    sorted.sort_unstable();
    sorted.get(sorted.len() / 2).copied()
}
