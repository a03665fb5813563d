//! Checks across services: ports, what platforms can do, profiles that were asked for.

use std::collections::{BTreeSet, HashMap};

use super::Request;
use super::codes;
use super::diagnostic::{At, Draft, Sink, Span};
use super::field::Either;
use super::index::{Entry, Home, Index};
use super::service::port_number;
use super::tree::{NodeId, Tree};
use super::types::{Port, Service};
use crate::model::{Capabilities, Hindrance, Scope, Support};

/// Where a port can be taken once.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
enum Network {
    /// That of a kind of platform.
    Shared(&'static str),
    /// A sandbox's own, by the place of its key.
    Own(NodeId),
}

/// Who listens where.
#[derive(Default)]
pub(super) struct Ports {
    taken: HashMap<(Network, u16), (String, Span)>,
    /// Who has the public URL of a sandbox, by the place of the sandbox's key.
    public: HashMap<NodeId, (String, Span)>,
}

impl Ports {
    /// Takes the ports of one service that is to run.
    #[expect(clippy::too_many_arguments)]
    pub fn take(
        &mut self,
        home: &Home<'_>,
        entry: &Entry<'_>,
        address: &str,
        service: &Service,
        kind: Option<&'static Capabilities>,
        tree: &Tree<'_>,
        sink: &mut Sink,
    ) {
        self.publish(home, address, service, tree, sink);
        if home.stopped || entry.stopped {
            return;
        }
        let shared = kind.filter(|kind| kind.shared_network);
        let network = match shared {
            Some(kind) => Network::Shared(kind.kind),
            None => Network::Own(home.key.at),
        };
        for (port, at, again) in ports(service) {
            let span = tree.span(at);
            let Some((owner, first)) = self.taken.get(&(network, port)) else {
                self.taken
                    .insert((network, port), (address.to_owned(), span));
                continue;
            };
            let own = owner == address;
            if own && again {
                continue;
            }
            let message = if own {
                format!("`{address}` lists port {port} twice")
            } else {
                format!("`{address}` and `{owner}` both want port {port}")
            };
            let draft = Draft::error(codes::PORT_CLASH, span, message);
            let draft = draft
                .label("second")
                .related(*first, format!("first, by `{owner}`"));
            let across = owner
                .split_once('/')
                .is_some_and(|(sandbox, _)| sandbox != home.name());
            sink.push(match shared.filter(|_| across) {
                Some(kind) => draft.help(format!(
                    "on platform `{}` all sandboxes share one network",
                    kind.kind
                )),
                None => draft,
            });
        }
    }
}

impl Ports {
    /// Gives a service the public URL of its sandbox, if it wants it. Also a stopped one keeps it.
    fn publish(
        &mut self,
        home: &Home<'_>,
        address: &str,
        service: &Service,
        tree: &Tree<'_>,
        sink: &mut Sink,
    ) {
        let Some((_, at)) = service.http_port.get() else {
            return;
        };
        let span = tree.span(at);
        let Some((owner, first)) = self.public.get(&home.key.at) else {
            self.public.insert(home.key.at, (address.to_owned(), span));
            return;
        };
        let message = format!("`{address}` and `{owner}` both have an `http_port`");
        let draft = Draft::error(codes::PORT_CLASH, span, message).label("second");
        let draft = draft.related(*first, format!("first, by `{owner}`"));
        sink.push(draft.help("a sandbox has one public URL, which leads to one service"));
    }
}

/// A service's ports with their places; whether one may be another of them once more.
fn ports(service: &Service) -> Vec<(u16, NodeId, bool)> {
    let listed = service.ports.value.iter().flat_map(|list| &list.0);
    let listed = listed
        .filter_map(|field| field.get())
        .map(|(port, at)| (port, at, false));
    let probed = |port: Option<(_, NodeId)>| port.map(|(port, at)| (port, at, true));
    let health = service.health.value.as_ref();
    let tcp = health
        .and_then(|health| health.tcp.get())
        .and_then(|(tcp, at)| match tcp {
            Either::Short(port) => Some((port, at)),
            Either::Long(rule) => rule.port.get(),
        });
    let http = health.and_then(|health| health.http.value.as_ref()?.port.get());
    let all = listed
        .chain(probed(service.http_port.get()))
        .chain(probed(service.health_port.get()))
        .chain(probed(tcp))
        .chain(probed(http));
    let number = |(port, at, probed): (&Port, _, _)| Some((port_number(port)?, at, probed));
    all.filter_map(number).collect()
}

/// No value that a table names is longer.
const LONGEST_WORD: usize = 16;

/// What is checked against a platform's table.
struct Used<'a> {
    platform: &'a str,
    kind: &'static Capabilities,
    scope: Scope,
    who: &'a str,
}

impl Used<'_> {
    fn fields(&self, at: Option<NodeId>, only: Option<&[&str]>, tree: &Tree<'_>, sink: &mut Sink) {
        let Some(at) = at else { return };
        for (key, value) in tree.entries(at) {
            let name = tree.text(*key).unwrap_or_default();
            if only.is_some_and(|only| !only.contains(&name)) || is_off(tree, name, *value) {
                continue;
            }
            if name == "vscode" && !tree.entries(*value).is_empty() {
                // It has become a service, which is checked as one.
                continue;
            }
            self.field(name, tree.span(*key), only.is_some(), sink);
            self.value(name, *key, *value, only.is_some(), tree, sink);
            if name == "health_port" {
                // Short for a health check, so it needs what that needs.
                for long in ["health", "health.tcp"] {
                    self.field(long, tree.span(*key), false, sink);
                }
            }
            if let "health" | "limits" | "checkpoint" | "restart" | "stop" | "repo" = name {
                for (inner, value) in tree.entries(*value) {
                    let inner_name = tree.text(*inner).unwrap_or_default();
                    if !is_off(tree, inner_name, *value) {
                        let name = format!("{name}.{inner_name}");
                        self.field(&name, tree.span(*inner), only.is_some(), sink);
                        self.value(&name, *inner, *value, only.is_some(), tree, sink);
                    }
                }
            }
        }
    }

    /// Some can do one value of a field and not another: `isolation: strict`.
    fn value(
        &self,
        name: &str,
        key: NodeId,
        value: NodeId,
        default: bool,
        tree: &Tree<'_>,
        sink: &mut Sink,
    ) {
        let word = tree.text(value).filter(|word| word.len() <= LONGEST_WORD);
        if let Some(word) = word {
            self.field(&format!("{name}: {word}"), tree.span(key), default, sink);
        }
    }

    fn field(&self, name: &str, at: Span, default: bool, sink: &mut Sink) {
        let (support, why) = self.kind.support(self.scope, name);
        if support != Support::Unsupported {
            return;
        }
        let on = match self.platform == self.kind.kind {
            true => format!("platform `{}`", self.platform),
            false => format!("platform `{}` (kind `{}`)", self.platform, self.kind.kind),
        };
        let message = format!("{}: {on} cannot honour `{name}`", self.who);
        // A default is for all platforms, so it may be more than one of them can do; but nobody
        // should be less isolated than they asked for.
        let draft = match default && !name.starts_with("isolation") && name != "hide" {
            true => Draft::warning(codes::UNSUPPORTED_FIELD, at, message),
            false => Draft::error(codes::UNSUPPORTED_FIELD, at, message),
        };
        let draft = draft.label(why);
        sink.push(draft.help("`gabion platforms` shows what each platform can do"));
    }
}

/// Whether a value says no more than its absence would.
fn is_off(tree: &Tree<'_>, name: &str, value: NodeId) -> bool {
    tree.is_null(value)
        || matches!(
            (name, tree.text(value)),
            (
                "container" | "protect" | "vscode" | "public" | "tty" | "stdin_open" | "freeze",
                Some("false" | "False" | "FALSE")
            ) | ("isolation", Some("auto"))
                | ("state", Some("running"))
                | ("kind", Some("service"))
        )
}

/// Checks the fields of a sandbox against what its platform can do.
pub(super) fn sandbox(
    home: &Home<'_>,
    platform: &str,
    kind: &'static Capabilities,
    at: Option<NodeId>,
    defaults: Option<NodeId>,
    tree: &Tree<'_>,
    sink: &mut Sink,
) {
    let who = format!("sandbox `{}`", home.name());
    let used = Used {
        platform,
        kind,
        scope: Scope::Sandbox,
        who: &who,
    };
    used.fields(at, None, tree, sink);
    let own = |field: &&str| at.is_some_and(|at| tree.get(at, field).is_some());
    let missing: Vec<_> = ["isolation", "hide"]
        .into_iter()
        .filter(|field| !own(field))
        .collect();
    used.fields(defaults, Some(&missing), tree, sink);
    if !home.services.is_empty() {
        let used = Used {
            scope: Scope::Service,
            ..used
        };
        used.fields(
            defaults,
            Some(&["env", "restart", "stop", "limits"]),
            tree,
            sink,
        );
    }
}

/// Says so if a sandbox has a field that needs another setting of its platform.
pub(super) fn demand(
    home: &Home<'_>,
    (platform, kind): (&str, &'static Capabilities),
    at: Option<NodeId>,
    (field, setting): (&str, &str),
    tree: &Tree<'_>,
    sink: &mut Sink,
) {
    let entries = at.into_iter().flat_map(|at| tree.entries(at));
    let mut entries = entries.filter(|(_, value)| !tree.entries(*value).is_empty());
    let Some((key, _)) = entries.find(|(key, _)| tree.text(*key) == Some(field)) else {
        return;
    };
    let who = home.name();
    let kind = kind.kind;
    let message =
        format!("sandbox `{who}`: platform `{platform}` (kind `{kind}`) cannot honour `{field}`");
    let draft = Draft::error(codes::UNSUPPORTED_FIELD, tree.span(*key), message);
    sink.push(draft.label(format!("needs `{setting}` in the platform's entry")));
}

/// Checks the fields of a service against what its platform can do.
pub(super) fn service(
    address: &str,
    platform: &str,
    kind: &'static Capabilities,
    at: Option<NodeId>,
    tree: &Tree<'_>,
    sink: &mut Sink,
) {
    let who = format!("service `{address}`");
    let used = Used {
        platform,
        kind,
        scope: Scope::Service,
        who: &who,
    };
    used.fields(at, None, tree, sink);
}

/// Checks the fields of a sandbox or service against what this machine cannot do.
pub(super) fn hindrances<'h>(
    who: &str,
    hindrances: impl Iterator<Item = &'h Hindrance>,
    at: Option<NodeId>,
    tree: &Tree<'_>,
    sink: &mut Sink,
) {
    let Some(at) = at else { return };
    for hindrance in hindrances {
        for (key, value) in tree.entries(at) {
            let name = tree.text(*key).unwrap_or_default();
            if name != hindrance.field || is_off(tree, name, *value) {
                continue;
            }
            let message = format!("{who} {}", hindrance.problem);
            let draft = Draft::error(codes::UNSUPPORTED_FIELD, tree.span(*key), message);
            sink.push(
                draft
                    .label(hindrance.why.clone())
                    .help(hindrance.help.clone()),
            );
        }
    }
}

/// Warns of selected profiles that nothing has.
pub(super) fn profiles(request: &Request, index: &Index<'_>, sink: &mut Sink) {
    let mut known = BTreeSet::new();
    let services = index.homes.iter().flat_map(|home| &home.services);
    let lists = services.filter_map(|entry| entry.service?.profiles.value.as_ref());
    let sandboxes = index
        .homes
        .iter()
        .filter_map(|home| home.sandbox?.profiles.value.as_ref());
    for list in lists.chain(sandboxes) {
        known.extend(list.0.iter().filter_map(|field| field.value.as_deref()));
    }
    for profile in &request.profiles {
        if known.contains(profile.as_str()) {
            continue;
        }
        let message = format!("nothing in the manifest has profile `{profile}`");
        let draft = Draft::warning(codes::UNKNOWN_PROFILE, At::Nowhere, message);
        let near = sink.nearest(profile, known.iter().copied());
        sink.push(match near {
            Some(near) => draft.help(format!("did you mean `{near}`?")),
            None => draft,
        });
    }
}
