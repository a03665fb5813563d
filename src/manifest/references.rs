//! `${services.SANDBOX/SERVICE.port}`, `${services.SANDBOX/SERVICE.url}` and `${sandboxes.SANDBOX.url}`:
//! where services are reached, as the manifest itself says.
//!
//! In: the tree, with ports and platforms interpolated. Out: texts, or why there is none.

use std::collections::BTreeMap;

use super::tree::{NodeId, Tree};
use crate::model::Capabilities;

/// What a reference asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wanted<'t> {
    /// `${services.ADDRESS.port}`
    Port(&'t str),
    /// `${services.ADDRESS.url}`
    Url(&'t str),
    /// `${sandboxes.NAME.url}`
    SandboxUrl(&'t str),
}

impl<'t> Wanted<'t> {
    /// Reads what stands between `services.` or `sandboxes.` and the closing brace.
    pub fn parse(sandboxes: bool, body: &'t str) -> Result<Self, &'static str> {
        match (sandboxes, body.rsplit_once('.')) {
            (false, Some((address, "port"))) if address.contains('/') => Ok(Self::Port(address)),
            (false, Some((address, "url"))) if address.contains('/') => Ok(Self::Url(address)),
            (false, _) => {
                Err("a service is written `SANDBOX/SERVICE.port` or `SANDBOX/SERVICE.url`")
            }
            (true, Some((name, "url"))) if !name.contains('/') => Ok(Self::SandboxUrl(name)),
            (true, _) => Err("a sandbox is written `SANDBOX.url`"),
        }
    }
}

/// What is put in, and the service that has to be there for it.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Reached {
    pub text: String,
    pub service: String,
}

/// Where everything of a manifest is reached.
#[derive(Debug, Default)]
pub(super) struct Places {
    sandboxes: BTreeMap<String, Place>,
}

#[derive(Debug)]
struct Place {
    platform: String,
    /// Whether its services are at this machine's own ports.
    here: bool,
    services: BTreeMap<String, Ports>,
}

#[derive(Debug, Default)]
struct Ports {
    first: Option<u16>,
    http: bool,
}

impl Places {
    /// Reads what the tree says.
    pub fn read(tree: &Tree<'_>, root: NodeId, known: &[&'static Capabilities]) -> Self {
        let under = |map: Option<NodeId>, key: &str| tree.get(map?, key);
        let text = |node: Option<NodeId>| tree.text(node?).map(str::to_owned);
        let default = text(under(tree.get(root, "defaults"), "platform"));
        let mut places = Self::default();
        for (key, sandbox) in entries(tree, tree.get(root, "sandboxes")) {
            let written = text(tree.get(sandbox, "platform")).or_else(|| default.clone());
            let platform = written.unwrap_or_else(|| "local".to_owned());
            let entry = under(tree.get(root, "platforms"), &platform);
            let kind = text(under(entry, "kind")).unwrap_or_else(|| platform.clone());
            let here = known.iter().any(|it| it.kind == kind && it.shared_network);
            let services = entries(tree, tree.get(sandbox, "services"));
            let services = services.map(|(name, service)| (name, ports(tree, service)));
            let services = services.collect();
            places.sandboxes.insert(
                key,
                Place {
                    platform,
                    here,
                    services,
                },
            );
        }
        places
    }

    /// What a reference stands for, or why that cannot be told.
    pub fn find(&self, wanted: Wanted<'_>) -> Result<Reached, String> {
        match wanted {
            Wanted::Port(address) => {
                let (_, port) = self.service(address)?;
                Ok(Reached {
                    text: port.to_string(),
                    service: address.to_owned(),
                })
            }
            Wanted::Url(address) => {
                let (place, port) = self.service(address)?;
                place.url(address, port)
            }
            Wanted::SandboxUrl(name) => {
                let place = self.sandbox(name)?;
                let services = || place.services.iter().filter(|(_, it)| it.first.is_some());
                let mut with_ports = services();
                let only = with_ports.next().filter(|_| with_ports.next().is_none());
                let http = services().find(|(_, it)| it.http);
                let (service, ports) = http.or(only).ok_or_else(|| {
                    format!("sandbox `{name}` has no `http_port` that its URL could lead to")
                })?;
                let address = format!("{name}/{service}");
                place.url(&address, ports.first.unwrap_or_default())
            }
        }
    }

    fn sandbox(&self, name: &str) -> Result<&Place, String> {
        let found = self.sandboxes.get(name);
        found.ok_or_else(|| format!("there is no sandbox `{name}`"))
    }

    fn service(&self, address: &str) -> Result<(&Place, u16), String> {
        let (sandbox, service) = address.split_once('/').unwrap_or((address, ""));
        let place = self.sandbox(sandbox)?;
        let ports = place.services.get(service);
        let ports = ports.ok_or_else(|| format!("there is no service `{address}`"))?;
        match ports.first {
            Some(port) => Ok((place, port)),
            None => Err(format!("`{address}` declares no port")),
        }
    }
}

impl Place {
    fn url(&self, address: &str, port: u16) -> Result<Reached, String> {
        match self.here {
            true => Ok(Reached {
                text: format!("http://127.0.0.1:{port}"),
                service: address.to_owned(),
            }),
            false => Err(format!(
                "on platform `{}` the URL of `{address}` is only known once it is there",
                self.platform
            )),
        }
    }
}

fn entries(tree: &Tree<'_>, map: Option<NodeId>) -> impl Iterator<Item = (String, NodeId)> {
    let entries = map
        .map(|map| tree.entries(map).to_vec())
        .unwrap_or_default();
    let named = entries
        .into_iter()
        .filter_map(|(key, value)| Some((tree.text(key)?.to_owned(), value)));
    named.collect::<Vec<_>>().into_iter()
}

/// The parts of a service that say where it is reached.
pub(super) const PARTS: [&str; 4] = ["http_port", "ports", "health_port", "health"];

fn ports(tree: &Tree<'_>, service: NodeId) -> Ports {
    let number = |node: Option<NodeId>| -> Option<u16> { tree.text(node?)?.parse().ok() };
    let http = number(tree.get(service, "http_port"));
    let listed = || {
        let list = tree.get(service, "ports")?;
        // A single port may stand without a list.
        number(tree.elements(list).first().copied()).or_else(|| number(Some(list)))
    };
    let probed = || {
        let health = tree.get(service, "health")?;
        let of = |kind: &str| {
            let probe = tree.get(health, kind)?;
            number(tree.get(probe, "port")).or_else(|| number(Some(probe)))
        };
        ["http", "https", "tcp"].into_iter().find_map(of)
    };
    let short = || number(tree.get(service, "health_port"));
    Ports {
        first: http.or_else(listed).or_else(short).or_else(probed),
        http: http.is_some(),
    }
}
