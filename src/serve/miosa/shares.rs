//! Links that let others in: protocol page miosa, §4. They lead to the previews of `serve`, which ask for the token.

use std::time::Duration;

use axum::Json;
use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::IntoResponse;
use jiff::Timestamp;
use secrecy::ExposeSecret;
use serde::Deserialize;
use serde_json::{Value, json};

use super::problem::{Answer, Problem};
use super::request::{self, Chosen};
use super::{Miosa, ports};
use crate::serve::engine::{Sandbox, Share};
use crate::serve::preview;

/// What the ids of links begin with that are in the list.
const LISTED: &str = "share-";

/// How long a token holds where nothing is said about it, in seconds.
const HOUR: u64 = 3600;

#[derive(Deserialize)]
struct PreviewBody {
    #[serde(alias = "expires_in_sec")]
    ttl_seconds: Option<u64>,
}

#[derive(Deserialize)]
struct LinkBody {
    scope: Option<String>,
    expires_in: Option<u64>,
}

impl LinkBody {
    /// All that these links let anybody do.
    fn check(&self) -> Answer<()> {
        match self.scope.as_deref() {
            None | Some("read") => Ok(()),
            Some(other) => Err(Problem::invalid(format!("there is no scope `{other}`"))),
        }
    }
}

/// A link that was just made.
struct Made {
    id: String,
    url: String,
    token: String,
    expires_at: Option<Timestamp>,
}

/// Makes a link to one port, or to the whole sandbox: to the first port that is exposed.
fn make(
    miosa: &Miosa,
    sandbox: &Sandbox,
    id: String,
    port: Option<u16>,
    seconds: Option<u64>,
) -> Answer<Made> {
    let wrong = |error: std::io::Error| Problem::new(500, "INTERNAL_ERROR", error.to_string());
    let (share, token) = Share::new(port, seconds.map(Duration::from_secs)).map_err(wrong)?;
    let expires_at = share.expires_at;
    sandbox.update(|record| {
        record.shares.retain(|_, share| share.holds());
        record.shares.insert(id.clone(), share);
    })?;
    let port = port.or_else(|| ports::first(sandbox));
    let url = match port {
        Some(port) => preview::port_url(miosa.engine(), sandbox, port),
        None => preview::url(miosa.engine(), sandbox),
    };
    Ok(Made {
        id,
        url: preview::link(&url, &token),
        token: token.expose_secret().to_owned(),
        expires_at,
    })
}

fn remove(sandbox: &Sandbox, id: &str) -> Answer<StatusCode> {
    let removed = sandbox.update(|record| record.shares.remove(id))?;
    removed.ok_or_else(|| Problem::not_found("share"))?;
    Ok(StatusCode::NO_CONTENT)
}

/// Shares a preview; another time, with another link.
pub(super) async fn share_preview(
    State(miosa): State<Miosa>,
    Chosen(sandbox): Chosen,
    Path((_, id)): Path<(String, String)>,
    body: Bytes,
) -> Answer {
    let PreviewBody { ttl_seconds } = request::json(&body)?;
    let port = ports::of_preview(&sandbox, &id)?;
    let made = make(&miosa, &sandbox, id, Some(port), ttl_seconds)?;
    Ok(miosa.ok(json!({
        "id": made.id,
        "port": port,
        "share_url": made.url,
        "expires_at": made.expires_at,
    })))
}

pub(super) async fn unshare_preview(
    Chosen(sandbox): Chosen,
    Path((_, id)): Path<(String, String)>,
) -> Answer<StatusCode> {
    ports::of_preview(&sandbox, &id)?;
    remove(&sandbox, &id)
}

/// A link that is in no list and ends by itself.
pub(super) async fn token(
    State(miosa): State<Miosa>,
    Chosen(sandbox): Chosen,
    body: Bytes,
) -> Answer {
    let body: LinkBody = request::json(&body)?;
    body.check()?;
    let id = format!("token-{:016x}", fastrand::u64(..));
    let seconds = body.expires_in.unwrap_or(HOUR);
    let made = make(&miosa, &sandbox, id, None, Some(seconds))?;
    Ok(miosa.ok(json!({
        "token": made.token,
        "url": made.url,
        "expires_at": made.expires_at,
        "scope": "read",
    })))
}

pub(super) async fn create(
    State(miosa): State<Miosa>,
    Chosen(sandbox): Chosen,
    body: Bytes,
) -> Answer {
    let body: LinkBody = request::json(&body)?;
    body.check()?;
    let id = format!("{LISTED}{:016x}", fastrand::u64(..));
    let made = make(&miosa, &sandbox, id, None, body.expires_in)?;
    let record = json!({
        "share_id": made.id,
        "share_url": made.url,
        "expires_at": made.expires_at,
        "scope": "read",
    });
    Ok(miosa.reply(StatusCode::CREATED, record))
}

/// Without their tokens, which nobody knows any more.
pub(super) async fn list(Chosen(sandbox): Chosen) -> Answer {
    let shares = sandbox.record().shares;
    let listed = shares.iter().filter(|(id, share)| {
        let listed = id.starts_with(LISTED);
        listed && share.holds()
    });
    let listed: Vec<Value> = listed
        .map(|(id, share)| {
            json!({ "share_id": id, "expires_at": share.expires_at, "scope": "read" })
        })
        .collect();
    Ok(Json(json!({ "data": listed })).into_response())
}

pub(super) async fn delete(
    Chosen(sandbox): Chosen,
    Path((_, id)): Path<(String, String)>,
) -> Answer<StatusCode> {
    remove(&sandbox, &id)
}
