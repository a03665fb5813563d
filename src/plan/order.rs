//! From verdicts to ordered actions: a graph of what has to be done first, and one order of it.
//!
//! The graph has no circle by construction. Definitions that are replaced in place come first and
//! wait for nothing; stops wait only for those and for other stops; everything that comes up waits
//! for stops and, along the wanted needs, for what comes up before it.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap, HashMap, HashSet};
use std::sync::Arc;

use petgraph::algo::{kosaraju_scc, toposort};
use petgraph::graph::{DiGraph, NodeIndex};

use super::decide::Verdicts;
use super::settle::{hard_needs, is_in_place};
use super::world::{Target, Unit, World};
use super::{Action, After, Cause, Change, Plan, PlanError, Step, Until, diff, references};
use crate::model::{Address, Condition, SandboxSpec, ServiceKind};

/// The plan, without its actions.
pub(super) fn empty(world: &World<'_>, verdicts: Verdicts) -> Plan {
    let mut platforms = BTreeSet::new();
    for place in &world.places {
        platforms.extend(place.wanted.map(|it| it.spec.platform.clone()));
        platforms.extend(place.known().map(|it| it.spec.platform.clone()));
    }
    let services = world
        .units
        .iter()
        .filter(|unit| unit.wanted.is_some())
        .count();
    let unchanged = unchanged(world, &verdicts);
    let mut problems = verdicts.problems;
    problems.sort_by(|a, b| (&a.address, &a.message).cmp(&(&b.address, &b.message)));
    problems.dedup();
    Plan {
        stack: world.desired.stack.clone(),
        platforms: platforms.into_iter().collect(),
        actions: Vec::new(),
        problems,
        sandboxes: world.desired.sandboxes.len(),
        services,
        unchanged,
        isolation: BTreeMap::new(),
    }
}

/// How many wanted services are as they should be.
pub(super) fn unchanged(world: &World<'_>, verdicts: &Verdicts) -> usize {
    let troubled: HashSet<&Address> = verdicts.problems.iter().map(|it| &it.address).collect();
    let as_it_should = |at: &usize| {
        let unit = &world.units[*at];
        unit.wanted.is_some()
            && verdicts.units[*at].is_quiet()
            && !verdicts.places[unit.place].frozen
            && (troubled.is_empty() || !troubled.contains(&Address::Service(world.address(*at))))
    };
    (0..world.units.len()).filter(as_it_should).count()
}

/// The ordered plan.
pub(super) fn order(world: &World<'_>, verdicts: Verdicts) -> Result<Plan, PlanError> {
    let mut graph = Graph::new(world, &verdicts);
    graph.edges_of_places();
    graph.edges_of_units();
    graph.edges_of_stops();
    graph.edges_of_references();
    graph.edges_of_needs();
    graph.edges_of_ports();
    let actions = graph.into_actions()?;
    let mut plan = empty(world, verdicts);
    plan.actions = actions;
    Ok(plan)
}

/// The nodes of one sandbox.
#[derive(Default, Clone, Copy)]
struct PlaceNodes {
    create: Option<usize>,
    update: Option<usize>,
    start: Option<usize>,
    stop: Option<usize>,
    delete: Option<usize>,
}

/// The nodes of one service.
#[derive(Default, Clone, Copy)]
struct UnitNodes {
    start: Option<usize>,
    stop: Option<usize>,
    delete: Option<usize>,
    upsert: Option<usize>,
}

struct Graph<'w, 'a> {
    world: &'w World<'a>,
    verdicts: &'w Verdicts,
    /// In order of (address, kind), so that a node's number is its rank.
    nodes: Vec<Action>,
    edges: Vec<(usize, usize, Until)>,
    places: Vec<PlaceNodes>,
    units: Vec<UnitNodes>,
}

impl<'w, 'a> Graph<'w, 'a> {
    fn new(world: &'w World<'a>, verdicts: &'w Verdicts) -> Self {
        let mut graph = Self {
            world,
            verdicts,
            nodes: Vec::new(),
            edges: Vec::new(),
            places: Vec::with_capacity(world.places.len()),
            units: Vec::with_capacity(world.units.len()),
        };
        for (at, place) in world.places.iter().enumerate() {
            graph.add_place(at);
            for unit in place.units.clone() {
                graph.add_unit(unit);
            }
        }
        graph
    }

    fn add(
        &mut self,
        address: &Address,
        step: Step,
        cause: &Option<Cause>,
        changes: Vec<Change>,
    ) -> Option<usize> {
        let cause = cause.clone()?;
        let (address, after) = (address.clone(), Vec::new());
        self.nodes.push(Action {
            address,
            step,
            cause,
            changes,
            after,
        });
        Some(self.nodes.len() - 1)
    }

    fn add_place(&mut self, at: usize) {
        let (place, verdict) = (&self.world.places[at], &self.verdicts.places[at]);
        let mut nodes = PlaceNodes::default();
        if !verdict.is_quiet() {
            let address = place.address();
            let wanted = place.wanted.map(|it| &it.spec);
            let found = place.known().map(|it| &it.spec);
            let spec: Arc<SandboxSpec> = match wanted.or(found) {
                Some(spec) => Arc::clone(spec),
                None => Arc::default(),
            };
            let changes = match (&verdict.update, wanted, found) {
                (Some(_), Some(new), Some(old)) => diff::sandbox(old, new),
                _ => Vec::new(),
            };
            let create = Step::CreateSandbox(spec.clone());
            nodes.create = self.add(&address, create, &verdict.create, Vec::new());
            let update = Step::UpdateSandbox(spec.clone());
            nodes.update = self.add(&address, update, &verdict.update, changes);
            let start = Step::StartSandbox(spec);
            nodes.start = self.add(&address, start, &verdict.start, Vec::new());
            nodes.stop = self.add(&address, Step::StopSandbox, &verdict.stop, Vec::new());
            nodes.delete = self.add(&address, Step::DeleteSandbox, &verdict.delete, Vec::new());
        }
        self.places.push(nodes);
    }

    fn add_unit(&mut self, at: usize) {
        let (unit, verdict) = (&self.world.units[at], &self.verdicts.units[at]);
        let mut nodes = UnitNodes::default();
        if !verdict.is_quiet() {
            let address: Address = self.world.address(at).into();
            let none = Vec::new;
            let is_task = unit
                .spec()
                .is_some_and(|spec| spec.kind == ServiceKind::Task);
            if let Some(spec) = unit.spec().filter(|_| !is_task) {
                let step = Step::StartService(Arc::clone(spec));
                nodes.start = self.add(&address, step, &verdict.start, none());
            }
            nodes.stop = self.add(&address, Step::StopService, &verdict.stop, none());
            nodes.delete = self.add(&address, Step::DeleteService, &verdict.delete, none());
            if let Some(spec) = unit.spec().filter(|_| verdict.upsert.is_some()) {
                let changes = match unit.old_spec() {
                    Some(old) => diff::service(old, spec),
                    None => diff::known_after_apply(spec),
                };
                let step = Step::UpsertService(Arc::clone(spec));
                nodes.upsert = self.add(&address, step, &verdict.upsert, changes);
            }
            if let Some(spec) = unit.spec().filter(|_| is_task) {
                let step = Step::RunTask(Arc::clone(spec));
                nodes.start = self.add(&address, step, &verdict.start, none());
            }
        }
        self.units.push(nodes);
    }

    /// The second waits until the first is done.
    fn edge(&mut self, from: Option<usize>, to: Option<usize>) {
        if let (Some(from), Some(to)) = (from, to) {
            self.edges.push((from, to, Until::Done));
        }
    }

    fn edges_of_places(&mut self) {
        for at in 0..self.places.len() {
            let it = self.places[at];
            self.edge(it.create, it.stop);
            match it.start {
                // One that is to stay down may not take a change there.
                None => self.edge(it.update, it.stop),
                Some(_) => self.edge(it.stop, it.update),
            }
            self.edge(it.update.or(it.stop), it.start);
            for unit in self.world.places[at].units.clone() {
                let stop = self.units[unit].stop;
                self.edge(stop, it.stop);
                self.edge(stop, it.delete);
            }
        }
    }

    /// What brings a sandbox up, in this plan.
    fn up(&self, place: usize) -> Option<usize> {
        let it = self.places[place];
        it.start.or(it.create)
    }

    fn edges_of_units(&mut self) {
        for at in 0..self.units.len() {
            let (it, place) = (self.units[at], self.world.units[at].place);
            let up = self.up(place);
            self.edge(it.stop, it.upsert);
            self.edge(it.stop, it.delete);
            self.edge(up, it.upsert);
            if it.upsert.is_some() {
                self.edge(it.upsert, it.start);
            } else {
                self.edge(it.stop, it.start);
                self.edge(up, it.start);
            }
            if self.world.places[place].is_up() {
                self.edge(it.delete, self.places[place].stop);
            } else {
                self.edge(up, it.delete);
                self.edge(up, it.stop);
            }
        }
    }

    /// What ends the process of a service: its own stop, or that of its sandbox.
    fn gone(&self, unit: usize) -> Option<usize> {
        let (it, place) = (self.units[unit], self.places[self.world.units[unit].place]);
        it.stop.or_else(|| {
            let down = self.verdicts.place_goes_down(self.world, unit);
            let place = place.stop.or(place.delete).filter(|_| down);
            place.or(it.delete.filter(|_| self.world.units[unit].is_live()))
        })
    }

    /// Dependents stop before what they need; what gives up a hard need in place does so before.
    fn edges_of_stops(&mut self) {
        let mut stops = Vec::new();
        for unit in 0..self.units.len() {
            let it = &self.world.units[unit];
            if !it.is_live() || self.verdicts.places[it.place].frozen {
                continue;
            }
            let upsert = self.units[unit].upsert;
            if is_in_place(self.world, self.verdicts, unit) {
                for needed in self.world.old_links(unit).iter().filter(|link| link.1) {
                    self.before_hard(upsert, needed.0);
                }
                continue;
            }
            let Some(stop) = self.gone(unit) else {
                continue;
            };
            for needed in hard_needs(self.world, self.verdicts, unit) {
                let gone = self.gone(needed);
                if gone.is_none() {
                    self.before_hard(Some(stop), needed);
                }
            }
            let mut push = |needed, strength| {
                if let Some(gone) = self.gone(needed).filter(|gone| *gone != stop) {
                    stops.push((stop, gone, strength));
                }
            };
            for (needed, hard) in self.world.old_links(unit) {
                push(
                    *needed,
                    if *hard {
                        Strength::Hard
                    } else {
                        Strength::Soft
                    },
                );
            }
            self.world
                .hard_links(unit)
                .for_each(|needed| push(needed, Strength::Wanted));
        }
        let kept = without_circles(stops);
        self.edges
            .extend(kept.into_iter().map(|(from, to)| (from, to, Until::Done)));
    }

    /// `node` comes before the needed service goes down, or, if it is down, before it comes up.
    fn before_hard(&mut self, node: Option<usize>, needed: usize) {
        match self.gone(needed) {
            Some(gone) => self.edge(node, Some(gone)),
            None if self.verdicts.launches(self.world, needed) => {
                self.edge(node, self.units[needed].start);
            }
            None => {}
        }
    }

    /// What has a URL comes up before the definitions that name it are written.
    fn edges_of_references(&mut self) {
        for unit in 0..self.units.len() {
            let upsert = self.units[unit].upsert;
            for teller in references::tellers(self.world, self.verdicts, unit) {
                let it = self.units[teller];
                self.edge(it.start.or(it.upsert), upsert);
            }
        }
    }

    /// What is needed comes up before what needs it.
    fn edges_of_needs(&mut self) {
        let mut found = Vec::new();
        for unit in 0..self.units.len() {
            let Some(start) = self.units[unit].start else {
                continue;
            };
            if !self.verdicts.launches(self.world, unit) {
                continue;
            }
            if self.world.units[unit].wanted.is_none() {
                // Operated with the definition found, whose needs may be circles.
                for (needed, hard) in self.world.old_links(unit) {
                    let node = self.units[*needed].start;
                    let strength = if *hard {
                        Strength::Hard
                    } else {
                        Strength::Soft
                    };
                    found.extend(node.map(|node| (node, start, strength)));
                }
            }
            for link in self.world.links(unit) {
                let (node, until) = match link.to {
                    Target::Unit(needed) if link.condition == Condition::Started => {
                        (self.units[needed].start, Until::Executed)
                    }
                    Target::Unit(needed) => (self.units[needed].start, Until::Done),
                    Target::Place(place) => (self.up(place), Until::Done),
                    Target::Missing(_) => (None, Until::Done),
                };
                self.edges.extend(node.map(|node| (node, start, until)));
            }
        }
        let kept = without_circles(found);
        self.edges
            .extend(kept.into_iter().map(|(from, to)| (from, to, Until::Done)));
    }

    /// A port that is given up is free before its new owner starts.
    ///
    /// Where more than one service was found with a port, they do not share a network, and only
    /// services of one sandbox are ordered.
    fn edges_of_ports(&mut self) {
        if self.units.iter().all(|it| it.start.is_none()) {
            return;
        }
        let mut holders: HashMap<u16, Vec<usize>> = HashMap::new();
        for (at, unit) in self.world.units.iter().enumerate() {
            if let Some(spec) = unit.old_spec().filter(|_| unit.is_live()) {
                spec.all_ports()
                    .for_each(|port| holders.entry(port).or_default().push(at));
            }
        }
        for at in 0..self.units.len() {
            let unit = &self.world.units[at];
            let (Some(start), Some(spec)) = (self.units[at].start, unit.spec()) else {
                continue;
            };
            if !self.verdicts.launches(self.world, at) {
                continue;
            }
            for port in spec.all_ports() {
                let Some(held) = holders.get(&port) else {
                    continue;
                };
                let place = unit.place;
                let range = self.world.places[place].units.clone();
                let near = if held.len() == 1 {
                    &held[..]
                } else {
                    // Holders are in order of number, and a sandbox's services are neighbours.
                    let from = held.partition_point(|holder| *holder < range.start);
                    let to = held.partition_point(|holder| *holder < range.end);
                    &held[from..to]
                };
                for holder in near.iter().copied().filter(|holder| *holder != at) {
                    let release = self.release(holder, port);
                    self.edge(release, Some(start));
                }
            }
        }
    }

    /// What frees a port for good, if this plan does.
    fn release(&self, holder: usize, port: u16) -> Option<usize> {
        let unit = &self.world.units[holder];
        let up_again = self.units[holder].start.is_some();
        let keeps = |unit: &Unit<'_>| {
            unit.spec()
                .is_some_and(|it| it.all_ports().any(|p| p == port))
        };
        let gone = self.gone(holder);
        if unit.is_task() && self.verdicts.is_await(self.world, holder) {
            // It runs, and is only waited for; when it is done, the port is free.
            return self.units[holder].start;
        }
        let up_again = up_again && !unit.is_task();
        if (up_again || gone.is_none()) && keeps(unit) {
            return None;
        }
        gone.or(self.units[holder].upsert)
    }

    fn into_actions(self) -> Result<Vec<Action>, PlanError> {
        let Self {
            mut nodes,
            mut edges,
            ..
        } = self;
        edges.sort_unstable();
        edges.dedup();
        let order = sort(nodes.len(), &edges).ok_or_else(|| circle(&nodes, &edges))?;
        let mut position = vec![0; nodes.len()];
        for (at, node) in order.iter().enumerate() {
            position[*node] = at;
        }
        for (from, to, until) in edges {
            nodes[to].after.push(After {
                action: position[from],
                until,
            });
        }
        let mut actions: Vec<(usize, Action)> = nodes
            .into_iter()
            .enumerate()
            .map(|(node, it)| (position[node], it))
            .collect();
        actions.sort_unstable_by_key(|(position, _)| *position);
        let mut actions: Vec<Action> = actions.into_iter().map(|(_, action)| action).collect();
        for action in &mut actions {
            // `Done` includes `Executed`, and sorts after it.
            action
                .after
                .sort_unstable_by_key(|after| (after.action, Reverse(after.until)));
            action.after.dedup_by_key(|after| after.action);
        }
        Ok(actions)
    }
}

/// How much it matters that one stop comes before another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Strength {
    /// The found definition of the first needs the second.
    Soft,
    /// It does so with `restart: true`.
    Hard,
    /// The wanted definition does so with `restart: true`; these have no circle.
    Wanted,
}

/// Found definitions can need each other in a circle: then the weakest edges of the circle go.
fn without_circles(mut edges: Vec<(usize, usize, Strength)>) -> Vec<(usize, usize)> {
    for keep in [Some(Strength::Hard), Some(Strength::Wanted), None] {
        let mut nodes: HashMap<usize, NodeIndex> = HashMap::new();
        let mut graph = DiGraph::<(), ()>::new();
        for (from, to, _) in &edges {
            let from = *nodes.entry(*from).or_insert_with(|| graph.add_node(()));
            let to = *nodes.entry(*to).or_insert_with(|| graph.add_node(()));
            graph.add_edge(from, to, ());
        }
        let mut group = vec![0; graph.node_count()];
        for (number, members) in kosaraju_scc(&graph).into_iter().enumerate() {
            members
                .into_iter()
                .for_each(|node| group[node.index()] = number);
        }
        edges.retain(|(from, to, strength)| {
            let apart = group[nodes[from].index()] != group[nodes[to].index()];
            apart || keep.is_some_and(|least| *strength >= least)
        });
    }
    edges.into_iter().map(|(from, to, _)| (from, to)).collect()
}

/// The topological order in which, of what could be next, the lowest number is; `None` if there is
/// a circle.
fn sort(nodes: usize, edges: &[(usize, usize, Until)]) -> Option<Vec<usize>> {
    let mut waits = vec![0usize; nodes];
    let mut next = vec![Vec::new(); nodes];
    for (from, to, _) in edges {
        waits[*to] += 1;
        next[*from].push(*to);
    }
    let mut free: BinaryHeap<Reverse<usize>> = (0..nodes)
        .filter(|node| waits[*node] == 0)
        .map(Reverse)
        .collect();
    let mut order = Vec::with_capacity(nodes);
    while let Some(Reverse(node)) = free.pop() {
        order.push(node);
        for to in &next[node] {
            waits[*to] -= 1;
            if waits[*to] == 0 {
                free.push(Reverse(*to));
            }
        }
    }
    (order.len() == nodes).then_some(order)
}

/// The report of a circle that should not be possible.
fn circle(nodes: &[Action], edges: &[(usize, usize, Until)]) -> PlanError {
    let graph =
        DiGraph::<(), (), usize>::from_edges(edges.iter().map(|(from, to, _)| (*from, *to)));
    let within = kosaraju_scc(&graph)
        .into_iter()
        .find(|group| group.len() > 1);
    let on_itself = toposort(&graph, None)
        .err()
        .map(|cycle| vec![cycle.node_id()]);
    let group = within.or(on_itself).unwrap_or_default();
    let names: Vec<String> = group.iter().map(|node| nodes[node.index()].id()).collect();
    PlanError::Bug(format!(
        "these actions wait for each other: {}",
        names.join(", ")
    ))
}
