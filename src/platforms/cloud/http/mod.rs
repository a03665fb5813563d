//! Requests to a platform: one connection pool and one budget per account, retries that repeat
//! nothing that may have been done, and errors that say what is known of the effect.
//!
//! In: a base URL, a token, and per request a method, path segments, query and body. Out: whole
//! answers, streams of lines or blocks, WebSockets, and [`HttpError`]s. Knows no platform.

mod answer;
mod base;
mod connection;
mod error;
mod limiter;
mod request;
mod retry;
mod socket;
mod stream;
pub mod tls;

use std::fmt;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use reqwest::Method;
use reqwest::header::HeaderValue;
use secrecy::{ExposeSecret, SecretString};

pub use answer::Answer;
pub use base::{BaseUrl, BaseUrlError};
pub use connection::Connections;
pub use error::{HttpError, Outcome};
pub use limiter::Budget;
pub use request::Request;
pub use retry::{Backoff, Retry};
pub use socket::{Message, Receiver, Sender, Socket};
pub use stream::{Blocks, Lines, ServerEvent};

use crate::model::Secrets;
use crate::platforms::PlatformError;
use connection::Connection;

/// How one platform is spoken to.
#[derive(Debug, Clone)]
pub struct Endpoint {
    /// Where it is.
    pub url: BaseUrl,
    /// The bearer token.
    pub token: Option<SecretString>,
    /// How many requests it takes.
    pub budget: Budget,
    /// How often it is asked again.
    pub backoff: Backoff,
    /// Statuses besides 502, 503 and 504 after which asking again may help.
    pub passing: &'static [u16],
    /// How long one try may take, with its body.
    pub timeout: Duration,
}

impl Endpoint {
    /// An endpoint with the usual limits.
    pub fn new(url: BaseUrl, token: Option<SecretString>) -> Self {
        Self {
            url,
            token,
            budget: Budget::default(),
            backoff: Backoff::default(),
            passing: &[],
            timeout: Duration::from_secs(60),
        }
    }
}

/// Speaks HTTP/1.1 to one platform with one account. Cheap to clone.
#[derive(Clone)]
pub struct Client(Arc<Inner>);

struct Inner {
    connection: Arc<Connection>,
    endpoint: Endpoint,
    token: RwLock<Option<SecretString>>,
    /// What no error may show.
    secrets: Secrets,
}

impl Client {
    /// A client over the pool and the budget of its account. No error shows a value of `secrets`.
    pub fn new(
        connections: &Connections,
        endpoint: Endpoint,
        secrets: Secrets,
    ) -> Result<Self, PlatformError> {
        let connection = connections.get(&endpoint)?;
        let token = RwLock::new(endpoint.token.clone());
        Ok(Self(Arc::new(Inner {
            connection,
            endpoint,
            token,
            secrets,
        })))
    }

    /// Another token from now on: the one before has run out.
    pub fn set_token(&self, token: SecretString) {
        let mut slot = self.0.token.write().unwrap_or_else(PoisonError::into_inner);
        *slot = Some(token);
    }

    /// Where it speaks to.
    pub fn url(&self) -> &BaseUrl {
        &self.0.endpoint.url
    }

    /// A request to a path, each segment of which is percent-encoded. GET, PUT and DELETE are
    /// [`Retry::Safe`], others [`Retry::IfNotDone`], unless [`Request::retry`] says otherwise.
    pub fn request(&self, method: Method, segments: &[&str]) -> Request<'_> {
        Request::new(self, method, segments)
    }

    /// [`Client::request`] with `GET`.
    pub fn get(&self, segments: &[&str]) -> Request<'_> {
        self.request(Method::GET, segments)
    }

    /// [`Client::request`] with `POST`.
    pub fn post(&self, segments: &[&str]) -> Request<'_> {
        self.request(Method::POST, segments)
    }

    /// [`Client::request`] with `PUT`.
    pub fn put(&self, segments: &[&str]) -> Request<'_> {
        self.request(Method::PUT, segments)
    }

    /// [`Client::request`] with `DELETE`.
    pub fn delete(&self, segments: &[&str]) -> Request<'_> {
        self.request(Method::DELETE, segments)
    }

    /// `Authorization`, marked so that nothing prints it.
    fn authorization(&self) -> Option<HeaderValue> {
        let token = self.token()?;
        let text = format!("Bearer {}", token.expose_secret());
        let mut value = HeaderValue::try_from(text).ok()?;
        value.set_sensitive(true);
        Some(value)
    }

    fn token(&self) -> Option<SecretString> {
        let slot = self.0.token.read().unwrap_or_else(PoisonError::into_inner);
        slot.clone()
    }

    /// `text` without token and secrets: platforms may echo what they were sent.
    fn conceal(&self, text: &str) -> String {
        let mut all = self.0.secrets.clone();
        if let Some(token) = self.token() {
            all.insert("token", token);
        }
        all.conceal(text)
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Client")
            .field(&self.url().to_string())
            .finish()
    }
}
