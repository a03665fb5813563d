//! Which fields of two definitions differ.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;
use serde_json::Value;

use super::Change;
use crate::model::{SandboxSpec, ServiceSpec};

/// The differences between two service definitions. Digests of secrets never appear.
pub(super) fn service(old: &ServiceSpec, new: &ServiceSpec) -> Vec<Change> {
    let [before, after] = [old, new].map(|spec| (texts("env", &spec.env), &spec.secrets));
    let mut changes = changes(old, new, before, after);
    for change in &mut changes {
        change.known_after_apply = names_url(&change.new, new);
    }
    changes
}

/// The fields of a new definition of which a part is known only later.
pub(super) fn known_after_apply(new: &ServiceSpec) -> Vec<Change> {
    if new.references.is_empty() {
        return Vec::new();
    }
    let fields = flatten(new).into_iter();
    let fields = fields.filter(|(_, value)| names_url(value, new));
    let change = |(field, new)| Change {
        known_after_apply: true,
        ..Change::of(field, Value::Null, new)
    };
    fields.map(change).collect()
}

/// Whether a value has one of the references of `spec` in it.
fn names_url(value: &Value, spec: &ServiceSpec) -> bool {
    match value {
        Value::String(text) => {
            let mut written = spec.references.keys();
            written.any(|name| text.contains(&format!("${{{name}}}")))
        }
        Value::Array(items) => items.iter().any(|item| names_url(item, spec)),
        _ => false,
    }
}

impl Change {
    fn of(field: String, old: Value, new: Value) -> Self {
        Self {
            field,
            old,
            new,
            secret: false,
            known_after_apply: false,
        }
    }

    fn of_secret(field: String) -> Self {
        Self {
            secret: true,
            ..Self::of(field, Value::Null, Value::Null)
        }
    }
}

/// The differences between two sandbox specs. Digests of secrets never appear.
pub(super) fn sandbox(old: &SandboxSpec, new: &SandboxSpec) -> Vec<Change> {
    let masked = |spec: &SandboxSpec| {
        let mut spec = spec.clone();
        if let Some(repo) = &mut spec.repo {
            repo.url = repo.shown_url();
        }
        for secret in spec.files.values_mut() {
            *secret = placeholder(secret);
        }
        spec
    };
    let [old, new] = [masked(old), masked(new)];
    let [before, after] = [&old, &new].map(|spec| {
        let texts = [texts("env", &spec.env), texts("files", &spec.files)];
        (texts.into_iter().flatten().collect(), &spec.secrets)
    });
    changes(&old, &new, before, after)
}

/// What stands for a secret where it is used.
fn placeholder(secret: &str) -> String {
    format!("${{secret.{secret}}}")
}

/// The fields of a definition that may use secrets, with their texts; and the digests of the secrets.
type Sealed<'s> = (Vec<(String, &'s str)>, &'s BTreeMap<String, String>);

/// The texts of one field, each with its own path.
fn texts<'s>(field: &str, texts: &'s BTreeMap<String, String>) -> Vec<(String, &'s str)> {
    let texts = texts.iter();
    texts
        .map(|(key, text)| (format!("{field}.{key}"), text.as_str()))
        .collect()
}

fn changes<T: Serialize + PartialEq>(
    old: &T,
    new: &T,
    before: Sealed<'_>,
    after: Sealed<'_>,
) -> Vec<Change> {
    let (mut left, mut right) = (flatten(old), flatten(new));
    let fields: BTreeSet<String> = left.keys().chain(right.keys()).cloned().collect();
    let mut changes = Vec::new();
    for field in fields {
        let (old, new) = (left.remove(&field), right.remove(&field));
        if old != new {
            let (old, new) = (old.unwrap_or_default(), new.unwrap_or_default());
            changes.push(Change::of(field, old, new));
        }
    }
    let known: BTreeSet<String> = changes.iter().map(|change| change.field.clone()).collect();
    for field in secret_fields(before, after) {
        if !known.contains(&field) {
            changes.push(Change::of_secret(field));
        }
    }
    if changes.is_empty() && old != new {
        changes.push(Change::of_secret("definition".to_owned()));
    }
    changes.sort_by(|a, b| a.field.cmp(&b.field));
    changes
}

/// The places where a secret is used whose value is another one now.
fn secret_fields(old: Sealed<'_>, new: Sealed<'_>) -> BTreeSet<String> {
    let names: BTreeSet<&String> = old.1.keys().chain(new.1.keys()).collect();
    let mut fields = BTreeSet::new();
    for name in names {
        if old.1.get(name) == new.1.get(name) {
            continue;
        }
        let mark = placeholder(name);
        let texts = old.0.iter().chain(&new.0);
        let before = fields.len();
        let used = texts.filter(|(_, text)| text.contains(&mark));
        fields.extend(used.map(|(field, _)| field.clone()));
        if fields.len() == before {
            fields.insert(format!("secrets.{name}"));
        }
    }
    fields
}

/// A definition as paths and values; lists stay whole, digests are left out.
fn flatten<T: Serialize>(spec: &T) -> BTreeMap<String, Value> {
    let mut fields = BTreeMap::new();
    if let Ok(Value::Object(mut object)) = serde_json::to_value(spec) {
        object.remove("secrets");
        object.remove("references");
        walk(String::new(), Value::Object(object), &mut fields);
    }
    fields
}

fn walk(path: String, value: Value, fields: &mut BTreeMap<String, Value>) {
    match value {
        Value::Object(object) => {
            for (key, value) in object {
                let path = if path.is_empty() {
                    key
                } else {
                    format!("{path}.{key}")
                };
                walk(path, value, fields);
            }
        }
        value => {
            fields.insert(path, value);
        }
    }
}
