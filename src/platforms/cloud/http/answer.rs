//! A whole answer.

use bytes::Bytes;
use reqwest::StatusCode;
use reqwest::header::HeaderMap;
use serde::de::DeserializeOwned;

/// What was answered, with its body.
#[derive(Debug, Clone)]
pub struct Answer {
    /// 2xx: anything else is an error.
    pub status: StatusCode,
    /// The header fields.
    pub headers: HeaderMap,
    /// The body.
    pub body: Bytes,
}

impl Answer {
    /// The body as JSON; the error says what is wrong with it and shows none of it.
    pub fn json<T: DeserializeOwned>(&self) -> Result<T, String> {
        serde_json::from_slice(&self.body).map_err(|error| match error.classify() {
            serde_json::error::Category::Eof => "the answer is cut off".to_owned(),
            _ => format!("the answer cannot be understood: {error}"),
        })
    }

    /// The value of a header field, if it is text.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }
}
