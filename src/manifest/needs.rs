//! `needs`: what they point at, whether that can come true, and circles.

use std::collections::{HashMap, HashSet, VecDeque};

use petgraph::algo::kosaraju_scc;
use petgraph::graph::{DiGraph, NodeIndex};
use petgraph::visit::EdgeRef;

use super::codes;
use super::diagnostic::{Draft, Sink, Span};
use super::field::{Either, Field, List};
use super::index::{Entry, Home, Index};
use super::tree::{NodeId, Tree};
use super::types::NeedRule;
use crate::model::{Condition, Need, NeedTarget, SandboxName, ServiceAddress, ServiceName};

/// Of a long circle, so many edges from its start and from its end are shown.
const SHOWN: usize = 32;

/// Who has a `needs` list.
#[derive(Clone, Copy)]
pub(super) struct Needer<'i, 'm> {
    pub index: &'i Index<'m>,
    pub home: usize,
    /// `None`: the sandbox itself.
    pub service: Option<usize>,
}

/// A need that points at something.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Target {
    Sandbox(usize),
    Service(usize, usize),
}

impl<'i, 'm> Needer<'i, 'm> {
    fn home(self) -> &'i Home<'m> {
        &self.index.homes[self.home]
    }

    fn entry(self) -> Option<&'i Entry<'m>> {
        self.service.map(|service| &self.home().services[service])
    }

    fn describe(self) -> String {
        let home = self.home().name();
        match self.entry() {
            Some(entry) if entry.task => format!("task `{home}/{}`", entry.key.name),
            Some(entry) => format!("service `{home}/{}`", entry.key.name),
            None => format!("sandbox `{home}`"),
        }
    }

    fn runs(self) -> bool {
        !self.home().stopped && !self.entry().is_some_and(|entry| entry.stopped)
    }
}

/// Checks the needs of one sandbox or service, adds them to the graph, and gives the good ones in
/// normal form.
pub(super) fn needs(
    who: Needer<'_, '_>,
    list: &Field<List<Either<String, NeedRule>>>,
    graph: &mut NeedGraph,
    tree: &Tree<'_>,
    sink: &mut Sink,
) -> Vec<Need> {
    let mut found = Vec::new();
    let mut seen: HashMap<Target, Span> = HashMap::new();
    for item in list.value.iter().flat_map(|list| &list.0) {
        let Some((need, at)) = item.get() else {
            continue;
        };
        let (text, at, rule) = match need {
            Either::Short(text) => (text, at, None),
            Either::Long(rule) => match rule.service.get() {
                Some((text, at)) => (text, at, Some(rule)),
                None => {
                    if !rule.service.bad {
                        let message = "a need in full names its `service`";
                        let draft = Draft::error(codes::MISSING, tree.span(at), message);
                        sink.push(draft.label("`service` is missing"));
                    }
                    continue;
                }
            },
        };
        let span = tree.span(at);
        let Some(target) = resolve(who, text, span, sink) else {
            continue;
        };
        if let Some(first) = seen.insert(target, span) {
            let message = format!("{} needs `{text}` twice", who.describe());
            let draft = Draft::error(codes::NEED_TWICE, span, message);
            sink.push(draft.label("second").related(first, "first"));
            continue;
        }
        let condition = condition(who, target, text, rule, tree, sink);
        let restart = rule.and_then(|rule| rule.restart.value.as_ref());
        graph.need(who, target, span);
        let Some(target) = name(who, target) else {
            continue;
        };
        found.push(Need {
            target,
            condition,
            restart: restart.is_some_and(|flag| flag.0),
        });
    }
    found.sort();
    found
}

/// Adds a need that something else implies, if it is not there yet.
pub(super) fn implied(
    who: Needer<'_, '_>,
    text: &str,
    span: Span,
    needs: &mut Vec<Need>,
    graph: &mut NeedGraph,
    tree: &Tree<'_>,
    sink: &mut Sink,
) {
    let Some(target) = resolve(who, text, span, sink) else {
        return;
    };
    let Some(named) = name(who, target) else {
        return;
    };
    if needs.iter().any(|need| need.target == named) {
        return;
    }
    graph.need(who, target, span);
    needs.push(Need {
        target: named,
        condition: condition(who, target, text, None, tree, sink),
        restart: false,
    });
}

/// The target in the words of the model; `None` if a name is bad, which has been said.
fn name(who: Needer<'_, '_>, target: Target) -> Option<NeedTarget> {
    let home = |number: usize| SandboxName::new(who.index.homes[number].name()).ok();
    Some(match target {
        Target::Sandbox(number) => NeedTarget::Sandbox(home(number)?),
        Target::Service(number, service) => {
            let service = &who.index.homes[number].services[service].key.name;
            let service = ServiceName::new(service.as_str()).ok()?;
            if number == who.home {
                NeedTarget::Local(service)
            } else {
                NeedTarget::Remote(ServiceAddress::new(home(number)?, service))
            }
        }
    })
}

/// Finds what `text` means for `who`, and says what is wrong with it.
fn resolve(who: Needer<'_, '_>, text: &str, span: Span, sink: &mut Sink) -> Option<Target> {
    let index = who.index;
    let (sandbox, service) = match text.split_once('/') {
        Some((sandbox, "*")) if who.service.is_none() => (sandbox, None),
        Some((sandbox, service)) => (sandbox, Some(service)),
        None if who.service.is_none() => (text, None),
        None => (who.home().name(), Some(text)),
    };
    let unknown = |label: String| {
        let message = format!("{} needs `{text}`, which does not exist", who.describe());
        Draft::error(codes::UNKNOWN_NEED, span, message).label(label)
    };
    let Some((number, home)) = index.home(sandbox) else {
        let draft = unknown(format!("no sandbox is named `{sandbox}`"));
        let draft = match (index.hosting(sandbox), service) {
            (Some(host), None) => {
                let right = format!("{}/{sandbox}", host.name());
                let help = format!(
                    "`{sandbox}` is a service of sandbox `{}`: write `{right}`",
                    host.name()
                );
                draft.suggest(span, Some(&right)).help(help)
            }
            _ => {
                let near = sink.nearest(sandbox, index.homes.iter().map(Home::name));
                let near =
                    near.map(|near| service.map_or(near.to_owned(), |s| format!("{near}/{s}")));
                draft.suggest(span, near.as_deref())
            }
        };
        sink.push(draft);
        return None;
    };
    let Some(service) = service else {
        if number == who.home {
            let message = format!("{} needs itself", who.describe());
            sink.push(Draft::error(codes::SELF_NEED, span, message));
            return None;
        }
        available(who, text, span, home, None, sink);
        return Some(Target::Sandbox(number)).filter(|_| home.left_out.is_none());
    };
    let Some((entry_number, entry)) = home.entry(service) else {
        if home.sandbox.is_none_or(|sandbox| sandbox.services.bad) {
            // Nobody knows what is in it, and that has been said.
            return None;
        }
        let draft = unknown(format!("no service of this name in sandbox `{sandbox}`"));
        let draft = elsewhere(draft, who, home, service, span, sink);
        sink.push(draft);
        return None;
    };
    let own_sandbox = who.service.is_none() && number == who.home;
    if own_sandbox || (number == who.home && who.service == Some(entry_number)) {
        let message = if own_sandbox {
            format!("{} needs its own service `{service}`", who.describe())
        } else {
            format!("{} needs itself", who.describe())
        };
        sink.push(Draft::error(codes::SELF_NEED, span, message));
        return None;
    }
    available(who, text, span, home, Some(entry), sink);
    let left_out = home.left_out.is_some() || entry.left_out.is_some();
    (!left_out).then_some(Target::Service(number, entry_number))
}

/// Adds to `draft` where the service that was meant might be.
fn elsewhere(
    draft: Draft,
    who: Needer<'_, '_>,
    home: &Home<'_>,
    service: &str,
    span: Span,
    sink: &mut Sink,
) -> Draft {
    let index = who.index;
    let own = home.name() == who.home().name();
    let full = |host: &Home<'_>, name: &str| {
        if host.name() == who.home().name() {
            name.to_owned()
        } else {
            format!("{}/{name}", host.name())
        }
    };
    if let Some(host) = index.hosting(service) {
        let right = full(host, service);
        let help = format!(
            "`{service}` is in sandbox `{}`: write `{right}`",
            host.name()
        );
        return draft.suggest(span, Some(&right)).help(help);
    }
    if let Some(near) = sink.nearest(service, home.services.iter().map(|e| e.key.name.as_str())) {
        return draft.suggest(span, Some(&full(home, near)));
    }
    if own && index.home(service).is_some() {
        return draft.help(format!(
            "`{service}` is a sandbox: write `{service}/<service>`, or name it in the `needs` of sandbox `{}`",
            home.name()
        ));
    }
    if !sink.suggests() {
        return draft;
    }
    let mut names: Vec<_> = index.service_names().collect();
    names.sort_unstable();
    match sink
        .nearest(service, names)
        .and_then(|near| Some((near, index.hosting(near)?)))
    {
        Some((near, host)) => {
            let right = full(host, near);
            let help = format!(
                "did you mean `{near}`? It is in sandbox `{}`: write `{right}`",
                host.name()
            );
            draft.suggest(span, Some(&right)).help(help)
        }
        None => draft,
    }
}

/// Whether what is needed will be there: not left out, not stopped.
fn available(
    who: Needer<'_, '_>,
    text: &str,
    span: Span,
    home: &Home<'_>,
    entry: Option<&Entry<'_>>,
    sink: &mut Sink,
) {
    let profiles = home
        .left_out
        .as_ref()
        .or(entry.and_then(|entry| entry.left_out.as_ref()));
    if let Some(profiles) = profiles {
        let message = format!(
            "{} needs `{text}`, which is left out by its profiles",
            who.describe()
        );
        let first = profiles.split(", ").next().unwrap_or_default();
        sink.push(
            Draft::error(codes::NEED_LEFT_OUT, span, message)
                .label(format!("only there with profile {profiles}"))
                .help(format!(
                    "select it with `--profile {first}`, or give both the same profiles"
                )),
        );
        return;
    }
    let stopped = match entry {
        Some(entry) if entry.stopped => Some(entry.key.name.as_str()),
        _ if home.stopped => Some(home.name()),
        _ => None,
    };
    if let Some(stopped) = stopped.filter(|_| who.runs()) {
        let message = format!("{} needs `{text}`, which would never run", who.describe());
        sink.push(
            Draft::error(codes::NEED_STOPPED, span, message)
                .label(format!("`{stopped}` has `state: stopped`")),
        );
    }
}

/// The condition in normal form, checked against what the target is.
fn condition(
    who: Needer<'_, '_>,
    target: Target,
    text: &str,
    rule: Option<&NeedRule>,
    tree: &Tree<'_>,
    sink: &mut Sink,
) -> Condition {
    let written = rule.and_then(|rule| rule.condition.get());
    let task = match target {
        Target::Sandbox(_) => false,
        Target::Service(home, service) => who.index.homes[home].services[service].task,
    };
    let default = if task {
        Condition::Completed
    } else {
        Condition::Ready
    };
    let Some((condition, at)) = written else {
        return default;
    };
    let mut wrong = |at: NodeId, why: &str, help: &str| {
        let message = format!(
            "{} waits for `{text}` in a way that never happens",
            who.describe()
        );
        let draft = Draft::error(codes::NEED_CONDITION, tree.span(at), message);
        sink.push(draft.label(why).help(help));
    };
    match (condition, target) {
        (Condition::Completed, Target::Service(..)) if !task => wrong(
            at,
            "only a task completes",
            "write `ready` or `started`, or make it a task with `kind: task`",
        ),
        (Condition::Ready, Target::Service(..)) if task => {
            wrong(
                at,
                "a task completes; it is never ready",
                "write `completed`",
            );
        }
        (Condition::Started | Condition::Completed, Target::Sandbox(_)) => wrong(
            at,
            "a whole sandbox is `ready` or it is not",
            "leave the condition out, or name one service",
        ),
        _ => {}
    }
    *condition
}

/// Who waits for whom. A sandbox has two nodes: its gate, which everything in it waits for, and
/// its end, which waits for everything in it.
#[derive(Default)]
pub(super) struct NeedGraph {
    graph: DiGraph<String, Option<Span>, u32>,
    nodes: HashMap<Place, NodeIndex>,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash)]
enum Place {
    Gate(usize),
    End(usize),
    Service(usize, usize),
}

impl NeedGraph {
    fn node(&mut self, place: Place, index: &Index<'_>) -> NodeIndex {
        if let Some(node) = self.nodes.get(&place) {
            return *node;
        }
        let home = match place {
            Place::Gate(home) | Place::End(home) | Place::Service(home, _) => home,
        };
        let name = index.homes[home].name();
        let name = match place {
            Place::Service(_, entry) => {
                format!("{name}/{}", index.homes[home].services[entry].key.name)
            }
            _ => name.to_owned(),
        };
        let node = self.graph.add_node(name);
        self.nodes.insert(place, node);
        node
    }

    fn need(&mut self, who: Needer<'_, '_>, target: Target, span: Span) {
        let from = match who.service {
            Some(service) => Place::Service(who.home, service),
            None => Place::Gate(who.home),
        };
        let to = match target {
            Target::Sandbox(home) => Place::End(home),
            Target::Service(home, service) => Place::Service(home, service),
        };
        let (from, to) = (self.node(from, who.index), self.node(to, who.index));
        self.graph.add_edge(from, to, Some(span));
    }

    /// Adds what being in a sandbox means, then reports every circle.
    pub fn circles(mut self, index: &Index<'_>, sink: &mut Sink) {
        for (number, home) in index.homes.iter().enumerate() {
            let gate = self.nodes.get(&Place::Gate(number)).copied();
            let end = self.nodes.get(&Place::End(number)).copied();
            if let (Some(gate), Some(end)) = (gate, end) {
                self.graph.add_edge(end, gate, None);
            }
            if gate.is_none() && end.is_none() {
                continue;
            }
            for entry in 0..home.services.len() {
                let service = self.node(Place::Service(number, entry), index);
                if let Some(gate) = gate {
                    self.graph.add_edge(service, gate, None);
                }
                if let Some(end) = end {
                    self.graph.add_edge(end, service, None);
                }
            }
        }
        // Not Tarjan's: that one recurses as deep as the longest chain of needs.
        for group in kosaraju_scc(&self.graph) {
            if group.len() > 1 {
                self.report(&group, sink);
            }
        }
    }

    /// Reports one circle of a group whose members all reach each other.
    fn report(&self, group: &[NodeIndex], sink: &mut Sink) {
        let Some(mut edges) = self.shortest(group) else {
            return;
        };
        let order = |(_, span, _): &(NodeIndex, Span, NodeIndex)| (span.file, span.start);
        let first = (0..edges.len())
            .min_by_key(|at| order(&edges[*at]))
            .unwrap_or(0);
        edges.rotate_left(first);
        let name = |node: NodeIndex| self.graph[node].as_str();
        let mut path: Vec<_> = edges
            .iter()
            .map(|(from, ..)| format!("`{}`", name(*from)))
            .collect();
        path.push(path[0].clone());
        let said = |(from, _, to): &(NodeIndex, Span, NodeIndex)| {
            format!("`{}` needs `{}`", name(*from), name(*to))
        };
        let message = format!("these need each other in a circle: {}", path.join(" → "));
        let mut draft = Draft::error(codes::CYCLE, edges[0].1, message).label(said(&edges[0]));
        for (number, edge) in edges.iter().enumerate().skip(1) {
            if (SHOWN..edges.len() - SHOWN.min(edges.len())).contains(&number) {
                continue;
            }
            let closes = if number + 1 == edges.len() {
                ", which closes the circle"
            } else {
                ""
            };
            draft = draft.related(edge.1, format!("{}{closes}", said(edge)));
        }
        let help = "one of these has to go; `condition: started` does not break a circle";
        sink.push(draft.help(help));
    }

    /// The written edges of a shortest circle through the group's first written edge.
    fn shortest(&self, group: &[NodeIndex]) -> Option<Vec<(NodeIndex, Span, NodeIndex)>> {
        let members: HashSet<_> = group.iter().copied().collect();
        let written = group
            .iter()
            .flat_map(|node| self.graph.edges(*node))
            .filter(|edge| members.contains(&edge.target()))
            .filter_map(|edge| Some((edge.weight().as_ref()?, edge)));
        let (_, first) = written.min_by_key(|(span, _)| (span.file, span.start))?;
        let (start, goal) = (first.target(), first.source());
        let mut came: HashMap<NodeIndex, _> = HashMap::new();
        let mut queue = VecDeque::from([start]);
        while let Some(node) = queue.pop_front() {
            if node == goal {
                break;
            }
            let mut edges: Vec<_> = self.graph.edges(node).collect();
            edges.reverse();
            for edge in edges {
                let next = edge.target();
                if next != start && members.contains(&next) && !came.contains_key(&next) {
                    came.insert(next, edge);
                    queue.push_back(next);
                }
            }
        }
        let mut edges = vec![(first.source(), *first.weight(), first.target())];
        let mut back = Vec::new();
        let mut node = goal;
        while node != start {
            let edge = came.get(&node)?;
            back.push((edge.source(), *edge.weight(), edge.target()));
            node = edge.source();
        }
        edges.extend(back.into_iter().rev());
        let written = edges
            .into_iter()
            .filter_map(|(from, span, to)| Some((from, span?, to)));
        Some(written.collect())
    }
}
