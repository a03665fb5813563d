//! Carries the verdicts over to what depends on them: what cannot be started because of what it
//! needs, and what is restarted because of a hard need.

use std::collections::{BTreeSet, HashMap, VecDeque};

use petgraph::algo::kosaraju_scc;
use petgraph::graph::DiGraph;

use super::decide::{Verdicts, upsert_cause};
use super::world::{Difference, Found, Link, Target, World};
use super::{Cause, references};
use crate::model::{Condition, ServiceKind, ServiceState};

/// What the verdicts came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mode {
    /// A plan: everything was decided on, and whatever is down takes its hard dependents with it.
    Plan,
    /// An operation on some: what is needed is started, hard dependents are started again.
    Operate,
    /// As [`Mode::Operate`], but hard dependents stay down.
    OperateStop,
}

/// Brings the verdicts into agreement with each other.
pub(super) fn settle(world: &World<'_>, verdicts: &mut Verdicts, mode: Mode) {
    let mut blocked = vec![false; world.units.len()];
    if mode != Mode::Plan {
        bring_needed(world, verdicts);
    }
    block(world, verdicts, &mut blocked, true);
    spread(world, verdicts, mode);
    while mode != Mode::Plan && bring_needed(world, verdicts) {
        spread(world, verdicts, mode);
    }
    block(world, verdicts, &mut blocked, false);
    stop_one_by_one(world, verdicts);
}

/// Whether something that is wanted is down, so that its hard dependents have to be looked at.
pub(super) fn any_down(world: &World<'_>) -> bool {
    (0..world.units.len()).any(|unit| is_found_down(world, unit))
}

/// Whether a wanted service is not up (a wanted task: has not completed and does not run).
fn is_found_down(world: &World<'_>, unit: usize) -> bool {
    use ServiceState::{Completed, Running, Starting, Unhealthy};
    let it = &world.units[unit];
    if it.wanted.is_none() || matches!(world.place_of(unit).found, Found::Unknown(_)) {
        return false;
    }
    match it.state {
        Some(Starting | Running | Unhealthy) => false,
        Some(Completed) => !it.meets(Condition::Completed),
        _ => true,
    }
}

/// Gives what the launched services need, and what is not there yet, a start of its own; whether
/// there was such a thing.
fn bring_needed(world: &World<'_>, verdicts: &mut Verdicts) -> bool {
    let mut any = false;
    let mut queue: VecDeque<usize> = (0..world.units.len())
        .filter(|unit| verdicts.launches(world, *unit))
        .collect();
    while let Some(unit) = queue.pop_front() {
        for link in world.links(unit) {
            match link.to {
                Target::Unit(needed) if world.units[needed].wanted_up() => {
                    let up = world.units[needed].meets(link.condition);
                    if verdicts.units[needed].start.is_none()
                        && (!up || verdicts.goes_down(world, needed))
                        && begin(world, verdicts, needed, None)
                    {
                        any = true;
                        queue.push_back(needed);
                    }
                }
                Target::Place(place) => bring_place(world, verdicts, place, &Cause::SandboxDown),
                _ => {}
            }
        }
    }
    any
}

/// Brings a sandbox up, if it is wanted and readable and not up.
pub(super) fn bring_place(world: &World<'_>, verdicts: &mut Verdicts, at: usize, cause: &Cause) {
    let place = &world.places[at];
    let verdict = &mut verdicts.places[at];
    if verdict.frozen || place.is_up() {
        return;
    }
    match place.found {
        Found::Absent if place.wanted.is_some() => {
            verdict.create.get_or_insert(Cause::Added);
        }
        Found::Known(_) => {
            verdict.start.get_or_insert_with(|| cause.clone());
        }
        _ => {}
    }
}

/// Gives one service what it takes to be up; whether it now has a start.
pub(super) fn begin(
    world: &World<'_>,
    verdicts: &mut Verdicts,
    unit: usize,
    cause: Option<&Cause>,
) -> bool {
    use ServiceState::{Running, Starting, Stopping, Unhealthy};
    let it = &world.units[unit];
    if verdicts.places[it.place].frozen || verdicts.places[it.place].goes_down() {
        return false;
    }
    let cause_or = |other: Cause| cause.cloned().unwrap_or(other);
    bring_place(world, verdicts, it.place, &cause_or(Cause::SandboxDown));
    let task = it.is_task();
    let other_kind = it
        .old_spec()
        .map_or(task, |old| (old.kind == ServiceKind::Task) != task);
    if it.is_up() && other_kind {
        verdicts.restart(world, unit, &cause_or(Cause::DefinitionChanged), true);
        return true;
    }
    let verdict = &mut verdicts.units[unit];
    match it.state {
        Some(Running) if !it.is_task() && verdict.stop.is_none() => return false,
        Some(Starting | Unhealthy | Running) if verdict.stop.is_none() => {
            verdict.start = Some(Cause::NotReady);
        }
        None => {
            verdict.upsert = upsert_cause(it);
            verdict.start = Some(cause_or(Cause::Added));
        }
        Some(state) => {
            let found = if it.is_task() {
                Cause::NotCompleted
            } else {
                Cause::NotRunning { state }
            };
            let cause = cause_or(found);
            if state == Stopping || (it.is_live() && it.awaits_urls()) {
                verdict.stop.get_or_insert_with(|| cause.clone());
            }
            verdict.upsert = upsert_cause(it);
            verdict.start = Some(cause);
        }
    }
    true
}

/// Takes back the starts whose needs cannot be met. In the `first` round a replacement that could
/// not be started again is taken back whole, so that what is up stays up.
fn block(world: &World<'_>, verdicts: &mut Verdicts, blocked: &mut [bool], first: bool) {
    let concerned =
        |unit: &usize| verdicts.launches(world, *unit) || verdicts.writes_references(world, *unit);
    let concerned: Vec<usize> = (0..world.units.len()).filter(concerned).collect();
    let launched = concerned.iter().copied();
    let launched = launched.filter(|unit| verdicts.launches(world, *unit));
    let launched: Vec<usize> = launched.collect();
    for circle in needed_first(world, &concerned) {
        let reason = match circle[..] {
            [unit] if !verdicts.launches(world, unit) => None,
            [unit] => unmet(world, verdicts, blocked, unit),
            _ => Some(circle_text(world, &circle)),
        };
        let written = || references::unknown(world, verdicts, blocked, *circle.first()?);
        let Some(reason) = reason.or_else(written) else {
            continue;
        };
        for unit in circle {
            give_up(world, verdicts, blocked, unit, first, &reason);
        }
    }
    // What is operated with the definition found stays down with what that needs; found needs may
    // be circles, so this goes on until nothing changes.
    while let Some((unit, needed)) = launched.iter().find_map(|unit| {
        let stays_down = |needed: &usize| {
            verdicts.goes_down(world, *needed) && verdicts.units[*needed].start.is_none()
        };
        let found = world.units[*unit].wanted.is_none() && verdicts.launches(world, *unit);
        let mut hard = world
            .old_links(*unit)
            .iter()
            .filter(|link| link.1)
            .map(|link| link.0);
        hard.find(|needed| found && stays_down(needed))
            .map(|needed| (*unit, needed))
    }) {
        let reason = format!("needs {}, which is stopped", world.address(needed));
        give_up(world, verdicts, blocked, unit, first, &reason);
    }
}

/// Takes one start back, and reports it.
fn give_up(
    world: &World<'_>,
    verdicts: &mut Verdicts,
    blocked: &mut [bool],
    unit: usize,
    first: bool,
    reason: &str,
) {
    blocked[unit] = true;
    let kept = first && world.units[unit].is_up() && verdicts.units[unit].stop.is_some();
    let what = if kept {
        "is not restarted"
    } else {
        "is not started"
    };
    take_back(world, verdicts, blocked, unit, first);
    verdicts.problem(world.address(unit).into(), format!("{what}: {reason}"));
}

fn take_back(
    world: &World<'_>,
    verdicts: &mut Verdicts,
    blocked: &[bool],
    unit: usize,
    first: bool,
) {
    let it = &world.units[unit];
    let unknown = references::unknown(world, verdicts, blocked, unit).is_some();
    let verdict = &mut verdicts.units[unit];
    verdict.start = None;
    if first && verdict.stop.take().is_some() {
        verdict.upsert = None;
    }
    if (first && it.found.is_none()) || unknown {
        verdict.upsert = None;
    }
}

/// The launched services in groups: what is needed first; more than one in a group is a circle.
fn needed_first(world: &World<'_>, launched: &[usize]) -> Vec<Vec<usize>> {
    let mut graph = DiGraph::<usize, ()>::with_capacity(launched.len(), launched.len());
    let nodes: HashMap<usize, _> = launched
        .iter()
        .map(|unit| (*unit, graph.add_node(*unit)))
        .collect();
    for unit in launched {
        for link in world.links(*unit) {
            if let Target::Unit(needed) = link.to
                && let Some(node) = nodes.get(&needed)
            {
                graph.add_edge(nodes[unit], *node, ());
            }
        }
    }
    let groups = kosaraju_scc(&graph);
    groups
        .into_iter()
        .map(|group| {
            let mut units: Vec<usize> = group.into_iter().map(|node| graph[node]).collect();
            units.sort_unstable();
            units
        })
        .collect()
}

fn circle_text(world: &World<'_>, circle: &[usize]) -> String {
    let mut seen = Vec::new();
    let mut at = circle[0];
    while !seen.contains(&at) {
        seen.push(at);
        let next = world.links(at).iter().find_map(|link| match link.to {
            Target::Unit(needed) if circle.contains(&needed) => Some(needed),
            _ => None,
        });
        at = next.unwrap_or(circle[0]);
    }
    seen.push(at);
    let names: Vec<String> = seen
        .iter()
        .map(|unit| world.address(*unit).to_string())
        .collect();
    format!("these need each other in a circle: {}", names.join(" → "))
}

/// Why a launched service cannot be started, if it cannot.
fn unmet(
    world: &World<'_>,
    verdicts: &mut Verdicts,
    blocked: &[bool],
    unit: usize,
) -> Option<String> {
    let place = world.units[unit].place;
    for link in world.links(unit) {
        let why = match link.to {
            Target::Missing(ref name) => {
                Some(format!("needs {name}, which is not in the manifest"))
            }
            Target::Unit(needed) if needed == unit => Some("needs itself".to_owned()),
            Target::Unit(needed) => unmet_unit(world, verdicts, blocked, needed, link),
            Target::Place(needed) if needed == place => None,
            Target::Place(needed) => unmet_place(world, verdicts, needed),
        };
        if why.is_some() {
            return why;
        }
    }
    None
}

fn unmet_place(world: &World<'_>, verdicts: &Verdicts, at: usize) -> Option<String> {
    let place = &world.places[at];
    let verdict = &verdicts.places[at];
    let comes_up = verdict.start.is_some() || (verdict.create.is_some() && verdict.stop.is_none());
    let stays_up = place.is_up() && !verdict.goes_down();
    (!comes_up && !stays_up).then(|| format!("needs sandbox {}, which is not up", place.name))
}

fn unmet_unit(
    world: &World<'_>,
    verdicts: &mut Verdicts,
    blocked: &[bool],
    needed: usize,
    link: &Link,
) -> Option<String> {
    let it = &world.units[needed];
    let place = world.place_of(needed);
    let down = verdicts.goes_down(world, needed);
    if verdicts.units[needed].start.is_some() || (!down && it.meets(link.condition)) {
        return None;
    }
    let as_wanted = matches!(it.difference(), Difference::Same | Difference::InPlace);
    let may_touch = !verdicts.places[it.place].frozen && !down && as_wanted;
    if may_touch
        && it.state == Some(ServiceState::Unhealthy)
        && link.condition != Condition::Started
    {
        verdicts.units[needed].start = Some(Cause::NotReady);
        return None;
    }
    let why = match (place.found, it.state) {
        (Found::Unknown(_), _) => "whose sandbox cannot be read".to_owned(),
        _ if !it.wanted_up() || !place.wanted_up() => "which the manifest wants stopped".to_owned(),
        _ if blocked[needed] => "which cannot be started".to_owned(),
        (_, Some(state)) => format!("which is {}", state.word()),
        (_, None) => "which does not exist yet".to_owned(),
    };
    Some(format!("needs {}, {why}", world.address(needed)))
}

/// Restarts (or stops) the hard dependents of everything that goes down or was found down.
fn spread(world: &World<'_>, verdicts: &mut Verdicts, mode: Mode) {
    let all = 0..world.units.len();
    let seeds = all.clone().filter(|unit| {
        verdicts.goes_down(world, *unit)
            || verdicts.launches(world, *unit)
            || (mode == Mode::Plan && is_found_down(world, *unit))
    });
    let mut queue: VecDeque<usize> = seeds.collect();
    if queue.is_empty() {
        return;
    }
    let mut dependents: HashMap<usize, BTreeSet<usize>> = HashMap::new();
    for unit in all {
        if world.units[unit].is_up() && !verdicts.places[world.units[unit].place].frozen {
            for needed in hard_needs(world, verdicts, unit) {
                dependents.entry(needed).or_default().insert(unit);
            }
        }
    }
    while let Some(needed) = queue.pop_front() {
        for unit in dependents.get(&needed).into_iter().flatten() {
            if verdicts.goes_down(world, *unit) {
                continue;
            }
            let cause = Cause::DependencyRestarted {
                dependency: world.address(needed).into(),
            };
            let it = &world.units[*unit];
            let again = match mode {
                Mode::Plan => it.wanted_up() && world.place_of(*unit).wanted_up(),
                Mode::Operate => it.spec().is_some(),
                Mode::OperateStop => false,
            };
            verdicts.restart(world, *unit, &cause, again);
            queue.push_back(*unit);
        }
    }
}

/// What a live service needs with `restart: true`: by what is wanted, and by what was found unless
/// its definition is replaced in place, which is done first.
pub(super) fn hard_needs(world: &World<'_>, verdicts: &Verdicts, unit: usize) -> Vec<usize> {
    let mut needs: Vec<usize> = world.hard_links(unit).collect();
    if !is_in_place(world, verdicts, unit) {
        needs.extend(
            world
                .old_links(unit)
                .iter()
                .filter(|link| link.1)
                .map(|link| link.0),
        );
    }
    needs
}

/// Whether a live service gets a new definition and goes on.
pub(super) fn is_in_place(world: &World<'_>, verdicts: &Verdicts, unit: usize) -> bool {
    verdicts.units[unit].upsert.is_some()
        && world.units[unit].is_live()
        && !verdicts.goes_down(world, unit)
}

/// Where the order of stops matters beyond one sandbox, its services are stopped one by one before
/// the sandbox is.
fn stop_one_by_one(world: &World<'_>, verdicts: &mut Verdicts) {
    if verdicts.places.iter().all(|place| place.stop.is_none()) {
        return;
    }
    let mut apart = BTreeSet::new();
    for unit in 0..world.units.len() {
        if !verdicts.goes_down(world, unit) {
            continue;
        }
        let home = world.units[unit].place;
        if verdicts.units[unit].stop.is_some() {
            apart.insert(home);
        }
        let old = world.old_links(unit).iter().map(|link| link.0);
        for needed in old.chain(world.hard_links(unit)) {
            let other = world.units[needed].place;
            if other != home && verdicts.goes_down(world, needed) {
                apart.extend([home, other]);
            }
        }
    }
    for at in apart {
        let Some(cause) = verdicts.places[at].stop.clone() else {
            continue;
        };
        let place = &world.places[at];
        let cause = match cause {
            Cause::DefinitionChanged => Cause::DependencyRestarted {
                dependency: place.address(),
            },
            other => other,
        };
        for unit in place.units.clone() {
            if world.units[unit].is_live() {
                verdicts.units[unit]
                    .stop
                    .get_or_insert_with(|| cause.clone());
            }
        }
    }
}
