//! Reading requests: whose they are, which sprite they are about, what they carry.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Bytes;
use axum::extract::{FromRequestParts, Path, Query};
use axum::http::request::Parts;
use serde::de::DeserializeOwned;

use super::problem::Problem;
use crate::serve::auth;
use crate::serve::engine::{Account, Engine, Sandbox};

/// The account of the token that the request shows.
pub(super) struct Caller(pub Arc<Account>);

impl FromRequestParts<Engine> for Caller {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, engine: &Engine) -> Result<Self, Problem> {
        let account = auth::account(engine, &parts.headers);
        account
            .map(Self)
            .ok_or_else(|| Problem::new(401, "unauthorized", "the token is missing or another one"))
    }
}

/// The sprite in the path.
pub(super) struct Sprite(pub Arc<Sandbox>);

impl FromRequestParts<Engine> for Sprite {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, engine: &Engine) -> Result<Self, Problem> {
        let Caller(account) = Caller::from_request_parts(parts, engine).await?;
        let name = segment(parts, engine, "name").await?;
        let found = account.by_name(&name);
        found
            .map(Self)
            .map_err(|_| Problem::new(404, "not_found", format!("sprite not found: {name}")))
    }
}

/// A segment of the path by its name in the route.
pub(super) async fn segment(
    parts: &mut Parts,
    engine: &Engine,
    name: &str,
) -> Result<String, Problem> {
    type Segments = Path<HashMap<String, String>>;
    let segments = Segments::from_request_parts(parts, engine).await;
    let Path(mut segments) = segments.map_err(|error| Problem::invalid(error.body_text()))?;
    Ok(segments.remove(name).unwrap_or_default())
}

/// The parameters behind the `?`.
pub(super) struct Params<T>(pub T);

impl<T: DeserializeOwned> FromRequestParts<Engine> for Params<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, engine: &Engine) -> Result<Self, Problem> {
        match Query::<T>::from_request_parts(parts, engine).await {
            Ok(Query(params)) => Ok(Self(params)),
            Err(error) => Err(Problem::invalid(error.body_text())),
        }
    }
}

/// A JSON body; an empty one is an empty object.
pub(super) fn json<T: DeserializeOwned>(body: &Bytes) -> Result<T, Problem> {
    let text: &[u8] = if body.is_empty() { b"{}" } else { body };
    serde_json::from_slice(text).map_err(|error| Problem::invalid(format!("the body: {error}")))
}

/// A duration as Go writes it: `5s`, `1.5s`, `500ms`, `1m30s`.
pub(super) fn duration(text: &str) -> Result<Duration, Problem> {
    let wrong = || Problem::invalid(format!("`{text}` is not a duration, as 5s or 1m30s"));
    if text == "0" {
        return Ok(Duration::ZERO);
    }
    let (mut rest, mut seconds) = (text, 0.0);
    while !rest.is_empty() {
        let digits = rest.find(|sign: char| !sign.is_ascii_digit() && sign != '.');
        let (number, tail) = rest.split_at(digits.ok_or_else(wrong)?);
        let unit = tail.find(|sign: char| sign.is_ascii_digit() || sign == '.');
        let (unit, tail) = tail.split_at(unit.unwrap_or(tail.len()));
        let scale = match unit {
            "ns" => 1e-9,
            "us" | "µs" => 1e-6,
            "ms" => 1e-3,
            "s" => 1.0,
            "m" => 60.0,
            "h" => 3600.0,
            _ => return Err(wrong()),
        };
        seconds += number.parse::<f64>().map_err(|_| wrong())? * scale;
        rest = tail;
    }
    let duration = Duration::try_from_secs_f64(seconds).map_err(|_| wrong())?;
    if text.is_empty() {
        Err(wrong())
    } else {
        Ok(duration)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_those_of_go() {
        for (text, millis) in [
            ("5s", 5000),
            ("1.5s", 1500),
            ("500ms", 500),
            ("1m30s", 90_000),
            ("1m0s", 60_000),
            ("0", 0),
            ("0s", 0),
        ] {
            assert_eq!(duration(text).unwrap(), Duration::from_millis(millis));
        }
        for wrong in ["", "5", "s", "5 s", "-5s", "1e3s", "5x", "..s"] {
            assert!(duration(wrong).is_err(), "{wrong}");
        }
    }
}
