//! Sandboxes themselves: protocol page miosa, §3 and §4.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Json;
use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::IntoResponse;
use jiff::{SignedDuration, Timestamp};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::problem::{Answer, Problem};
use super::request::{self, Caller, Chosen, Params};
use super::resources::Resources;
use super::{Miosa, Note, PROTOCOL, identity, life, request as asked};
use crate::serve::engine::{Account, Sandbox, Wish};

/// The timeout of a sandbox that asks for none, in seconds.
const TIMEOUT: u64 = 3600;

/// The longest page of a list, and the usual one.
const PAGE: (usize, usize) = (100, 20);

/// What both creation and update understand.
#[derive(Deserialize)]
struct Fields {
    name: Option<String>,
    slug: Option<String>,
    tags: Option<Vec<String>>,
    metadata: Option<Map<String, Value>>,
    always_on: Option<bool>,
    timeout_sec: Option<u64>,
    idle_timeout_sec: Option<u64>,
    external_workspace_id: Option<String>,
    external_user_id: Option<String>,
    external_project_id: Option<String>,
}

#[derive(Deserialize)]
struct CreateBody {
    #[serde(flatten)]
    fields: Fields,
    #[serde(alias = "template", alias = "image")]
    template_id: Option<String>,
    size: Option<String>,
    cpu_count: Option<u32>,
    memory_mb: Option<u32>,
    disk_size_mb: Option<u32>,
    env: Option<BTreeMap<String, String>>,
    persistent: Option<bool>,
}

#[derive(Deserialize)]
pub(super) struct ListQuery {
    state: Option<String>,
    tags: Option<String>,
    external_workspace_id: Option<String>,
    external_user_id: Option<String>,
    external_project_id: Option<String>,
    page: Option<usize>,
    page_size: Option<usize>,
}

#[derive(Deserialize)]
struct TagsBody {
    tags: Vec<String>,
}

impl Fields {
    /// Lays what was given over what is kept. `replace` is about metadata.
    fn lay_over(self, note: &mut Note, replace: bool) {
        if let Some(slug) = self.slug {
            note.slug = Some(slug);
        }
        match self.metadata {
            Some(metadata) if replace => note.metadata = metadata,
            Some(metadata) => note.metadata.extend(metadata),
            None => {}
        }
        if let Some(always_on) = self.always_on {
            note.always_on = always_on;
        }
        if let Some(seconds) = self.timeout_sec {
            note.timeout_sec = Some(seconds);
            note.deadline = Some(deadline(seconds));
        }
        if let Some(seconds) = self.idle_timeout_sec {
            note.idle_timeout_sec = seconds;
        }
        let external = [
            ("external_workspace_id", self.external_workspace_id),
            ("external_user_id", self.external_user_id),
            ("external_project_id", self.external_project_id),
        ];
        for (key, value) in external {
            if let Some(value) = value {
                note.external.insert(key.to_owned(), value);
            }
        }
    }
}

/// When a sandbox that is given so long is paused.
pub(super) fn deadline(seconds: u64) -> Timestamp {
    let seconds = i64::try_from(seconds).unwrap_or(i64::MAX);
    let after = SignedDuration::from_secs(seconds);
    Timestamp::now()
        .checked_add(after)
        .unwrap_or(Timestamp::MAX)
}

/// The record of a sandbox.
pub(super) fn object(miosa: &Miosa, account: &Account, sandbox: &Sandbox) -> Value {
    let record = sandbox.record();
    let note: Note = record.extra(PROTOCOL);
    let uuid = identity::uuid(sandbox.id());
    let size = note.size.as_deref().unwrap_or("small");
    let Resources {
        cpu_count: cpus,
        memory_mb: memory,
        disk_size_mb: disk,
    } = Resources::of(&note);
    let slug = note.slug.clone();
    let slug = slug.unwrap_or_else(|| uuid.chars().take(8).collect());
    let state = life::state(&note, sandbox, miosa);
    let running = state == "running";
    let ready = running && note.unready == 0;
    let timeout = note.timeout_sec.unwrap_or(TIMEOUT);
    let remaining = note.deadline.map(|at| at.duration_since(Timestamp::now()));
    let remaining = remaining.map_or(0, |left| left.as_millis().max(0));
    let preview = note.previews.values().next();
    let mut object = json!({
        "id": uuid,
        "slug": slug,
        "name": record.name,
        "state": state,
        "ready": ready,
        "template_id": note.template.as_deref().unwrap_or("miosa-sandbox"),
        "size": size,
        "resource_contract": {
            "id": format!("sandbox/{size}@v1"), "version": "v1", "product": "sandbox",
            "size": size, "vcpus": cpus, "memory_mb": memory, "disk_size_mb": disk,
        },
        "cpu_count": cpus,
        "memory_mb": memory,
        "disk_size_mb": disk,
        "always_on": note.always_on,
        "persistent": !note.ephemeral,
        "timeout_sec": timeout,
        "timeout_remaining_ms": i64::try_from(remaining).unwrap_or(i64::MAX),
        "idle_timeout_sec": note.idle_timeout_sec,
        "preview_url": preview.map(|port| super::ports::url(*port)),
        "metadata": note.metadata,
        "tenant_id": account.name(),
        "checkpoint_pending": false,
        "total_runtime_sec": null,
        "created_at": record.created_at,
        "started_at": running.then_some(record.created_at),
        "ready_at": ready.then_some(record.created_at),
        "destroyed_at": null,
    });
    for (key, value) in note.external {
        object[key] = value.into();
    }
    object
}

pub(super) async fn create(
    State(miosa): State<Miosa>,
    Caller(account): Caller,
    body: Bytes,
) -> Answer {
    let body: CreateBody = request::json(&body)?;
    let resources = match (body.cpu_count, body.memory_mb, body.disk_size_mb) {
        (None, None, None) => None,
        (Some(cpu_count), Some(memory_mb), Some(disk_size_mb)) => Some(Resources {
            cpu_count,
            memory_mb,
            disk_size_mb,
        }),
        _ => {
            let text = "cpu_count, memory_mb and disk_size_mb belong together";
            return Err(Problem::invalid(text));
        }
    };
    let size = body.size.unwrap_or_else(|| "small".to_owned());
    if Resources::of_size(&size).is_none() {
        return Err(Problem::invalid(format!("there is no size `{size}`")));
    }
    let switches = miosa.switches();
    let mut note = Note {
        template: body.template_id,
        size: Some(size),
        resources,
        ephemeral: body.persistent == Some(false),
        deadline: Some(deadline(TIMEOUT)),
        provisioning: switches.provisioning,
        unready: switches.unready,
        ..Note::default()
    };
    let mut fields = body.fields;
    // Names are free text, and any number of sandboxes may have the same.
    let name = fields.name.take().unwrap_or_default();
    let tags = fields.tags.take().unwrap_or_default();
    fields.lay_over(&mut note, true);
    let mut wish = Wish {
        unique_name: false,
        ..Wish::named(name)
    };
    wish.record.labels = tags;
    wish.record.variables = body.env.unwrap_or_default();
    wish.record.set_extra(PROTOCOL, &note);
    let made = account.create(wish).await?;
    Ok(miosa.reply(StatusCode::CREATED, object(&miosa, &account, &made)))
}

pub(super) async fn list(
    State(miosa): State<Miosa>,
    Caller(account): Caller,
    Params(query): Params<ListQuery>,
) -> Answer {
    let mut all = Vec::new();
    let tags = query.tags.as_deref().unwrap_or_default();
    let tags: Vec<_> = tags.split(',').filter(|tag| !tag.is_empty()).collect();
    for sandbox in account.sandboxes() {
        life::expire(&account, &sandbox, &miosa).await?;
        life::looked_at(&sandbox)?;
        let labels = sandbox.record().labels;
        if tags.iter().all(|tag| labels.iter().any(|it| it == tag)) {
            all.push(object(&miosa, &account, &sandbox));
        }
    }
    let switches = miosa.switches();
    if switches.list_destroyed {
        all.extend(miosa.memory().destroyed(account.name()));
    }
    let wanted = [
        ("state", &query.state),
        ("external_workspace_id", &query.external_workspace_id),
        ("external_user_id", &query.external_user_id),
        ("external_project_id", &query.external_project_id),
    ];
    all.retain(|object| {
        let given = wanted
            .iter()
            .filter_map(|(key, value)| Some((key, value.as_ref()?)));
        given
            .into_iter()
            .all(|(key, value)| object[*key] == **value)
    });
    if switches.list_without_metadata {
        for object in all.iter_mut().filter_map(Value::as_object_mut) {
            object.remove("metadata");
        }
    }
    if !switches.paged {
        return Ok(Json(json!({ "data": all })).into_response());
    }
    let (page, size) = (
        query.page.unwrap_or(1).max(1),
        query.page_size.unwrap_or(PAGE.1),
    );
    let (size, total) = (size.clamp(1, PAGE.0), all.len());
    let shown: Vec<_> = all.into_iter().skip((page - 1) * size).take(size).collect();
    let about = json!({ "page": page, "page_size": size, "total": total });
    Ok(Json(json!({ "data": shown, "page": about })).into_response())
}

pub(super) async fn show(
    State(miosa): State<Miosa>,
    Caller(account): Caller,
    Path(uuid): Path<String>,
) -> Answer {
    if let Some(grave) = miosa.memory().grave(account.name(), &uuid) {
        return Ok(miosa.ok(grave));
    }
    let sandbox = asked::find(&account, &uuid)?;
    life::expire(&account, &sandbox, &miosa).await?;
    life::looked_at(&sandbox)?;
    Ok(miosa.ok(object(&miosa, &account, &sandbox)))
}

pub(super) async fn by_name(
    State(miosa): State<Miosa>,
    Caller(account): Caller,
    Path(name): Path<String>,
) -> Answer {
    let sandbox = account.by_name(&name)?;
    Ok(miosa.ok(object(&miosa, &account, &sandbox)))
}

pub(super) async fn update(
    State(miosa): State<Miosa>,
    Caller(account): Caller,
    Chosen(sandbox): Chosen,
    body: Bytes,
) -> Answer {
    let mut fields: Fields = request::json(&body)?;
    let replace = miosa.switches().replace_metadata;
    sandbox.update(|record| {
        if let Some(name) = fields.name.take() {
            record.name = name;
        }
        if let Some(tags) = fields.tags.take() {
            record.labels = tags;
        }
        let mut note: Note = record.extra(PROTOCOL);
        fields.lay_over(&mut note, replace);
        record.set_extra(PROTOCOL, &note);
    })?;
    Ok(miosa.ok(object(&miosa, &account, &sandbox)))
}

pub(super) async fn set_tags(
    State(miosa): State<Miosa>,
    Caller(account): Caller,
    Chosen(sandbox): Chosen,
    body: Bytes,
) -> Answer {
    let TagsBody { tags } = request::json(&body)?;
    sandbox.update(|record| record.labels = tags)?;
    Ok(miosa.ok(object(&miosa, &account, &sandbox)))
}

pub(super) async fn remove(
    State(miosa): State<Miosa>,
    Caller(account): Caller,
    Chosen(sandbox): Chosen,
) -> Answer {
    let last = destroy(&miosa, &account, &sandbox).await?;
    Ok(miosa.ok(last))
}

/// Removes a sandbox and remembers how it was; that is its record from now on.
pub(super) async fn destroy(
    miosa: &Miosa,
    account: &Account,
    sandbox: &Arc<Sandbox>,
) -> Answer<Value> {
    let mut last = object(miosa, account, sandbox);
    account.delete(sandbox).await?;
    last["state"] = "destroyed".into();
    last["ready"] = false.into();
    last["destroyed_at"] = json!(Timestamp::now());
    let uuid = identity::uuid(sandbox.id());
    miosa.memory().bury(account.name(), &uuid, last.clone());
    Ok(last)
}
