//! What happened to services between two looks, without our doing.

use std::time::Duration;

use crate::model::{
    Address, Listing, Observed, ObservedService, ServiceAddress, ServiceGoal, ServiceState,
    show_duration,
};

/// The changes worth a line: services that died and are back, died, or are gone.
pub fn between(before: &Observed, after: &Observed) -> Vec<(Address, String)> {
    let mut found = Vec::new();
    for (name, listing) in &before.sandboxes {
        let Listing::Known(before) = listing else {
            continue;
        };
        let Some(after) = after.known(name) else {
            if !after.sandboxes.contains_key(name) {
                found.push(drift(
                    Address::Sandbox(name.clone()),
                    "was removed from outside",
                ));
            }
            continue;
        };
        if before.supervisor_pid.is_some() && after.supervisor_pid.is_none() {
            found.push(drift(Address::Sandbox(name.clone()), "went down"));
            continue;
        }
        for (service, was) in &before.services {
            let address = ServiceAddress::new(name.clone(), service.clone());
            match after.services.get(service) {
                None => found.push(drift(address.into(), "was removed from outside")),
                Some(is) => {
                    if let Some(text) = change(was, is) {
                        found.push(drift(address.into(), &text));
                    }
                }
            }
        }
    }
    found
}

fn drift(address: Address, found: &str) -> (Address, String) {
    (address, found.to_owned())
}

fn change(was: &ObservedService, is: &ObservedService) -> Option<String> {
    if was.state.is_up() && is.goal == ServiceGoal::Stopped && was.goal != is.goal {
        return Some("was stopped from outside".to_owned());
    }
    let exit = is
        .last_exit
        .as_ref()
        .filter(|exit| was.last_exit.as_ref() != Some(*exit));
    if let Some(exit) = exit {
        let how = match &exit.signal {
            Some(signal) => format!("was killed (signal {signal})"),
            None => format!("exited with {}", exit.code),
        };
        let again = is
            .started_at
            .filter(|started| *started >= exit.at && is.state.is_up());
        return Some(match again {
            Some(started) => {
                let gap = Duration::try_from(started.duration_since(exit.at)).unwrap_or_default();
                let why = is.message.as_ref();
                let why = why.map_or_else(String::new, |why| format!(" ({why})"));
                format!("{how}: running again after {}{why}", show_duration(gap))
            }
            None if was.state.is_up() => format!("{how}: {}", is.state.word()),
            None => return None,
        });
    }
    match (was.state, is.state) {
        (ServiceState::Running, ServiceState::Unhealthy) => {
            let why = is.message.as_deref().unwrap_or("its health check fails");
            Some(format!("is no longer healthy: {why}"))
        }
        (ServiceState::Unhealthy, ServiceState::Running) => Some("is healthy again".to_owned()),
        _ => None,
    }
}
