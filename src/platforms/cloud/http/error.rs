//! Why a request was not answered as hoped, and what that says about its effect.

use std::fmt;
use std::ops::{Deref, DerefMut};
use std::time::Duration;

use serde_json::Value;

use crate::event::Failure;
use crate::platforms::PlatformError;

/// What a failure says about what the request was to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// It was certainly not done.
    NotDone,
    /// It may have been done: only reading tells.
    Unknown,
}

/// A request that failed. Holds no token, no query and no body that was sent.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct HttpError(Box<Details>);

/// What is known of a request that failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Details {
    /// `GET /v1/sprites/web`, without its query.
    pub request: String,
    /// The status; `None` if no whole answer came.
    pub status: Option<u16>,
    /// The platform's code: `sprite_creation_rate_limited`.
    pub code: Option<String>,
    /// The platform's own words, or what went wrong on the way.
    pub message: String,
    /// The platform's number for it.
    pub request_id: Option<String>,
    /// What is known of its effect.
    pub outcome: Outcome,
    /// How long the platform wants to be left alone.
    pub retry_after: Option<Duration>,
    /// How often it was asked.
    pub tries: u32,
}

impl Deref for HttpError {
    type Target = Details;
    fn deref(&self) -> &Details {
        &self.0
    }
}

impl DerefMut for HttpError {
    fn deref_mut(&mut self) -> &mut Details {
        &mut self.0
    }
}

impl HttpError {
    /// An error of `request` (`GET /v1/sprites/web`) with nothing but words.
    pub(super) fn new(request: String, message: String, outcome: Outcome) -> Self {
        Self(Box::new(Details {
            request,
            status: None,
            code: None,
            message,
            request_id: None,
            outcome,
            retry_after: None,
            tries: 1,
        }))
    }

    /// Whether what was asked for does not exist.
    pub fn is_not_found(&self) -> bool {
        self.status == Some(404)
    }

    /// Whether what was asked for does not fit what is there.
    pub fn is_conflict(&self) -> bool {
        self.status == Some(409)
    }

    /// Whether the platform takes this code: as `code`, in any case.
    pub fn has_code(&self, code: &str) -> bool {
        self.code
            .as_deref()
            .is_some_and(|it| it.eq_ignore_ascii_case(code))
    }

    /// Whether it may have been done in spite of the error.
    pub fn may_be_done(&self) -> bool {
        self.outcome == Outcome::Unknown
    }
}

impl fmt::Display for HttpError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.request)?;
        if let Some(status) = self.status {
            write!(f, "{status} ")?;
        }
        match &self.code {
            Some(code) if *code != self.message => write!(f, "{code}: {}", self.message)?,
            _ => f.write_str(&self.message)?,
        }
        if self.tries > 1 {
            write!(f, " (asked {} times)", self.tries)?;
        }
        match &self.request_id {
            Some(id) => write!(f, " (request {id})"),
            None => Ok(()),
        }
    }
}

impl From<HttpError> for PlatformError {
    fn from(error: HttpError) -> Self {
        let hint = match error.status {
            Some(401 | 403) => Some("is the token right, and does it belong to this account?"),
            Some(429) => Some("the account's limit is reached: try again later"),
            _ => None,
        };
        PlatformError(Failure {
            message: error.to_string(),
            log_tail: Vec::new(),
            hint: hint.map(str::to_owned),
        })
    }
}

/// What the body of an error says.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Told {
    pub code: Option<String>,
    pub message: Option<String>,
    pub retry_after: Option<Duration>,
    pub request_id: Option<String>,
}

/// The longest text of a body that is no JSON.
const LONGEST: usize = 300;

impl Told {
    /// Reads the body of an error: `{"error": "…", "message": "…"}`, `{"error": {"code": "…",
    /// "message": "…"}}`, `{"code": "…", "message": "…"}`, or text. `conceal` takes out what nobody may
    /// see, before anything is cut off, which could leave a part of it.
    pub fn read(body: &[u8], conceal: &dyn Fn(&str) -> String) -> Self {
        let clean = |text: &str| clean(&conceal(text));
        let Ok(Value::Object(body)) = serde_json::from_slice(body) else {
            return Self::text(body, clean);
        };
        let inner = body.get("error").and_then(Value::as_object);
        let lookup = |key: &str| inner.and_then(|it| it.get(key)).or_else(|| body.get(key));
        let text = |key: &str| {
            let text = lookup(key).and_then(Value::as_str).map(str::trim);
            text.filter(|text| !text.is_empty()).map(clean)
        };
        let number = |key: &str| lookup(key).and_then(Value::as_f64);
        let error = body.get("error").and_then(Value::as_str).map(clean);
        let (code, message) = match (error, text("message")) {
            (Some(error), None) if !is_code(&error) => (text("code"), Some(error)),
            (Some(error), message) => (text("code").or(Some(error)), message),
            (None, message) => (text("code"), message),
        };
        let seconds = number("retry_after_seconds")
            .or_else(|| number("retry_after_ms").map(|millis| millis / 1000.0));
        Self {
            code,
            message,
            retry_after: seconds.and_then(|it| Duration::try_from_secs_f64(it).ok()),
            request_id: text("request_id").or_else(|| text("requestId")),
        }
    }

    fn text(body: &[u8], clean: impl Fn(&str) -> String) -> Self {
        let text = String::from_utf8_lossy(body);
        let text = text.trim();
        // A page for browsers says nothing that the status does not.
        let told = !text.is_empty() && !text.starts_with('<');
        Self {
            message: told.then(|| clean(text)),
            ..Self::default()
        }
    }
}

/// One line, not too long, without control characters.
fn clean(text: &str) -> String {
    let line = text.split(|c: char| c.is_control()).collect::<Vec<_>>();
    let line = line.join(" ");
    match line.char_indices().nth(LONGEST) {
        Some((end, _)) => format!("{}…", &line[..end]),
        None => line,
    }
}

/// Whether a text is a word for programs.
fn is_code(text: &str) -> bool {
    let word = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.');
    text.chars().all(word)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_platforms_errors_are_understood() {
        let told = |body: &str| {
            let told = Told::read(body.as_bytes(), &str::to_owned);
            (told.code, told.message)
        };
        let some = |text: &str| Some(text.to_owned());
        for (body, code, message) in [
            (
                r#"{"error":"rate_limited","message":"slow down"}"#,
                some("rate_limited"),
                some("slow down"),
            ),
            (r#"{"error":"no such thing"}"#, None, some("no such thing")),
            (r#"{"error":"not_found"}"#, some("not_found"), None),
            (
                r#"{"error":{"code":"SANDBOX_STARTING","message":"wait"}}"#,
                some("SANDBOX_STARTING"),
                some("wait"),
            ),
            (
                r#"{"code":"not_found","error":"service not found: x"}"#,
                some("not_found"),
                some("service not found: x"),
            ),
            (
                r#"{"code":"unavailable","message":"later"}"#,
                some("unavailable"),
                some("later"),
            ),
            ("upstream\nsick\n", None, some("upstream sick")),
            ("<html>no</html>", None, None),
            ("", None, None),
            ("[1]", None, some("[1]")),
        ] {
            assert_eq!(told(body), (code, message), "{body}");
        }
        let body = br#"{"error":{"code":"X","retry_after_ms":1500}}"#;
        let delay = Told::read(body, &str::to_owned).retry_after;
        assert_eq!(delay, Some(Duration::from_millis(1500)));
    }
}
