//! One request: built, sent, and sent again as far as that is allowed.

use std::ops::ControlFlow;
use std::time::Duration;

use bytes::Bytes;
use reqwest::header::{AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use reqwest::{Method, Response, StatusCode, Url};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::sync::SemaphorePermit;
use tokio::time::{Instant, sleep, timeout};
use tokio_tungstenite::tungstenite::handshake::client::generate_key;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;

use super::error::Told;
use super::retry::{asked_delay, is_passing};
use super::stream::{Blocks, Broken, Lines};
use super::{Answer, Client, HttpError, Outcome, Retry, Socket};

/// What platforms call the number of a request.
const REQUEST_IDS: [&str; 4] = ["x-request-id", "fly-request-id", "request-id", "cf-ray"];

/// What servers answer that have no WebSocket at a place, where they do not just answer the request.
const NO_SOCKET: [u16; 5] = [400, 404, 405, 426, 501];

/// How long everybody waits after a 429 that does not say how long.
const PAUSE: Duration = Duration::from_secs(1);

/// A request that was not sent yet.
#[must_use]
pub struct Request<'c> {
    client: &'c Client,
    method: Method,
    url: Url,
    headers: HeaderMap,
    body: Option<Bytes>,
    timeout: Duration,
    retry: Retry,
    /// What about it cannot be sent.
    broken: Option<String>,
}

/// One try that failed.
struct Failed {
    error: HttpError,
    /// Whether asking again may help.
    passing: bool,
}

/// How often it was tried so far, and what is known from that.
struct Tries {
    made: u32,
    began: Instant,
    /// Those that did not fail for want of budget.
    failures: u32,
    /// How long the platform has made it wait.
    waited: Duration,
    may_be_done: bool,
}

impl Default for Tries {
    fn default() -> Self {
        Self {
            made: 0,
            began: Instant::now(),
            failures: 0,
            waited: Duration::ZERO,
            may_be_done: false,
        }
    }
}

impl<'c> Request<'c> {
    pub(super) fn new(client: &'c Client, method: Method, segments: &[&str]) -> Self {
        let retry = match method {
            Method::GET | Method::HEAD | Method::PUT | Method::DELETE => Retry::Safe,
            _ => Retry::IfNotDone,
        };
        Self {
            client,
            method,
            url: client.0.endpoint.url.join(segments),
            headers: HeaderMap::new(),
            body: None,
            timeout: client.0.endpoint.timeout,
            retry,
            broken: None,
        }
    }

    /// Adds `key=value` to the query. Errors and logs do not show the query.
    pub fn query(mut self, key: &str, value: impl AsRef<str>) -> Self {
        self.url.query_pairs_mut().append_pair(key, value.as_ref());
        self
    }

    /// A body of JSON.
    pub fn json(mut self, body: &impl Serialize) -> Self {
        match serde_json::to_vec(body) {
            Ok(bytes) => self.bytes("application/json", bytes),
            Err(error) => {
                self.broken = Some(format!("the request cannot be written: {error}"));
                self
            }
        }
    }

    /// A body as it is.
    pub fn bytes(self, content_type: &str, body: impl Into<Bytes>) -> Self {
        let mut with = self.header(CONTENT_TYPE.as_str(), content_type);
        with.body = Some(body.into());
        with
    }

    /// A header field, in place of one of this name.
    pub fn header(mut self, name: &str, value: &str) -> Self {
        match (HeaderName::try_from(name), HeaderValue::try_from(value)) {
            (Ok(name), Ok(value)) => {
                self.headers.insert(name, value);
            }
            _ => self.broken = Some(format!("`{name}` cannot be sent with this value")),
        }
        self
    }

    /// How long one try may take, with its body; for a stream, until it begins.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// What may be repeated, where that is not told by the method.
    pub fn retry(mut self, retry: Retry) -> Self {
        self.retry = retry;
        self
    }

    /// The same key with every try, so that the platform does it once: makes it [`Retry::Safe`].
    pub fn idempotency_key(self, key: &str) -> Self {
        self.header("idempotency-key", key).retry(Retry::Safe)
    }

    /// The whole answer.
    pub async fn send(self) -> Result<Answer, HttpError> {
        self.read(Ok).await
    }

    /// The answer's body as JSON.
    pub async fn fetch<T: DeserializeOwned>(self) -> Result<T, HttpError> {
        self.read(|answer| answer.json()).await
    }

    /// The answer as `read` understands it. What it does not understand is a failure of the request, and
    /// treated like one.
    pub async fn fetch_as<T>(
        self,
        read: impl Fn(&Answer) -> Result<T, String>,
    ) -> Result<T, HttpError> {
        self.read(|answer| read(&answer)).await
    }

    /// As [`Request::fetch`]; `None` for 404.
    pub async fn find<T: DeserializeOwned>(self) -> Result<Option<T>, HttpError> {
        match self.fetch().await {
            Ok(found) => Ok(Some(found)),
            Err(error) if error.is_not_found() => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The answer as lines, each of which may be awaited for `idle`.
    pub async fn lines(self, idle: Duration) -> Result<Lines, HttpError> {
        Ok(Lines::new(self.blocks(idle).await?))
    }

    /// The answer as blocks, as they come.
    pub async fn blocks(self, idle: Duration) -> Result<Blocks, HttpError> {
        let answer = self.open().await?;
        Ok(Blocks::new(answer, idle, self.broken_later()))
    }

    /// A WebSocket, each message of which may be awaited for `idle`. `None` if the server has none at this place:
    /// then nothing was done. It may be the beginning of something, so it is [`Retry::IfNotDone`].
    pub async fn socket(self, idle: Duration) -> Result<Option<Socket>, HttpError> {
        let key = generate_key();
        let request = self
            .retry(Retry::IfNotDone)
            .header("connection", "Upgrade")
            .header("upgrade", "websocket")
            .header("sec-websocket-version", "13")
            .header("sec-websocket-key", &key);
        let answer = match request.open().await {
            Ok(answer) if answer.status() == StatusCode::SWITCHING_PROTOCOLS => answer,
            Ok(_) => return Ok(None),
            Err(error) if error.status.is_some_and(|it| NO_SOCKET.contains(&it)) => {
                return Ok(None);
            }
            Err(error) => return Err(error),
        };
        let broken = request.broken_later();
        let accepted = answer.headers().get("sec-websocket-accept");
        if accepted.is_none_or(|it| it.as_bytes() != derive_accept_key(key.as_bytes()).as_bytes()) {
            return Err(broken("what answered is no WebSocket".to_owned()));
        }
        match answer.upgrade().await {
            Ok(connection) => Ok(Some(Socket::new(connection, idle, broken).await)),
            Err(error) => Err(broken(causes(&error.without_url()))),
        }
    }

    /// Tries as [`Request::read`] does, up to the end of the head.
    async fn open(&self) -> Result<Response, HttpError> {
        let mut tries = Tries::default();
        loop {
            let place = self.enter(&mut tries).await?;
            let tried = self.begin().await;
            drop(place);
            match self.judge(&mut tries, tried) {
                ControlFlow::Break(judged) => return judged,
                ControlFlow::Continue(delay) => sleep(delay).await,
            }
        }
    }

    /// What becomes of failures after the head.
    fn broken_later(&self) -> Broken {
        let (request, client) = (self.shown(), self.client.clone());
        Box::new(move |message| {
            let message = client.conceal(&message);
            HttpError::new(request.clone(), message, Outcome::Unknown)
        })
    }

    /// Tries until it succeeds, or may not be repeated, or has been often enough.
    async fn read<T>(self, read: impl Fn(Answer) -> Result<T, String>) -> Result<T, HttpError> {
        let mut tries = Tries::default();
        loop {
            let place = self.enter(&mut tries).await?;
            let tried = self.whole(&read).await;
            drop(place);
            match self.judge(&mut tries, tried) {
                ControlFlow::Break(judged) => return judged,
                ControlFlow::Continue(delay) => sleep(delay).await,
            }
        }
    }

    /// Waits until another try may be made.
    async fn enter(&self, tries: &mut Tries) -> Result<Option<SemaphorePermit<'c>>, HttpError> {
        if let Some(message) = &self.broken {
            let message = message.clone();
            return Err(HttpError::new(self.shown(), message, Outcome::NotDone));
        }
        let place = self.client.0.connection.limiter.enter().await;
        tries.made += 1;
        tries.began = Instant::now();
        Ok(place)
    }

    /// What follows from a try: an end, or another one after a delay.
    fn judge<T>(
        &self,
        tries: &mut Tries,
        tried: Result<T, Failed>,
    ) -> ControlFlow<Result<T, HttpError>, Duration> {
        let backoff = self.client.0.endpoint.backoff;
        let limiter = &self.client.0.connection.limiter;
        self.log(tries.made, tries.began, tried.as_ref().err());
        let Failed { mut error, passing } = match tried {
            Ok(value) => {
                limiter.answered();
                return ControlFlow::Break(Ok(value));
            }
            Err(failed) => failed,
        };
        error.tries = tries.made;
        tries.may_be_done |= error.may_be_done();
        let delay = match error.status {
            Some(429) => {
                let delay = error.retry_after.unwrap_or(PAUSE);
                limiter.complained(delay.min(backoff.patience), Instant::now());
                tries.waited += delay.max(PAUSE);
                let again = self.retry != Retry::Never && tries.waited <= backoff.patience;
                // The limiter makes everybody wait.
                again.then_some(Duration::ZERO)
            }
            _ => {
                tries.failures += 1;
                let allowed = match self.retry {
                    Retry::Safe => passing,
                    Retry::IfNotDone => passing && !error.may_be_done(),
                    Retry::Never => false,
                };
                let asked = error.retry_after.unwrap_or_default();
                let again = allowed && tries.failures < backoff.tries && asked <= backoff.patience;
                again.then(|| backoff.before(tries.failures + 1).max(asked))
            }
        };
        match delay {
            Some(delay) => ControlFlow::Continue(delay),
            None => {
                if tries.may_be_done {
                    error.outcome = Outcome::Unknown;
                }
                ControlFlow::Break(Err(error))
            }
        }
    }

    /// One try, up to the end of the body.
    async fn whole<T>(&self, read: &impl Fn(Answer) -> Result<T, String>) -> Result<T, Failed> {
        let tried = timeout(self.timeout, async {
            let response = self.begin().await?;
            let (status, headers) = (response.status(), response.headers().clone());
            let body = response.bytes().await;
            let body = body.map_err(|error| self.broken_off(status, error))?;
            let answer = Answer {
                status,
                headers,
                body,
            };
            read(answer).map_err(|message| self.failed(Some(status), message, Outcome::Unknown))
        });
        tried.await.unwrap_or_else(|_| Err(self.timed_out()))
    }

    /// One try, up to the end of the head.
    async fn begin(&self) -> Result<Response, Failed> {
        let http = &self.client.0.connection.http;
        let mut request = http
            .request(self.method.clone(), self.url.clone())
            .headers(self.headers.clone());
        if let Some(token) = self.client.authorization() {
            request = request.header(AUTHORIZATION, token);
        }
        if let Some(body) = &self.body {
            request = request.body(body.clone());
        }
        let response = match timeout(self.timeout, request.send()).await {
            Err(_) => return Err(self.timed_out()),
            Ok(Err(error)) => {
                let outcome = match error.is_connect() || error.is_builder() {
                    true => Outcome::NotDone,
                    false => Outcome::Unknown,
                };
                return Err(self.failed(None, causes(&error.without_url()), outcome));
            }
            Ok(Ok(response)) => response,
        };
        match response.status() {
            StatusCode::SWITCHING_PROTOCOLS => Ok(response),
            status if status.is_success() => Ok(response),
            _ => Err(self.refused(response).await),
        }
    }

    /// The error that an answer describes.
    async fn refused(&self, response: Response) -> Failed {
        let status = response.status();
        let headers = response.headers().clone();
        let body = timeout(self.timeout, response.bytes()).await;
        let body = body.ok().and_then(Result::ok).unwrap_or_default();
        let told = Told::read(&body, &|text| self.client.conceal(text));
        let words = || {
            let reason = status.canonical_reason().unwrap_or("an error");
            reason.to_lowercase()
        };
        let outcome = match status.as_u16() {
            408 => Outcome::Unknown,
            501 => Outcome::NotDone,
            500.. => Outcome::Unknown,
            _ => Outcome::NotDone,
        };
        let mut failed = self.failed(Some(status), told.message.unwrap_or_else(words), outcome);
        failed.passing = is_passing(status, self.client.0.endpoint.passing);
        let id = |name: &&str| headers.get(*name)?.to_str().ok().map(str::to_owned);
        failed.error.code = told.code;
        failed.error.request_id = REQUEST_IDS.iter().find_map(id).or(told.request_id);
        failed.error.retry_after = asked_delay(&headers).or(told.retry_after);
        failed
    }

    fn broken_off(&self, status: StatusCode, error: reqwest::Error) -> Failed {
        let cause = causes(&error.without_url());
        let message = format!("the answer broke off: {cause}");
        self.failed(Some(status), message, Outcome::Unknown)
    }

    fn timed_out(&self) -> Failed {
        let seconds = crate::model::show_duration(self.timeout);
        self.failed(None, format!("no answer after {seconds}"), Outcome::Unknown)
    }

    /// A failure on the way, after which asking again may help.
    fn failed(&self, status: Option<StatusCode>, message: String, outcome: Outcome) -> Failed {
        let message = self.client.conceal(&message);
        let mut error = HttpError::new(self.shown(), message, outcome);
        error.status = status.map(|status| status.as_u16());
        Failed {
            error,
            passing: true,
        }
    }

    /// `GET /v1/sprites/web`.
    fn shown(&self) -> String {
        format!("{} {}", self.method, self.url.path())
    }

    fn log(&self, tries: u32, began: Instant, failed: Option<&Failed>) {
        let took = began.elapsed().as_millis();
        let request = self.shown();
        match failed {
            None => tracing::debug!("{request}: answered in {took} ms (try {tries})"),
            Some(failed) => tracing::debug!("{} after {took} ms (try {tries})", failed.error),
        }
    }
}

/// An error with everything that it came from.
pub(super) fn causes(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text.push_str(&format!(": {cause_text}"));
        }
        source = cause.source();
    }
    text
}
