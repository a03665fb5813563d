//! `(Desired, Observed) → Plan`: the ordered actions that make the one into the other.
//!
//! Pure and deterministic: no I/O, no clock, nothing that could write to a platform. In: what is
//! wanted and what is. Out: a [`Plan`] that was simulated before it is handed out, and its
//! renderings. Decides everything; the applier decides nothing.
//!
//! The way through the files: `references` puts in the URLs that are known, `world` joins both sides, `decide` says what each thing needs by
//! itself, `settle` carries that over to what depends on it, `limit` leaves out what was not asked
//! for, `order` makes the graph of actions, `simulate` proves the result. `file` is a plan kept for
//! later.

mod decide;
mod deletions;
mod diff;
pub mod file;
mod forecast;
mod limit;
mod operate;
mod order;
mod references;
pub mod render;
mod settle;
pub mod simulate;
mod types;
mod world;

pub use deletions::deletions;
pub use forecast::{Forecast, History, forecast};
pub use operate::{Operation, operate};
pub use types::*;

use crate::model::{Address, Desired, Observed};

/// What a plan is asked for, beside the manifest.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Options {
    /// The whole stack is being destroyed: only changes what the causes say.
    pub destroy: bool,
    /// Only these, and what they need. Empty: everything.
    pub targets: Vec<Address>,
}

/// Why there is no plan: always a bug of ours.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PlanError {
    /// The plan broke a rule in simulation, and is refused before it can do harm.
    #[error("this plan breaks a rule of its own and is refused, which is a bug in gabion: {0}")]
    Bug(String),
}

/// The plan that makes `observed` into `desired`, simulated before it is returned.
pub fn plan(desired: &Desired, observed: &Observed, options: &Options) -> Result<Plan, PlanError> {
    let desired = &*references::resolve(desired, observed);
    let plan = unchecked(desired, observed, options)?;
    if plan.actions.is_empty() {
        return Ok(plan);
    }
    let after = simulate::run(desired, observed, &plan).map_err(|why| bug(&why, &plan))?;
    let again = unchecked(desired, &after, options)?;
    match again.actions.first() {
        None => Ok(plan),
        Some(left) => {
            let why = format!(
                "after it is applied, {} is to do ({:?})",
                left.id(),
                left.cause
            );
            Err(bug(&why, &plan))
        }
    }
}

/// The report of a plan that was refused, with what it takes to understand it.
fn bug(why: &str, plan: &Plan) -> PlanError {
    let line = |action: &Action| {
        let after = action
            .after
            .iter()
            .filter_map(|it| plan.actions.get(it.action));
        let after: Vec<String> = after.map(Action::id).collect();
        format!(
            "\n  {} ({:?}) after [{}]",
            action.id(),
            action.cause,
            after.join(", ")
        )
    };
    let lines: String = plan.actions.iter().map(line).collect();
    PlanError::Bug(format!("{why}; the plan was:{lines}"))
}

/// The plan before simulation.
fn unchecked(desired: &Desired, observed: &Observed, options: &Options) -> Result<Plan, PlanError> {
    let world = world::World::new(desired, observed);
    let mut verdicts = decide::decide(&world, options.destroy);
    if verdicts.is_quiet() && !settle::any_down(&world) {
        return Ok(order::empty(&world, verdicts));
    }
    settle::settle(&world, &mut verdicts, settle::Mode::Plan);
    if options.targets.is_empty() {
        return order::order(&world, verdicts);
    }
    // What is left out is not as it should be for that.
    let unchanged = order::unchanged(&world, &verdicts);
    limit::limit(&world, &mut verdicts, &options.targets);
    let plan = order::order(&world, verdicts)?;
    Ok(Plan { unchanged, ..plan })
}
