//! `${env.X}`, `${var.x}`, `${secret.x}` and where services are reached, in the scalars of a tree.
//!
//! In: the merged tree, before any type is asked for. Out: the same tree with texts replaced, and
//! the secrets and services that each scalar names. A text that is put in is data: it cannot become YAML, nor be
//! interpolated again.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap, HashSet};

use super::codes;
use super::diagnostic::{At, Draft, Sink, Span};
use super::placeholder::{Or, Placeholder, placeholder};
use super::references::{Found, Later, PARTS, Places};
use super::tree::{Kind, NodeId, Tree, names};
use crate::model::Capabilities;

/// The most bytes that all replacements together may come to.
const MAX_OUTPUT: usize = 16 << 20;
/// How deep a default may hold another default.
const MAX_NESTING: usize = 8;

/// Where values come from.
pub(super) struct Values<'r> {
    pub env: &'r BTreeMap<String, String>,
    pub overrides: &'r BTreeMap<String, String>,
    pub profiles: &'r std::collections::BTreeSet<String>,
    pub platforms: &'r [&'static Capabilities],
}

/// What each scalar names.
#[derive(Default)]
pub(super) struct Uses {
    /// The names of secrets.
    pub secrets: HashMap<NodeId, Vec<String>>,
    /// The addresses of services.
    pub services: HashMap<NodeId, Vec<String>>,
    /// The URLs that platforms will tell, each with what is written between its braces.
    pub urls: HashMap<NodeId, Vec<(String, Later)>>,
}

/// Replaces every interpolation in the tree under `root`.
pub(super) fn interpolate(
    tree: &mut Tree<'_>,
    root: NodeId,
    values: &Values<'_>,
    sink: &mut Sink,
) -> Uses {
    let mut vars = BTreeMap::new();
    let mut secrets = HashSet::new();
    if let Some(map) = tree.get(root, "secrets") {
        let keys = tree.entries(map).iter();
        secrets.extend(
            keys.filter_map(|(key, _)| tree.text(*key))
                .map(str::to_owned),
        );
    }
    let mut walk = Walk {
        values,
        vars: BTreeMap::new(),
        secrets,
        uses: Uses::default(),
        places: Places::default(),
        seen: HashSet::new(),
        left_out: Vec::new(),
        budget: MAX_OUTPUT,
        sink,
    };
    if let Some(map) = tree.get(root, "vars") {
        for (key, value) in tree.entries(map).to_vec() {
            walk.scalar(tree, value, Place::Vars);
            let Some(name) = tree.text(key).map(str::to_owned) else {
                continue;
            };
            let default = tree.text(value).filter(|_| !tree.is_null(value));
            vars.insert(name, default.map(str::to_owned));
        }
    }
    for (name, value) in values.overrides {
        if vars.contains_key(name) {
            vars.insert(name.clone(), Some(value.clone()));
            continue;
        }
        let message = format!("`--var {name}=…`: the manifest declares no variable `{name}`");
        let near = walk.sink.nearest(name, vars.keys().map(String::as_str));
        let help = match near {
            Some(near) => format!("did you mean `{near}`?"),
            None => "variables are declared with their defaults under `vars:`".to_owned(),
        };
        let draft = Draft::error(codes::UNKNOWN_VAR, At::Nowhere, message);
        walk.sink.push(draft.help(help));
    }
    walk.vars = vars;
    walk.places(tree, root);
    walk.places = Places::read(tree, root, values.platforms);
    walk.top(tree, root);
    // Last, so that a value that is shared with something selected is put in all the same.
    for node in std::mem::take(&mut walk.left_out) {
        walk.all(tree, node, Place::LeftOut);
    }
    walk.uses
}

/// What may be put in at a place.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
enum Place {
    /// Everything.
    Env,
    /// Everything but what only platforms will tell.
    Open,
    /// No secrets.
    Program,
    /// Neither secrets nor what only platforms will tell.
    Public,
    /// Environment variables only.
    Vars,
    /// Left out by profile: no value is needed, and no error about one is of use.
    LeftOut,
}

impl Place {
    fn takes_secrets(self) -> bool {
        matches!(self, Self::Env | Self::Open)
    }

    fn takes_later_urls(self) -> bool {
        matches!(self, Self::Env | Self::Program)
    }
}

struct Walk<'w> {
    values: &'w Values<'w>,
    vars: BTreeMap<String, Option<String>>,
    secrets: HashSet<String>,
    uses: Uses,
    places: Places,
    seen: HashSet<(NodeId, Place)>,
    left_out: Vec<NodeId>,
    budget: usize,
    sink: &'w mut Sink,
}

impl Walk<'_> {
    /// Puts values into what says where services are reached, so that others can name it.
    fn places(&mut self, tree: &mut Tree<'_>, root: NodeId) {
        let mut parts = Vec::new();
        let of = |map: Option<NodeId>, key: &str| tree.get(map?, key);
        let all = |map: Option<NodeId>| map.map_or(&[][..], |map| tree.entries(map));
        parts.extend(of(tree.get(root, "defaults"), "platform"));
        let platforms = all(tree.get(root, "platforms")).iter();
        parts.extend(platforms.filter_map(|(_, entry)| tree.get(*entry, "kind")));
        let selected = |map: &NodeId| {
            let profiles = tree.get(*map, "profiles");
            !profiles.is_some_and(|list| left_out(tree, list, self.values.profiles))
        };
        for (_, sandbox) in all(tree.get(root, "sandboxes")) {
            if !selected(sandbox) {
                continue;
            }
            parts.extend(tree.get(*sandbox, "platform"));
            let services = all(tree.get(*sandbox, "services")).iter();
            for (_, service) in services.filter(|(_, service)| selected(service)) {
                parts.extend(PARTS.iter().filter_map(|part| tree.get(*service, part)));
            }
        }
        for part in parts {
            self.all(tree, part, Place::Public);
        }
    }

    fn top(&mut self, tree: &mut Tree<'_>, root: NodeId) {
        for (key, value) in tree.entries(root).to_vec() {
            match tree.text(key).unwrap_or_default() {
                "vars" => {}
                "platforms" => self.all(tree, value, Place::Open),
                "defaults" => self.with_env(tree, value, Place::Open, Place::Public),
                "sandboxes" => {
                    for (_, sandbox) in tree.entries(value).to_vec() {
                        self.sandbox(tree, sandbox);
                    }
                }
                _ => self.all(tree, value, Place::Public),
            }
        }
    }

    fn sandbox(&mut self, tree: &mut Tree<'_>, sandbox: NodeId) {
        if self.left_out(tree, sandbox) {
            return;
        }
        for (key, value) in tree.entries(sandbox).to_vec() {
            match tree.text(key).unwrap_or_default() {
                "services" => {
                    for (_, service) in tree.entries(value).to_vec() {
                        if !self.left_out(tree, service) {
                            self.with_env(tree, service, Place::Env, Place::Program);
                        }
                    }
                }
                "env" => self.all(tree, value, Place::Open),
                "files" => self.files(tree, value),
                _ => self.all(tree, value, Place::Public),
            }
        }
    }

    /// A text may be secret; where one is found is not.
    fn files(&mut self, tree: &mut Tree<'_>, files: NodeId) {
        for (_, content) in tree.entries(files).to_vec() {
            let place = match tree.kind(content) {
                Kind::Scalar(_) => Place::Open,
                _ => Place::Public,
            };
            self.all(tree, content, place);
        }
    }

    fn with_env(&mut self, tree: &mut Tree<'_>, map: NodeId, env: Place, program: Place) {
        if tree.entries(map).is_empty() {
            self.all(tree, map, Place::Public);
        }
        for (key, value) in tree.entries(map).to_vec() {
            let place = match tree.text(key) {
                Some("env") => env,
                Some("command" | "args") => program,
                _ => Place::Public,
            };
            self.all(tree, value, place);
        }
    }

    /// Whether the map's profiles leave it out; if so, it is looked at last.
    fn left_out(&mut self, tree: &Tree<'_>, map: NodeId) -> bool {
        let profiles = tree.get(map, "profiles");
        let out = profiles.is_some_and(|list| left_out(tree, list, self.values.profiles));
        if out {
            self.left_out.push(map);
        }
        out
    }

    fn all(&mut self, tree: &mut Tree<'_>, node: NodeId, place: Place) {
        let node = tree.resolve(node);
        match &tree.node(node).kind {
            Kind::Scalar(_) => self.scalar(tree, node, place),
            Kind::Seq(items) if self.seen.insert((node, place)) => {
                for item in items.clone() {
                    self.all(tree, item, place);
                }
            }
            Kind::Map(entries) if self.seen.insert((node, place)) => {
                for (_, value) in entries.clone() {
                    self.all(tree, value, place);
                }
            }
            _ => {}
        }
    }

    fn scalar(&mut self, tree: &mut Tree<'_>, node: NodeId, place: Place) {
        let node = tree.resolve(node);
        let Kind::Scalar(scalar) = &tree.node(node).kind else {
            return;
        };
        if scalar.interpolated {
            // Done before, through another alias; only the place may differ.
            if !place.takes_secrets()
                && let Some(names) = self.uses.secrets.get(&node)
            {
                let name = names.first().cloned().unwrap_or_default();
                self.misplaced(tree.span(node), &name, place);
            }
            if !place.takes_later_urls()
                && place != Place::LeftOut
                && let Some((_, later)) = self.uses.urls.get(&node).and_then(|all| all.first())
            {
                self.sink.push(too_early(tree.span(node), later));
            }
            return;
        }
        if !scalar.text.contains("${") {
            return;
        }
        let mut text = Text {
            span: tree.span(node),
            place,
            out: String::with_capacity(scalar.text.len()),
            uses: Vec::new(),
            services: Vec::new(),
            urls: Vec::new(),
            changed: false,
            bad: false,
        };
        self.text(&scalar.text, &mut text, 0);
        let over = text.out.len() > self.budget;
        self.budget = self.budget.saturating_sub(text.out.len());
        if over {
            let message = "what is put in here makes the manifest larger than any needs to be";
            self.sink
                .push(Draft::error(codes::TOO_MUCH, text.span, message));
        }
        if text.bad || over {
            tree.node_mut(node).kind = Kind::Bad;
        } else if text.changed
            && let Kind::Scalar(scalar) = &mut tree.node_mut(node).kind
        {
            scalar.text = Cow::Owned(text.out);
            scalar.interpolated = true;
            if !text.uses.is_empty() {
                self.uses.secrets.insert(node, text.uses);
            }
            if !text.services.is_empty() {
                self.uses.services.insert(node, text.services);
            }
            if !text.urls.is_empty() {
                self.uses.urls.insert(node, text.urls);
            }
        }
    }

    /// Appends `from` to `text`, with everything put in.
    fn text(&mut self, from: &str, text: &mut Text, nesting: usize) {
        let mut rest = from;
        while let Some(start) = rest.find("${") {
            text.push(&rest[..start], self.budget);
            rest = &rest[start..];
            match placeholder(rest) {
                Ok(Some((reference, length))) => {
                    text.changed = true;
                    self.put(&reference, &rest[..length], text, nesting);
                    rest = &rest[length..];
                }
                Ok(None) => {
                    text.push("${", self.budget);
                    rest = &rest[2..];
                }
                Err((why, length)) => {
                    let slip = &rest[..length];
                    let at = self.sink.within(text.span, slip);
                    let message = match slip.char_indices().nth(40) {
                        Some((end, _)) => format!("`{}…` is left as it is", &slip[..end]),
                        None => format!("`{slip}` is left as it is"),
                    };
                    let draft = Draft::warning(codes::INTERPOLATION, at, message);
                    self.sink.push(draft.label(why).help(
                        "the forms are `${env.X}`, `${env.X:-default}`, `${env.X:?message}`, \
                         `${var.x}`, `${secret.x}`, `${services.A/B.port}`, `${services.A/B.url}` and \
                         `${sandboxes.A.url}`",
                    ));
                    text.push(&rest[..length], self.budget);
                    rest = &rest[length..];
                }
            }
        }
        text.push(rest, self.budget);
    }

    fn put(&mut self, reference: &Placeholder<'_>, written: &str, text: &mut Text, nesting: usize) {
        if text.place == Place::LeftOut && !matches!(reference, Placeholder::Secret(_)) {
            text.bad = true;
            return;
        }
        let at = self.sink.within(text.span, written);
        match *reference {
            Placeholder::Env(name, or) => match (self.values.env.get(name), or) {
                (Some(value), Or::Fail) => text.push(value, self.budget),
                (Some(value), _) if !value.is_empty() => text.push(value, self.budget),
                (_, Or::Default(default)) if nesting < MAX_NESTING => {
                    self.text(default, text, nesting + 1);
                }
                (_, Or::Default(default)) => text.push(default, self.budget),
                (found, or) => {
                    text.bad = true;
                    self.unset(name, found.is_some(), or, at);
                }
            },
            Placeholder::Var(name) => self.var(name, at, text),
            Placeholder::Reached(_) if text.place == Place::Vars => {
                text.bad = true;
                let message = "a variable cannot tell where a service is reached";
                self.sink
                    .push(Draft::error(codes::UNKNOWN_REFERENCE, at, message));
            }
            Placeholder::Reached(wanted) => match self.places.find(wanted) {
                Ok(reached) => {
                    text.services.push(reached.service);
                    match reached.found {
                        Found::Text(found) => text.push(&found, self.budget),
                        Found::Later(later) if text.place.takes_later_urls() => {
                            text.push(written, self.budget);
                            let inner = written.trim_start_matches("${").trim_end_matches('}');
                            text.urls.push((inner.to_owned(), later));
                        }
                        Found::Later(later) => {
                            text.bad = true;
                            self.sink.push(too_early(at, &later));
                        }
                    }
                }
                Err(why) => {
                    text.bad = true;
                    self.sink
                        .push(Draft::error(codes::UNKNOWN_REFERENCE, at, why));
                }
            },
            Placeholder::Secret(name) => {
                if !self.secrets.contains(name) {
                    let message = format!("there is no secret `{name}`");
                    let near = self
                        .sink
                        .nearest(name, self.secrets.iter().map(String::as_str));
                    let mut draft = Draft::error(codes::UNKNOWN_SECRET, at, message);
                    draft = match near {
                        Some(near) => draft.help(format!("did you mean `{near}`?")),
                        None => draft.help("secrets are declared under `secrets:`"),
                    };
                    self.sink.push(draft.label("not declared under `secrets`"));
                    text.bad = true;
                } else if !text.place.takes_secrets() && text.place != Place::LeftOut {
                    self.misplaced(at, name, text.place);
                    text.bad = true;
                }
                text.push(written, self.budget);
                text.uses.push(name.to_owned());
            }
        }
    }

    fn misplaced(&mut self, span: Span, name: &str, place: Place) {
        if place == Place::LeftOut {
            return;
        }
        let message = format!("secret `{name}` is used outside `env`");
        let draft = Draft::error(codes::SECRET_PLACE, span, message);
        self.sink.push(
            draft
                .label("secrets are allowed in `env` values, `files` and platform settings")
                .help("secrets reach a service through `env`; argv is visible to everyone"),
        );
    }

    fn unset(&mut self, name: &str, empty: bool, or: Or<'_>, at: Span) {
        let state = if empty { "empty" } else { "not set" };
        let mut message = format!("the environment variable `{name}` is {state}");
        if let Or::Message(said) = or
            && !said.is_empty()
        {
            message = format!("{message}: {said}");
        }
        let near = self
            .sink
            .nearest(name, self.values.env.keys().map(String::as_str));
        let help = match near {
            Some(near) => format!("did you mean `{near}`?"),
            None => format!("set it, or give a default: `${{env.{name}:-default}}`"),
        };
        let draft = Draft::error(codes::UNSET_ENV, at, message);
        self.sink.push(draft.label(state).help(help));
    }

    fn var(&mut self, name: &str, at: Span, text: &mut Text) {
        let problem = match self.vars.get(name) {
            _ if text.place == Place::Vars => "a variable cannot use another variable".to_owned(),
            Some(Some(value)) => {
                text.push(value, self.budget);
                return;
            }
            Some(None) => format!("the variable `{name}` has no value"),
            None => format!("there is no variable `{name}`"),
        };
        text.bad = true;
        let near = self
            .sink
            .nearest(name, self.vars.keys().map(String::as_str));
        let help = match near {
            _ if self.vars.contains_key(name) => format!("give it one with `--var {name}=…`"),
            Some(near) => format!("did you mean `{near}`?"),
            None => "variables are declared with their defaults under `vars:`".to_owned(),
        };
        let draft = Draft::error(codes::UNKNOWN_VAR, at, problem);
        self.sink.push(draft.help(help));
    }
}

/// The error of a URL that is needed before there is one.
fn too_early(at: Span, later: &Later) -> Draft {
    let (service, platform) = (&later.reference.service, &later.platform);
    let message = format!(
        "the URL of `{service}` on platform `{platform}` is known only once it is there, which is too late here"
    );
    let draft = Draft::error(codes::UNKNOWN_REFERENCE, at, message);
    draft.help("`env`, `command` and `args` of a service can name it")
}

/// Whether something with these `profiles` is left out.
pub(super) fn left_out(
    tree: &Tree<'_>,
    profiles: NodeId,
    selected: &std::collections::BTreeSet<String>,
) -> bool {
    let wanted = names(tree, profiles);
    !wanted.is_empty() && !wanted.iter().any(|profile| selected.contains(*profile))
}

/// One scalar on its way.
struct Text {
    span: Span,
    place: Place,
    out: String,
    uses: Vec<String>,
    services: Vec<String>,
    urls: Vec<(String, Later)>,
    changed: bool,
    bad: bool,
}

impl Text {
    /// Appends, up to one byte over the budget.
    fn push(&mut self, more: &str, budget: usize) {
        if self.out.len() <= budget {
            self.out.push_str(more);
        }
    }
}
