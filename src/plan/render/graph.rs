//! The order of a plan as a graph, for Graphviz (DOT) and for Mermaid. Nodes are action ids; an
//! edge that follows from others is left out.

use std::collections::BTreeSet;

use petgraph::algo::tred;
use petgraph::dot::{Config, Dot, RankDir};
use petgraph::graph::{DiGraph, NodeIndex};
use petgraph::visit::EdgeRef;

use super::super::{Plan, StepKind, Until};
use super::value::printable;

/// Beyond so many actions nobody looks at the graph, and edges that follow from others cost more
/// to find than they are worth: all are shown.
const REDUCED_UP_TO: usize = 2_000;

/// The plan in Graphviz' language. A dashed edge waits only until the program was executed.
pub fn dot(plan: &Plan) -> String {
    let graph = graph(plan);
    let config = [
        Config::NodeNoLabel,
        Config::EdgeNoLabel,
        Config::RankDir(RankDir::LR),
    ];
    let edge =
        |_: &DiGraph<String, Until>, edge: petgraph::graph::EdgeReference<'_, Until>| match edge
            .weight()
        {
            Until::Done => String::new(),
            Until::Executed => "style=dashed".to_owned(),
        };
    let node = |_: &DiGraph<String, Until>, (at, id): (NodeIndex, &String)| {
        let color = plan.actions.get(at.index()).map(|it| color(it.step.kind()));
        let label = printable(id).replace('\\', "\\\\").replace('"', "\\\"");
        format!(
            "label=\"{label}\" shape=box color={}",
            color.unwrap_or("black")
        )
    };
    format!(
        "{:?}",
        Dot::with_attr_getters(&graph, &config, &edge, &node)
    )
}

/// The plan as a Mermaid flowchart. A dotted edge waits only until the program was executed.
pub fn mermaid(plan: &Plan) -> String {
    let graph = graph(plan);
    let mut out = String::from("flowchart LR\n");
    for at in graph.node_indices() {
        let id: String = printable(&graph[at]).chars().map(entity).collect();
        out.push_str(&format!("  n{}[\"{id}\"]\n", at.index()));
    }
    for edge in graph.edge_references() {
        let arrow = match edge.weight() {
            Until::Done => "-->",
            Until::Executed => "-.->",
        };
        let (from, to) = (edge.source().index(), edge.target().index());
        out.push_str(&format!("  n{from} {arrow} n{to}\n"));
    }
    for color in ["green", "orange", "red"] {
        let mut nodes = Vec::new();
        for (at, action) in plan.actions.iter().enumerate() {
            if self::color(action.step.kind()) == color {
                nodes.push(format!("n{at}"));
            }
        }
        if !nodes.is_empty() {
            out.push_str(&format!("  classDef {color} stroke:{color}\n"));
            out.push_str(&format!("  class {} {color}\n", nodes.join(",")));
        }
    }
    out
}

/// As Mermaid writes a character that could end a label or begin a tag.
fn entity(c: char) -> String {
    match c {
        c if c.is_alphanumeric() || "-_/:. ".contains(c) => c.to_string(),
        c => format!("#{};", u32::from(c)),
    }
}

fn color(kind: StepKind) -> &'static str {
    match kind {
        StepKind::Create | StepKind::Start | StepKind::Run => "green",
        StepKind::Update | StepKind::Upsert => "orange",
        StepKind::Stop | StepKind::Delete => "red",
    }
}

/// The actions and their order, reduced. Nodes have the numbers of the actions.
fn graph(plan: &Plan) -> DiGraph<String, Until> {
    let mut graph = DiGraph::new();
    let nodes: Vec<NodeIndex> = plan
        .actions
        .iter()
        .map(|action| graph.add_node(action.id()))
        .collect();
    for (to, action) in plan.actions.iter().enumerate() {
        for after in &action.after {
            if let Some(from) = nodes.get(after.action) {
                graph.add_edge(*from, nodes[to], after.until);
            }
        }
    }
    if nodes.len() > REDUCED_UP_TO {
        return graph;
    }
    // The actions of a plan are in topological order as they are.
    let (list, _) = tred::dag_to_toposorted_adjacency_list::<_, u32>(&graph, &nodes);
    let (reduced, closure) = tred::dag_transitive_reduction_closure(&list);
    let at = |node: NodeIndex| u32::try_from(node.index()).unwrap_or(u32::MAX);
    // Waiting for the end follows from a path only if that path begins with the end.
    let follows = |from: NodeIndex, to: NodeIndex, until: Until| {
        graph.edges(from).any(|first| {
            let next = first.target();
            next != to
                && (until == Until::Executed || *first.weight() == Until::Done)
                && closure.contains_edge(at(next), at(to))
        })
    };
    let kept = graph.edge_references().filter(|edge| {
        let (from, to) = (edge.source(), edge.target());
        reduced.contains_edge(at(from), at(to)) || !follows(from, to, *edge.weight())
    });
    let kept: BTreeSet<_> = kept.map(|edge| edge.id()).collect();
    // Removing edges one by one would mix up their order.
    graph.filter_map(
        |_, id| Some(id.clone()),
        |edge, until| kept.contains(&edge).then_some(*until),
    )
}
