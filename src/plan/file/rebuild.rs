//! The plan again, from what its file says is to be done: same steps, order derived anew, simulated.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::super::decide::{PlaceVerdict, Verdict, Verdicts};
use super::super::world::{Found, Place, World};
use super::super::{Action, Cause, Plan, StepKind, order, simulate};
use super::{Definitions, FileError, PlanFile, SavedStep, Unwanted, place};
use crate::model::{
    Address, Desired, DesiredSandbox, Listing, Observed, ObservedService, Program, SandboxName,
    ServiceAddress, ServiceGoal, ServiceSpec,
};

/// Stands for a platform that a sandbox is wanted on and is not; no platform has this name.
const ELSEWHERE: &str = "";

impl PlanFile {
    /// The plan, fit to be carried out on `observed`, which has to be as it was when the plan was
    /// made (see [`PlanFile::stale`]).
    pub fn rebuild(
        &self,
        definitions: &Definitions,
        observed: &Observed,
    ) -> Result<Plan, FileError> {
        let desired = self.outcome(definitions, observed)?;
        let world = World::new(&desired, observed);
        let verdicts = self.verdicts(&world)?;
        let plan = order::order(&world, verdicts);
        let mut plan = plan.map_err(|error| FileError::Unsound(error.to_string()))?;
        self.same_steps(&plan)?;
        self.starts_have_their_definition(definitions, observed)?;
        simulate::run(&desired, observed, &plan).map_err(FileError::Unsound)?;
        plan.platforms.retain(|name| name != ELSEWHERE);
        plan.sandboxes = self.summary.sandboxes;
        plan.services = self.summary.services;
        plan.unchanged = self.summary.unchanged;
        Ok(plan)
    }

    /// What is there once the plan is done: what is found, without what it deletes, with the
    /// definitions that it brings.
    fn outcome(
        &self,
        definitions: &Definitions,
        observed: &Observed,
    ) -> Result<Desired, FileError> {
        let mut desired = Desired::empty(self.stack.clone());
        let deletes = self.actions.iter().filter(|it| it.kind == StepKind::Delete);
        let deleted: BTreeSet<&Address> = deletes.map(|it| &it.address).collect();
        for (name, listing) in &observed.sandboxes {
            let Listing::Known(found) = listing else {
                continue;
            };
            let sandbox = Address::Sandbox(name.clone());
            let aside = self.unwanted.get(&sandbox);
            if deleted.contains(&sandbox) || aside == Some(&Unwanted::Absent) {
                continue;
            }
            let mut own = Arc::clone(&found.spec);
            if aside == Some(&Unwanted::Moved) {
                Arc::make_mut(&mut own).platform = ELSEWHERE.to_owned();
            }
            let kept = found.services.iter().filter_map(|(service, found)| {
                let address = ServiceAddress::new(name.clone(), service.clone());
                let address = Address::Service(address);
                // A definition that cannot be read is there all the same, and can be needed.
                let unreadable = || {
                    let command = String::new();
                    Arc::new(ServiceSpec::new(Program::Shell { command }))
                };
                let mut spec = found.spec().map_or_else(unreadable, Arc::clone);
                match self.unwanted.get(&address) {
                    Some(Unwanted::Absent) => return None,
                    Some(Unwanted::Stopped) => {
                        Arc::make_mut(&mut spec).state = ServiceGoal::Stopped;
                    }
                    Some(Unwanted::Moved) | None => {}
                }
                (!deleted.contains(&address)).then(|| (service.clone(), spec))
            });
            let wanted = DesiredSandbox {
                spec: own,
                services: kept.collect(),
                watch: BTreeMap::new(),
            };
            desired.sandboxes.insert(name.clone(), wanted);
        }
        let contradiction = |address: Address, why: &str| FileError::Step {
            id: address.to_string(),
            why: why.to_owned(),
        };
        for (name, spec) in &definitions.sandboxes {
            let address = Address::Sandbox(name.clone());
            if deleted.contains(&address) {
                return Err(contradiction(address, "it is both defined and deleted"));
            }
            place(&mut desired, name, spec);
        }
        for (service, spec) in &definitions.services {
            let address = Address::Service(service.clone());
            if deleted.contains(&address) {
                return Err(contradiction(address, "it is both defined and deleted"));
            }
            let Some(sandbox) = desired.sandboxes.get_mut(&service.sandbox) else {
                return Err(contradiction(address, "its sandbox is not there"));
            };
            let spec = Arc::clone(spec);
            sandbox.services.insert(service.service.clone(), spec);
        }
        Ok(desired)
    }

    fn verdicts(&self, world: &World<'_>) -> Result<Verdicts, FileError> {
        let mut verdicts = Verdicts::quiet(world);
        for (at, place) in world.places.iter().enumerate() {
            let protected = place.known().is_some_and(|it| it.spec.protect);
            verdicts.places[at].frozen = matches!(place.found, Found::Unknown(_))
                || match self.unwanted.get(&place.address()) {
                    Some(Unwanted::Moved) => true,
                    Some(Unwanted::Absent) => protected,
                    Some(Unwanted::Stopped) | None => false,
                };
        }
        let creates = self.actions.iter().filter(|it| it.kind == StepKind::Create);
        let created = creates.map(|it| it.address.sandbox()).collect();
        for step in &self.actions {
            let refused = |why: &str| FileError::Step {
                id: step.id(),
                why: why.to_owned(),
            };
            let missing = || refused("it is neither there nor defined in the file");
            let at = world.place(step.address.sandbox()).ok_or_else(missing)?;
            if let Found::Unknown(reason) = world.places[at].found {
                return Err(refused(&format!("the sandbox cannot be read: {reason}")));
            }
            let slot = match &step.address {
                Address::Sandbox(name) => {
                    Self::allowed(&world.places[at], &created, name, step)?;
                    of_place(&mut verdicts.places[at], step.kind)
                }
                Address::Service(service) => {
                    let unit = world.unit(service).ok_or_else(missing)?;
                    of_unit(&mut verdicts.units[unit], step.kind)
                }
            };
            let slot = slot.ok_or_else(|| refused("this is not done to such an address"))?;
            if slot.replace(step.cause.clone()).is_some() {
                return Err(refused("it is in the file twice"));
            }
        }
        Ok(verdicts)
    }

    /// What no plan does to a sandbox, and simulation does not look at.
    fn allowed(
        place: &Place<'_>,
        created: &BTreeSet<&SandboxName>,
        name: &SandboxName,
        step: &SavedStep,
    ) -> Result<(), FileError> {
        let why = match (place.known(), place.wanted) {
            (Some(_), _) if step.kind == StepKind::Create => "it is there already",
            (Some(found), _) if step.kind == StepKind::Delete && found.spec.protect => {
                "it is protected"
            }
            (Some(found), Some(wanted)) if found.spec.platform != wanted.spec.platform => {
                "it is on another platform"
            }
            (None, _) if !created.contains(name) => "it is not there",
            _ => return Ok(()),
        };
        Err(FileError::Step {
            id: format!("{name}:{}", step.kind),
            why: why.to_owned(),
        })
    }

    /// Every step of the file, and no other, is in the plan that came of them.
    fn same_steps(&self, plan: &Plan) -> Result<(), FileError> {
        let rebuilt: BTreeSet<String> = plan.actions.iter().map(Action::id).collect();
        let saved: BTreeSet<String> = self.actions.iter().map(SavedStep::id).collect();
        match saved.symmetric_difference(&rebuilt).next() {
            None => Ok(()),
            Some(id) => Err(FileError::Step {
                id: id.clone(),
                why: "it does not fit its definition".to_owned(),
            }),
        }
    }

    /// A service that is started without a new definition is started with the one it has.
    fn starts_have_their_definition(
        &self,
        definitions: &Definitions,
        observed: &Observed,
    ) -> Result<(), FileError> {
        let launches = self.actions.iter().filter(|it| {
            it.address.service().is_some() && matches!(it.kind, StepKind::Start | StepKind::Run)
        });
        let upserted: BTreeSet<&Address> = self
            .actions
            .iter()
            .filter(|it| it.kind == StepKind::Upsert)
            .map(|it| &it.address)
            .collect();
        for step in launches.filter(|it| !upserted.contains(&it.address)) {
            let Address::Service(service) = &step.address else {
                continue;
            };
            let found = observed
                .known(&service.sandbox)
                .and_then(|it| it.services.get(&service.service))
                .and_then(ObservedService::spec);
            if found.is_none() || found != definitions.services.get(service) {
                return Err(FileError::Step {
                    id: step.id(),
                    why: "its definition is not the one that is there".to_owned(),
                });
            }
        }
        Ok(())
    }
}

fn of_place(verdict: &mut PlaceVerdict, kind: StepKind) -> Option<&mut Option<Cause>> {
    match kind {
        StepKind::Create => Some(&mut verdict.create),
        StepKind::Update => Some(&mut verdict.update),
        StepKind::Start => Some(&mut verdict.start),
        StepKind::Stop => Some(&mut verdict.stop),
        StepKind::Delete => Some(&mut verdict.delete),
        StepKind::Upsert | StepKind::Run => None,
    }
}

fn of_unit(verdict: &mut Verdict, kind: StepKind) -> Option<&mut Option<Cause>> {
    match kind {
        StepKind::Upsert => Some(&mut verdict.upsert),
        StepKind::Start | StepKind::Run => Some(&mut verdict.start),
        StepKind::Stop => Some(&mut verdict.stop),
        StepKind::Delete => Some(&mut verdict.delete),
        StepKind::Create | StepKind::Update => None,
    }
}
