//! Services: protocol page pocketenv, §5. What is shown of one is what was asked for last, not how it is.

use std::collections::BTreeSet;
use std::sync::Arc;

use jiff::Timestamp;
use serde_json::{Value, json};

use super::call::{Call, Keys, done, told};
use super::input::Input;
use super::note::{CLOUDFLARE, Note, Port, ServiceRow};
use super::problem::{Answer, Problem};
use super::status::{RUNNING, status};
use super::{PROTOCOL, identity, ports, start};
use crate::model::{Program, RestartPolicy, ServiceName, ServiceSpec};
use crate::serve::engine::{Known, Sandbox};

/// What a body says of a service.
struct Wanted {
    name: ServiceName,
    command: String,
    description: Option<String>,
    ports: Option<Vec<u16>>,
}

impl Wanted {
    fn read(input: &Input) -> Answer<Self> {
        let service = input.object("service")?;
        let name = service.needed_text("name")?;
        let command = service.needed_text("command")?;
        let name = ServiceName::new(name).map_err(|error| {
            // The platform takes any name; sandboxes of this machine do not.
            Problem::invalid(format!("Input/service/name must be a name: {error}"))
        })?;
        Ok(Self {
            name,
            command,
            description: service.text("description")?,
            ports: service.ports("ports")?,
        })
    }
}

/// A service and where it is.
struct Found {
    sandbox: Arc<Sandbox>,
    service: Known,
    row: ServiceRow,
}

/// What is known of a service beside its definition.
fn row(sandbox: &Sandbox, name: &ServiceName) -> ServiceRow {
    let record = sandbox.record();
    let kept = record.services.get(name);
    let row: ServiceRow = kept.map(|it| it.extra(PROTOCOL)).unwrap_or_default();
    if !row.id.is_empty() {
        return row;
    }
    ServiceRow {
        id: identity::service_id(sandbox, name.as_str()),
        created_at: None,
    }
}

fn keep_row(sandbox: &Sandbox, name: &ServiceName, row: &ServiceRow) -> Answer<()> {
    sandbox.update(|record| {
        let note = record.services.entry(name.clone()).or_default();
        note.set_extra(PROTOCOL, row);
    })?;
    Ok(())
}

fn object(sandbox: &Sandbox, service: &Known) -> Value {
    let row = row(sandbox, &service.name);
    let created_at = row.created_at.unwrap_or(sandbox.record().created_at);
    let command = match &service.spec.program {
        Program::Shell { command } => command.clone(),
        Program::Exec { .. } => service.spec.program.argv().join(" "),
    };
    json!({
        "id": row.id,
        "name": service.name,
        "description": service.spec.description,
        "command": command,
        "status": if service.wanted_up { "RUNNING" } else { "STOPPED" },
        "createdAt": identity::shown(created_at),
    })
}

pub(super) async fn list(call: Call) -> Answer {
    let text = call.needed_param("sandboxId")?;
    let Some(sandbox) = call.own(text, Keys::IdOrNameOrUri)? else {
        return told(json!({ "services": [] }));
    };
    let known = sandbox.known_services().await?;
    let shown: Vec<_> = known.iter().map(|it| object(&sandbox, it)).collect();
    told(json!({ "services": shown }))
}

/// The user's service that the parameter `serviceId` names.
async fn found(call: &Call) -> Answer<Found> {
    let id = call.needed_param("serviceId")?;
    let mut sandboxes = call.user()?.sandboxes();
    // Where it is noted, so that the others need not be asked.
    sandboxes.sort_by_cached_key(|sandbox| !has_note(sandbox, id));
    for sandbox in sandboxes {
        for service in sandbox.known_services().await? {
            let row = row(&sandbox, &service.name);
            if row.id == id {
                return Ok(Found {
                    sandbox,
                    service,
                    row,
                });
            }
        }
    }
    Err(Problem::not_found("Service"))
}

/// Whether a sandbox's record has a service with this id.
fn has_note(sandbox: &Sandbox, id: &str) -> bool {
    let record = sandbox.record();
    record.services.iter().any(|(name, note)| {
        let row: ServiceRow = note.extra(PROTOCOL);
        row.id == id || identity::service_id(sandbox, name.as_str()) == id
    })
}

/// Nobody else runs services.
fn has_services(sandbox: &Sandbox) -> bool {
    Note::of(sandbox).provider() == CLOUDFLARE
}

/// Rows for the ports of a service; none where one of them is taken.
fn rows(note: &Note, name: &ServiceName, id: &str, ports: &[u16]) -> Option<Vec<Port>> {
    let of_others = |row: &&Port| row.service.as_deref() != Some(id);
    let mut taken: BTreeSet<u16> = note
        .ports
        .iter()
        .filter(of_others)
        .map(|it| it.port)
        .collect();
    let row = |port: &u16| {
        taken.insert(*port).then(|| Port {
            port: *port,
            description: Some(format!("Port {port} for service {name}")),
            url: None,
            service: Some(id.to_owned()),
        })
    };
    ports.iter().map(row).collect()
}

fn apply(spec: &mut ServiceSpec, wanted: &Wanted) {
    spec.program = Program::Shell {
        command: wanted.command.clone(),
    };
    if wanted.description.is_some() {
        spec.description.clone_from(&wanted.description);
    }
    if let Some(ports) = &wanted.ports {
        spec.ports.clone_from(ports);
    }
}

pub(super) async fn add(call: Call) -> Answer {
    let wanted = Wanted::read(&call.input)?;
    let sandbox = call.own_by("sandboxId")?;
    let _defining = sandbox.defining().await;
    let known = sandbox.known_services().await?;
    if known.iter().any(|service| service.name == wanted.name) {
        return Err(Problem::internal());
    }
    let row = ServiceRow {
        id: identity::new_id("svc"),
        created_at: Some(Timestamp::now()),
    };
    let listed = wanted.ports.clone().unwrap_or_default();
    let kept = Note::change(&sandbox, |note| {
        let rows = rows(note, &wanted.name, &row.id, &listed)?;
        note.ports.extend(rows);
        Some(())
    })?;
    kept.ok_or_else(Problem::internal)?;
    let program = Program::Shell {
        command: String::new(),
    };
    let mut spec = ServiceSpec::new(program);
    // What has ended stays so.
    spec.restart.policy = RestartPolicy::No;
    apply(&mut spec, &wanted);
    let name = &wanted.name;
    keep_row(&sandbox, name, &row)?;
    let running = sandbox.is_up();
    if !running {
        sandbox.start().await?;
    }
    start::define(&sandbox, name, spec).await?;
    if !running {
        sandbox.stop().await?;
    }
    if status(&sandbox) != RUNNING {
        return done();
    }
    if !has_services(&sandbox) {
        return Err(Problem::no_route());
    }
    start::launch(&sandbox, name).await?;
    for port in listed {
        ports::expose_one(&call.engine, &sandbox, port)?;
    }
    done()
}

pub(super) async fn update(call: Call) -> Answer {
    let wanted = Wanted::read(&call.input)?;
    let Found {
        sandbox,
        service,
        row,
    } = found(&call).await?;
    let _defining = sandbox.defining().await;
    let renamed = wanted.name != service.name;
    let known = sandbox.known_services().await?;
    if renamed && known.iter().any(|other| other.name == wanted.name) {
        return Err(Problem::internal());
    }
    if let Some(listed) = &wanted.ports {
        let kept = Note::change(&sandbox, |note| {
            let rows = rows(note, &wanted.name, &row.id, listed)?;
            note.ports
                .retain(|port| port.service.as_ref() != Some(&row.id));
            note.ports.extend(rows);
            Some(())
        })?;
        kept.ok_or_else(Problem::internal)?;
    }
    let mut spec = service.spec.clone();
    apply(&mut spec, &wanted);
    let running = sandbox.is_up();
    if !running {
        sandbox.start().await?;
    }
    keep_row(&sandbox, &wanted.name, &row)?;
    start::define(&sandbox, &wanted.name, spec).await?;
    if renamed {
        sandbox.delete_service(&service.name).await?;
        if service.wanted_up {
            start::launch(&sandbox, &wanted.name).await?;
        }
    }
    if !running {
        sandbox.stop().await?;
    }
    done()
}

pub(super) async fn start(call: Call) -> Answer {
    let Found {
        sandbox, service, ..
    } = found(&call).await?;
    if service.wanted_up {
        return done();
    }
    if !has_services(&sandbox) {
        return Err(Problem::no_route());
    }
    if !sandbox.is_up() {
        return Err(Problem::refused());
    }
    let _defining = sandbox.defining().await;
    start::define(&sandbox, &service.name, service.spec).await?;
    start::launch(&sandbox, &service.name).await?;
    done()
}

pub(super) async fn stop(call: Call) -> Answer {
    let Found {
        sandbox, service, ..
    } = found(&call).await?;
    if service.wanted_up {
        if !has_services(&sandbox) {
            return Err(Problem::no_route());
        }
        sandbox.stop_service(&service.name).await?;
    }
    done()
}

pub(super) async fn restart(call: Call) -> Answer {
    let Found {
        sandbox, service, ..
    } = found(&call).await?;
    if !has_services(&sandbox) {
        return Err(Problem::no_route());
    }
    if !sandbox.is_up() {
        return Err(Problem::refused());
    }
    let _defining = sandbox.defining().await;
    sandbox.stop_service(&service.name).await?;
    start::define(&sandbox, &service.name, service.spec).await?;
    start::launch(&sandbox, &service.name).await?;
    done()
}

pub(super) async fn remove(call: Call) -> Answer {
    let Found {
        sandbox,
        service,
        row,
    } = found(&call).await?;
    if !has_services(&sandbox) {
        return Err(Problem::no_route());
    }
    let _defining = sandbox.defining().await;
    let running = sandbox.is_up();
    sandbox.delete_service(&service.name).await?;
    if !running {
        sandbox.stop().await?;
    }
    Note::change(&sandbox, |note| {
        note.ports
            .retain(|port| port.service.as_ref() != Some(&row.id));
    })?;
    done()
}
