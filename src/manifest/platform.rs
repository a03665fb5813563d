//! `platforms:` and the platforms that need no entry.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet, HashMap};

use secrecy::{ExposeSecret, SecretString};

use super::codes;
use super::diagnostic::{Draft, Sink, Span};
use super::field::Key;
use super::mismatch::listed;
use super::suggest::one_of;
use super::tree::{NodeId, Tree};
use super::types::Manifest;
use crate::model::{Capabilities, Secrets};

/// One platform of a manifest.
#[derive(Debug, Clone, PartialEq)]
pub struct PlatformConfig {
    /// Which kind of platform it is.
    pub kind: String,
    /// Whether a sandbox of the manifest lives there.
    pub used: bool,
    /// Everything else that was written; `${secret.name}` stays as written.
    pub settings: serde_yaml::Mapping,
}

impl PlatformConfig {
    /// The entry that `local` has without one.
    pub fn local() -> Self {
        Self::of_kind("local")
    }

    /// An entry of nothing but its kind.
    pub fn of_kind(kind: &str) -> Self {
        Self {
            kind: kind.to_owned(),
            used: false,
            settings: serde_yaml::Mapping::new(),
        }
    }

    /// A setting that is a scalar, with the secrets in it put in. A secret without a value stays
    /// as written.
    pub fn setting(&self, name: &str, secrets: &Secrets) -> Option<SecretString> {
        let text = match self.settings.get(name)? {
            serde_yaml::Value::String(text) => text.clone(),
            serde_yaml::Value::Bool(value) => value.to_string(),
            serde_yaml::Value::Number(value) => value.to_string(),
            _ => return None,
        };
        let mut out = String::new();
        let mut rest = text.as_str();
        while let Some(start) = rest.find("${secret.") {
            let name = rest[start + "${secret.".len()..].split_once('}');
            let value = name.and_then(|(name, tail)| Some((secrets.get(name)?, tail)));
            match value {
                Some((value, tail)) => {
                    out.push_str(&rest[..start]);
                    out.push_str(value.expose_secret());
                    rest = tail;
                }
                None => {
                    out.push_str(&rest[..start + 2]);
                    rest = &rest[start + 2..];
                }
            }
        }
        out.push_str(rest);
        Some(SecretString::from(out))
    }
}

/// Declared platforms and known kinds.
pub(super) struct Platforms<'m> {
    declared: HashMap<&'m str, Declared>,
    known: &'m [&'static Capabilities],
    used: RefCell<BTreeSet<String>>,
    unknown: RefCell<BTreeSet<(String, u16, u32)>>,
}

struct Declared {
    config: PlatformConfig,
    kind: Option<&'static Capabilities>,
    at: Option<NodeId>,
}

/// Checks the entries of `platforms:`.
pub(super) fn platforms<'m>(
    manifest: &'m Manifest,
    known: &'m [&'static Capabilities],
    tree: &Tree<'_>,
    sink: &mut Sink,
) -> Platforms<'m> {
    let mut declared = HashMap::new();
    for (key, field) in manifest.platforms.value.iter().flat_map(|dict| &dict.0) {
        let at = tree.span(key.at);
        let mut config = PlatformConfig::of_kind("");
        let mut found = None;
        let mut silent = field.bad;
        for (setting, value) in field.value.iter().flat_map(|platform| &platform.0.0) {
            if setting.name == "kind" {
                found = value.at.filter(|_| !value.bad);
                silent = value.bad;
                continue;
            }
            let value = value.value.clone().unwrap_or_default();
            config.settings.insert(setting.name.clone().into(), value);
        }
        let mut kind = None;
        match found.map(|at| (tree.text(at), tree.span(at))) {
            Some((Some(word), span)) => {
                config.kind = word.to_owned();
                kind = known.iter().copied().find(|known| known.kind == word);
                if kind.is_none() {
                    let kinds: Vec<_> = known.iter().map(|known| known.kind).collect();
                    let message = format!("there is no kind of platform `{word}`");
                    let draft = Draft::error(codes::UNKNOWN_PLATFORM, span, message);
                    let near = sink.nearest(word, kinds.iter().copied());
                    let draft = draft.label(format!("expected {}", one_of(&kinds)));
                    sink.push(draft.suggest(span, near));
                }
            }
            Some((None, span)) => {
                let draft = Draft::error(codes::WRONG_TYPE, span, "`kind` takes text");
                sink.push(draft.label("expected the name of a kind"));
            }
            None if silent => {}
            None => {
                let message = format!("platform `{}` has no `kind`", key.name);
                let draft = Draft::error(codes::MISSING, at, message);
                sink.push(
                    draft
                        .help("write for example `{ kind: local }`; `gabion platforms` lists them"),
                );
            }
        }
        if let Some(kind) = kind {
            for (setting, _) in field.value.iter().flat_map(|platform| &platform.0.0) {
                check_setting(&key.name, kind, setting, tree, sink);
            }
        }
        let at = field.at;
        declared.insert(key.name.as_str(), Declared { config, kind, at });
    }
    Platforms {
        declared,
        known,
        used: RefCell::default(),
        unknown: RefCell::default(),
    }
}

/// Says so if a kind has no such setting.
fn check_setting(
    platform: &str,
    kind: &Capabilities,
    setting: &Key,
    tree: &Tree<'_>,
    sink: &mut Sink,
) {
    let known = || kind.settings.iter().map(|(name, _)| *name);
    if setting.name == "kind" || known().any(|name| name == setting.name) {
        return;
    }
    let span = tree.span(setting.at);
    let (name, kind) = (&setting.name, kind.kind);
    let message = format!("platform `{platform}` (kind `{kind}`) has no setting `{name}`");
    let draft = Draft::error(codes::UNKNOWN_FIELD, span, message).label("unknown setting");
    let names: Vec<_> = std::iter::once("kind").chain(known()).collect();
    let near = sink.nearest(name, names.iter().copied());
    sink.push(
        draft
            .help(format!("its settings are {}", listed(&names)))
            .suggest(span, near),
    );
}

impl Platforms<'_> {
    /// What a platform's entry would have to say for a sandbox to have the fields that it has: field and
    /// setting.
    pub fn demands<'k>(
        &self,
        name: &str,
        kind: &'k Capabilities,
    ) -> impl Iterator<Item = (&'k str, String)> {
        let entry = self.declared.get(name);
        kind.demands
            .iter()
            .filter_map(move |(field, setting, value)| {
                let written = entry?.config.settings.get(*setting)?;
                (written.as_str() != Some(value)).then(|| (*field, format!("{setting}: {value}")))
            })
    }

    /// What the platform called `name` can do; says so if there is none.
    pub fn find(&self, name: &str, at: Span, sink: &mut Sink) -> Option<&'static Capabilities> {
        let entry = self.declared.get(name);
        let kind = self.known.iter().copied().find(|known| known.kind == name);
        if entry.is_some() || kind.is_some() {
            self.used.borrow_mut().insert(name.to_owned());
            return entry.map_or(kind, |entry| entry.kind);
        }
        // A default that is wrong is wrong once.
        if !self
            .unknown
            .borrow_mut()
            .insert((name.to_owned(), at.file, at.start))
        {
            return None;
        }
        let mut names: Vec<_> = self.declared.keys().copied().collect();
        names.extend(self.known.iter().map(|known| known.kind));
        names.sort_unstable();
        names.dedup();
        let message = format!("there is no platform `{name}`");
        let draft = Draft::error(codes::UNKNOWN_PLATFORM, at, message);
        let near = sink.nearest(name, names.iter().copied());
        let draft = draft.label(format!("expected {}", one_of(&names)));
        sink.push(draft.suggest(at, near));
        None
    }

    /// The places of all entries, and whether each is used; used ones first.
    pub fn settings(&self) -> Vec<(bool, NodeId)> {
        let used = self.used.borrow();
        let place = |(name, entry): (&&str, &Declared)| Some((used.contains(*name), entry.at?));
        let mut places: Vec<_> = self.declared.iter().filter_map(place).collect();
        places.sort_unstable_by_key(|(used, at)| (!used, *at));
        places
    }

    /// Every platform that is declared or used.
    pub fn used(&self) -> BTreeMap<String, PlatformConfig> {
        let declared = self.declared.iter();
        let mut all: BTreeMap<_, _> = declared
            .map(|(name, entry)| ((*name).to_owned(), entry.config.clone()))
            .collect();
        for name in self.used.borrow().iter() {
            all.entry(name.clone())
                .or_insert_with(|| PlatformConfig::of_kind(name))
                .used = true;
        }
        all
    }
}
