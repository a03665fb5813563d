//! Sprites themselves: protocol page sprites, §2.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use axum::Json;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use jiff::Timestamp;
use serde::Deserialize;
use serde_json::{Value, json};

use super::problem::{Answer, Problem};
use super::request::{self, Caller, Params, Sprite};
use super::stream::{Lines, shown};
use super::{PROTOCOL, SpriteNote};
use crate::model::{NAME_RULE, SandboxName};
use crate::serve::engine::{Access, Account, Engine, Kind, Sandbox, Wish};
use crate::serve::preview;

/// How many sprites one answer lists at most.
const PAGE: usize = 50;

#[derive(Deserialize)]
pub(super) struct CreateBody {
    name: Option<String>,
    url_settings: Option<UrlSettings>,
    #[serde(default)]
    labels: Option<Vec<String>>,
    #[serde(default)]
    environment: Option<BTreeMap<String, String>>,
    config: Option<Value>,
}

#[derive(Deserialize)]
pub(super) struct UpdateBody {
    url_settings: Option<UrlSettings>,
    labels: Option<Vec<String>>,
}

#[derive(Deserialize)]
struct UrlSettings {
    auth: Option<String>,
}

impl UrlSettings {
    fn access(self) -> Answer<Option<Access>> {
        match self.auth.as_deref() {
            None => Ok(None),
            Some("sprite") => Ok(Some(Access::Owner)),
            Some("public") => Ok(Some(Access::Public)),
            Some(other) => {
                let text = format!("`url_settings.auth` is `sprite` or `public`, not `{other}`");
                Err(Problem::invalid(text))
            }
        }
    }
}

#[derive(Deserialize)]
pub(super) struct ListQuery {
    prefix: Option<String>,
    max_results: Option<usize>,
    continuation_token: Option<String>,
}

/// What is shown of a sprite.
fn object(engine: &Engine, account: &Account, sandbox: &Sandbox) -> Value {
    let record = sandbox.record();
    let note: SpriteNote = record.extra(PROTOCOL);
    let auth = match record.access {
        Access::Owner => "sprite",
        Access::Public => "public",
    };
    let mut object = json!({
        "id": sandbox.id(),
        "name": record.name,
        "organization": account.name(),
        "status": status(sandbox),
        "url": preview::url(engine, sandbox),
        "url_settings": { "auth": auth },
        "created_at": shown(record.created_at),
        "updated_at": shown(record.updated_at),
        "labels": record.labels,
        "environment": record.variables,
    });
    if let Some(config) = note.config {
        object["config"] = config;
    }
    object
}

fn status(sandbox: &Sandbox) -> &'static str {
    if sandbox.is_up() { "running" } else { "cold" }
}

pub(super) async fn create(
    State(engine): State<Engine>,
    Caller(account): Caller,
    body: Bytes,
) -> Answer {
    let body: CreateBody = request::json(&body)?;
    let name = body.name.unwrap_or_default();
    // It becomes part of a host name.
    if SandboxName::new(name.as_str()).is_err() {
        let text = format!("`{name}` cannot be the name of a sprite: {NAME_RULE}");
        return Err(Problem::invalid(text));
    }
    let mut wish = Wish::named(name);
    let note = SpriteNote {
        config: body.config,
        ..SpriteNote::default()
    };
    let settings = body.url_settings.map(UrlSettings::access).transpose()?;
    wish.record.access = settings.flatten().unwrap_or_default();
    wish.record.set_extra(PROTOCOL, &note);
    wish.record.labels = body.labels.unwrap_or_default();
    wish.record.variables = body.environment.unwrap_or_default();
    let made = account
        .create(wish)
        .await
        .map_err(|error| match error.kind {
            // A name that is taken (protocol page sprites, §2).
            Kind::Conflict => Problem::new(400, "name_taken", error.message),
            _ => error.into(),
        })?;
    let object = object(&engine, &account, &made);
    Ok((StatusCode::CREATED, Json(object)).into_response())
}

pub(super) async fn list(
    State(engine): State<Engine>,
    Caller(account): Caller,
    Params(query): Params<ListQuery>,
    headers: HeaderMap,
) -> Answer {
    let prefix = query.prefix.unwrap_or_default();
    let wants_lines = headers
        .get("accept")
        .is_some_and(|accept| accept.as_bytes().starts_with(b"application/x-ndjson"));
    if wants_lines {
        return Ok(watched(account, prefix));
    }
    let mut all = called(&account, &prefix);
    let after = query.continuation_token.unwrap_or_default();
    let key = |name: &str, sandbox: &Sandbox| format!("{name} {}", sandbox.id());
    all.retain(|(name, sandbox)| after.is_empty() || key(name, sandbox) > after);
    let length = query.max_results.unwrap_or(PAGE).clamp(1, PAGE);
    let has_more = all.len() > length;
    all.truncate(length);
    let next = all
        .last()
        .filter(|_| has_more)
        .map(|(name, sandbox)| key(name, sandbox));
    let shown = all
        .iter()
        .map(|(_, sandbox)| object(&engine, &account, sandbox));
    let shown: Vec<_> = shown.collect();
    let body = json!({
        "sprites": shown,
        "has_more": has_more,
        "next_continuation_token": next,
    });
    Ok(Json(body).into_response())
}

/// The sprites whose names begin so, by name.
fn called(account: &Account, prefix: &str) -> Vec<(String, Arc<Sandbox>)> {
    let all = account.sandboxes().into_iter();
    let all = all.map(|sandbox| (sandbox.record().name, sandbox));
    let mut called: Vec<_> = all.filter(|(name, _)| name.starts_with(prefix)).collect();
    called.sort_by(|(one, first), (other, second)| (one, first.id()).cmp(&(other, second.id())));
    called
}

/// Every sprite as it is now, and then each change: a line for each.
fn watched(account: Arc<Account>, prefix: String) -> Response {
    Lines::answer(|lines| async move {
        let mut news = account.news();
        let mut told = BTreeMap::new();
        loop {
            news.mark_unchanged();
            let now: BTreeMap<_, _> = called(&account, &prefix)
                .into_iter()
                .map(|(name, sandbox)| (name, (sandbox.record().updated_at, status(&sandbox))))
                .collect();
            let changed = now
                .iter()
                .filter(|(name, state)| told.get(*name) != Some(*state));
            let changed = changed.map(|(name, (_, status))| ("status", name, *status));
            let gone = told.keys().filter(|name| !now.contains_key(*name));
            let gone = gone.map(|name| ("deleted", name, "deleted"));
            for (kind, name, status) in changed.chain(gone) {
                let line = json!({
                    "type": kind,
                    "name": name,
                    "status": status,
                    "last_running_at": null,
                    "timestamp": shown(Timestamp::now()),
                    "org": { "name": account.name() },
                });
                if lines.write(line).await.is_err() {
                    return;
                }
            }
            told = now;
            tokio::select! {
                changed = news.changed() => if changed.is_err() {
                    return;
                },
                () = lines.gone() => return,
            }
        }
    })
}

pub(super) async fn show(
    State(engine): State<Engine>,
    Caller(account): Caller,
    Sprite(sprite): Sprite,
) -> Json<Value> {
    Json(object(&engine, &account, &sprite))
}

pub(super) async fn update(
    State(engine): State<Engine>,
    Caller(account): Caller,
    Sprite(sprite): Sprite,
    body: Bytes,
) -> Answer<Json<Value>> {
    let body: UpdateBody = request::json(&body)?;
    let settings = body.url_settings.map(UrlSettings::access).transpose()?;
    sprite.update(|record| {
        if let Some(labels) = body.labels {
            record.labels = labels;
        }
        if let Some(access) = settings.flatten() {
            record.access = access;
        }
    })?;
    Ok(Json(object(&engine, &account, &sprite)))
}

pub(super) async fn remove(Caller(account): Caller, Sprite(sprite): Sprite) -> Answer<StatusCode> {
    account.delete(&sprite).await?;
    Ok(StatusCode::NO_CONTENT)
}

pub(super) async fn restart(Sprite(sprite): Sprite) -> Answer<Json<Value>> {
    sprite.stop().await?;
    sprite.start().await?;
    Ok(Json(json!({
        "sprite_name": sprite.record().name,
        "machine_id": sprite.id(),
        "message": "restarted",
    })))
}

pub(super) async fn check(Sprite(sprite): Sprite) -> Answer<Json<Value>> {
    let begun = Instant::now();
    let reason = match sprite.awake().await {
        Ok(client) => client.health().await.err().map(|error| error.message),
        Err(error) => Some(error.message),
    };
    Ok(Json(json!({
        "sprite_name": sprite.record().name,
        "sprite_id": sprite.id(),
        "status": if reason.is_none() { "healthy" } else { "unhealthy" },
        "reason": reason,
        "checked_at": shown(Timestamp::now()),
        "elapsed": format!("{}ms", begun.elapsed().as_millis()),
    })))
}

pub(super) async fn upgrade(Sprite(sprite): Sprite) -> Answer<StatusCode> {
    sprite.awake().await?;
    Ok(StatusCode::NO_CONTENT)
}

pub(super) async fn network_policy(Sprite(sprite): Sprite) -> Json<Value> {
    let note: SpriteNote = sprite.record().extra(PROTOCOL);
    Json(
        note.network_policy
            .unwrap_or_else(|| json!({ "rules": [] })),
    )
}

pub(super) async fn set_network_policy(Sprite(sprite): Sprite, body: Bytes) -> Answer<StatusCode> {
    let policy: Value = request::json(&body)?;
    if !policy["rules"].is_array() {
        return Err(Problem::invalid("`rules` must be a list"));
    }
    sprite.update(|record| {
        let mut note: SpriteNote = record.extra(PROTOCOL);
        note.network_policy = Some(policy);
        record.set_extra(PROTOCOL, &note);
    })?;
    Ok(StatusCode::NO_CONTENT)
}
