//! A request, checked as the platform checks it: its verb, token, body and parameters (protocol page
//! pocketenv, §1).

use std::collections::HashMap;
use std::sync::Arc;

use axum::Json;
use axum::body::{Body, Bytes};
use axum::extract::{Path, Query, Request, State};
use axum::http::{HeaderMap, Method, StatusCode, header};
use axum::response::{Html, IntoResponse, Response};
use serde::Serialize;
use serde_json::Value;

use super::input::Input;
use super::problem::{Answer, Problem};
use super::rate::{Counted, Rate};
use super::storage::Storage;
use super::{ABSENT, OPERATIONS, PREFIX, Switches, identity};
use crate::serve::auth;
use crate::serve::engine::{Account, Engine, Sandbox};

/// The largest body, in bytes.
const LARGEST: usize = 100 << 10;

/// What a request carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Takes {
    /// `GET` with parameters.
    Query,
    /// `POST` without a body.
    Nothing,
    /// `POST` with a body of JSON.
    Input,
}

/// What a sandbox may be called by, besides its id.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Keys {
    Id,
    IdOrName,
    IdOrNameOrUri,
}

/// A part of a list.
pub(super) struct Page {
    pub limit: usize,
    pub offset: usize,
}

impl Page {
    pub fn of<T>(&self, items: impl IntoIterator<Item = T>) -> Vec<T> {
        let items = items.into_iter();
        items.skip(self.offset).take(self.limit).collect()
    }
}

/// A request that is fit to be carried out.
pub(super) struct Call {
    pub engine: Engine,
    pub switches: Arc<Switches>,
    pub storage: Arc<Storage>,
    pub input: Input,
    /// Whether it comes with an answer to a challenge, as from a browser of nobody in particular.
    pub challenged: bool,
    caller: Option<Arc<Account>>,
    params: HashMap<String, String>,
}

/// What every request is answered with. Cheap to clone.
#[derive(Clone)]
pub(super) struct Served {
    pub engine: Engine,
    pub switches: Arc<Switches>,
    pub rate: Arc<Rate>,
    pub storage: Arc<Storage>,
}

/// Answers a request to `/xrpc/…`.
pub(super) async fn answer(
    State(served): State<Served>,
    Path(nsid): Path<String>,
    Query(params): Query<HashMap<String, String>>,
    request: Request,
) -> Response {
    let counted = served.rate.count();
    let mut answer = match counted.within {
        true => {
            let answer = carry_out(served, &nsid, params, request).await;
            answer.unwrap_or_else(IntoResponse::into_response)
        }
        false => Counted::refused(),
    };
    counted.tell(&mut answer);
    answer
}

async fn carry_out(
    served: Served,
    nsid: &str,
    params: HashMap<String, String>,
    request: Request,
) -> Answer {
    let Served {
        engine,
        switches,
        storage,
        ..
    } = served;
    let name = nsid.strip_prefix(PREFIX).unwrap_or_default();
    if ABSENT.contains(&name) {
        let page =
            format!("<!DOCTYPE html>\n<title>Error</title>\n<pre>Cannot find {name}</pre>\n");
        return Ok((StatusCode::NOT_FOUND, Html(page)).into_response());
    }
    let mut operations = OPERATIONS.iter();
    let found = operations.find(|(operation, ..)| *operation == name);
    let (_, takes, run) = found.ok_or_else(Problem::no_operation)?;
    let expected = match takes {
        Takes::Query => Method::GET,
        Takes::Nothing | Takes::Input => Method::POST,
    };
    let (parts, body) = request.into_parts();
    if parts.method != expected {
        let method = parts.method;
        let text = format!("Incorrect HTTP method ({method}) expected {expected}");
        return Err(Problem::invalid(text));
    }
    let caller = caller(&engine, &parts.headers)?;
    let challenge = parts.headers.get("x-challenge");
    let input = match takes {
        Takes::Query => Input::default(),
        Takes::Nothing => nothing(&parts.headers, body, switches.lenient).await?,
        Takes::Input => input(&parts.headers, body).await?,
    };
    run(Call {
        engine,
        switches,
        storage,
        input,
        challenged: challenge.is_some_and(|it| !it.is_empty()),
        caller,
        params,
    })
    .await
}

/// Who asks. No token is nobody; a wrong one is an error.
pub(super) fn caller(engine: &Engine, headers: &HeaderMap) -> Answer<Option<Arc<Account>>> {
    match auth::bearer(headers) {
        None | Some(b"" | b"null") => Ok(None),
        Some(_) => match auth::account(engine, headers) {
            Some(account) => Ok(Some(account)),
            None => Err(Problem::internal()),
        },
    }
}

async fn read(body: Body) -> Answer<Bytes> {
    let read = axum::body::to_bytes(body, LARGEST).await;
    read.map_err(|_| Problem::too_large())
}

async fn nothing(headers: &HeaderMap, body: Body, lenient: bool) -> Answer<Input> {
    let chunked = headers.contains_key(header::TRANSFER_ENCODING);
    let body = read(body).await?;
    let is_none = (!chunked && body.is_empty()) || (lenient && body.trim_ascii() == b"{}");
    if !is_none {
        let text = "A request body was provided when none was expected";
        return Err(Problem::invalid(text));
    }
    Ok(Input::default())
}

async fn input(headers: &HeaderMap, body: Body) -> Answer<Input> {
    let told = [header::CONTENT_LENGTH, header::TRANSFER_ENCODING];
    if !told.iter().any(|name| headers.contains_key(name)) {
        let text = "A request body is expected but none was provided";
        return Err(Problem::invalid(text));
    }
    let encoding = headers.get(header::CONTENT_TYPE);
    let encoding = encoding.and_then(|it| it.to_str().ok()).unwrap_or_default();
    let kind = encoding.split(';').next().unwrap_or_default().trim();
    match kind {
        "application/json" => {}
        "" => {
            let text = "Request encoding (Content-Type) required but not provided";
            return Err(Problem::invalid(text));
        }
        other => {
            let text = format!("Wrong request encoding (Content-Type): {other}");
            return Err(Problem::invalid(text));
        }
    }
    let body = read(body).await?;
    if body.is_empty() {
        return Ok(Input::new(serde_json::Map::new()));
    }
    match serde_json::from_slice(&body) {
        Ok(Value::Object(fields)) => Ok(Input::new(fields)),
        Ok(_) => Err(Problem::invalid("Input must be an object")),
        Err(error) => Err(Problem::syntax(error.to_string())),
    }
}

impl Call {
    /// Whoever asks, if that is somebody.
    pub fn caller(&self) -> Option<&Arc<Account>> {
        self.caller.as_ref()
    }

    /// The user who asks.
    pub fn user(&self) -> Answer<&Arc<Account>> {
        self.caller.as_ref().ok_or_else(Problem::anonymous)
    }

    /// A parameter; an empty one is none.
    pub fn param(&self, key: &str) -> Option<&str> {
        let value = self.params.get(key).map(String::as_str);
        value.filter(|value| !value.is_empty())
    }

    pub fn needed_param(&self, key: &str) -> Answer<&str> {
        self.param(key).ok_or_else(|| {
            Problem::invalid(format!("Error: Params must have the property \"{key}\""))
        })
    }

    /// The part of a list that is asked for.
    pub fn page(&self, usual: usize) -> Answer<Page> {
        let number = |key: &str, usual: usize, least: usize| match self.param(key) {
            None => Ok(usual),
            Some(text) => {
                let number = text.parse().ok().filter(|number| *number >= least);
                number.ok_or_else(|| {
                    Problem::invalid(format!("Error: {key} can not be less than {least}"))
                })
            }
        };
        Ok(Page {
            limit: number("limit", usual, 1)?,
            offset: number("offset", 0, 0)?,
        })
    }

    /// The user's sandbox that is called so.
    pub fn own(&self, text: &str, keys: Keys) -> Answer<Option<Arc<Sandbox>>> {
        Ok(find(self.user()?, text, keys))
    }

    /// The user's sandbox that the parameter `id` names, for operations that know `SandboxNotFound`.
    pub fn own_by_id(&self) -> Answer<Arc<Sandbox>> {
        let found = self.own(self.needed_param("id")?, Keys::IdOrName)?;
        found.ok_or_else(Problem::no_sandbox)
    }

    /// The user's sandbox that a parameter names, for all other operations.
    pub fn own_by(&self, param: &str) -> Answer<Arc<Sandbox>> {
        let found = self.own(self.needed_param(param)?, Keys::IdOrNameOrUri)?;
        found.ok_or_else(|| Problem::not_found("Sandbox"))
    }
}

/// An account's sandbox that is called so.
pub(super) fn find(account: &Account, text: &str, keys: Keys) -> Option<Arc<Sandbox>> {
    let mut all = account.sandboxes().into_iter();
    all.find(|sandbox| {
        identity::sandbox_id(sandbox) == text
            || (keys != Keys::Id && sandbox.has_name(text))
            || (keys == Keys::IdOrNameOrUri && identity::uri(account, sandbox) == text)
    })
}

/// 200 with a body.
pub(super) fn told(body: impl Serialize) -> Answer {
    Ok(Json(body).into_response())
}

/// 200 without one.
pub(super) fn done() -> Answer {
    Ok(Body::empty().into_response())
}
