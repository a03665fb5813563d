//! Every sandbox and service by name, left-out and broken ones included, so that a reference can
//! be checked and a mistyped one be told from one that is merely left out.

use std::collections::{BTreeSet, HashMap};

use super::field::{Key, List};
use super::types::{Manifest, Sandbox, Service};
use crate::model::{SandboxGoal, ServiceGoal, ServiceKind};

/// All names of a manifest.
pub(super) struct Index<'m> {
    /// In the order of the manifest.
    pub homes: Vec<Home<'m>>,
    by_name: HashMap<&'m str, usize>,
    by_service: HashMap<&'m str, usize>,
}

/// A sandbox.
pub(super) struct Home<'m> {
    pub key: &'m Key,
    /// `None` if it is broken, which has been said.
    pub sandbox: Option<&'m Sandbox>,
    /// None of its profiles is selected.
    pub left_out: Option<String>,
    pub stopped: bool,
    pub services: Vec<Entry<'m>>,
    by_name: HashMap<&'m str, usize>,
}

/// A service.
pub(super) struct Entry<'m> {
    pub key: &'m Key,
    /// `None` if it is broken, which has been said.
    pub service: Option<&'m Service>,
    /// Its profiles, if none of them is selected.
    pub left_out: Option<String>,
    pub stopped: bool,
    pub task: bool,
}

/// What stands for `name:` with nothing after it.
#[derive(Default)]
pub(super) struct Empty {
    sandbox: Sandbox,
    service: Service,
}

impl<'m> Index<'m> {
    pub fn new(manifest: &'m Manifest, profiles: &BTreeSet<String>, empty: &'m Empty) -> Self {
        let mut index = Self {
            homes: Vec::new(),
            by_name: HashMap::new(),
            by_service: HashMap::new(),
        };
        for (key, field) in manifest.sandboxes.value.iter().flat_map(|dict| &dict.0) {
            let number = index.homes.len();
            let sandbox = field
                .value
                .as_ref()
                .or((!field.bad).then_some(&empty.sandbox));
            let home = Home::new(key, sandbox, profiles, empty);
            for service in &home.services {
                index.by_service.entry(&service.key.name).or_insert(number);
            }
            index.by_name.insert(&key.name, number);
            index.homes.push(home);
        }
        index
    }

    pub fn home(&self, name: &str) -> Option<(usize, &Home<'m>)> {
        let number = *self.by_name.get(name)?;
        Some((number, &self.homes[number]))
    }

    /// The first sandbox with a service of this name.
    pub fn hosting(&self, service: &str) -> Option<&Home<'m>> {
        self.by_service
            .get(service)
            .map(|number| &self.homes[*number])
    }

    pub fn service_names(&self) -> impl Iterator<Item = &'m str> + '_ {
        self.by_service.keys().copied()
    }
}

impl<'m> Home<'m> {
    fn new(
        key: &'m Key,
        sandbox: Option<&'m Sandbox>,
        profiles: &BTreeSet<String>,
        empty: &'m Empty,
    ) -> Self {
        let mut home = Self {
            key,
            sandbox,
            left_out: None,
            stopped: false,
            services: Vec::new(),
            by_name: HashMap::new(),
        };
        let Some(sandbox) = sandbox else { return home };
        home.left_out = left_out(sandbox.profiles.value.as_ref(), profiles);
        home.stopped = sandbox.state.value == Some(SandboxGoal::Stopped);
        for (key, field) in sandbox.services.value.iter().flat_map(|dict| &dict.0) {
            let service = field
                .value
                .as_deref()
                .or((!field.bad).then_some(&empty.service));
            home.by_name.insert(&key.name, home.services.len());
            home.services.push(Entry {
                key,
                service,
                left_out: service
                    .and_then(|service| left_out(service.profiles.value.as_ref(), profiles)),
                stopped: service.is_some_and(|s| s.state.value == Some(ServiceGoal::Stopped)),
                task: service.is_some_and(|s| s.kind.value == Some(ServiceKind::Task)),
            });
        }
        home
    }

    pub fn name(&self) -> &'m str {
        &self.key.name
    }

    pub fn entry(&self, name: &str) -> Option<(usize, &Entry<'m>)> {
        let number = *self.by_name.get(name)?;
        Some((number, &self.services[number]))
    }
}

/// The profiles, as a list for people, if there are some and none is selected.
fn left_out(profiles: Option<&List<String>>, selected: &BTreeSet<String>) -> Option<String> {
    let names: Vec<_> = profiles?
        .0
        .iter()
        .filter_map(|field| field.value.as_deref())
        .collect();
    let out = !names.is_empty() && !names.iter().any(|name| selected.contains(*name));
    out.then(|| names.join(", "))
}
