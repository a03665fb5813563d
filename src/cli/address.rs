//! Addresses as arguments: `sandbox` or `sandbox/service`, completed from the manifest.

use clap_complete::engine::{ArgValueCompleter, CompletionCandidate};

use super::error::{Error, Result};
use crate::model::{Address, Desired, Observed};

/// An address on the command line.
pub type AddressArg = Address;

/// Checks that each address names something wanted or something there.
pub fn resolve(
    given: &[AddressArg],
    desired: &Desired,
    observed: &Observed,
) -> Result<Vec<Address>> {
    for address in given {
        let wanted = desired.sandboxes.get(address.sandbox());
        let there = observed.known(address.sandbox());
        let known = match address.service() {
            None => wanted.is_some() || observed.sandboxes.contains_key(address.sandbox()),
            Some(service) => {
                wanted.is_some_and(|sandbox| sandbox.services.contains_key(service))
                    || there.is_some_and(|sandbox| sandbox.services.contains_key(service))
            }
        };
        if !known {
            return Err(unknown(address, desired));
        }
    }
    Ok(given.to_vec())
}

fn unknown(address: &Address, desired: &Desired) -> Error {
    let names = names(desired);
    let candidates: Vec<&str> = names.iter().map(String::as_str).collect();
    let text = address.to_string();
    let tail = format!("/{text}");
    let close = match candidates.iter().find(|name| name.ends_with(&tail)) {
        Some(name) => Some(*name),
        None => similar::get_close_matches(text.as_str(), &candidates, 1, 0.6)
            .first()
            .copied(),
    };
    Error::Usage {
        message: format!("there is no `{address}` in stack `{}`", desired.stack),
        hint: close.map(|name| format!("did you mean `{name}`?")),
    }
}

fn names(desired: &Desired) -> Vec<String> {
    let sandboxes = desired.sandboxes.keys().map(ToString::to_string);
    sandboxes
        .chain(desired.services().map(|(address, _)| address.to_string()))
        .collect()
}

/// Completes addresses from the manifest that the current folder would use.
pub fn completer() -> ArgValueCompleter {
    complete_with(names)
}

fn complete_with(names: fn(&Desired) -> Vec<String>) -> ArgValueCompleter {
    ArgValueCompleter::new(move |current: &std::ffi::OsStr| {
        let prefix = current.to_str().unwrap_or_default();
        let names = super::completions::manifest_here().map(|desired| names(&desired));
        let names = names.unwrap_or_default().into_iter();
        names
            .filter(|name| name.starts_with(prefix))
            .map(CompletionCandidate::new)
            .collect()
    })
}
