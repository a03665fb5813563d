//! Why an owner, or the API before it, did not do what it was asked.

use serde::{Deserialize, Deserializer, Serialize};

use crate::model::ServiceName;
use crate::supervisor::wire::ErrorBody;

/// One of the codes that the protocol page lists, or of ours.
type Code = &'static str;

/// An answer that is not a success (protocol page iris, §3).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::supervisor) struct Refusal {
    /// The HTTP status.
    pub status: u16,
    /// The code of the protocol page.
    #[serde(deserialize_with = "code")]
    pub code: Code,
    /// What happened.
    pub message: String,
    /// The last lines of the service's output, where a start failed.
    pub log_tail: Vec<String>,
}

impl Refusal {
    pub fn new(status: u16, code: &'static str, message: impl Into<String>) -> Self {
        Self {
            status,
            code,
            message: message.into(),
            log_tail: Vec::new(),
        }
    }

    pub fn invalid(message: impl Into<String>) -> Self {
        Self::new(400, "invalid_request", message)
    }

    pub fn not_found(name: &str) -> Self {
        Self::new(404, "not_found", format!("service not found: {name}"))
    }

    pub fn conflict(message: impl Into<String>) -> Self {
        Self::new(409, "conflict", message)
    }

    pub fn not_running(name: &ServiceName) -> Self {
        Self::new(409, "not_running", format!("`{name}` is not running"))
    }

    pub fn internal(message: impl Into<String>) -> Self {
        Self::new(500, "internal", message)
    }

    pub fn start_failed(message: impl Into<String>) -> Self {
        Self::new(500, "start_failed", message)
    }

    /// The owner ended before it answered: the service was deleted.
    pub fn gone() -> Self {
        Self::new(404, "not_found", "the service was deleted")
    }

    pub fn stopped() -> Self {
        Self::conflict("it was stopped while it was starting")
    }

    pub fn closing() -> Self {
        Self::new(503, "closing", "the supervisor is about to end")
    }

    pub fn missing_need(name: &ServiceName, need: &ServiceName) -> Self {
        let message = format!("`{name}` needs `{need}`, which is not defined");
        Self::new(409, "dependency_not_found", message)
    }

    pub fn cycle(path: &[ServiceName]) -> Self {
        let path: Vec<_> = path.iter().map(ServiceName::as_str).collect();
        let message = format!("the needs form a cycle: {}", path.join(" -> "));
        Self::new(409, "dependency_cycle", message)
    }

    /// A cycle is the body's fault where the body would close it.
    pub fn at_put(self) -> Self {
        Self {
            status: 400,
            ..self
        }
    }

    /// The same, seen from a service that needs `need`.
    pub fn of_need(self, need: &ServiceName) -> Self {
        Self {
            status: 409,
            code: "dependency_failed",
            message: format!("`{need}` did not start: {}", self.message),
            log_tail: self.log_tail,
        }
    }

    pub fn body(self) -> ErrorBody {
        ErrorBody {
            ok: false,
            error: self.message,
            code: self.code.to_owned(),
            log_tail: self.log_tail,
        }
    }
}

/// The codes that a note for the next supervisor can hold.
fn code<'de, D: Deserializer<'de>>(from: D) -> Result<&'static str, D::Error> {
    const CODES: [&str; 5] = [
        "health_timeout",
        "timeout",
        "start_failed",
        "conflict",
        "unhealthy",
    ];
    let text = String::deserialize(from)?;
    Ok(CODES
        .into_iter()
        .find(|code| *code == text)
        .unwrap_or("internal"))
}
