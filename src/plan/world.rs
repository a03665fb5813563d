//! What is wanted and what is, side by side: every sandbox and service once, in order of address,
//! reachable by number.

use std::cell::OnceCell;
use std::collections::{BTreeMap, HashMap};
use std::ops::Range;
use std::sync::Arc;

use crate::model::{
    Address, Condition, Definition, Desired, DesiredSandbox, Listing, Need, NeedTarget, Observed,
    ObservedSandbox, ObservedService, Reference, SandboxGoal, SandboxName, SandboxState,
    ServiceAddress, ServiceGoal, ServiceKind, ServiceName, ServiceSpec, ServiceState, Taken, Url,
};

/// One sandbox, wanted, found or both.
pub(super) struct Place<'a> {
    pub name: &'a SandboxName,
    pub wanted: Option<&'a DesiredSandbox>,
    pub found: Found<'a>,
    /// What its platform cannot change of it, though that is wanted.
    pub stuck: Vec<&'static str>,
    /// What somebody else has attached where it is to have its own.
    pub taken: &'a [Taken],
    pub units: Range<usize>,
}

/// What a listing says of a sandbox.
#[derive(Clone, Copy)]
pub(super) enum Found<'a> {
    Absent,
    Unknown(&'a str),
    Known(&'a ObservedSandbox),
}

impl<'a> Place<'a> {
    pub fn known(&self) -> Option<&'a ObservedSandbox> {
        match self.found {
            Found::Known(sandbox) => Some(sandbox),
            _ => None,
        }
    }

    /// Whether it was found up.
    pub fn is_up(&self) -> bool {
        self.known()
            .is_some_and(|it| it.state == SandboxState::Running)
    }

    /// Whether the manifest wants it up.
    pub fn wanted_up(&self) -> bool {
        self.wanted
            .is_some_and(|it| it.spec.state == SandboxGoal::Running)
    }

    pub fn address(&self) -> Address {
        Address::Sandbox(self.name.clone())
    }
}

/// One service, wanted, found or both.
pub(super) struct Unit<'a> {
    pub place: usize,
    pub name: &'a ServiceName,
    pub wanted: Option<&'a Arc<ServiceSpec>>,
    pub found: Option<&'a ObservedService>,
    /// The state found, where a sandbox that is down has nothing up. `None`: absent or not readable.
    pub state: Option<ServiceState>,
}

/// How the definition found compares with the one wanted.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Difference {
    /// Not wanted, or not there.
    NotBoth,
    /// The same.
    Same,
    /// Different, in fields that a live process need not notice.
    InPlace,
    /// Different, in fields that need another process.
    Process,
    /// The definition that is there cannot be read.
    Unknown,
}

impl<'a> Unit<'a> {
    /// Whether a process is up.
    pub fn is_up(&self) -> bool {
        self.state.is_some_and(ServiceState::is_up)
    }

    /// Whether a process is up, may be up, or will be up again by itself.
    pub fn is_live(&self) -> bool {
        use ServiceState::{BackingOff, Unknown};
        self.is_up() || matches!(self.state, Some(BackingOff | Unknown))
    }

    pub fn difference(&self) -> Difference {
        let (Some(new), Some(found)) = (self.wanted, self.found) else {
            return Difference::NotBoth;
        };
        match &found.definition {
            Definition::Unknown => Difference::Unknown,
            Definition::Echo(old) | Definition::Fixed(old) if Arc::ptr_eq(new, old) => {
                Difference::Same
            }
            Definition::Echo(old) | Definition::Fixed(old) if new == old => Difference::Same,
            Definition::Echo(old) if !old.needs_new_process(new) => Difference::InPlace,
            Definition::Echo(_) | Definition::Fixed(_) => Difference::Process,
        }
    }

    /// Whether the wanted definition is a new one, of which a part is known only later.
    pub fn awaits_urls(&self) -> bool {
        let waits = self.wanted.is_some_and(|spec| !spec.references.is_empty());
        waits && self.difference() != Difference::Same
    }

    /// The definition it will have: the wanted one, or else the one found.
    pub fn spec(&self) -> Option<&'a Arc<ServiceSpec>> {
        self.wanted
            .or_else(|| self.found.and_then(ObservedService::spec))
    }

    /// The definition found.
    pub fn old_spec(&self) -> Option<&'a Arc<ServiceSpec>> {
        self.found.and_then(ObservedService::spec)
    }

    pub fn is_task(&self) -> bool {
        self.spec()
            .is_some_and(|spec| spec.kind == ServiceKind::Task)
    }

    /// Whether the manifest wants it running (or completed).
    pub fn wanted_up(&self) -> bool {
        self.wanted
            .is_some_and(|spec| spec.state == ServiceGoal::Running)
    }

    /// Whether it has come as far as `condition` asks, as found.
    pub fn meets(&self, condition: Condition) -> bool {
        use ServiceState::{Completed, Running, Starting, Unhealthy};
        let stale = self.found.is_some_and(|found| found.stale);
        let is_task = self
            .old_spec()
            .is_some_and(|spec| spec.kind == ServiceKind::Task);
        match self.state {
            Some(Completed) => {
                let other = matches!(self.difference(), Difference::Process | Difference::Unknown);
                is_task && !stale && !other
            }
            Some(_) if is_task && condition != Condition::Started => false,
            Some(Starting | Unhealthy) => condition == Condition::Started,
            Some(Running) => true,
            _ => false,
        }
    }
}

/// One effective need of a service.
pub(super) struct Link {
    pub to: Target,
    pub condition: Condition,
    pub hard: bool,
}

/// What a need points at.
pub(super) enum Target {
    Unit(usize),
    /// A sandbox without services: it has to be up.
    Place(usize),
    /// Nothing that is wanted.
    Missing(String),
}

/// Both sides, joined.
pub(super) struct World<'a> {
    pub desired: &'a Desired,
    pub places: Vec<Place<'a>>,
    pub units: Vec<Unit<'a>>,
    /// The URLs that were observed.
    pub urls: &'a BTreeMap<Reference, Url>,
    index: HashMap<&'a str, usize>,
    links: Vec<OnceCell<Vec<Link>>>,
    old_links: Vec<OnceCell<Vec<(usize, bool)>>>,
}

impl<'a> World<'a> {
    pub fn new(desired: &'a Desired, observed: &'a Observed) -> Self {
        let mut world = Self {
            desired,
            urls: &observed.urls,
            places: Vec::new(),
            units: Vec::new(),
            index: HashMap::new(),
            links: Vec::new(),
            old_links: Vec::new(),
        };
        for (name, wanted, listing) in join(&desired.sandboxes, &observed.sandboxes) {
            let fixed = observed.fixed.get(name).map_or(&[][..], Vec::as_slice);
            let taken = observed.taken.get(name).map_or(&[][..], Vec::as_slice);
            world.add_place(name, wanted, listing, fixed, taken);
        }
        world.links.resize_with(world.units.len(), OnceCell::new);
        world
            .old_links
            .resize_with(world.units.len(), OnceCell::new);
        world
    }

    fn add_place(
        &mut self,
        name: &'a SandboxName,
        wanted: Option<&'a DesiredSandbox>,
        listing: Option<&'a Listing>,
        fixed: &[&'static str],
        taken: &'a [Taken],
    ) {
        let found = match listing {
            None => Found::Absent,
            Some(Listing::Unknown { reason }) => Found::Unknown(reason),
            Some(Listing::Known(sandbox)) => Found::Known(sandbox),
        };
        let place = self.places.len();
        let first = self.units.len();
        let up = matches!(found, Found::Known(it) if it.state == SandboxState::Running);
        let pairs = optional_join(
            wanted.map(|wanted| &wanted.services),
            match found {
                Found::Known(sandbox) => Some(&sandbox.services),
                _ => None,
            },
        );
        for (name, wanted, found) in pairs {
            let state = found.map(|found| at_rest_if(found.state, !up));
            self.units.push(Unit {
                place,
                name,
                wanted,
                found,
                state,
            });
        }
        self.index.insert(name.as_str(), place);
        let stuck = match (wanted, found) {
            (Some(wanted), Found::Known(found)) if found.spec_known => {
                wanted.spec.differing(&found.spec, fixed)
            }
            _ => Vec::new(),
        };
        self.places.push(Place {
            name,
            wanted,
            found,
            stuck,
            taken,
            units: first..self.units.len(),
        });
    }

    pub fn place_of(&self, unit: usize) -> &Place<'a> {
        &self.places[self.units[unit].place]
    }

    pub fn place(&self, name: &SandboxName) -> Option<usize> {
        self.index.get(name.as_str()).copied()
    }

    pub fn unit(&self, address: &ServiceAddress) -> Option<usize> {
        let range = self.places[self.place(&address.sandbox)?].units.clone();
        let found =
            self.units[range.clone()].binary_search_by(|unit| unit.name.cmp(&address.service));
        found.ok().map(|at| range.start + at)
    }

    pub fn address(&self, unit: usize) -> ServiceAddress {
        let unit = &self.units[unit];
        ServiceAddress::new(self.places[unit.place].name.clone(), unit.name.clone())
    }

    /// What the wanted definition of a service, and of its sandbox, needs.
    pub fn links(&self, unit: usize) -> &[Link] {
        self.links[unit].get_or_init(|| self.read_links(unit))
    }

    fn read_links(&self, unit: usize) -> Vec<Link> {
        let place = self.place_of(unit);
        let mut links = Vec::new();
        if let Some(spec) = self.units[unit].wanted {
            spec.needs
                .iter()
                .for_each(|need| self.resolve(unit, need, &mut links));
        }
        if let Some(sandbox) = place.wanted {
            for need in &sandbox.spec.needs {
                if !self.is_inward(need, place.name) {
                    self.resolve(unit, need, &mut links);
                }
            }
        }
        links
    }

    /// Whether a sandbox's need points into that sandbox, where it can mean nothing.
    fn is_inward(&self, need: &Need, home: &SandboxName) -> bool {
        match &need.target {
            NeedTarget::Local(_) => true,
            NeedTarget::Remote(address) => address.sandbox == *home,
            NeedTarget::Sandbox(sandbox) => sandbox == home,
        }
    }

    fn resolve(&self, unit: usize, need: &Need, links: &mut Vec<Link>) {
        let mut push = |to, condition| {
            links.push(Link {
                to,
                condition,
                hard: need.restart,
            })
        };
        let missing = || Target::Missing(need.target.to_string());
        if let NeedTarget::Sandbox(name) = &need.target {
            let Some(place) = self
                .place(name)
                .filter(|at| self.places[*at].wanted.is_some())
            else {
                return push(missing(), need.condition);
            };
            let range = self.places[place].units.clone();
            let wanted = range.filter(|at| self.units[*at].wanted.is_some());
            let mut any = false;
            for at in wanted {
                any = true;
                if self.units[at].wanted_up() {
                    push(Target::Unit(at), need.condition);
                }
            }
            if !any {
                push(Target::Place(place), need.condition);
            }
            return;
        }
        let home = self.place_of(unit).name;
        let found = need
            .target
            .resolve(home)
            .and_then(|address| self.unit(&address));
        match found.filter(|at| self.units[*at].wanted.is_some()) {
            Some(at) => push(Target::Unit(at), need.condition),
            None => push(missing(), need.condition),
        }
    }

    /// What the definition found needs, with whether it is a hard need. May be cyclic; what it
    /// names and does not exist is left out.
    pub fn old_links(&self, unit: usize) -> &[(usize, bool)] {
        self.old_links[unit].get_or_init(|| {
            let place = self.place_of(unit);
            let own = self.units[unit].old_spec().map(|spec| &spec.needs[..]);
            let sandbox = place.known().map(|it| &it.spec.needs[..]);
            let mut links = Vec::new();
            for need in own.into_iter().flatten() {
                let address = need.target.resolve(place.name);
                links.extend(
                    address
                        .and_then(|it| self.unit(&it))
                        .map(|at| (at, need.restart)),
                );
            }
            for need in sandbox.into_iter().flatten() {
                if self.is_inward(need, place.name) {
                    continue;
                }
                if let NeedTarget::Sandbox(name) = &need.target {
                    let range = self.place(name).map(|at| self.places[at].units.clone());
                    let live = range
                        .into_iter()
                        .flatten()
                        .filter(|at| self.units[*at].is_live());
                    // A service that is no longer wanted is not what is needed with `restart`.
                    let hard = |at: usize| need.restart && self.units[at].wanted_up();
                    links.extend(live.map(|at| (at, hard(at))));
                } else {
                    let address = need.target.resolve(place.name);
                    links.extend(
                        address
                            .and_then(|it| self.unit(&it))
                            .map(|at| (at, need.restart)),
                    );
                }
            }
            links.retain(|(at, _)| *at != unit);
            links
        })
    }

    /// The services that the wanted definition needs with `restart: true`.
    pub fn hard_links(&self, unit: usize) -> impl Iterator<Item = usize> + '_ {
        self.links(unit)
            .iter()
            .filter_map(move |link| match link.to {
                Target::Unit(at) if link.hard && at != unit => Some(at),
                _ => None,
            })
    }
}

/// In a sandbox that is down nothing is up, whatever a listing says.
pub(super) fn at_rest_if(state: ServiceState, down: bool) -> ServiceState {
    use ServiceState::{BackingOff, Stopped, Unknown};
    if down && (state.is_up() || matches!(state, BackingOff | Unknown)) {
        Stopped
    } else {
        state
    }
}

/// Both maps in one pass, in order of key.
fn join<'a, K: Ord, A, B>(
    left: &'a BTreeMap<K, A>,
    right: &'a BTreeMap<K, B>,
) -> impl Iterator<Item = (&'a K, Option<&'a A>, Option<&'a B>)> {
    optional_join(Some(left), Some(right))
}

/// As [`join`]; a missing map is an empty one.
fn optional_join<'a, K: Ord, A, B>(
    left: Option<&'a BTreeMap<K, A>>,
    right: Option<&'a BTreeMap<K, B>>,
) -> impl Iterator<Item = (&'a K, Option<&'a A>, Option<&'a B>)> {
    let mut left = left.into_iter().flatten().peekable();
    let mut right = right.into_iter().flatten().peekable();
    std::iter::from_fn(move || {
        let order = match (left.peek(), right.peek()) {
            (None, None) => return None,
            (Some(_), None) => std::cmp::Ordering::Less,
            (None, Some(_)) => std::cmp::Ordering::Greater,
            (Some((a, _)), Some((b, _))) => a.cmp(b),
        };
        let a = if order.is_le() { left.next() } else { None };
        let b = if order.is_ge() { right.next() } else { None };
        let key = a.map(|(key, _)| key).or_else(|| b.map(|(key, _)| key))?;
        Some((key, a.map(|(_, value)| value), b.map(|(_, value)| value)))
    })
}
