//! YAML text → nodes of a tree.
//!
//! In: the text of one file. Out: nodes, and a problem for everything that is not understood.
//! Aliases stay references and carry the size they would unfold to, so that a bomb is refused by
//! arithmetic and never unfolded. Duplicate keys are seen; `<<` is merged in.

use std::borrow::Cow;
use std::collections::HashMap;

use granit_parser::{ErrorKind, Event, Parser, ScalarStyle, ScanError, Tag};

use super::codes;
use super::diagnostic::{Draft, Sink, Span};
use super::tree::{Kind, NodeId, Scalar, Tree};

/// The deepest nesting that is read.
pub(super) const MAX_DEPTH: usize = 64;
/// The most nodes, as written and after unfolding every alias.
pub(super) const MAX_NODES: usize = 1_000_000;

/// What one file's text came to.
pub(super) struct Parsed {
    /// The top node; `None` for an empty file.
    pub root: Option<NodeId>,
    /// Whether the text was understood to its end.
    pub whole: bool,
}

/// Reads `text`, the source with number `file`, into `tree`.
pub(super) fn parse<'s>(tree: &mut Tree<'s>, file: u16, text: &'s str, sink: &mut Sink) -> Parsed {
    let options = granit_parser::options! {
        emit_comments: false,
        emit_anchor_events: true,
        emit_unresolved_aliases: true,
        flow_nesting_limit: MAX_DEPTH,
        block_nesting_limit: MAX_DEPTH,
    };
    let mut reader = Reader {
        tree,
        sink,
        file,
        open: Vec::new(),
        anchors: HashMap::new(),
        names: Vec::new(),
        root: None,
        documents: 0,
    };
    let mut end = None;
    for next in Parser::new_from_str_with_options(text, options) {
        let went = match next {
            Ok((event, span)) => {
                let span = reader.span(&span);
                reader.event(event, span)
            }
            Err(error) => Err(reader.scan_error(&error, text)),
        };
        if let Err(stop) = went {
            end = Some(stop);
            break;
        }
    }
    if end == Some(Stop::Broken) {
        // What was read so far is still looked at.
        while let Some(frame) = reader.open.pop() {
            let end = frame.span.end;
            if reader.close(frame, end).is_err() {
                break;
            }
        }
    }
    Parsed {
        root: reader.root.filter(|_| end != Some(Stop::TooMuch)),
        whole: !matches!(end, Some(Stop::Broken | Stop::TooMuch)),
    }
}

/// Reading ends here; why has been said.
#[derive(PartialEq)]
enum Stop {
    /// The rest is no YAML.
    Broken,
    /// The rest is another document.
    Document,
    /// Over budget.
    TooMuch,
}

/// A list or map that is still being read.
struct Frame {
    span: Span,
    anchor: usize,
    map: bool,
    items: Vec<NodeId>,
    weight: u32,
    depth: u32,
}

/// A map under construction. Looks keys up in an index once there are many.
#[derive(Default)]
struct Entries {
    list: Vec<(NodeId, NodeId)>,
    index: HashMap<String, NodeId>,
}

impl Entries {
    /// Adds an entry, or gives the key that is there already.
    fn insert(&mut self, tree: &Tree<'_>, key: NodeId, value: NodeId) -> Result<(), NodeId> {
        const FEW: usize = 24;
        let name = tree.text(key);
        if self.list.len() < FEW {
            let mut there = self.list.iter();
            if let Some((first, _)) = there.find(|(at, _)| tree.text(*at) == name) {
                return Err(*first);
            }
        } else {
            if self.index.is_empty() {
                let text = |at| tree.text(at).unwrap_or_default().to_owned();
                self.index = self.list.iter().map(|(at, _)| (text(*at), *at)).collect();
            }
            let name = name.unwrap_or_default();
            if let Some(first) = self.index.get(name) {
                return Err(*first);
            }
            self.index.insert(name.to_owned(), key);
        }
        self.list.push((key, value));
        Ok(())
    }
}

struct Reader<'t, 's> {
    tree: &'t mut Tree<'s>,
    sink: &'t mut Sink,
    file: u16,
    open: Vec<Frame>,
    /// Anchor id → its node, once that is complete.
    anchors: HashMap<usize, NodeId>,
    names: Vec<String>,
    root: Option<NodeId>,
    documents: usize,
}

impl<'s> Reader<'_, 's> {
    fn span(&self, span: &granit_parser::Span) -> Span {
        let range = span.byte_range().unwrap_or_default();
        Span {
            file: self.file,
            start: range.start as u32,
            end: range.end as u32,
        }
    }

    fn event(&mut self, event: Event<'s>, span: Span) -> Result<(), Stop> {
        match event {
            Event::DocumentStart(..) => {
                self.documents += 1;
                if self.documents > 1 {
                    let message = "a second document begins here";
                    let draft = Draft::error(codes::UNSUPPORTED_YAML, span, message);
                    let help = "a manifest is one document: give further ones with `-f`";
                    self.sink.push(draft.help(help));
                    return Err(Stop::Document);
                }
            }
            Event::Scalar(text, style, anchor, tag) => {
                let kind = self.scalar(text, style, tag.as_deref(), span);
                let id = self.node(kind, span, (1, 1))?;
                self.anchor(anchor, id);
                self.place(id);
            }
            Event::SequenceStart(_, anchor, tag) => {
                self.begin(false, anchor, tag.as_deref(), span)?
            }
            Event::MappingStart(_, anchor, tag) => {
                self.begin(true, anchor, tag.as_deref(), span)?
            }
            Event::SequenceEnd | Event::MappingEnd => {
                if let Some(frame) = self.open.pop() {
                    self.close(frame, span.end)?;
                }
            }
            Event::Anchor(_, name) => self.names.push(name.into_owned()),
            Event::Alias(anchor) => self.alias(anchor, span)?,
            Event::UnresolvedAlias(name) => {
                let message = format!("there is no anchor `{name}` before this alias");
                let near = self
                    .sink
                    .nearest(&name, self.names.iter().map(String::as_str));
                let near = near.map(|near| format!("*{near}"));
                let draft = Draft::error(codes::SYNTAX, span, message);
                self.sink.push(draft.suggest(span, near.as_deref()));
                let id = self.node(Kind::Bad, span, (1, 1))?;
                self.place(id);
            }
            _ => {}
        }
        Ok(())
    }

    fn alias(&mut self, anchor: usize, span: Span) -> Result<(), Stop> {
        let (kind, size) = match self.anchors.get(&anchor) {
            Some(target) => {
                let node = self.tree.node(*target);
                (Kind::Alias(*target), (node.weight, node.depth))
            }
            None => {
                let message = "this alias stands inside the value that it repeats";
                let draft = Draft::error(codes::UNSUPPORTED_YAML, span, message);
                self.sink.push(draft.label("would go on for ever"));
                (Kind::Bad, (1, 1))
            }
        };
        let id = self.node(kind, span, size)?;
        self.place(id);
        Ok(())
    }

    fn scalar(
        &mut self,
        text: Cow<'s, str>,
        style: ScalarStyle,
        tag: Option<&Tag>,
        span: Span,
    ) -> Kind<'s> {
        if text.contains('\0') {
            let draft = Draft::error(codes::NOT_TEXT, span, "a value cannot hold a NUL character");
            self.sink.push(draft);
            return Kind::Bad;
        }
        let mut plain = style == ScalarStyle::Plain;
        match self.tag(tag, span, &["str", "int", "float", "bool", "null"]) {
            Err(()) => return Kind::Bad,
            Ok(None) => {}
            Ok(Some(tag)) => plain = tag != "str",
        }
        Kind::Scalar(Scalar {
            text,
            plain,
            interpolated: false,
        })
    }

    /// The core tag of a node, if it has one; anything else is refused.
    fn tag<'a>(
        &mut self,
        tag: Option<&'a Tag>,
        span: Span,
        allowed: &[&str],
    ) -> Result<Option<&'a str>, ()> {
        let Some(tag) = tag else { return Ok(None) };
        match tag.core_suffix() {
            Some(core) if allowed.contains(&core) => Ok(Some(core)),
            None if tag.original() == "!" => {
                Ok(Some(if allowed.contains(&"str") { "str" } else { "" }))
            }
            _ => {
                let message = format!("the tag `{}` is not used in a manifest", tag.original());
                let draft = Draft::error(codes::UNSUPPORTED_YAML, span, message);
                self.sink
                    .push(draft.help("leave the tag out; every field knows its own type"));
                Err(())
            }
        }
    }

    fn begin(
        &mut self,
        map: bool,
        anchor: usize,
        tag: Option<&Tag>,
        span: Span,
    ) -> Result<(), Stop> {
        let _ = self.tag(tag, span, if map { &["map"] } else { &["seq"] });
        if self.open.len() >= MAX_DEPTH {
            return Err(self.too_deep(span));
        }
        self.open.push(Frame {
            span,
            anchor,
            map,
            items: Vec::new(),
            weight: 1,
            depth: 1,
        });
        Ok(())
    }

    /// Makes a node of what was read; the frame is off the stack already.
    fn close(&mut self, frame: Frame, end: u32) -> Result<(), Stop> {
        let span = Span {
            end: end.max(frame.span.end),
            ..frame.span
        };
        let kind = if frame.map {
            let entries = self.entries(&frame.items);
            Kind::Map(entries)
        } else {
            Kind::Seq(frame.items)
        };
        let id = self.node(kind, span, (frame.weight, frame.depth))?;
        self.anchor(frame.anchor, id);
        self.place(id);
        Ok(())
    }

    /// A map's entries from its keys and values in turn: unique keys, `<<` merged in.
    fn entries(&mut self, items: &[NodeId]) -> Vec<(NodeId, NodeId)> {
        let mut entries = Entries::default();
        let mut merges = Vec::new();
        for pair in items.chunks_exact(2) {
            let (key, value) = (pair[0], pair[1]);
            let span = self.tree.span(key);
            match &self.tree.node(key).kind {
                Kind::Scalar(scalar) if scalar.plain && scalar.text == "<<" => {
                    merges.push(value);
                    continue;
                }
                Kind::Scalar(_) => {}
                Kind::Bad => continue,
                _ => {
                    let message = "a key has to be plain text, not a list, a map or an alias";
                    let draft = Draft::error(codes::UNSUPPORTED_YAML, span, message);
                    self.sink.push(draft);
                    continue;
                }
            };
            self.tree.node_mut(value).key = Some(key);
            if let Kind::Seq(items) = &self.tree.node(value).kind {
                for item in items.clone() {
                    self.tree.node_mut(item).list = Some(key);
                }
            }
            if let Err(first) = entries.insert(self.tree, key, value) {
                let name = self.tree.text(key).unwrap_or_default();
                let message = format!("the key `{name}` is here twice");
                let draft = Draft::error(codes::DUPLICATE_KEY, span, message);
                let first = self.tree.span(first);
                self.sink
                    .push(draft.label("second").related(first, "first"));
            }
        }
        for merge in merges {
            self.merge(merge, &mut entries);
        }
        entries.list
    }

    /// The YAML 1.1 merge key: entries of other maps, where there is no own one. Earlier maps win.
    fn merge(&mut self, merge: NodeId, entries: &mut Entries) {
        let one = [merge];
        let maps = match self.tree.kind(merge) {
            Kind::Seq(maps) => maps.as_slice(),
            _ => &one,
        };
        let mut wrong = Vec::new();
        for map in maps {
            match self.tree.kind(*map) {
                Kind::Map(more) => {
                    for (key, value) in more {
                        let _ = entries.insert(self.tree, *key, *value);
                    }
                }
                Kind::Bad => {}
                _ => wrong.push(self.tree.span(*map)),
            }
        }
        for span in wrong {
            let message = "`<<` takes a map or a list of maps";
            let draft = Draft::error(codes::UNSUPPORTED_YAML, span, message);
            let help = "write for example `<<: *name`; quote it if it is meant as a key";
            self.sink.push(draft.help(help));
        }
    }

    /// Adds a node that unfolds to `size`: so many nodes, so deep.
    fn node(&mut self, kind: Kind<'s>, span: Span, size: (u32, u32)) -> Result<NodeId, Stop> {
        let id = self.tree.add(kind, span);
        let node = self.tree.node_mut(id);
        (node.weight, node.depth) = size;
        if self.tree.len() > MAX_NODES {
            return Err(self.too_much(span, "more values than any manifest needs"));
        }
        if let Some(frame) = self.open.last_mut() {
            frame.weight = frame.weight.saturating_add(size.0);
            frame.depth = frame.depth.max(size.1 + 1);
            if frame.weight as usize > MAX_NODES {
                let what = "its aliases unfold to more values than any manifest needs";
                return Err(self.too_much(span, what));
            }
            if frame.depth as usize > MAX_DEPTH {
                return Err(self.too_deep(span));
            }
        }
        Ok(id)
    }

    fn anchor(&mut self, anchor: usize, id: NodeId) {
        if anchor != 0 {
            let target = self.tree.resolve(id);
            self.anchors.insert(anchor, target);
        }
    }

    /// Puts a complete node where it belongs.
    fn place(&mut self, id: NodeId) {
        match self.open.last_mut() {
            Some(frame) => frame.items.push(id),
            None => self.root = Some(id),
        }
    }

    fn too_much(&mut self, span: Span, what: &str) -> Stop {
        let message = format!("the text holds too much: {what}");
        let draft = Draft::error(codes::TOO_MUCH, span, message);
        self.sink
            .push(draft.label(format!("the limit is {MAX_NODES}")));
        Stop::TooMuch
    }

    fn too_deep(&mut self, span: Span) -> Stop {
        let message = format!("lists and maps are nested more than {MAX_DEPTH} deep");
        self.sink.push(Draft::error(codes::TOO_MUCH, span, message));
        Stop::TooMuch
    }

    fn scan_error(&mut self, error: &ScanError, text: &str) -> Stop {
        let at = error.marker().byte_offset().unwrap_or(0).min(text.len()) as u32;
        let span = Span {
            file: self.file,
            start: at,
            end: at + 1,
        };
        if matches!(error.kind(), ErrorKind::RecursionLimitExceeded) {
            return self.too_deep(span);
        }
        let info = error.info();
        let info = info.strip_suffix('.').unwrap_or(&info);
        let draft = Draft::error(codes::SYNTAX, span, format!("this is not YAML: {info}"));
        self.sink.push(if info.contains("tab") {
            draft.help("indent with spaces; YAML does not take tabs there")
        } else if info.contains("mapping values are not allowed") {
            draft.help("a text with `: ` in it needs quotes")
        } else if text
            .get(..at as usize)
            .is_some_and(|before| before.ends_with('$'))
        {
            draft.help("within `{ }` and `[ ]`, a text with `${…}` in it needs quotes")
        } else {
            draft
        });
        Stop::Broken
    }
}
