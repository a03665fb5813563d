//! `${services.SANDBOX/SERVICE.port}`, `${services.SANDBOX/SERVICE.url}` and `${sandboxes.SANDBOX.url}`:
//! where services are reached.
//!
//! In: the tree, with ports and platforms interpolated. Out: texts, where the manifest itself says so; what
//! to ask the platform, where only that can tell; or why there will never be an answer.

use std::collections::BTreeMap;

use super::tree::{NodeId, Tree};
use crate::model::{Capabilities, Reference, Urls};

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

/// What a reference came to, and the service that has to be there for it.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Reached {
    pub service: String,
    pub found: Found,
}

/// What is put in.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Found {
    /// This text.
    Text(String),
    /// What the platform will say.
    Later(Later),
}

/// A URL that only the platform can tell.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Later {
    pub reference: Reference,
    /// Whether it is there before the service is.
    pub early: bool,
    /// The platform, as the manifest calls it.
    pub platform: String,
}

/// Where everything of a manifest is reached.
#[derive(Debug, Default)]
pub(super) struct Places {
    sandboxes: BTreeMap<String, Place>,
}

#[derive(Debug)]
struct Place {
    platform: String,
    /// `None`: nobody knows the platform, which is said elsewhere.
    urls: Option<Urls>,
    services: BTreeMap<String, Ports>,
}

#[derive(Debug, Default)]
struct Ports {
    first: Option<u16>,
    http: Option<u16>,
    listed: Vec<u16>,
    task: bool,
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
            let kind = known.iter().find(|it| it.kind == kind);
            let services = entries(tree, tree.get(sandbox, "services"));
            let services = services.map(|(name, service)| (name, ports(tree, service)));
            let place = Place {
                platform,
                urls: kind.map(|kind| kind.urls),
                services: services.collect(),
            };
            places.sandboxes.insert(key, place);
        }
        places
    }

    /// What a reference stands for, or why that can never be told.
    pub fn find(&self, wanted: Wanted<'_>) -> Result<Reached, String> {
        match wanted {
            Wanted::Port(address) => {
                let (_, ports) = self.service(address)?;
                let port = ports.first.ok_or_else(|| no_port(address))?;
                Ok(Reached {
                    service: address.to_owned(),
                    found: Found::Text(port.to_string()),
                })
            }
            Wanted::Url(address) => {
                let (place, ports) = self.service(address)?;
                place.url(address, ports)
            }
            Wanted::SandboxUrl(name) => {
                let place = self.sandbox(name)?;
                let reached = |it: &&(&String, &Ports)| place.port(it.0, it.1).is_ok();
                let all: Vec<_> = place.services.iter().collect();
                let mut reached = all.iter().filter(reached);
                let only = reached.next().filter(|_| reached.next().is_none());
                let http = all.iter().find(|(_, ports)| ports.http.is_some());
                let (service, ports) = http.or(only).ok_or_else(|| {
                    format!("sandbox `{name}` has no `http_port` that its URL could lead to")
                })?;
                place.url(&format!("{name}/{service}"), ports)
            }
        }
    }

    fn sandbox(&self, name: &str) -> Result<&Place, String> {
        let found = self.sandboxes.get(name);
        found.ok_or_else(|| format!("there is no sandbox `{name}`"))
    }

    fn service(&self, address: &str) -> Result<(&Place, &Ports), String> {
        let (sandbox, service) = address.split_once('/').unwrap_or((address, ""));
        let place = self.sandbox(sandbox)?;
        let ports = place.services.get(service);
        let ports = ports.ok_or_else(|| format!("there is no service `{address}`"))?;
        Ok((place, ports))
    }
}

fn no_port(address: &str) -> String {
    format!("`{address}` declares no port")
}

impl Place {
    /// The port of a service that its URL leads to, or why it has none.
    fn port(&self, address: &str, ports: &Ports) -> Result<u16, String> {
        let platform = &self.platform;
        if ports.task && self.urls != Some(Urls::Loopback) {
            return Err(format!("`{address}` is a task, which has no URL"));
        }
        match self.urls {
            Some(Urls::Loopback) => ports.first.ok_or_else(|| no_port(address)),
            Some(Urls::Sandbox | Urls::HttpPort) => ports.http.ok_or_else(|| {
                format!(
                    "`{address}` has no `http_port`, to which URLs lead on platform `{platform}`"
                )
            }),
            Some(Urls::Ports { least, reserved }) => {
                let exposed = |port: &&u16| **port >= least && !reserved.contains(port);
                let found = ports.listed.iter().find(exposed).copied();
                found.ok_or_else(|| {
                    let reserved: Vec<_> = reserved.iter().map(u16::to_string).collect();
                    format!(
                        "none of the `ports` of `{address}` has a URL on platform `{platform}`: it \
                         exposes those from {least} up, but for {}",
                        reserved.join(", ")
                    )
                })
            }
            Some(Urls::None(why)) => Err(format!(
                "`{address}` has no URL on platform `{platform}`: {why}"
            )),
            None => Err(format!(
                "where `{address}` is reached is not known: platform `{platform}` is not"
            )),
        }
    }

    fn url(&self, address: &str, ports: &Ports) -> Result<Reached, String> {
        let port = self.port(address, ports)?;
        let found = match self.urls {
            Some(Urls::Loopback) => Found::Text(format!("http://127.0.0.1:{port}")),
            urls => {
                let service = address.parse();
                let service = service.map_err(|_| format!("there is no service `{address}`"))?;
                Found::Later(Later {
                    reference: Reference { service, port },
                    early: urls == Some(Urls::Sandbox),
                    platform: self.platform.clone(),
                })
            }
        };
        Ok(Reached {
            service: address.to_owned(),
            found,
        })
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
pub(super) const PARTS: [&str; 5] = ["http_port", "ports", "health_port", "health", "kind"];

fn ports(tree: &Tree<'_>, service: NodeId) -> Ports {
    let number = |node: Option<NodeId>| -> Option<u16> { tree.text(node?)?.parse().ok() };
    let http = number(tree.get(service, "http_port"));
    let listed = tree.get(service, "ports").map(|list| {
        let items = tree.elements(list).iter();
        let items = items.filter_map(|item| number(Some(*item)));
        // A single port may stand without a list.
        items.chain(number(Some(list))).collect()
    });
    let listed: Vec<u16> = listed.unwrap_or_default();
    let probed = || {
        let health = tree.get(service, "health")?;
        let of = |kind: &str| {
            let probe = tree.get(health, kind)?;
            number(tree.get(probe, "port")).or_else(|| number(Some(probe)))
        };
        ["http", "https", "tcp"].into_iter().find_map(of)
    };
    let short = || number(tree.get(service, "health_port"));
    let first = http.or(listed.first().copied());
    Ports {
        first: first.or_else(short).or_else(probed),
        http,
        listed,
        task: tree.get(service, "kind").and_then(|it| tree.text(it)) == Some("task"),
    }
}
