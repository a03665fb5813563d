//! An arena of YAML nodes, each with its place in the source, and laying one tree over another.
//! Nothing here knows what a manifest is.

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};

use super::diagnostic::Span;

/// Index of a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct NodeId(pub u32);

/// A scalar's text and how it was written.
#[derive(Debug, Clone)]
pub(super) struct Scalar<'s> {
    pub text: Cow<'s, str>,
    /// Written without quotes, so it may be a number, a truth value or nothing.
    pub plain: bool,
    /// Has had something put in; may be read as a number even if quoted.
    pub interpolated: bool,
}

/// What a node is.
#[derive(Debug, Clone)]
pub(super) enum Kind<'s> {
    Scalar(Scalar<'s>),
    Seq(Vec<NodeId>),
    Map(Vec<(NodeId, NodeId)>),
    Alias(NodeId),
    /// Something is wrong with it, and that has been said.
    Bad,
}

/// One node.
#[derive(Debug, Clone)]
pub(super) struct Node<'s> {
    pub kind: Kind<'s>,
    pub span: Span,
    /// The key that it is the value of.
    pub key: Option<NodeId>,
    /// The key of the list that it is an entry of.
    pub list: Option<NodeId>,
    /// Size after unfolding aliases.
    pub weight: u32,
    /// Depth after unfolding aliases.
    pub depth: u32,
}

/// All nodes of all files.
#[derive(Debug, Default)]
pub(super) struct Tree<'s> {
    nodes: Vec<Node<'s>>,
}

impl<'s> Tree<'s> {
    /// The node with aliases followed.
    pub fn resolve(&self, id: NodeId) -> NodeId {
        match self.nodes[id.0 as usize].kind {
            // Targets are complete nodes; an alias never points to an alias.
            Kind::Alias(target) => target,
            _ => id,
        }
    }

    /// How many nodes there are.
    pub fn len(&self) -> usize {
        self.nodes.len()
    }

    pub fn node(&self, id: NodeId) -> &Node<'s> {
        &self.nodes[id.0 as usize]
    }

    pub fn node_mut(&mut self, id: NodeId) -> &mut Node<'s> {
        &mut self.nodes[id.0 as usize]
    }

    /// What the node is, aliases followed.
    pub fn kind(&self, id: NodeId) -> &Kind<'s> {
        &self.node(self.resolve(id)).kind
    }

    pub fn span(&self, id: NodeId) -> Span {
        self.node(id).span
    }

    /// The span of the node's key, or its own if it is not in a map.
    pub fn key_span(&self, id: NodeId) -> Span {
        self.span(self.node(id).key.unwrap_or(id))
    }

    /// A scalar's text.
    pub fn text(&self, id: NodeId) -> Option<&str> {
        match self.kind(id) {
            Kind::Scalar(scalar) => Some(&scalar.text),
            _ => None,
        }
    }

    /// A map's entries; none for anything else.
    pub fn entries(&self, id: NodeId) -> &[(NodeId, NodeId)] {
        match self.kind(id) {
            Kind::Map(entries) => entries,
            _ => &[],
        }
    }

    /// A list's elements; none for anything else.
    pub fn elements(&self, id: NodeId) -> &[NodeId] {
        match self.kind(id) {
            Kind::Seq(elements) => elements,
            _ => &[],
        }
    }

    /// The value of `key` in a map. For maps with few keys.
    pub fn get(&self, id: NodeId, key: &str) -> Option<NodeId> {
        let entries = self.entries(id).iter();
        let found = entries.filter(|(at, _)| self.text(*at) == Some(key));
        found.map(|(_, value)| *value).next()
    }

    /// Whether it is a plain scalar that stands for nothing.
    pub fn is_null(&self, id: NodeId) -> bool {
        match self.kind(id) {
            Kind::Scalar(scalar) => {
                scalar.plain
                    && !scalar.interpolated
                    && matches!(&*scalar.text, "" | "~" | "null" | "Null" | "NULL")
            }
            _ => false,
        }
    }

    pub fn add(&mut self, kind: Kind<'s>, span: Span) -> NodeId {
        let id = NodeId(self.nodes.len() as u32);
        self.nodes.push(Node {
            kind,
            span,
            key: None,
            list: None,
            weight: 1,
            depth: 1,
        });
        id
    }

    /// `over` laid over `base`: maps merge, everything else is replaced.
    pub fn overlay(&mut self, base: NodeId, over: NodeId) -> NodeId {
        let (Kind::Map(lower), Kind::Map(upper)) = (self.kind(base), self.kind(over)) else {
            return over;
        };
        let (mut entries, upper) = (lower.clone(), upper.clone());
        let named = |(at, (key, _)): (usize, &(NodeId, NodeId))| {
            self.text(*key).map(|text| (text.to_owned(), at))
        };
        let places: HashMap<_, _> = entries.iter().enumerate().filter_map(named).collect();
        for (key, value) in upper {
            match self.text(key).and_then(|text| places.get(text).copied()) {
                Some(at) => {
                    let merged = self.overlay(entries[at].1, value);
                    entries[at] = (key, merged);
                }
                None => entries.push((key, value)),
            }
        }
        let key = self.node(over).key;
        let merged = self.add(Kind::Map(entries), self.span(over));
        self.node_mut(merged).key = key;
        merged
    }
}

/// The names that a list of scalars holds.
pub(super) fn names<'t>(tree: &'t Tree<'_>, list: NodeId) -> HashSet<&'t str> {
    let elements = tree.elements(list).iter();
    elements.filter_map(|element| tree.text(*element)).collect()
}
