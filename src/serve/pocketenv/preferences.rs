//! Renaming and describing sandboxes: protocol page pocketenv, §4.5.

use serde_json::{Value, json};

use super::call::{Call, Keys, done, told};
use super::input::Input;
use super::note::Note;
use super::problem::{Answer, Problem};
use super::sandboxes::LONGEST_TOPIC;
use crate::serve::engine::{Engine, Sandbox};

/// The kind of preference that holds what a sandbox is called.
const DETAILS: &str = "io.pocketenv.sandbox.defs#sandboxDetailsPref";

pub(super) async fn list(call: Call) -> Answer {
    call.own_by("id")?;
    told(json!([]))
}

/// A field that may also be `null`, for "no more".
enum Change<T> {
    Keep,
    Clear,
    Set(T),
}

fn change<T>(
    input: &Input,
    key: &str,
    read: impl FnOnce() -> Answer<Option<T>>,
) -> Answer<Change<T>> {
    if input.is_null(key) {
        return Ok(Change::Clear);
    }
    Ok(read()?.map_or(Change::Keep, Change::Set))
}

pub(super) async fn put(call: Call) -> Answer {
    let id = call.input.needed_text("sandboxId")?;
    let preferences = call.input.items("preferences")?.unwrap_or_default();
    let mut all = Vec::new();
    for preference in preferences {
        let kind = preference["$type"].as_str();
        let (Some(kind), Value::Object(fields)) = (kind, preference) else {
            let text =
                "Input/preferences/0 must be an object which includes the \"$type\" property";
            return Err(Problem::invalid(text));
        };
        if kind == DETAILS {
            all.push(Input::new(fields.clone()));
        }
    }
    // Nobody is told that there is no such sandbox.
    let Some(sandbox) = call.own(&id, Keys::Id)? else {
        return done();
    };
    for details in &all {
        put_details(&call.engine, &sandbox, details)?;
    }
    done()
}

fn put_details(engine: &Engine, sandbox: &Sandbox, details: &Input) -> Answer<()> {
    let name = details.text("name")?;
    let description = change(details, "description", || details.text("description"))?;
    let topics = change(details, "topics", || details.texts("topics", LONGEST_TOPIC))?;
    let repo = change(details, "repo", || details.text("repo"))?;
    let known = ["name", "description", "topics", "repo"];
    if !known.iter().any(|key| details.has(key)) {
        return Err(Problem::internal());
    }
    let taken = |name: &String| {
        let accounts = engine.accounts().chain([engine.unclaimed()]);
        let mut all = accounts.flat_map(|account| account.sandboxes());
        all.any(|other| other.id() != sandbox.id() && other.has_name(name))
    };
    if name.as_ref().is_some_and(taken) {
        return Err(Problem::internal());
    }
    sandbox.update(|record| {
        if let Some(name) = name {
            record.name = name;
        }
        match description {
            Change::Keep => {}
            Change::Clear => record.description = None,
            Change::Set(text) => record.description = Some(text),
        }
        match topics {
            Change::Keep => {}
            Change::Clear => record.labels.clear(),
            Change::Set(topics) => record.labels = topics,
        }
        Note::change_in(record, |note| match repo {
            Change::Keep => {}
            Change::Clear => note.repo = None,
            Change::Set(url) => note.repo = Some(url),
        });
    })?;
    Ok(())
}
