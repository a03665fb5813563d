//! Ports: protocol page pocketenv, §6.

use serde_json::{Value, json};

use super::call::{Call, Keys, done, told};
use super::note::{CLOUDFLARE, Note, Port};
use super::problem::{Answer, Problem};
use crate::serve::engine::{Access, Engine, Result, Sandbox};
use crate::serve::preview;

/// What the editor listens at.
const VSCODE: u16 = 1024;

/// What the provider keeps for itself.
const RESERVED: u16 = 3000;

/// Exposes a port that has a row, if the provider does that.
pub(super) fn expose_one(engine: &Engine, sandbox: &Sandbox, port: u16) -> Answer<Option<String>> {
    if port == RESERVED || port <= VSCODE {
        return Err(Problem::refused());
    }
    Ok(give_url(engine, sandbox, port)?)
}

fn give_url(engine: &Engine, sandbox: &Sandbox, port: u16) -> Result<Option<String>> {
    if Note::of(sandbox).provider() != CLOUDFLARE {
        return Ok(None);
    }
    let url = preview::port_url(engine, sandbox, port);
    sandbox.update(|record| {
        record.previews.insert(port, Access::Public);
        Note::change_in(record, |note| {
            for row in note.ports.iter_mut().filter(|row| row.port == port) {
                row.url = Some(url.clone());
            }
        });
    })?;
    Ok(Some(url))
}

/// Exposes every port that has a row, as a start does.
pub(super) fn expose_all(engine: &Engine, sandbox: &Sandbox) -> Result<()> {
    for row in Note::of(sandbox).ports {
        if row.port != RESERVED {
            give_url(engine, sandbox, row.port)?;
        }
    }
    Ok(())
}

fn answer(url: Option<String>) -> Answer {
    told(match url {
        Some(url) => json!({ "previewUrl": url }),
        None => json!({}),
    })
}

pub(super) async fn expose(call: Call) -> Answer {
    let port = call.input.needed_integer("port", 1025, 65535)?;
    let port = u16::try_from(port).unwrap_or(u16::MAX);
    let description = call.input.text("description")?;
    let sandbox = call.own_by("id")?;
    let added = Note::change(&sandbox, |note| {
        let free = note.ports.iter().all(|row| row.port != port);
        if free {
            note.ports.push(Port {
                port,
                description,
                url: None,
                service: None,
            });
        }
        free
    })?;
    if !added {
        return Err(Problem::internal());
    }
    answer(expose_one(&call.engine, &sandbox, port)?)
}

pub(super) async fn unexpose(call: Call) -> Answer {
    let port = call.input.needed_integer("port", 1024, 65535)?;
    let port = u16::try_from(port).unwrap_or(u16::MAX);
    let sandbox = call.own_by("id")?;
    sandbox.update(|record| {
        record.previews.remove(&port);
        Note::change_in(record, |note| note.ports.retain(|row| row.port != port));
    })?;
    done()
}

pub(super) async fn expose_vscode(call: Call) -> Answer {
    let sandbox = call.own_by("id")?;
    Note::change(&sandbox, |note| {
        if note.ports.iter().all(|row| row.port != VSCODE) {
            note.ports.push(Port {
                port: VSCODE,
                description: Some("VS Code Server".to_owned()),
                url: None,
                service: None,
            });
        }
    })?;
    answer(give_url(&call.engine, &sandbox, VSCODE)?)
}

fn object(row: &Port) -> Value {
    let mut object = json!({ "port": row.port });
    let optional = [("description", &row.description), ("previewUrl", &row.url)];
    for (key, value) in optional {
        if let Some(value) = value {
            object[key] = json!(value);
        }
    }
    object
}

pub(super) async fn list(call: Call) -> Answer {
    let text = call.needed_param("id")?;
    let rows = match call.own(text, Keys::IdOrName)? {
        Some(sandbox) => Note::of(&sandbox).ports,
        None => Vec::new(),
    };
    let rows: Vec<_> = rows.iter().map(object).collect();
    told(json!({ "ports": rows }))
}
