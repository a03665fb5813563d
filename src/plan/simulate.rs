//! What each step does to an observed state, and the proof that a plan is sound: at every prefix
//! no rule of order is broken.
//!
//! The in-memory platform writes with the same effects.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use petgraph::algo::kosaraju_scc;
use petgraph::graphmap::DiGraphMap;

use super::world::{Target, World, at_rest_if};
use super::{Action, Plan, Step, references};
use crate::model::{
    Address, Condition, Definition, Desired, Listing, Observed, ObservedSandbox, ObservedService,
    SandboxName, SandboxSpec, SandboxState, ServiceAddress, ServiceGoal, ServiceKind, ServiceName,
    ServiceSpec, ServiceState,
};

/// Does one step to an observed state. Errors say why the platform would refuse.
pub fn apply(observed: &mut Observed, address: &Address, step: &Step) -> Result<(), String> {
    match (step, address) {
        (Step::CreateSandbox(spec), Address::Sandbox(name)) => create(observed, name, spec),
        (Step::UpdateSandbox(spec), Address::Sandbox(name)) => {
            sandbox(observed, name)?.spec = Arc::clone(spec);
            Ok(())
        }
        (Step::StartSandbox(spec), Address::Sandbox(name)) => {
            let sandbox = sandbox(observed, name)?;
            if !sandbox.spec_known {
                (sandbox.spec, sandbox.spec_known) = (Arc::clone(spec), true);
            }
            if sandbox.state == SandboxState::Stopped {
                rest(sandbox);
            }
            sandbox.state = SandboxState::Running;
            Ok(())
        }
        (Step::StopSandbox, Address::Sandbox(name)) => {
            let sandbox = sandbox(observed, name)?;
            sandbox.state = SandboxState::Stopped;
            rest(sandbox);
            Ok(())
        }
        (Step::DeleteSandbox, Address::Sandbox(name)) => {
            observed.sandboxes.remove(name);
            Ok(())
        }
        (step, Address::Service(address)) => {
            let sandbox = sandbox(observed, &address.sandbox)?;
            if sandbox.state != SandboxState::Running {
                return Err(format!("sandbox {} is not running", address.sandbox));
            }
            apply_to_service(sandbox, &address.service, step)
        }
        (_, Address::Sandbox(name)) => Err(format!("{name} is a sandbox, not a service")),
    }
}

/// In a sandbox that is down nothing is up.
fn rest(sandbox: &mut ObservedSandbox) {
    for service in sandbox.services.values_mut() {
        if at_rest_if(service.state, true) != service.state {
            stop(service);
        }
    }
}

fn create(
    observed: &mut Observed,
    name: &SandboxName,
    spec: &Arc<SandboxSpec>,
) -> Result<(), String> {
    if observed.sandboxes.contains_key(name) {
        let existing = sandbox(observed, name)?;
        existing.spec = Arc::clone(spec);
        existing.state = SandboxState::Running;
        return Ok(());
    }
    let created = ObservedSandbox {
        spec: Arc::clone(spec),
        state: SandboxState::Running,
        spec_known: true,
        isolation: None,
        keeper_pid: None,
        supervisor_pid: None,
        services: Default::default(),
    };
    observed
        .sandboxes
        .insert(name.clone(), Listing::Known(created));
    Ok(())
}

fn sandbox<'a>(
    observed: &'a mut Observed,
    name: &SandboxName,
) -> Result<&'a mut ObservedSandbox, String> {
    match observed.sandboxes.get_mut(name) {
        Some(Listing::Known(sandbox)) => Ok(sandbox),
        Some(Listing::Unknown { reason }) => {
            Err(format!("sandbox {name} cannot be read: {reason}"))
        }
        None => Err(format!("sandbox {name} does not exist")),
    }
}

fn apply_to_service(
    sandbox: &mut ObservedSandbox,
    name: &ServiceName,
    step: &Step,
) -> Result<(), String> {
    let found = sandbox.services.get_mut(name);
    match (step, found) {
        (Step::UpsertService(spec), Some(service)) => upsert(service, spec),
        (Step::UpsertService(spec), None) => {
            let service = ObservedService::stopped(Arc::clone(spec));
            sandbox.services.insert(name.clone(), service);
        }
        (Step::StartService(_), Some(service)) => {
            service.stale &= service.state.is_up();
            service.state = ServiceState::Running;
            service.goal = ServiceGoal::Running;
            at_ease(service);
        }
        (Step::RunTask(_), Some(service)) => {
            service.state = ServiceState::Completed;
            service.goal = ServiceGoal::Running;
            service.stale = false;
            service.pid = None;
            at_ease(service);
        }
        (Step::StopService, Some(service)) => stop(service),
        (Step::DeleteService, _) => {
            sandbox.services.remove(name);
        }
        (Step::StopService, None) => {}
        (_, None) => return Err(format!("service {name} is not defined")),
        _ => return Err(format!("{name} is a service, not a sandbox")),
    }
    Ok(())
}

/// Stores a definition. A live process goes on, and is stale if the new definition needs another; a
/// task has then not completed with it.
fn upsert(service: &mut ObservedService, spec: &Arc<ServiceSpec>) {
    let other = service.spec().is_none_or(|old| old.needs_new_process(spec));
    service.definition = Definition::Echo(Arc::clone(spec));
    if other && service.state.is_up() {
        service.stale = true;
    }
    if other && service.state == ServiceState::Completed {
        service.state = ServiceState::Stopped;
    }
}

fn stop(service: &mut ObservedService) {
    service.state = ServiceState::Stopped;
    service.goal = ServiceGoal::Stopped;
    service.stale = false;
    service.pid = None;
    service.started_at = None;
    at_ease(service);
}

fn at_ease(service: &mut ObservedService) {
    service.next_restart_at = None;
    service.message = None;
}

/// Applies `plan` to `observed` in memory, in its own order, and returns what comes of it. The
/// error names the rule that is broken, and where.
pub fn run(desired: &Desired, observed: &Observed, plan: &Plan) -> Result<Observed, String> {
    let order: Vec<usize> = (0..plan.actions.len()).collect();
    run_in_order(desired, observed, plan, &order)
}

/// As [`run`], in another order, which has to respect every `after`.
pub fn run_in_order(
    desired: &Desired,
    observed: &Observed,
    plan: &Plan,
    order: &[usize],
) -> Result<Observed, String> {
    let desired = &*references::resolve(desired, observed);
    let mut last = observed.clone();
    for at in order {
        let Some(action) = plan.actions.get(*at) else {
            continue;
        };
        let refused = |why| format!("{} cannot be done: {why}", action.id());
        apply(&mut last, &action.address, &action.step).map_err(refused)?;
    }
    let world = World::new(desired, observed);
    let mut now = observed.clone();
    let rules = Rules::new(&world, &last);
    let mut done = vec![false; plan.actions.len()];
    for at in order {
        let Some(action) = plan.actions.get(*at) else {
            continue;
        };
        let early = action
            .after
            .iter()
            .find(|it| !done.get(it.action).is_some_and(|done| *done));
        if let Some(early) = early {
            let first = plan
                .actions
                .get(early.action)
                .map(Action::id)
                .unwrap_or_default();
            return Err(format!("{} comes before `{first}`", action.id()));
        }
        rules
            .check(&now, action)
            .map_err(|why| format!("at {}: {why}", action.id()))?;
        let refused = |why| format!("{} cannot be done: {why}", action.id());
        apply(&mut now, &action.address, &action.step).map_err(refused)?;
        done[*at] = true;
    }
    Ok(now)
}

/// The rules of order, prepared for one plan.
struct Rules<'w, 'a> {
    world: &'w World<'a>,
    /// The state after the whole plan.
    last: &'w Observed,
    /// Who needs a service with `restart: true`, by any definition, found or wanted.
    dependents: HashMap<usize, BTreeSet<usize>>,
    /// Services that need each other in a circle have the same number.
    circle: HashMap<usize, usize>,
    /// Who was found with a port.
    holders: HashMap<u16, Vec<usize>>,
    /// Sandboxes that no plan touches.
    frozen: HashSet<&'w SandboxName>,
}

impl<'w, 'a> Rules<'w, 'a> {
    fn new(world: &'w World<'a>, last: &'w Observed) -> Self {
        let mut dependents: HashMap<usize, BTreeSet<usize>> = HashMap::new();
        let mut graph = DiGraphMap::<usize, ()>::new();
        let mut holders: HashMap<u16, Vec<usize>> = HashMap::new();
        for unit in 0..world.units.len() {
            let old = world
                .old_links(unit)
                .iter()
                .filter(|link| link.1)
                .map(|link| link.0);
            for needed in old.chain(world.hard_links(unit)) {
                dependents.entry(needed).or_default().insert(unit);
                graph.add_edge(unit, needed, ());
            }
            let it = &world.units[unit];
            if let Some(spec) = it.old_spec().filter(|_| it.is_live()) {
                spec.all_ports()
                    .for_each(|port| holders.entry(port).or_default().push(unit));
            }
        }
        let mut circle = HashMap::new();
        for (number, group) in kosaraju_scc(&graph).into_iter().enumerate() {
            circle.extend(group.into_iter().map(|unit| (unit, number)));
        }
        let frozen = world
            .places
            .iter()
            .filter(|place| match (place.wanted, place.known()) {
                (_, None) => true,
                (None, Some(found)) => found.spec.protect,
                (Some(wanted), Some(found)) => wanted.spec.platform != found.spec.platform,
            });
        let frozen = frozen.map(|place| place.name).collect();
        Self {
            world,
            last,
            dependents,
            circle,
            holders,
            frozen,
        }
    }

    fn check(&self, now: &Observed, action: &Action) -> Result<(), String> {
        match (&action.step, &action.address) {
            (Step::StartService(_) | Step::RunTask(_), Address::Service(address)) => {
                let Some(unit) = self.world.unit(address) else {
                    return Ok(());
                };
                if state(now, address).is_some_and(ServiceState::is_up) {
                    return Ok(());
                }
                self.needs_are_met(now, unit)?;
                self.ports_are_free(now, unit)?;
                self.dependents_are_down(now, unit, None)
            }
            (Step::UpsertService(spec), Address::Service(address)) => {
                references::are_told(now, address, spec)
            }
            (Step::StopService | Step::DeleteService, Address::Service(address)) => {
                let up = state(now, address).is_some_and(ServiceState::is_up);
                let unit = self.world.unit(address).filter(|_| up);
                unit.map_or(Ok(()), |unit| self.dependents_are_down(now, unit, None))
            }
            (Step::StopSandbox | Step::DeleteSandbox, Address::Sandbox(name)) => {
                let Some(at) = self.world.place(name) else {
                    return Ok(());
                };
                let mut units = self.world.places[at].units.clone();
                units.try_for_each(|unit| {
                    let up = state(now, &self.world.address(unit)).is_some_and(ServiceState::is_up);
                    if up {
                        self.dependents_are_down(now, unit, Some(name))
                    } else {
                        Ok(())
                    }
                })
            }
            _ => Ok(()),
        }
    }

    fn needs_are_met(&self, now: &Observed, unit: usize) -> Result<(), String> {
        if self.world.units[unit].wanted.is_none() {
            return Ok(());
        }
        for link in self.world.links(unit) {
            let met = match &link.to {
                Target::Unit(needed) => meets(now, &self.world.address(*needed), link.condition),
                Target::Place(at) => {
                    let it = now.known(self.world.places[*at].name);
                    it.is_some_and(|it| it.state == SandboxState::Running)
                }
                Target::Missing(_) => false,
            };
            if !met {
                let name = match &link.to {
                    Target::Unit(needed) => self.world.address(*needed).to_string(),
                    Target::Place(at) => self.world.places[*at].name.to_string(),
                    Target::Missing(name) => name.clone(),
                };
                return Err(format!("what it needs is not there: {name}"));
            }
        }
        Ok(())
    }

    fn dependents_are_down(
        &self,
        now: &Observed,
        unit: usize,
        beside: Option<&SandboxName>,
    ) -> Result<(), String> {
        for dependent in self.dependents.get(&unit).into_iter().flatten() {
            let address = self.world.address(*dependent);
            let excused = self.frozen.contains(&address.sandbox)
                || beside == Some(&address.sandbox)
                || (self.circle.get(dependent) == self.circle.get(&unit)
                    && self.circle.contains_key(&unit));
            if excused || !state(now, &address).is_some_and(ServiceState::is_up) {
                continue;
            }
            if self
                .world
                .hard_links(*dependent)
                .any(|needed| needed == unit)
                || self.needs_hard_now(now, &address, unit)
            {
                return Err(format!("{address} is up and needs it with `restart: true`"));
            }
        }
        Ok(())
    }

    /// Whether the definition that a service holds now needs another with `restart: true`.
    fn needs_hard_now(&self, now: &Observed, address: &ServiceAddress, needed: usize) -> bool {
        let needed = self.world.address(needed);
        let spec = service(now, address).and_then(ObservedService::spec);
        spec.is_some_and(|spec| {
            let mut hard = spec.needs.iter().filter(|need| need.restart);
            hard.any(|need| need.target.resolve(&address.sandbox).as_ref() == Some(&needed))
        })
    }

    fn ports_are_free(&self, now: &Observed, unit: usize) -> Result<(), String> {
        let Some(spec) = self.world.units[unit].spec() else {
            return Ok(());
        };
        for port in spec.all_ports() {
            let held = self
                .holders
                .get(&port)
                .map(Vec::as_slice)
                .unwrap_or_default();
            let place = self.world.units[unit].place;
            for holder in held.iter().copied().filter(|holder| *holder != unit) {
                let near = held.len() == 1 || self.world.units[holder].place == place;
                let address = self.world.address(holder);
                if near && holds(now, &address, port) && !holds(self.last, &address, port) {
                    return Err(format!("port {port} is still held by {address}"));
                }
            }
        }
        Ok(())
    }
}

fn service<'o>(now: &'o Observed, address: &ServiceAddress) -> Option<&'o ObservedService> {
    let sandbox = now.known(&address.sandbox)?;
    let up = sandbox.state == SandboxState::Running;
    sandbox.services.get(&address.service).filter(|_| up)
}

/// The state of a service, if its sandbox is up.
fn state(now: &Observed, address: &ServiceAddress) -> Option<ServiceState> {
    service(now, address).map(|it| it.state)
}

fn holds(now: &Observed, address: &ServiceAddress, port: u16) -> bool {
    let live = service(now, address).filter(|it| it.state.is_up());
    live.and_then(ObservedService::spec)
        .is_some_and(|spec| spec.all_ports().any(|it| it == port))
}

fn meets(now: &Observed, address: &ServiceAddress, condition: Condition) -> bool {
    use ServiceState::{Completed, Running, Starting, Unhealthy};
    let Some(sandbox) = now.known(&address.sandbox) else {
        return false;
    };
    let Some(it) = sandbox.services.get(&address.service) else {
        return false;
    };
    let is_task = it.spec().is_some_and(|spec| spec.kind == ServiceKind::Task);
    match it.state {
        Completed => is_task,
        _ if sandbox.state != SandboxState::Running => false,
        Running => !is_task || condition == Condition::Started,
        Starting | Unhealthy => condition == Condition::Started,
        _ => false,
    }
}
