//! What was observed, in short, and what of it is different now.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha2::{Digest, Sha256};

use super::super::world::at_rest_if;
use super::{Definitions, PlanFile, without_digests};
use crate::model::{
    Address, Listing, Observed, ObservedService, SandboxState, ServiceAddress, Url,
};

/// What was found at one address: as much as a plan depends on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Seen {
    /// The state, in a word; `unreadable` if it could not be read.
    pub state: String,
    /// The live process was started from an older definition.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub stale: bool,
    /// SHA-256 over address, state and definition, in hexadecimal. Secrets are in it by name only.
    pub fingerprint: String,
}

/// Where a service was reached.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct SeenUrl {
    /// The service.
    #[schemars(with = "String")]
    pub service: ServiceAddress,
    /// Its port.
    pub port: u16,
    /// Its URL.
    pub url: String,
}

/// An address that is not as it was when the plan was made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stale {
    /// Where.
    pub address: Address,
    /// What changed, in words: `was running, is stopped`.
    pub how: String,
}

impl fmt::Display for Stale {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.address, self.how)
    }
}

impl Seen {
    fn new(address: &Address, state: &str, stale: bool, definition: Value) -> Self {
        let content = serde_json::json!([address, state, stale, definition]);
        let fingerprint = Sha256::digest(content.to_string());
        Self {
            state: state.to_owned(),
            stale,
            fingerprint: fingerprint.iter().map(|b| format!("{b:02x}")).collect(),
        }
    }
}

/// Everything observed, by address.
pub(super) fn see(observed: &Observed) -> BTreeMap<Address, Seen> {
    let mut seen = BTreeMap::new();
    for (name, listing) in &observed.sandboxes {
        let address = Address::Sandbox(name.clone());
        let sandbox = match listing {
            Listing::Known(sandbox) => sandbox,
            Listing::Unknown { .. } => {
                let it = Seen::new(&address, "unreadable", false, Value::Null);
                seen.insert(address, it);
                continue;
            }
        };
        let down = sandbox.state != SandboxState::Running;
        let state = if down { "stopped" } else { "running" };
        let spec = without_digests(&*sandbox.spec);
        seen.insert(address.clone(), Seen::new(&address, state, false, spec));
        for (service, found) in &sandbox.services {
            let address = Address::Service(ServiceAddress::new(name.clone(), service.clone()));
            let state = at_rest_if(found.state, down).word();
            let spec = found.spec().map(|spec| without_digests(&**spec));
            let it = Seen::new(&address, state, found.stale, spec.unwrap_or_default());
            seen.insert(address, it);
        }
    }
    seen
}

/// Every URL observed, in order of service and port.
pub(super) fn see_urls(observed: &Observed) -> Vec<SeenUrl> {
    let known = observed.urls.iter().filter_map(|(reference, url)| {
        let Url::Known(url) = url else { return None };
        Some(SeenUrl {
            service: reference.service.clone(),
            port: reference.port,
            url: url.clone(),
        })
    });
    known.collect()
}

/// The names in `wanted` whose digest is not the one found at `address`.
pub(super) fn changed_secrets<'a>(
    observed: &Observed,
    address: &Address,
    wanted: &'a BTreeMap<String, String>,
) -> BTreeSet<&'a str> {
    let sandbox = observed.known(address.sandbox());
    let found = match address.service() {
        None => sandbox.map(|it| &it.spec.secrets),
        Some(service) => sandbox
            .and_then(|it| it.services.get(service))
            .and_then(ObservedService::spec)
            .map(|spec| &spec.secrets),
    };
    let changed = wanted.iter().filter(|(name, digest)| {
        let found = found.and_then(|found| found.get(*name));
        found != Some(*digest)
    });
    changed.map(|(name, _)| name.as_str()).collect()
}

impl PlanFile {
    /// What the plan touches and is not as it was when it was made, in order of address. Empty: the
    /// plan is fresh.
    ///
    /// A plan touches what it acts on, the sandboxes around that, and, where it acts on a sandbox,
    /// everything in it. A plan with nothing to do says that all is well, and so touches everything.
    pub fn stale(&self, definitions: &Definitions, observed: &Observed) -> Vec<Stale> {
        let now = see(observed);
        let mut touched: BTreeSet<&Address> = BTreeSet::new();
        let mut whole = BTreeSet::new();
        let mut parts = BTreeSet::new();
        for step in &self.actions {
            touched.insert(&step.address);
            parts.insert(step.address.sandbox());
            if step.address.service().is_none() {
                whole.insert(step.address.sandbox());
            }
        }
        let all = self.observed.keys().chain(now.keys());
        touched.extend(all.filter(|address| match address {
            _ if self.actions.is_empty() => true,
            Address::Sandbox(name) => parts.contains(name),
            Address::Service(service) => whole.contains(&service.sandbox),
        }));
        let mut stale = Vec::new();
        for address in touched {
            let how = difference(self.observed.get(address), now.get(address))
                .or_else(|| self.secret_difference(address, definitions, observed));
            if let Some(how) = how {
                let address = address.clone();
                stale.push(Stale { address, how });
            }
        }
        stale.extend(self.stale_urls(observed));
        stale
    }

    /// The services that are not reached where they were.
    fn stale_urls(&self, observed: &Observed) -> Vec<Stale> {
        let now = see_urls(observed);
        let moved = |url: &&SeenUrl| !now.contains(url);
        let moved = self.urls.iter().filter(moved).map(|then| {
            let same = |it: &&SeenUrl| (&it.service, it.port) == (&then.service, then.port);
            let now = now.iter().find(same);
            let now = now.map_or_else(|| "is not now".to_owned(), |it| format!("is at {}", it.url));
            Stale {
                address: then.service.clone().into(),
                how: format!("was reached at {}, {now}", then.url.escape_debug()),
            }
        });
        moved.collect()
    }

    /// A secret that differs from the one in use now and did not before, or the other way round.
    fn secret_difference(
        &self,
        address: &Address,
        definitions: &Definitions,
        observed: &Observed,
    ) -> Option<String> {
        let wanted = match address {
            Address::Sandbox(name) => definitions.sandboxes.get(name).map(|it| &it.secrets),
            Address::Service(service) => definitions.services.get(service).map(|it| &it.secrets),
        };
        let none = BTreeSet::new();
        let then = self.changed_secrets.get(address).unwrap_or(&none);
        let now = changed_secrets(observed, address, wanted?);
        let mut names = wanted?.keys();
        let name = names.find(|name| then.contains(*name) != now.contains(name.as_str()))?;
        Some(format!("the value of the secret `{name}` changed"))
    }
}

fn difference(then: Option<&Seen>, now: Option<&Seen>) -> Option<String> {
    match (then, now) {
        (None, None) => None,
        (None, Some(_)) => Some("was not there, and is now".to_owned()),
        (Some(_), None) => Some("was there, and is gone".to_owned()),
        (Some(then), Some(now)) if then == now => None,
        (Some(then), Some(now)) if then.state != now.state => {
            let word: String = then
                .state
                .chars()
                .filter(|c| !c.is_control())
                .take(40)
                .collect();
            Some(format!("was {word}, is {}", now.state))
        }
        (Some(then), Some(now)) if then.stale != now.stale => Some(
            if now.stale {
                "runs an older definition than the one it has"
            } else {
                "ran an older definition, and does no longer"
            }
            .to_owned(),
        ),
        _ => Some("its definition changed".to_owned()),
    }
}
