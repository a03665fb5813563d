//! Why the engine did not do what it was asked. Each protocol has its own words for it.

use std::io;

use crate::platforms::PlatformError;
use crate::supervisor::ClientError;

/// What kind of refusal it is; protocols choose status and code by it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A field or a name is wrong.
    Invalid,
    /// There is no such thing.
    NotFound,
    /// It cannot be done in the present state.
    Conflict,
    /// The body or the file is too large.
    TooLarge,
    /// Too many of them at a time.
    TooMany,
    /// It took too long.
    Timeout,
    /// The sandbox is not up, or about to end.
    Unavailable,
    /// Permission was denied inside of the sandbox.
    Denied,
    /// Anything else.
    Failed,
}

/// A refusal.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct EngineError {
    /// What kind it is.
    pub kind: Kind,
    /// The word of the protocol page iris, §3, where the supervisor gave one: `start_failed`.
    pub code: String,
    /// What happened, for people.
    pub message: String,
    /// The last lines of a service's output, where its start failed.
    pub log_tail: Vec<String>,
}

impl EngineError {
    /// A refusal of this kind.
    pub fn new(kind: Kind, message: impl Into<String>) -> Self {
        let code = match kind {
            Kind::Invalid => "invalid_request",
            Kind::NotFound => "not_found",
            Kind::Conflict => "conflict",
            Kind::TooLarge => "too_large",
            Kind::TooMany => "too_many",
            Kind::Timeout => "timeout",
            Kind::Unavailable => "unavailable",
            Kind::Denied => "forbidden",
            Kind::Failed => "internal",
        };
        Self {
            kind,
            code: code.to_owned(),
            message: message.into(),
            log_tail: Vec::new(),
        }
    }

    /// A wrong field or name.
    pub fn invalid(message: impl Into<String>) -> Self {
        Self::new(Kind::Invalid, message)
    }

    /// There is no such thing: `sandbox not found: web`.
    pub fn not_found(what: &str, name: &str) -> Self {
        Self::new(Kind::NotFound, format!("{what} not found: {name}"))
    }

    /// It cannot be done now.
    pub fn conflict(message: impl Into<String>) -> Self {
        Self::new(Kind::Conflict, message)
    }
}

impl From<ClientError> for EngineError {
    fn from(error: ClientError) -> Self {
        let kind = match error.status {
            None | Some(503) => Kind::Unavailable,
            Some(400) => Kind::Invalid,
            Some(403) => Kind::Denied,
            Some(404) => Kind::NotFound,
            Some(409) => Kind::Conflict,
            Some(413) => Kind::TooLarge,
            Some(429) => Kind::TooMany,
            Some(504) => Kind::Timeout,
            Some(_) => Kind::Failed,
        };
        Self {
            kind,
            code: error.code,
            message: error.message,
            log_tail: error.log_tail,
        }
    }
}

impl From<PlatformError> for EngineError {
    fn from(error: PlatformError) -> Self {
        Self {
            log_tail: error.0.log_tail.clone(),
            ..Self::new(Kind::Failed, error.0.message)
        }
    }
}

impl From<io::Error> for EngineError {
    fn from(error: io::Error) -> Self {
        Self::new(Kind::Failed, error.to_string())
    }
}

/// What the engine answers.
pub type Result<T, E = EngineError> = std::result::Result<T, E>;
