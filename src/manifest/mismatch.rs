//! What to say when a value does not fit its type.

use std::borrow::Cow;
use std::cell::RefCell;
use std::fmt;

use serde::de::{Expected, Unexpected};

use super::codes;
use super::diagnostic::{Draft, Sink};
use super::suggest::one_of;
use super::tree::{Kind, NodeId, Tree};

/// What decoding shares.
pub(super) struct Cx<'a, 's> {
    pub tree: &'a Tree<'s>,
    pub root: NodeId,
    pub sink: RefCell<&'a mut Sink>,
}

/// What is wrong with a value; where, once a deserializer has seen it.
#[derive(Debug)]
pub(super) struct Error {
    pub at: Option<NodeId>,
    pub what: What,
}

#[derive(Debug)]
pub(super) enum What {
    /// It has been said.
    Silent,
    Type {
        expected: Cow<'static, str>,
        help: Option<&'static str>,
    },
    Choice {
        expected: &'static [&'static str],
    },
    Value(String),
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.what {
            What::Silent => f.write_str("bad value"),
            What::Type { expected, .. } => write!(f, "expected {expected}"),
            What::Choice { expected } => write!(f, "expected {}", one_of(expected)),
            What::Value(message) => f.write_str(message),
        }
    }
}

impl std::error::Error for Error {}

impl serde::de::Error for Error {
    fn custom<T: fmt::Display>(message: T) -> Self {
        What::Value(message.to_string()).into()
    }
    fn invalid_type(_: Unexpected<'_>, expected: &dyn Expected) -> Self {
        mismatch(expected.to_string())
    }
}

impl From<What> for Error {
    fn from(what: What) -> Self {
        Self { at: None, what }
    }
}

pub(super) fn mismatch(expected: impl Into<Cow<'static, str>>) -> Error {
    let expected = expected.into();
    What::Type {
        expected,
        help: None,
    }
    .into()
}

impl Cx<'_, '_> {
    pub fn report(&self, error: Error, fallback: NodeId) {
        let at = error.at.unwrap_or(fallback);
        let span = self.tree.span(at);
        let node = self.tree.node(at);
        let text = |key: Option<NodeId>| self.tree.text(key?);
        let (name, list) = (text(node.key), text(node.list));
        let field = match name {
            Some(name) => format!("`{}`", shorten(name)),
            None if at == self.root => "a manifest".to_owned(),
            None => list.map_or("an entry here".to_owned(), |list| {
                format!("an entry of `{}`", shorten(list))
            }),
        };
        let draft = match error.what {
            What::Silent => return,
            What::Type { expected, help } => {
                let found = found(self.tree, at);
                let message = format!("{field} takes {expected}, but this is {found}");
                let mut draft = Draft::error(codes::WRONG_TYPE, span, message);
                draft = draft.label(format!("expected {expected}"));
                if let Some(help) = help {
                    draft = draft.help(help);
                }
                draft
            }
            What::Choice { expected } => {
                let word = self.tree.text(at).unwrap_or_default();
                let message = format!("`{}` is not a value of {field}", shorten(word));
                let near = self
                    .sink
                    .borrow_mut()
                    .nearest(word, expected.iter().copied());
                Draft::error(codes::BAD_VALUE, span, message)
                    .label(format!("expected {}", one_of(expected)))
                    .suggest(span, near)
            }
            What::Value(message) => Draft::error(codes::BAD_VALUE, span, message),
        };
        self.sink.borrow_mut().push(draft);
    }

    pub fn unknown(&self, key: NodeId, fields: &'static [&'static str]) {
        let span = self.tree.span(key);
        let word = self.tree.text(key).unwrap_or_default();
        if word.starts_with("x-") && fields.contains(&"sandboxes") {
            // A place for anchors, as in docker compose.
            return;
        }
        let mut sink = self.sink.borrow_mut();
        let near = alias(word).filter(|word| fields.contains(word));
        let near = near.or_else(|| sink.nearest(word, fields.iter().copied()));
        let message = format!("there is no field `{}` here", shorten(word));
        let draft = Draft::error(codes::UNKNOWN_FIELD, span, message).label("unknown field");
        sink.push(match near {
            Some(near) => draft.suggest(span, Some(near)),
            None => draft.help(format!("the fields here are {}", listed(fields))),
        });
    }
}

/// Words that other tools use for our fields.
fn alias(word: &str) -> Option<&'static str> {
    Some(match word {
        "depends_on" | "dependencies" | "requires" | "after" => "needs",
        "environment" => "env",
        "cwd" | "workdir" | "working_directory" | "dir" => "working_dir",
        "healthcheck" | "health_check" | "readiness" => "health",
        "run" | "script" | "shell" => "command",
        "cpus" | "cpu" => "vcpus",
        "port" => "ports",
        "isolate" => "isolation",
        "mounts" | "mount" => "volumes",
        "configs" | "config_files" => "files",
        "file" | "source" => "from",
        "mem" | "mem_limit" | "ram" => "memory",
        "pids" | "pids_limit" | "nproc" => "processes",
        "nofile" | "open_files" => "files",
        "resources" | "ulimits" => "limits",
        "branch" | "tag" | "commit" | "rev" => "ref",
        "git" | "repository" => "repo",
        _ => return None,
    })
}

pub(super) fn listed(fields: &[&str]) -> String {
    let quoted: Vec<_> = fields.iter().map(|field| format!("`{field}`")).collect();
    quoted.join(", ")
}

fn shorten(word: &str) -> String {
    match word.char_indices().nth(60) {
        Some((at, _)) => format!("{}…", &word[..at]),
        None => word.to_owned(),
    }
}

/// What a node is, for people.
fn found(tree: &Tree<'_>, at: NodeId) -> String {
    match tree.kind(at) {
        Kind::Seq(_) => "a list".to_owned(),
        Kind::Map(_) => "a map".to_owned(),
        _ if tree.is_null(at) => "empty".to_owned(),
        Kind::Scalar(scalar) if scalar.plain => match core(&scalar.text) {
            Core::Int(_) | Core::Float(_) => format!("the number {}", shorten(&scalar.text)),
            Core::Bool(_) => format!("`{}`", scalar.text),
            Core::Text => format!("the text `{}`", shorten(&scalar.text)),
        },
        Kind::Scalar(scalar) => format!("the text `{}`", shorten(&scalar.text)),
        _ => "something else".to_owned(),
    }
}

/// A plain scalar by the YAML 1.2 core schema.
pub(super) enum Core {
    Bool(bool),
    Int(i128),
    Float(f64),
    Text,
}

pub(super) fn core(text: &str) -> Core {
    match text {
        "true" | "True" | "TRUE" => return Core::Bool(true),
        "false" | "False" | "FALSE" => return Core::Bool(false),
        ".inf" | ".Inf" | ".INF" | "+.inf" => return Core::Float(f64::INFINITY),
        "-.inf" | "-.Inf" | "-.INF" => return Core::Float(f64::NEG_INFINITY),
        ".nan" | ".NaN" | ".NAN" => return Core::Float(f64::NAN),
        _ => {}
    }
    let radix = |prefix, radix| {
        let digits: &str = text.strip_prefix(prefix)?;
        let digits = Some(digits).filter(|digits| !digits.starts_with(['+', '-']))?;
        i128::from_str_radix(digits, radix).ok()
    };
    if let Some(number) = radix("0x", 16).or_else(|| radix("0o", 8)) {
        return Core::Int(number);
    }
    let Some(first) = text.trim_start_matches(['+', '-']).bytes().next() else {
        return Core::Text;
    };
    if !(first.is_ascii_digit() || first == b'.') {
        return Core::Text;
    }
    if let Ok(number) = text.parse() {
        return Core::Int(number);
    }
    let number = |c: char| c.is_ascii_digit() || matches!(c, '+' | '-' | '.' | 'e' | 'E');
    match text.parse() {
        Ok(float) if text.chars().all(number) => Core::Float(float),
        _ => Core::Text,
    }
}
