//! The Connect protocol, unary calls in JSON: protocol page iris, §2.

use axum::Json;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde_json::{Map, Value, json};

use crate::serve::engine::{EngineError, Kind};

/// A refusal.
#[derive(Debug)]
pub(super) struct Problem {
    code: &'static str,
    message: String,
}

impl Problem {
    pub(super) fn new(code: &'static str, message: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
        }
    }

    pub(super) fn invalid(message: impl Into<String>) -> Self {
        Self::new("invalid_argument", message)
    }
}

impl From<EngineError> for Problem {
    fn from(error: EngineError) -> Self {
        let code = match error.kind {
            Kind::Invalid | Kind::TooLarge => "invalid_argument",
            Kind::NotFound => "not_found",
            Kind::Conflict => "failed_precondition",
            Kind::TooMany => "resource_exhausted",
            Kind::Timeout => "deadline_exceeded",
            Kind::Unavailable => "unavailable",
            Kind::Denied => "permission_denied",
            Kind::Failed => "internal",
        };
        Self::new(code, error.message)
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let status = match self.code {
            "invalid_argument" | "failed_precondition" => StatusCode::BAD_REQUEST,
            "unauthenticated" => StatusCode::UNAUTHORIZED,
            "permission_denied" => StatusCode::FORBIDDEN,
            "not_found" => StatusCode::NOT_FOUND,
            "resource_exhausted" => StatusCode::TOO_MANY_REQUESTS,
            "unimplemented" => StatusCode::NOT_IMPLEMENTED,
            "unavailable" => StatusCode::SERVICE_UNAVAILABLE,
            "deadline_exceeded" => StatusCode::GATEWAY_TIMEOUT,
            _ => StatusCode::INTERNAL_SERVER_ERROR,
        };
        let body = json!({ "code": self.code, "message": self.message });
        (status, Json(body)).into_response()
    }
}

/// A request message; proto3 JSON knows each field by two names.
pub(super) struct Message {
    fields: Map<String, Value>,
    /// Whether the client writes `sandboxId`: it gets such names back, and 64-bit numbers as text.
    camel: bool,
}

impl Message {
    pub(super) fn read(body: &[u8]) -> Result<Self, Problem> {
        let given: Map<String, Value> = match body.is_empty() {
            true => Map::new(),
            false => serde_json::from_slice(body)
                .map_err(|error| Problem::invalid(format!("the body is not a message: {error}")))?,
        };
        let camel = given
            .keys()
            .any(|key| key.contains(|sign: char| sign.is_ascii_uppercase()));
        let fields = given.into_iter().filter(|(_, value)| !value.is_null());
        let fields = fields.map(|(key, value)| (snake(&key), value)).collect();
        Ok(Self { fields, camel })
    }

    /// A text field; unset and empty are the same.
    pub(super) fn text(&self, key: &str) -> Result<Option<&str>, Problem> {
        match self.fields.get(key) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text.as_str()).filter(|text| !text.is_empty())),
            Some(_) => Err(Problem::invalid(format!("`{key}` must be a text"))),
        }
    }

    /// A number field, which may be written as text.
    pub(super) fn number(&self, key: &str) -> Result<Option<u64>, Problem> {
        let wrong = || Problem::invalid(format!("`{key}` must be a number"));
        match self.fields.get(key) {
            None => Ok(None),
            Some(Value::String(text)) => text.parse().map(Some).map_err(|_| wrong()),
            Some(value) => value.as_u64().map(Some).ok_or_else(wrong),
        }
    }

    /// The answer in the client's own way of writing.
    pub(super) fn answer(&self, body: Value) -> Response {
        Json(if self.camel { camel(body) } else { body }).into_response()
    }
}

/// `sandboxId` as `sandbox_id`.
fn snake(key: &str) -> String {
    key.chars().fold(String::new(), |mut snake, sign| {
        if sign.is_ascii_uppercase() {
            snake.push('_');
        }
        snake.push(sign.to_ascii_lowercase());
        snake
    })
}

fn camel(value: Value) -> Value {
    match value {
        Value::Object(fields) => {
            let renamed = fields.into_iter().map(|(key, value)| {
                let mut parts = key.split('_');
                let first = parts.next().unwrap_or_default().to_owned();
                let key = parts.fold(first, |key, part| {
                    let (head, tail) = part.split_at(part.len().min(1));
                    format!("{key}{}{tail}", head.to_ascii_uppercase())
                });
                (key, camel(value))
            });
            Value::Object(renamed.collect())
        }
        Value::Array(items) => Value::Array(items.into_iter().map(camel).collect()),
        Value::Number(number) => Value::String(number.to_string()),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_ways_of_writing_are_understood() {
        for body in [
            r#"{"sandbox_id":"a","page_size":2}"#,
            r#"{"sandboxId":"a","pageSize":"2","name":null}"#,
        ] {
            let message = Message::read(body.as_bytes()).unwrap();
            assert_eq!(message.text("sandbox_id").unwrap(), Some("a"));
            assert_eq!(message.number("page_size").unwrap(), Some(2));
            assert_eq!(message.text("name").unwrap(), None);
        }
    }

    #[test]
    fn an_answer_is_written_as_the_question() {
        let body = json!({ "data_plane_token_expires_at_unix": 17, "all": [{ "next_page": "" }] });
        assert_eq!(
            camel(body),
            json!({ "dataPlaneTokenExpiresAtUnix": "17", "all": [{ "nextPage": "" }] })
        );
    }
}
