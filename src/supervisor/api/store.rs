//! The key-value store: iris §7.

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use jiff::{SignedDuration, Timestamp};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::openapi::{Operation, Routes};
use super::request::{self, Name, Params, Payload};
use super::{Answer, DELETED, DONE, Deleted, Done, Shared};
use crate::supervisor::keyvalue::{Change, KEYS, check_key};
use crate::supervisor::owner::Refusal;

/// How many keys a list has where nothing is said about it.
const LISTED: usize = 100;

fn operation(id: &'static str, summary: &'static str) -> Operation {
    Operation::new(id, "store", summary)
        .error(400, "The key or a field is wrong")
        .error(500, "The store cannot be read or written")
}

pub(super) fn add(routes: Routes) -> Routes {
    routes
        .get(
            "/v1/store",
            list,
            operation("listKeys", "The keys, in order")
                .query::<ListQuery>()
                .answer::<Keys>(200, "The first of them"),
        )
        // A key may be called `batch`, so this is not a route of its own.
        .post(
            "/v1/store/{*key}",
            batch,
            operation("changeKeys", "Make several changes, or none")
                .at("/v1/store/batch")
                .body::<BatchBody>()
                .answer::<Applied>(200, "All are made")
                .error(413, "A value, or all of them, would be too large"),
        )
        .get(
            "/v1/store/{*key}",
            get,
            operation("getKey", "The value of a key")
                .answer::<Entry>(200, "It is there")
                .error(404, "There is no such key, or it has expired"),
        )
        .put(
            "/v1/store/{*key}",
            put,
            operation("putKey", "Set a key")
                .body::<PutBody>()
                .answer::<Done>(200, "It is stored")
                .error(413, "The value, or all of them, would be too large"),
        )
        .delete(
            "/v1/store/{*key}",
            delete,
            operation("deleteKey", "Remove a key")
                .answer::<Deleted>(200, "It is gone")
                .error(404, "There is no such key"),
        )
}

#[derive(Deserialize, JsonSchema)]
struct ListQuery {
    /// Only keys that begin with this.
    #[serde(default)]
    prefix: String,
    /// At most so many; 100 without it.
    limit: Option<usize>,
}

#[derive(Serialize, JsonSchema)]
struct Keys {
    keys: Vec<String>,
    /// Whether there are more.
    truncated: bool,
}

#[derive(Serialize, JsonSchema)]
struct Entry {
    /// Any JSON.
    value: Value,
    /// When it is forgotten.
    #[serde(skip_serializing_if = "Option::is_none")]
    expires_at: Option<Timestamp>,
}

#[derive(Deserialize, JsonSchema)]
struct PutBody {
    /// Any JSON.
    value: Value,
    /// After how many seconds it is forgotten.
    ttl_seconds: Option<f64>,
}

#[derive(Deserialize, JsonSchema)]
struct BatchBody {
    operations: Vec<Step>,
}

#[derive(Deserialize, JsonSchema)]
#[serde(tag = "op", rename_all = "snake_case")]
enum Step {
    Set {
        key: String,
        /// Any JSON.
        value: Value,
        /// After how many seconds it is forgotten.
        ttl_seconds: Option<f64>,
    },
    Delete {
        key: String,
    },
}

#[derive(Serialize, JsonSchema)]
struct Applied {
    /// How many operations there were.
    applied: usize,
    /// Always true.
    ok: bool,
}

async fn list(State(api): Shared, Params(query): Params<ListQuery>) -> Answer<Json<Keys>> {
    let limit = query.limit.unwrap_or(LISTED).min(KEYS);
    let (keys, truncated) = api.values.list(&query.prefix, limit).await?;
    Ok(Json(Keys { keys, truncated }))
}

fn missing(key: &str) -> Refusal {
    Refusal::new(404, "not_found", format!("there is no key `{key}`"))
}

async fn get(State(api): Shared, Name(key): Name) -> Answer<Json<Entry>> {
    let kept = api.values.get(&key).await?.ok_or_else(|| missing(&key))?;
    let value = serde_json::from_str(&kept.value);
    let value = value.map_err(|error| Refusal::internal(error.to_string()))?;
    let expires_at = kept.expires_at;
    Ok(Json(Entry { value, expires_at }))
}

async fn put(State(api): Shared, Name(key): Name, Payload(body): Payload) -> Answer<Json<Done>> {
    // `null` is a value here, so the body is not read as others are.
    let body = Value::Object(request::object(&body)?);
    let body: PutBody =
        serde_json::from_value(body).map_err(|error| Refusal::invalid(error.to_string()))?;
    let expires_at = expiry(body.ttl_seconds)?;
    let value = body.value;
    let set = Change::Set {
        key,
        value,
        expires_at,
    };
    api.values.change(vec![set]).await?;
    Ok(DONE)
}

async fn delete(State(api): Shared, Name(key): Name) -> Answer<Json<Deleted>> {
    if api.values.get(&key).await?.is_none() {
        return Err(missing(&key));
    }
    api.values.change(vec![Change::Delete { key }]).await?;
    Ok(DELETED)
}

async fn batch(State(api): Shared, Name(key): Name, Payload(body): Payload) -> Answer<Response> {
    if key != "batch" {
        let text = "only `/v1/store/batch` can be posted to";
        return Err(Refusal::new(405, "method_not_allowed", text));
    }
    let body = Value::Object(request::object(&body)?);
    let body: BatchBody =
        serde_json::from_value(body).map_err(|error| Refusal::invalid(error.to_string()))?;
    let applied = body.operations.len();
    let changes = body.operations.into_iter().map(change);
    let changes = changes.collect::<Result<Vec<_>, _>>()?;
    api.values.change(changes).await?;
    Ok(Json(Applied { applied, ok: true }).into_response())
}

fn change(step: Step) -> Result<Change, Refusal> {
    match step {
        Step::Delete { key } => {
            check_key(&key)?;
            Ok(Change::Delete { key })
        }
        Step::Set {
            key,
            value,
            ttl_seconds,
        } => Ok(Change::Set {
            key,
            value,
            expires_at: expiry(ttl_seconds)?,
        }),
    }
}

fn expiry(ttl_seconds: Option<f64>) -> Result<Option<Timestamp>, Refusal> {
    let Some(seconds) = ttl_seconds else {
        return Ok(None);
    };
    let wrong = || Refusal::invalid("`ttl_seconds` must be a number above 0");
    if seconds <= 0.0 {
        return Err(wrong());
    }
    let ttl = SignedDuration::try_from_secs_f64(seconds).map_err(|_| wrong())?;
    let end = Timestamp::now().checked_add(ttl).map_err(|_| wrong())?;
    Ok(Some(end))
}
