//! Plans for what the user or a watch rule asks for by name: start, stop, restart.

use std::collections::BTreeMap;

use super::decide::{Verdicts, upsert_cause};
use super::settle::{self, Mode};
use super::world::{Found, World};
use super::{Cause, Plan, PlanError, StepKind, bug, order, references, simulate};
use crate::model::{Address, Desired, Observed, ServiceState};

/// What is to be done with the services and sandboxes named.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operation {
    /// Bring up, with what is needed. What is up already is left alone.
    Start,
    /// Stop, after the services that need it with `restart: true`.
    Stop,
    /// Stop and start again, with a new definition if there is one. A task runs again.
    Restart,
    /// Stop a sandbox itself and start it again, and with it the services that are up.
    RestartSandbox,
}

/// The plan for one operation, simulated before it is returned.
///
/// Beyond what is named it touches only what that needs to start, and what needs it with
/// `restart: true`. A service that is not in the manifest is operated with the definition found.
pub fn operate(
    desired: &Desired,
    observed: &Observed,
    op: Operation,
    addresses: &[Address],
    cause: Cause,
) -> Result<Plan, PlanError> {
    let desired = &*references::resolve(desired, observed);
    let world = World::new(desired, observed);
    let mut verdicts = Verdicts::quiet(&world);
    for (at, place) in world.places.iter().enumerate() {
        let moved = place.wanted.zip(place.known());
        let moved = moved.is_some_and(|(new, old)| new.spec.platform != old.spec.platform);
        verdicts.places[at].frozen = moved || matches!(place.found, Found::Unknown(_));
    }
    let mut addresses = addresses.to_vec();
    addresses.sort();
    addresses.dedup();
    for address in &addresses {
        request(&world, &mut verdicts, op, address, &cause);
    }
    let mode = if op == Operation::Stop {
        Mode::OperateStop
    } else {
        Mode::Operate
    };
    settle::settle(&world, &mut verdicts, mode);
    let plan = order::order(&world, verdicts)?;
    let after = simulate::run(desired, observed, &plan).map_err(|why| bug(&why, &plan))?;
    prove(desired, &after, &plan)?;
    Ok(plan)
}

/// What was started has to be up at the end, and what was only stopped, down.
fn prove(desired: &Desired, after: &Observed, plan: &Plan) -> Result<(), PlanError> {
    let world = World::new(desired, after);
    let mut up = BTreeMap::new();
    for action in &plan.actions {
        match action.step.kind() {
            StepKind::Start | StepKind::Run => up.insert(&action.address, true),
            StepKind::Stop => up.insert(&action.address, false),
            _ => None,
        };
    }
    for (address, up) in up {
        let is_up = match address {
            Address::Sandbox(name) => world.place(name).map(|at| world.places[at].is_up()),
            Address::Service(address) => world.unit(address).map(|at| {
                let unit = &world.units[at];
                unit.is_up() || unit.state == Some(ServiceState::Completed)
            }),
        };
        if is_up.is_some_and(|is_up| is_up != up) {
            let found = if up { "down" } else { "up" };
            return Err(bug(&format!("at the end {address} is {found}"), plan));
        }
    }
    Ok(())
}

fn request(
    world: &World<'_>,
    verdicts: &mut Verdicts,
    op: Operation,
    address: &Address,
    cause: &Cause,
) {
    let unit = match address {
        Address::Service(service) => world.unit(service),
        Address::Sandbox(_) => None,
    };
    let Some(place) = world.place(address.sandbox()) else {
        return verdicts.problem(address.clone(), "is neither in the manifest nor there");
    };
    if let Found::Unknown(reason) = world.places[place].found {
        return verdicts.problem(
            world.places[place].address(),
            format!("cannot be read: {reason}"),
        );
    }
    if verdicts.places[place].frozen {
        let message = "is on another platform than the manifest says";
        return verdicts.problem(world.places[place].address(), message);
    }
    match (address, unit) {
        (Address::Service(_), Some(unit)) => request_unit(world, verdicts, op, unit, cause),
        (Address::Service(_), None) => {
            verdicts.problem(address.clone(), "is neither in the manifest nor there");
        }
        (Address::Sandbox(_), _) => request_place(world, verdicts, op, place, cause),
    }
}

fn request_place(
    world: &World<'_>,
    verdicts: &mut Verdicts,
    op: Operation,
    at: usize,
    cause: &Cause,
) {
    let place = &world.places[at];
    if op == Operation::Stop {
        if place.is_up() {
            verdicts.places[at].stop = Some(cause.clone());
        }
        return;
    }
    if op == Operation::RestartSandbox && place.is_up() {
        return restart_place(world, verdicts, at, cause);
    }
    settle::bring_place(world, verdicts, at, cause);
    for unit in place.units.clone() {
        let it = &world.units[unit];
        let task_done = it.is_task() && it.state == Some(ServiceState::Completed);
        if it.wanted_up() && !task_done || (op == Operation::Restart && it.is_up()) {
            request_unit(world, verdicts, op, unit, cause);
        }
    }
}

/// What is down in it stays so: it is not what was asked for.
fn restart_place(world: &World<'_>, verdicts: &mut Verdicts, at: usize, cause: &Cause) {
    verdicts.places[at].stop = Some(cause.clone());
    verdicts.places[at].start = Some(cause.clone());
    for unit in world.places[at].units.clone() {
        if world.units[unit].is_up() {
            request_unit(world, verdicts, Operation::RestartSandbox, unit, cause);
        }
    }
}

fn request_unit(
    world: &World<'_>,
    verdicts: &mut Verdicts,
    op: Operation,
    unit: usize,
    cause: &Cause,
) {
    let it = &world.units[unit];
    if op != Operation::Stop && it.spec().is_none() {
        let message =
            "cannot be started: it is not in the manifest, and its definition cannot be read";
        return verdicts.problem(world.address(unit).into(), message);
    }
    let completed = it.state == Some(ServiceState::Completed);
    match op {
        Operation::Stop if it.is_live() => verdicts.units[unit].stop = Some(cause.clone()),
        Operation::Stop => {}
        Operation::Start if completed && it.is_task() => {
            let stale = it.found.is_some_and(|found| found.stale);
            if upsert_cause(it).is_some() || stale {
                settle::begin(world, verdicts, unit, Some(cause));
            }
        }
        // It goes down with its sandbox.
        Operation::RestartSandbox if it.is_live() => verdicts.restart(world, unit, cause, true),
        // A completed task is stopped first: that makes it one that has not completed.
        Operation::Restart if it.is_live() || (completed && it.is_task()) => {
            settle::bring_place(world, verdicts, it.place, cause);
            verdicts.restart(world, unit, cause, true);
        }
        Operation::Start | Operation::Restart | Operation::RestartSandbox => {
            settle::begin(world, verdicts, unit, Some(cause));
        }
    }
}
