//! Reading requests: whose they are, which sandbox they are about, what they carry.

use std::collections::HashMap;
use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::{FromRequestParts, Path, Query};
use axum::http::request::Parts;
use serde::de::DeserializeOwned;

use super::problem::Problem;
use super::{Miosa, Note, PROTOCOL, identity, life};
use crate::serve::auth;
use crate::serve::engine::{Account, Sandbox};

/// The account of the token that the request shows.
pub(super) struct Caller(pub Arc<Account>);

impl FromRequestParts<Miosa> for Caller {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, miosa: &Miosa) -> Result<Self, Problem> {
        let account = auth::account(miosa.engine(), &parts.headers);
        account.map(Self).ok_or_else(|| {
            Problem::new(401, "invalid_token", "the token is missing or another one")
        })
    }
}

/// The sandbox in the path.
pub(super) struct Chosen(pub Arc<Sandbox>);

/// The sandbox in the path, which can run commands.
pub(super) struct Ready(pub Arc<Sandbox>);

/// A sandbox by its UUID.
pub(super) fn find(account: &Account, uuid: &str) -> Result<Arc<Sandbox>, Problem> {
    let found = match identity::id(uuid) {
        Some(id) => account.by_id(&id),
        None => account.by_id(uuid),
    };
    found.map_err(|_| match uuid.len() == 36 {
        true => Problem::not_found("sandbox"),
        false => Problem::new(400, "INVALID_ID", "the id is not a UUID"),
    })
}

impl FromRequestParts<Miosa> for Chosen {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, miosa: &Miosa) -> Result<Self, Problem> {
        let Caller(account) = Caller::from_request_parts(parts, miosa).await?;
        let uuid = segment(parts, miosa, "id").await?;
        let sandbox = find(&account, &uuid)?;
        life::expire(&account, &sandbox, miosa).await?;
        Ok(Self(sandbox))
    }
}

impl FromRequestParts<Miosa> for Ready {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, miosa: &Miosa) -> Result<Self, Problem> {
        let Chosen(sandbox) = Chosen::from_request_parts(parts, miosa).await?;
        let note: Note = sandbox.record().extra(PROTOCOL);
        if note.paused || !sandbox.is_up() {
            let text = "the sandbox is not running";
            return Err(Problem::new(409, "SANDBOX_NOT_RUNNING", text));
        }
        if note.provisioning > 0 || note.unready > 0 {
            let text = "the sandbox cannot run commands yet";
            return Err(Problem::new(409, "SANDBOX_NOT_COMMAND_READY", text));
        }
        Ok(Self(sandbox))
    }
}

/// A segment of the path by its name in the route.
pub(super) async fn segment(
    parts: &mut Parts,
    miosa: &Miosa,
    name: &str,
) -> Result<String, Problem> {
    type Segments = Path<HashMap<String, String>>;
    let segments = Segments::from_request_parts(parts, miosa).await;
    let Path(mut segments) =
        segments.map_err(|error| Problem::new(400, "MISSING_PARAM", error.body_text()))?;
    Ok(segments.remove(name).unwrap_or_default())
}

/// The parameters behind the `?`.
pub(super) struct Params<T>(pub T);

impl<T: DeserializeOwned> FromRequestParts<Miosa> for Params<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, miosa: &Miosa) -> Result<Self, Problem> {
        match Query::<T>::from_request_parts(parts, miosa).await {
            Ok(Query(params)) => Ok(Self(params)),
            Err(error) => Err(Problem::new(400, "MISSING_PARAM", error.body_text())),
        }
    }
}

/// A JSON body; an empty one is an empty object.
pub(super) fn json<T: DeserializeOwned>(body: &Bytes) -> Result<T, Problem> {
    let text: &[u8] = if body.is_empty() { b"{}" } else { body };
    serde_json::from_slice(text).map_err(|error| Problem::invalid(format!("the body: {error}")))
}
