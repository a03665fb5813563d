//! The JSON shape, version 1. Its schema is in `schemas/plan.schema.json`.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Serialize;
use serde_json::Value;

use super::super::{Action, Cause, Change, Forecast, Plan, Problem, StepKind, Summary, Until};
use crate::model::{Address, Isolation, SandboxName};

/// What `gabion plan --json` writes.
#[derive(Serialize, JsonSchema)]
#[schemars(title = "gabion plan")]
struct PlanJson<'a> {
    /// The version of this shape. It changes when a field changes its meaning or goes away.
    #[schemars(range(min = 1, max = 1))]
    version: u32,
    /// The stack planned for.
    stack: &'a str,
    /// The platforms that were looked at, sorted.
    platforms: &'a [String],
    /// The plan in numbers.
    summary: SummaryJson,
    /// What keeps each sandbox apart from the machine it is on, by its name, where that is known.
    #[schemars(with = "BTreeMap<String, Isolation>")]
    isolation: &'a BTreeMap<SandboxName, Isolation>,
    /// The actions, in an order in which they can be done one by one.
    actions: Vec<ActionJson<'a>>,
    /// What could not be planned.
    problems: &'a [Problem],
    /// How long it will take, if enough is known.
    forecast: Option<ForecastJson>,
}

/// The plan in numbers.
#[derive(Serialize, JsonSchema)]
pub(in crate::plan) struct SummaryJson {
    #[serde(flatten)]
    summary: Summary,
    /// Sandboxes in the manifest.
    sandboxes: usize,
    /// Services in the manifest.
    services: usize,
    /// Services in the manifest that no action touches.
    unchanged: usize,
}

/// One action.
#[derive(Serialize, JsonSchema)]
pub(in crate::plan) struct ActionJson<'a> {
    /// The address and the kind: `web/api:start`. Unique in the plan.
    id: String,
    /// `sandbox` or `sandbox/service`.
    #[schemars(with = "String")]
    address: &'a Address,
    /// What is done.
    kind: StepKind,
    /// Why.
    cause: &'a Cause,
    /// The fields that differ, where a definition is written.
    changes: &'a [Change],
    /// The ids of the actions that have to be done first.
    after: Vec<String>,
    /// The ids of the starts of which only the program has to be executed first.
    after_executed: Vec<String>,
}

/// How long the plan will take.
#[derive(Serialize, JsonSchema)]
struct ForecastJson {
    /// Seconds from the first action to the last.
    seconds: f64,
    /// The ids of the actions on the longest path, in order.
    path: Vec<String>,
}

/// The plan as JSON.
pub fn json(plan: &Plan, forecast: Option<&Forecast>) -> Value {
    let id = |at: &usize| plan.actions.get(*at).map(Action::id);
    let shape = PlanJson {
        version: 1,
        stack: &plan.stack,
        platforms: &plan.platforms,
        summary: summary(plan),
        isolation: &plan.isolation,
        actions: actions(plan),
        problems: &plan.problems,
        forecast: forecast.map(|forecast| ForecastJson {
            seconds: forecast.total.as_secs_f64(),
            path: forecast.path.iter().filter_map(id).collect(),
        }),
    };
    serde_json::to_value(shape).unwrap_or_default()
}

/// The plan in numbers, with those of the manifest.
pub(in crate::plan) fn summary(plan: &Plan) -> SummaryJson {
    SummaryJson {
        summary: plan.summary(),
        sandboxes: plan.sandboxes,
        services: plan.services,
        unchanged: plan.unchanged,
    }
}

/// The actions, with their order by id.
pub(in crate::plan) fn actions(plan: &Plan) -> Vec<ActionJson<'_>> {
    let ids: Vec<String> = plan.actions.iter().map(Action::id).collect();
    let actions = plan.actions.iter().zip(&ids).map(|(action, own)| {
        let until = |wanted| {
            let after = action
                .after
                .iter()
                .filter(move |after| after.until == wanted);
            after
                .filter_map(|after| ids.get(after.action).cloned())
                .collect()
        };
        ActionJson {
            id: own.clone(),
            address: &action.address,
            kind: action.step.kind(),
            cause: &action.cause,
            changes: &action.changes,
            after: until(Until::Done),
            after_executed: until(Until::Executed),
        }
    });
    actions.collect()
}

/// The JSON Schema (draft 7) of what [`json`] returns.
pub fn json_schema() -> Value {
    let settings = schemars::generate::SchemaSettings::draft07().for_serialize();
    settings
        .into_generator()
        .into_root_schema_for::<PlanJson<'static>>()
        .to_value()
}
