//! The URLs that definitions name: those that were observed are put in, so that a definition with one is
//! compared as the platform holds it; the others stay references, and are known once the plan is carried
//! out so far.

use std::borrow::Cow;
use std::sync::Arc;

use super::decide::Verdicts;
use super::world::World;
use crate::model::{Desired, Observed, Reference, SandboxState, ServiceAddress, ServiceSpec, Url};

/// `desired` with every URL put in that was observed.
pub(super) fn resolve<'d>(desired: &'d Desired, observed: &Observed) -> Cow<'d, Desired> {
    let names_some = |spec: &Arc<ServiceSpec>| !spec.references.is_empty();
    if !desired.services().any(|(_, spec)| names_some(spec)) {
        return Cow::Borrowed(desired);
    }
    let known = |reference: &Reference| match observed.urls.get(reference)? {
        Url::Known(url) => Some(url.clone()),
        Url::Unknown { .. } => None,
    };
    let mut resolved = desired.clone();
    let places = resolved.sandboxes.values_mut();
    for spec in places.flat_map(|place| place.services.values_mut()) {
        if names_some(spec) {
            *spec = Arc::new(spec.resolved(known));
        }
    }
    Cow::Owned(resolved)
}

/// The services whose start tells a URL that the new definition of `unit` names, but for itself.
pub(super) fn tellers<'w>(
    world: &'w World<'_>,
    verdicts: &Verdicts,
    unit: usize,
) -> impl Iterator<Item = usize> + 'w {
    let written = verdicts.units[unit].upsert.is_some();
    let spec = world.units[unit].wanted.filter(|_| written);
    let references = spec.into_iter().flat_map(|spec| spec.references.values());
    let named = references.filter_map(|it| world.unit(&it.service));
    named.filter(move |teller| *teller != unit)
}

/// Why a URL that the new definition of `unit` names will not be known when it is written.
pub(super) fn unknown(
    world: &World<'_>,
    verdicts: &Verdicts,
    blocked: &[bool],
    unit: usize,
) -> Option<String> {
    if !verdicts.writes_references(world, unit) {
        return None;
    }
    let spec = world.units[unit].wanted?;
    let mut references = spec.references.values();
    references.find_map(|reference| {
        let Reference { service, port } = reference;
        if let Some(Url::Unknown { reason }) = world.urls.get(reference) {
            return Some(format!("the URL of {service} cannot be read: {reason}"));
        }
        let Some(teller) = world
            .unit(service)
            .filter(|it| world.units[*it].wanted.is_some())
        else {
            return Some(format!(
                "it names the URL of {service}, which is not in the manifest"
            ));
        };
        let verdict = &verdicts.units[teller];
        let place = &verdicts.places[world.units[teller].place];
        let comes = match teller == unit {
            true => place.create.is_some() || place.start.is_some(),
            false if verdict.start.is_some() => true,
            // A definition that is replaced in place may declare the port.
            false => {
                let stays = world.units[teller].is_up() && !verdicts.goes_down(world, teller);
                stays && verdict.upsert.is_some()
            }
        };
        (!comes || (blocked[teller] && teller != unit)).then(|| {
            let is_up = world.units[teller].is_up() && !verdicts.goes_down(world, teller);
            let why = match is_up {
                true => format!("its port {port} is not exposed"),
                false => "it is not started".to_owned(),
            };
            format!("it names the URL of {service}, which has none: {why}")
        })
    })
}

/// Whether what a definition names could be known in a simulated state.
pub(super) fn are_told(
    now: &Observed,
    address: &ServiceAddress,
    spec: &ServiceSpec,
) -> Result<(), String> {
    let is_told = |reference: &&Reference| {
        let service = &reference.service;
        let sandbox = now.known(&service.sandbox);
        let sandbox = sandbox.filter(|it| it.state == SandboxState::Running);
        let found = sandbox.and_then(|it| it.services.get(&service.service));
        service == address || found.is_some_and(|it| it.state.is_up())
    };
    match spec.references.values().find(|it| !is_told(it)) {
        None => Ok(()),
        Some(early) => Err(format!("the URL of {} is not known yet", early.service)),
    }
}
