//! Reading requests: whatever is wrong with one is refused in our own shape.

use axum::body::Bytes;
use axum::extract::{FromRequest, FromRequestParts, Path, Query, Request};
use axum::http::request::Parts;
use bytes::BytesMut;
use futures_util::StreamExt;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use crate::model::{Secrets, ServiceName};
use crate::supervisor::owner::Refusal;
use crate::supervisor::sandbox::{Handle, Sandbox};
use crate::supervisor::wire;

/// The one parameter in a path.
pub(super) struct Name(pub String);

impl<S: Send + Sync> FromRequestParts<S> for Name {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Refusal> {
        match Path::<String>::from_request_parts(parts, state).await {
            Ok(Path(name)) => Ok(Self(name)),
            Err(error) => Err(Refusal::invalid(error.body_text())),
        }
    }
}

/// The parameters behind the `?`.
pub(super) struct Params<T>(pub T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequestParts<S> for Params<T> {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Refusal> {
        match Query::<T>::from_request_parts(parts, state).await {
            Ok(Query(params)) => Ok(Self(params)),
            Err(error) => Err(Refusal::invalid(error.body_text())),
        }
    }
}

/// The largest body, in bytes.
const LARGEST: usize = 2 << 20;

/// So much of a body that is too large is read all the same: a client that is still sending does not
/// hear why it was refused.
const PATIENCE: usize = 64 << 20;

/// A whole body.
pub(super) struct Payload(pub Bytes);

impl<S: Send + Sync> FromRequest<S> for Payload {
    type Rejection = Refusal;

    async fn from_request(request: Request, _: &S) -> Result<Self, Refusal> {
        let mut chunks = request.into_body().into_data_stream();
        let (mut body, mut length) = (BytesMut::new(), 0);
        while let Some(chunk) = chunks.next().await {
            let chunk = chunk.map_err(|error| Refusal::invalid(error.to_string()))?;
            length += chunk.len();
            if length <= LARGEST {
                body.extend_from_slice(&chunk);
            } else if length > PATIENCE {
                break;
            }
        }
        match length <= LARGEST {
            true => Ok(Self(body.freeze())),
            false => {
                let text = format!("a body may have {LARGEST} bytes");
                Err(Refusal::new(413, "too_large", text))
            }
        }
    }
}

/// A body that is a JSON object.
pub(super) fn object(body: &Bytes) -> Result<Map<String, Value>, Refusal> {
    match serde_json::from_slice(body) {
        Ok(Value::Object(body)) => Ok(body),
        Ok(_) => Err(Refusal::invalid("the body must be a JSON object")),
        Err(error) => Err(Refusal::invalid(format!("the body is not JSON: {error}"))),
    }
}

/// A body of a known shape; a field that is `null` counts as absent (protocol page iris, §8.14).
pub(super) fn shape<T: DeserializeOwned>(body: &Bytes) -> Result<T, Refusal> {
    fields(object(body)?)
}

/// The same, of a body that was read already.
pub(super) fn fields<T: DeserializeOwned>(mut body: Map<String, Value>) -> Result<T, Refusal> {
    body.retain(|_, value| !value.is_null());
    serde_json::from_value(Value::Object(body)).map_err(|error| Refusal::invalid(error.to_string()))
}

/// The secret values that a body brings, if there is a body.
pub(super) fn secrets(body: &Bytes) -> Result<Secrets, Refusal> {
    if body.iter().all(u8::is_ascii_whitespace) {
        return Ok(Secrets::default());
    }
    wire::take_secrets(&mut object(body)?).map_err(Refusal::invalid)
}

/// A service's name, if it is one.
pub(super) fn service_name(text: &str) -> Result<ServiceName, Refusal> {
    ServiceName::new(text).map_err(|_| {
        let rule = crate::model::NAME_RULE;
        Refusal::invalid(format!("`{text}` cannot be the name of a service: {rule}"))
    })
}

/// The owner of the service in a path.
pub(super) fn find(sandbox: &Sandbox, name: &str) -> Result<Handle, Refusal> {
    let name = service_name(name)?;
    sandbox
        .handle(&name)
        .ok_or_else(|| Refusal::not_found(name.as_str()))
}
