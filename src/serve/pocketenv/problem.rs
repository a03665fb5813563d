//! How Pocketenv refuses: `{"error":"Name","message":"…"}` (protocol page pocketenv, §1.2).

use axum::Json;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde_json::json;

use crate::serve::engine::EngineError;

/// A refusal.
#[derive(Debug)]
pub(super) struct Problem {
    status: StatusCode,
    /// For machines.
    error: &'static str,
    /// For people.
    message: String,
}

/// What an operation answers.
pub(super) type Answer<T = Response> = Result<T, Problem>;

impl Problem {
    fn new(status: StatusCode, error: &'static str, message: impl Into<String>) -> Self {
        Self {
            status,
            error,
            message: message.into(),
        }
    }

    /// The request is not as it should be.
    pub fn invalid(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "InvalidRequest", message)
    }

    /// The body is no JSON.
    pub fn syntax(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "SyntaxError", message)
    }

    /// The body is larger than 100 KiB.
    pub fn too_large() -> Self {
        let text = "request entity too large";
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, "PayloadTooLargeError", text)
    }

    /// It is for users only.
    pub fn anonymous() -> Self {
        let error = "AuthenticationRequired";
        Self::new(StatusCode::UNAUTHORIZED, error, "Unauthorized")
    }

    /// Anonymous sandboxes need a challenge.
    pub fn no_challenge() -> Self {
        let text = "Authentication failed, invalid challenge";
        Self::new(StatusCode::UNAUTHORIZED, "AuthenticationError", text)
    }

    /// There is no such operation.
    pub fn no_operation() -> Self {
        let text = "Method Not Implemented";
        Self::new(StatusCode::NOT_IMPLEMENTED, "MethodNotImplemented", text)
    }

    /// There is no such sandbox, where sandboxes are started, stopped, deleted and run commands in.
    pub fn no_sandbox() -> Self {
        let text = "Sandbox not found";
        Self::new(StatusCode::NOT_FOUND, "SandboxNotFound", text)
    }

    /// There is no such thing, everywhere else: `Service not found`.
    pub fn not_found(what: &str) -> Self {
        let text = format!("{what} not found");
        Self::new(StatusCode::NOT_FOUND, "XRPCNotSupported", text)
    }

    /// Nothing of the kind was stored.
    pub fn nothing() -> Self {
        Self::new(StatusCode::NOT_FOUND, "XRPCNotSupported", "Not found")
    }

    /// The provider has no such route.
    pub fn no_route() -> Self {
        let text = "Request failed with status code 404";
        Self::new(StatusCode::NOT_FOUND, "XRPCNotSupported", text)
    }

    /// The provider refuses.
    pub fn refused() -> Self {
        Self::invalid("Request failed with status code 400")
    }

    /// The provider is not for ordinary users.
    pub fn forbidden(provider: &str) -> Self {
        let text = format!("Provider {provider} is not available");
        Self::new(StatusCode::FORBIDDEN, "SandboxProviderError", text)
    }

    /// The provider fails to make or remove a sandbox.
    pub fn provider(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_GATEWAY, "SandboxProviderError", message)
    }

    /// Conflicts, wrong tokens, and what goes wrong inside: the client is not told what.
    pub fn internal() -> Self {
        let text = "Internal Server Error";
        Self::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            "InternalServerError",
            text,
        )
    }
}

impl From<EngineError> for Problem {
    fn from(error: EngineError) -> Self {
        tracing::warn!(%error, "answered with 500");
        Self::internal()
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let body = json!({ "error": self.error, "message": self.message });
        (self.status, Json(body)).into_response()
    }
}
