//! What each sandbox and each service needs by itself, before anything that depends on it is
//! looked at.

use super::world::{Difference, Found, Place, Unit, World};
use super::{Cause, Problem};
use crate::model::{Address, SandboxGoal, SandboxName, ServiceGoal, ServiceState, Taken};

/// What is to be done with one service. Stop comes before upsert, upsert before start.
#[derive(Debug, Clone, Default)]
pub(super) struct Verdict {
    pub stop: Option<Cause>,
    pub upsert: Option<Cause>,
    pub start: Option<Cause>,
    pub delete: Option<Cause>,
}

impl Verdict {
    pub fn is_quiet(&self) -> bool {
        self.stop.is_none()
            && self.upsert.is_none()
            && self.start.is_none()
            && self.delete.is_none()
    }
}

/// What is to be done with one sandbox.
#[derive(Debug, Clone, Default)]
pub(super) struct PlaceVerdict {
    pub create: Option<Cause>,
    pub stop: Option<Cause>,
    pub update: Option<Cause>,
    pub start: Option<Cause>,
    pub delete: Option<Cause>,
    /// Nothing in it may be touched.
    pub frozen: bool,
}

impl PlaceVerdict {
    pub fn is_quiet(&self) -> bool {
        let Self {
            create,
            stop,
            update,
            start,
            delete,
            ..
        } = self;
        [create, stop, update, start, delete]
            .into_iter()
            .all(Option::is_none)
    }

    /// Whether what runs in it goes down.
    pub fn goes_down(&self) -> bool {
        self.stop.is_some() || self.delete.is_some()
    }
}

/// What is to be done with everything.
#[derive(Debug, Default)]
pub(super) struct Verdicts {
    pub units: Vec<Verdict>,
    pub places: Vec<PlaceVerdict>,
    pub problems: Vec<Problem>,
}

impl Verdicts {
    /// Nothing to do anywhere.
    pub fn quiet(world: &World<'_>) -> Self {
        Self {
            units: vec![Verdict::default(); world.units.len()],
            places: vec![PlaceVerdict::default(); world.places.len()],
            problems: Vec::new(),
        }
    }

    pub fn is_quiet(&self) -> bool {
        self.units.iter().all(Verdict::is_quiet) && self.places.iter().all(PlaceVerdict::is_quiet)
    }

    pub fn problem(&mut self, address: Address, message: impl Into<String>) {
        self.problems.push(Problem {
            address,
            message: message.into(),
        });
    }

    /// Whether the sandbox of a service goes down while something may be up in it.
    pub fn place_goes_down(&self, world: &World<'_>, unit: usize) -> bool {
        let unit = &world.units[unit];
        unit.is_live() && self.places[unit.place].goes_down()
    }

    /// Whether the process of a service, if it has one, ends.
    pub fn goes_down(&self, world: &World<'_>, unit: usize) -> bool {
        self.units[unit].stop.is_some() || self.place_goes_down(world, unit)
    }

    /// Whether a start only waits for what is up already.
    pub fn is_await(&self, world: &World<'_>, unit: usize) -> bool {
        let verdict = &self.units[unit];
        let up = world.units[unit].is_up();
        verdict.start.is_some() && up && !self.goes_down(world, unit)
    }

    /// Whether a definition is written of which a part is known only then.
    pub fn writes_references(&self, world: &World<'_>, unit: usize) -> bool {
        self.units[unit].upsert.is_some() && world.units[unit].awaits_urls()
    }

    /// Whether it has to be started from nothing.
    pub fn launches(&self, world: &World<'_>, unit: usize) -> bool {
        self.units[unit].start.is_some() && !self.is_await(world, unit)
    }

    /// Stops and starts a service, with its new definition if it has one.
    pub fn restart(&mut self, world: &World<'_>, unit: usize, cause: &Cause, again: bool) {
        let it = &world.units[unit];
        let down_anyway = self.place_goes_down(world, unit);
        let verdict = &mut self.units[unit];
        if !down_anyway {
            verdict.stop = Some(cause.clone());
        }
        if again {
            verdict.start = Some(cause.clone());
            if verdict.upsert.is_none() {
                verdict.upsert = upsert_cause(it);
            }
        }
    }
}

/// Why a service's definition has to be written, if it has to.
pub(super) fn upsert_cause(unit: &Unit<'_>) -> Option<Cause> {
    match unit.difference() {
        Difference::Unknown => Some(Cause::DefinitionUnknown),
        Difference::InPlace | Difference::Process => Some(Cause::DefinitionChanged),
        Difference::NotBoth if unit.found.is_none() => Some(Cause::Added),
        Difference::NotBoth | Difference::Same => None,
    }
}

/// Decides for everything.
pub(super) fn decide(world: &World<'_>, destroy: bool) -> Verdicts {
    let gone = if destroy {
        Cause::Destroyed
    } else {
        Cause::Removed
    };
    let mut verdicts = Verdicts::quiet(world);
    for (at, place) in world.places.iter().enumerate() {
        decide_place(&mut verdicts, at, place, &gone);
        if !verdicts.places[at].frozen {
            for unit in place.units.clone() {
                verdicts.units[unit] =
                    decide_unit(place, &verdicts.places[at], &world.units[unit], &gone);
            }
        }
    }
    verdicts
}

/// Says what is in the way of a sandbox's own, and what to do about it.
fn taken(sandbox: &SandboxName, it: &Taken) -> String {
    let (what, field, unset) = match it {
        Taken::Service { name } => {
            return format!(
                "has a service `{name}` that gabion has not made: give one of the two another name, or remove that \
                 one on the platform, and apply again"
            );
        }
        Taken::File { path } => (
            format!("a file at `{path}`"),
            "files",
            format!("file unset {sandbox} {path}"),
        ),
        Taken::Volume { name, path } => (
            format!("volume `{name}` at `{path}`"),
            "volumes",
            format!("volume unset {sandbox} {name}"),
        ),
    };
    format!(
        "has {what} that gabion has not attached, where `{field}` has another one: take that out of the manifest, or \
         gabion {unset}, and apply again"
    )
}

fn decide_place(verdicts: &mut Verdicts, at: usize, place: &Place<'_>, gone: &Cause) {
    let verdict = &mut verdicts.places[at];
    let problem = match (place.wanted, place.found) {
        (_, Found::Unknown(reason)) => format!("cannot be read: {reason}"),
        (None, Found::Known(found)) if found.spec.protect => {
            "is protected and would be deleted".to_owned()
        }
        (None, Found::Known(_)) => return verdict.delete = Some(gone.clone()),
        (None, Found::Absent) => return,
        (Some(wanted), Found::Absent) => {
            verdict.create = Some(Cause::Added);
            if wanted.spec.state == SandboxGoal::Stopped {
                verdict.stop = Some(Cause::WantedStopped);
            }
            return;
        }
        (Some(wanted), Found::Known(found)) if wanted.spec.platform != found.spec.platform => {
            format!(
                "is on platform `{}` and wanted on `{}`: moving a sandbox to another platform is \
                 not supported yet: destroy it first",
                found.spec.platform, wanted.spec.platform
            )
        }
        (Some(_), Found::Known(found)) if !place.stuck.is_empty() => {
            format!(
                "is there already, and platform `{}` cannot change its `{}`: gabion destroy {}, and \
                 apply again; its files are lost",
                found.spec.platform,
                place.stuck.join("`, `"),
                place.name,
            )
        }
        (Some(_), Found::Known(_)) if !place.taken.is_empty() => {
            let each = place.taken.iter().map(|it| taken(place.name, it));
            each.collect::<Vec<_>>().join("; ")
        }
        (Some(wanted), Found::Known(found)) => {
            let (up, new, old) = (place.is_up(), &wanted.spec, &found.spec);
            let changed = (found.spec_known && new != old).then_some(Cause::DefinitionChanged);
            let restart = up && old.needs_restart(new);
            verdict.update = changed.clone();
            match (new.state, up) {
                (SandboxGoal::Running, false) => verdict.start = Some(Cause::SandboxDown),
                (SandboxGoal::Running, true) if restart => {
                    verdict.stop = changed.clone();
                    verdict.start = changed;
                }
                (SandboxGoal::Stopped, true) => verdict.stop = Some(Cause::WantedStopped),
                _ => {}
            }
            return;
        }
    };
    verdict.frozen = true;
    verdicts.problem(place.address(), problem);
}

fn decide_unit(place: &Place<'_>, at: &PlaceVerdict, unit: &Unit<'_>, gone: &Cause) -> Verdict {
    let mut verdict = Verdict::default();
    if at.delete.is_some() {
        verdict.stop = unit.is_live().then(|| gone.clone());
        return verdict;
    }
    if !place.wanted_up() {
        return verdict;
    }
    let Some(wanted) = unit.wanted else {
        verdict.stop = unit.is_live().then(|| gone.clone());
        verdict.delete = Some(gone.clone());
        return verdict;
    };
    verdict.upsert = upsert_cause(unit);
    let restarts = at.goes_down();
    if wanted.state == ServiceGoal::Stopped {
        verdict.stop = (unit.is_live() && !restarts).then_some(Cause::WantedStopped);
        return verdict;
    }
    let settled = if unit.is_task() {
        settled_task(unit)
    } else {
        settled_service(unit)
    };
    if settled && !(restarts && unit.is_up()) {
        return verdict;
    }
    let cause = start_cause(place, at, unit, verdict.upsert.as_ref());
    if must_stop(unit) && !restarts {
        verdict.stop = Some(cause.clone());
    }
    verdict.start = Some(cause);
    verdict
}

/// Whether what is up has to end before the wanted definition can be started.
fn must_stop(unit: &Unit<'_>) -> bool {
    // What waits for a URL must not come up by itself meanwhile.
    let waits = unit.awaits_urls() && unit.is_live();
    let maybe_up = unit.is_up() || unit.state == Some(ServiceState::Unknown) || waits;
    let stale = unit.found.is_some_and(|found| found.stale);
    unit.state == Some(ServiceState::Stopping)
        || (unit.is_up() && stale)
        || (maybe_up && matches!(unit.difference(), Difference::Process | Difference::Unknown))
}

/// Whether a service runs as it should.
fn settled_service(unit: &Unit<'_>) -> bool {
    use ServiceState::{Running, Unhealthy};
    matches!(unit.state, Some(Running | Unhealthy)) && !must_stop(unit)
}

/// Whether a task has exited 0 with a definition that is as good as the wanted one.
fn settled_task(unit: &Unit<'_>) -> bool {
    let stale = unit.found.is_some_and(|found| found.stale);
    let as_good = matches!(unit.difference(), Difference::Same | Difference::InPlace);
    unit.state == Some(ServiceState::Completed) && as_good && !stale
}

fn start_cause(
    place: &Place<'_>,
    at: &PlaceVerdict,
    unit: &Unit<'_>,
    upsert: Option<&Cause>,
) -> Cause {
    let Some((found, state)) = unit.found.zip(unit.state) else {
        return Cause::Added;
    };
    let replaced = matches!(unit.difference(), Difference::Process | Difference::Unknown);
    if let Some(cause) = upsert.filter(|_| replaced) {
        return cause.clone();
    }
    if at.goes_down() && unit.is_up() {
        return Cause::DependencyRestarted {
            dependency: place.address(),
        };
    }
    if found.stale && (unit.is_up() || state == ServiceState::Completed) {
        return Cause::RunsOldDefinition;
    }
    match state {
        ServiceState::Starting => Cause::NotReady,
        ServiceState::Running | ServiceState::Unhealthy if unit.is_task() => Cause::NotReady,
        _ if unit.is_task() => Cause::NotCompleted,
        ServiceState::Stopped if !place.is_up() => Cause::SandboxDown,
        state => Cause::NotRunning { state },
    }
}
