//! A plan limited to some addresses: what it leaves out.

use std::collections::{HashMap, VecDeque};

use super::decide::{Verdict, Verdicts};
use super::references;
use super::settle::{hard_needs, is_in_place};
use super::world::{Target, World};
use crate::model::Address;

/// Leaves only what `targets` name, what their starts need, and what has to restart with them.
pub(super) fn limit(world: &World<'_>, verdicts: &mut Verdicts, targets: &[Address]) {
    let named = |address: &Address| targets.contains(address);
    let mut places: Vec<bool> = world.places.iter().map(|it| named(&it.address())).collect();
    let mut needed_places = vec![false; places.len()];
    let mut units = vec![false; world.units.len()];
    let mut queue: VecDeque<usize> = (0..units.len())
        .filter(|unit| places[world.units[*unit].place] || named(&world.address(*unit).into()))
        .collect();
    let mut dependents: HashMap<usize, Vec<usize>> = HashMap::new();
    for unit in 0..units.len() {
        let mut push = |needed| dependents.entry(needed).or_default().push(unit);
        if verdicts.goes_down(world, unit) {
            hard_needs(world, verdicts, unit).into_iter().for_each(push);
        } else if is_in_place(world, verdicts, unit) {
            // What gives up a hard need does so before what it needed is touched.
            let hard = world.old_links(unit).iter().filter(|link| link.1);
            hard.for_each(|link| push(link.0));
        }
    }
    while let Some(unit) = queue.pop_front() {
        if std::mem::replace(&mut units[unit], true) {
            continue;
        }
        let at = world.units[unit].place;
        let place = &verdicts.places[at];
        if !places[at] && place.goes_down() && place.delete.is_none() && world.places[at].is_up() {
            places[at] = true;
            queue.extend(world.places[at].units.clone());
        }
        if verdicts.launches(world, unit) {
            for link in world.links(unit) {
                match link.to {
                    Target::Unit(needed) if !verdicts.units[needed].is_quiet() => {
                        queue.push_back(needed);
                    }
                    Target::Place(needed) => needed_places[needed] = true,
                    _ => {}
                }
            }
        }
        for teller in references::tellers(world, verdicts, unit) {
            queue.push_back(teller);
        }
        if verdicts.goes_down(world, unit) || verdicts.launches(world, unit) {
            queue.extend(dependents.get(&unit).into_iter().flatten().copied());
        }
    }
    keep(world, verdicts, &units, &places, &needed_places);
    let in_scope = |address: &Address| match address {
        Address::Sandbox(name) => world
            .place(name)
            .is_some_and(|at| places[at] || world.places[at].units.clone().any(|unit| units[unit])),
        Address::Service(address) => world.unit(address).is_some_and(|unit| units[unit]),
    };
    verdicts
        .problems
        .retain(|problem| in_scope(&problem.address));
    for target in targets {
        let exists = match target {
            Address::Sandbox(name) => world.place(name).is_some(),
            Address::Service(address) => world.unit(address).is_some(),
        };
        if !exists {
            verdicts.problem(target.clone(), "is neither in the manifest nor there");
        }
    }
}

/// Clears the verdicts outside a limited plan.
fn keep(
    world: &World<'_>,
    verdicts: &mut Verdicts,
    units: &[bool],
    places: &[bool],
    needed: &[bool],
) {
    for (at, place) in world.places.iter().enumerate() {
        let deleted = verdicts.places[at].delete.take();
        if places[at] {
            verdicts.places[at].delete = deleted;
        } else {
            for unit in place
                .units
                .clone()
                .filter(|unit| units[*unit] && deleted.is_some())
            {
                if place.is_up() {
                    verdicts.units[unit].delete = deleted.clone();
                } else {
                    let message = "cannot be deleted by itself while its sandbox is down";
                    verdicts.problem(world.address(unit).into(), message);
                }
            }
            let verdict = &mut verdicts.places[at];
            verdict.stop = None;
            let touched = place
                .units
                .clone()
                .any(|unit| units[unit] && !verdicts.units[unit].is_quiet());
            if !touched && !needed[at] {
                verdict.create = None;
                verdict.start = None;
            }
            if place.is_up() || verdict.start.is_none() {
                verdict.update = None;
            }
        }
        for unit in place.units.clone().filter(|unit| !units[*unit]) {
            verdicts.units[unit] = Verdict::default();
        }
    }
}
