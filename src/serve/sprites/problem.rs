//! How Sprites refuses: `{"error":"machine_code","message":"…"}` (protocol page sprites, §2).

use axum::Json;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde_json::json;

use crate::serve::engine::{EngineError, Kind};

/// A refusal.
#[derive(Debug)]
pub(super) struct Problem {
    pub status: u16,
    /// For machines.
    pub error: String,
    /// For people.
    pub message: String,
}

/// What a handler answers.
pub(super) type Answer<T = Response> = Result<T, Problem>;

impl Problem {
    pub(super) fn new(status: u16, error: &str, message: impl Into<String>) -> Self {
        Self {
            status,
            error: error.to_owned(),
            message: message.into(),
        }
    }

    pub(super) fn invalid(message: impl Into<String>) -> Self {
        Self::new(400, "bad_request", message)
    }
}

impl From<EngineError> for Problem {
    fn from(error: EngineError) -> Self {
        let status = match error.kind {
            Kind::Invalid => 400,
            Kind::NotFound => 404,
            Kind::Conflict => 409,
            Kind::TooLarge => 413,
            Kind::TooMany => 429,
            Kind::Timeout => 504,
            Kind::Unavailable => 503,
            Kind::Denied => 403,
            Kind::Failed => 500,
        };
        Self {
            status,
            error: error.code,
            message: error.message,
        }
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let body = json!({ "error": self.error, "message": self.message });
        (status, Json(body)).into_response()
    }
}
