//! How Miosa refuses: `{"error":{"code":"…","message":"…"}}` (protocol page miosa, §2).

use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use serde_json::json;

use crate::serve::engine::{EngineError, Kind};

/// A refusal.
#[derive(Debug, Clone)]
pub(super) struct Problem {
    pub status: u16,
    /// For machines.
    pub code: String,
    /// For people.
    pub message: String,
}

/// What a handler answers.
pub(super) type Answer<T = Response> = Result<T, Problem>;

impl Problem {
    pub(super) fn new(status: u16, code: &str, message: impl Into<String>) -> Self {
        Self {
            status,
            code: code.to_owned(),
            message: message.into(),
        }
    }

    pub(super) fn invalid(message: impl Into<String>) -> Self {
        Self::new(422, "VALIDATION_FAILED", message)
    }

    pub(super) fn not_found(what: &str) -> Self {
        Self::new(404, "NOT_FOUND", format!("{what} not found"))
    }

    /// In one of the shapes that clients have to understand.
    pub(super) fn shaped(&self, flat: bool) -> Response {
        let status = StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let body = match flat {
            true => json!({ "error": self.message, "code": self.code }),
            false => json!({ "error": { "code": self.code, "message": self.message } }),
        };
        (status, Json(body)).into_response()
    }
}

impl From<EngineError> for Problem {
    fn from(error: EngineError) -> Self {
        let (status, code) = match error.kind {
            Kind::Invalid => (422, "VALIDATION_FAILED"),
            Kind::NotFound => (404, "NOT_FOUND"),
            Kind::Conflict => (409, "RESOURCE_STATE"),
            Kind::TooLarge => (413, "TOO_LARGE"),
            Kind::TooMany => (429, "rate_limit_exceeded"),
            Kind::Timeout => (504, "TIMEOUT"),
            Kind::Unavailable => (503, "UNAVAILABLE"),
            Kind::Denied => (403, "FORBIDDEN"),
            Kind::Failed => (500, "INTERNAL_ERROR"),
        };
        Self::new(status, code, error.message)
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        // `reply::finished` gives it its shape.
        (Extension(self.clone()), self.shaped(false)).into_response()
    }
}
