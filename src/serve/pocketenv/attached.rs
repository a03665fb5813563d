//! Variables, secrets, files and volumes: protocol page pocketenv, §8. They are only stored; a start of the
//! sandbox is what they take effect at.

use std::sync::Arc;

use jiff::Timestamp;
use serde_json::{Value, json};

use super::call::{Call, Keys, done, told};
use super::identity;
use super::input::Input;
use super::note::{Attached, Note};
use super::problem::{Answer, Problem};
use crate::serve::engine::Sandbox;

/// What is attached to a sandbox.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Variable,
    Secret,
    File,
    Volume,
}

impl Kind {
    /// The key of one in bodies and answers.
    fn noun(self) -> &'static str {
        match self {
            Self::Variable => "variable",
            Self::Secret => "secret",
            Self::File => "file",
            Self::Volume => "volume",
        }
    }

    fn plural(self) -> &'static str {
        match self {
            Self::Variable => "variables",
            Self::Secret => "secrets",
            Self::File => "files",
            Self::Volume => "volumes",
        }
    }

    /// `Variable`, in messages.
    fn title(self) -> &'static str {
        match self {
            Self::Variable => "Variable",
            Self::Secret => "Secret",
            Self::File => "File",
            Self::Volume => "Volume",
        }
    }

    fn id_prefix(self) -> &'static str {
        match self {
            Self::Variable => "var",
            Self::Secret => "secret",
            Self::File => "file",
            Self::Volume => "vol",
        }
    }

    fn keys(self) -> Keys {
        match self {
            Self::Variable | Self::Secret => Keys::Id,
            Self::File | Self::Volume => Keys::IdOrName,
        }
    }

    fn all(self, note: &mut Note) -> &mut Vec<Attached> {
        match self {
            Self::Variable => &mut note.variables,
            Self::Secret => &mut note.secrets,
            Self::File => &mut note.files,
            Self::Volume => &mut note.volumes,
        }
    }

    /// Name and value that a body gives.
    fn read(self, input: &Input) -> Answer<(String, String)> {
        let (name, value) = match self {
            Self::Variable | Self::Secret => ("name", input.needed_text("value")?),
            Self::File => ("path", input.needed_text("content")?),
            Self::Volume => ("name", input.text("path")?.unwrap_or_default()),
        };
        Ok((input.needed_text(name)?, value))
    }

    /// Whether two of them cannot be in one sandbox.
    fn clash(self, one: &Attached, name: &str, value: &str) -> bool {
        match self {
            Self::Volume => one.value == value,
            Self::Variable | Self::Secret | Self::File => one.name == name,
        }
    }

    fn object(self, one: &Attached) -> Value {
        let created_at = identity::shown(one.created_at);
        let updated_at = identity::shown(one.updated_at);
        let (id, name, value) = (&one.id, &one.name, &one.value);
        match self {
            Self::Variable => json!({
                "id": id, "name": name, "value": value,
                "createdAt": created_at, "updatedAt": updated_at,
            }),
            Self::Secret => json!({ "id": id, "name": name, "createdAt": created_at }),
            Self::File => json!({
                "id": id, "path": name, "createdAt": created_at, "updatedAt": updated_at,
            }),
            Self::Volume => json!({
                "id": id, "name": name, "path": value,
                "createdAt": created_at, "updatedAt": updated_at,
            }),
        }
    }
}

pub(super) async fn add(call: Call, kind: Kind) -> Answer {
    let input = call.input.object(kind.noun())?;
    let (name, value) = kind.read(&input)?;
    let place = input.needed_text("sandboxId")?;
    let sandbox = call.own(&place, kind.keys())?;
    let sandbox = sandbox.ok_or_else(|| match kind {
        Kind::Variable | Kind::Secret => Problem::internal(),
        Kind::File | Kind::Volume => Problem::not_found("Sandbox"),
    })?;
    let now = Timestamp::now();
    let added = Note::change(&sandbox, |note| {
        let all = kind.all(note);
        let free = !all.iter().any(|one| kind.clash(one, &name, &value));
        if free {
            all.push(Attached {
                id: identity::new_id(kind.id_prefix()),
                name,
                value,
                created_at: now,
                updated_at: now,
            });
        }
        free
    })?;
    match added {
        true => done(),
        false => Err(Problem::internal()),
    }
}

pub(super) async fn list(call: Call, kind: Kind) -> Answer {
    let page = call.page(20)?;
    let sandboxes = match call.param("sandboxId") {
        Some(text) => call.own(text, kind.keys())?.into_iter().collect(),
        None => call.user()?.sandboxes(),
    };
    let mut all = Vec::new();
    for sandbox in sandboxes {
        let mut note = Note::of(&sandbox);
        all.extend(kind.all(&mut note).iter().map(|one| kind.object(one)));
    }
    let total = all.len();
    let mut answer = json!({ "total": total });
    answer[kind.plural()] = page.of(all).into();
    told(answer)
}

/// The one with this id, and its sandbox.
fn find(call: &Call, kind: Kind, id: &str) -> Answer<Option<(Arc<Sandbox>, Attached)>> {
    let mut sandboxes = call.user()?.sandboxes().into_iter();
    Ok(sandboxes.find_map(|sandbox| {
        let mut note = Note::of(&sandbox);
        let found = kind.all(&mut note).iter().find(|one| one.id == id).cloned();
        Some((sandbox, found?))
    }))
}

pub(super) async fn show(call: Call, kind: Kind) -> Answer {
    let found = find(&call, kind, call.needed_param("id")?)?;
    let mut answer = json!({});
    if let Some((_, one)) = found {
        answer[kind.noun()] = kind.object(&one);
    }
    told(answer)
}

pub(super) async fn update(call: Call, kind: Kind) -> Answer {
    let id = call.input.needed_text("id")?;
    let (name, value) = kind.read(&call.input.object(kind.noun())?)?;
    let found = find(&call, kind, &id)?;
    let (sandbox, _) = found.ok_or_else(|| Problem::not_found(kind.title()))?;
    let updated = Note::change(&sandbox, |note| {
        let all = kind.all(note);
        let mut others = all.iter().filter(|one| one.id != id);
        let free = !others.any(|one| kind.clash(one, &name, &value));
        if let Some(one) = all.iter_mut().find(|one| free && one.id == id) {
            one.name = name;
            // The platform leaves the content of a file as it was.
            if kind != Kind::File {
                one.value = value;
            }
            one.updated_at = Timestamp::now();
        }
        free
    })?;
    match updated {
        true => done(),
        false => Err(Problem::internal()),
    }
}

pub(super) async fn remove(call: Call, kind: Kind) -> Answer {
    let id = call.needed_param("id")?;
    match find(&call, kind, id)? {
        Some((sandbox, one)) => {
            Note::change(&sandbox, |note| {
                kind.all(note).retain(|other| other.id != one.id);
            })?;
            done()
        }
        None if matches!(kind, Kind::File | Kind::Volume) => done(),
        None => Err(Problem::not_found(kind.title())),
    }
}
