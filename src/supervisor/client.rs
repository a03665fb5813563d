//! The client of a supervisor: one method per route, over the Unix socket in the sandbox's folder.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use reqwest::{Method, RequestBuilder, Response};
use serde::de::DeserializeOwned;
use tokio::sync::mpsc;

use super::wire::{self, ErrorBody, ServiceObject, StartEvent};
use crate::keeper::SocketPath;
use crate::model::{Isolation, Secrets, ServiceName, ServiceSpec};
use crate::platforms::cloud::http::tls;
use crate::platforms::{LogLine, LogQuery};

/// How long one long-poll is held before it is asked again.
const POLL: Duration = Duration::from_secs(60);

/// Speaks to one supervisor. Cheap to create and to clone.
#[derive(Debug, Clone)]
pub struct Client {
    http: reqwest::Client,
    /// Keeps the path that `http` connects to valid.
    _socket: Arc<SocketPath>,
}

/// How far a start is awaited.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Until {
    /// Its program was executed, or it waits for something, or the start failed.
    Executed,
    /// Ready; for a task, exited with 0; or the start failed.
    #[default]
    Settled,
}

impl Until {
    /// The word on the wire.
    pub(super) fn word(self) -> &'static str {
        match self {
            Self::Executed => "executed",
            Self::Settled => "settled",
        }
    }
}

/// Why a supervisor did not do what it was asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct ClientError {
    /// The HTTP status; `None` if no whole answer came.
    pub status: Option<u16>,
    /// The error code of the protocol page iris, §3; `unreachable` if no whole answer came.
    pub code: String,
    /// What happened, for people.
    pub message: String,
    /// The last lines of the service's output, where a start failed.
    pub log_tail: Vec<String>,
}

impl ClientError {
    fn unreachable(error: &(dyn std::error::Error + 'static)) -> Self {
        let mut message = format!("the supervisor does not answer: {error}");
        let mut source = error.source();
        while let Some(cause) = source {
            message.push_str(&format!(": {cause}"));
            source = cause.source();
        }
        Self {
            status: None,
            code: "unreachable".to_owned(),
            message,
            log_tail: Vec::new(),
        }
    }

    /// Whether the service does not exist.
    pub fn is_not_found(&self) -> bool {
        self.status == Some(404)
    }

    /// Whether the supervisor was not reached, or went away before it had answered.
    pub fn is_unreachable(&self) -> bool {
        self.status.is_none()
    }
}

impl From<reqwest::Error> for ClientError {
    fn from(error: reqwest::Error) -> Self {
        if error.is_timeout() {
            return Self {
                status: None,
                code: "unreachable".to_owned(),
                message:
                    "the supervisor runs, but does not answer: kill -9 it, and its keeper starts \
                          another, which goes on with its services"
                        .to_owned(),
                log_tail: Vec::new(),
            };
        }
        // The address is the same for every supervisor, and means nothing to anybody.
        Self::unreachable(&error.without_url())
    }
}

/// What a supervisor says of itself.
#[derive(Debug, Clone, serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
pub struct HealthReport {
    /// Always true.
    pub ok: bool,
    /// Its version.
    #[serde(default)]
    pub version: String,
    /// Its process.
    pub pid: u32,
    /// The keeper's process.
    #[serde(default)]
    pub keeper_pid: Option<u32>,
    /// What the services are kept in.
    #[serde(default)]
    pub isolation: Option<Isolation>,
    /// Why it is not more, where more was asked for.
    #[serde(default)]
    pub isolation_reason: Option<String>,
}

type Result<T, E = ClientError> = std::result::Result<T, E>;

impl Client {
    /// The client of the supervisor of the sandbox kept in `dir`; `None` if none runs.
    pub fn open(dir: &Path) -> io::Result<Option<Self>> {
        let socket = match SocketPath::open(dir) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            other => other?,
        };
        match std::os::unix::net::UnixStream::connect(socket.path()) {
            Ok(_) => {}
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused
                ) =>
            {
                return Ok(None);
            }
            Err(error) => return Err(error),
        }
        let tls = tls::unused().map_err(io::Error::other)?;
        let http = reqwest::Client::builder()
            .tls_backend_preconfigured(tls)
            .no_proxy()
            .unix_socket(socket.path())
            .build()
            .map_err(io::Error::other)?;
        Ok(Some(Self {
            http,
            _socket: Arc::new(socket),
        }))
    }

    /// Version and process of the supervisor.
    pub async fn health(&self) -> Result<HealthReport> {
        let request = self.request(Method::GET, "/v1/health");
        json(request.timeout(Duration::from_secs(10))).await
    }

    /// Every service, by name.
    pub async fn list(&self) -> Result<Vec<ServiceObject>> {
        let listed: wire::Listing = json(self.request(Method::GET, "/v1/services")).await?;
        Ok(listed.into())
    }

    /// One service.
    pub async fn get(&self, name: &ServiceName) -> Result<ServiceObject> {
        json(self.service(Method::GET, name, "")).await
    }

    /// One service, as soon as its `seq` is greater than `after`.
    pub async fn wait_change(&self, name: &ServiceName, after: u64) -> Result<ServiceObject> {
        loop {
            let query = [("after", after), ("timeout_ms", POLL.as_millis() as u64)];
            let request = self.service(Method::GET, name, "").query(&query);
            let object: ServiceObject = json(request).await?;
            if object.seq > after {
                return Ok(object);
            }
        }
    }

    /// Stores a definition. A live process goes on as it is.
    pub async fn put(
        &self,
        name: &ServiceName,
        spec: &ServiceSpec,
        secrets: &Secrets,
    ) -> Result<ServiceObject> {
        let body = wire::put_body(spec, secrets).map_err(|e| ClientError::unreachable(&e))?;
        json(self.service(Method::PUT, name, "").json(&body)).await
    }

    /// Starts a service and what it needs in the same sandbox.
    pub async fn start(
        &self,
        name: &ServiceName,
        secrets: &Secrets,
        until: Until,
    ) -> Result<ServiceObject> {
        let request = self
            .service(Method::POST, name, "/start")
            .query(&[("until", until.word())])
            .json(&wire::start_body(secrets));
        json(request).await
    }

    /// Starts a service and what it needs in the same sandbox, until it is settled. `told` hears of what
    /// changes meanwhile; what is over before it could be told is only in the answer.
    pub async fn start_telling(
        &self,
        name: &ServiceName,
        secrets: &Secrets,
        told: &mut (dyn FnMut(&ServiceObject) + Send),
    ) -> Result<ServiceObject> {
        let body = wire::start_body(secrets);
        let mut tries = TRIES;
        loop {
            let request = self.service(Method::POST, name, "/start");
            let request = request.query(&[("progress", "true")]).json(&body);
            tries -= 1;
            match started(request, told).await {
                Err(Broken::Off(_)) if tries > 0 => {}
                Err(Broken::Off(error) | Broken::For(error)) => return Err(error),
                Ok(object) => return Ok(object),
            }
        }
    }

    /// Stops a service; answers once all its processes are gone.
    pub async fn stop(&self, name: &ServiceName) -> Result<ServiceObject> {
        json(self.service(Method::POST, name, "/stop")).await
    }

    /// Stops and starts a service; answers once it is ready again.
    pub async fn restart(&self, name: &ServiceName, secrets: &Secrets) -> Result<ServiceObject> {
        let request = self.service(Method::POST, name, "/restart");
        once(request.json(&wire::start_body(secrets))).await
    }

    /// Sends a signal, by its name without `SIG`, to a service's process group.
    pub async fn signal(&self, name: &ServiceName, signal: &str) -> Result<ServiceObject> {
        let body = serde_json::json!({ "signal": signal });
        once(self.service(Method::POST, name, "/signal").json(&body)).await
    }

    /// Writes to a service's standard input, and ends it after that if `eof`.
    pub async fn send_stdin(
        &self,
        name: &ServiceName,
        data: &str,
        eof: bool,
    ) -> Result<ServiceObject> {
        let body = serde_json::json!({ "data": data, "eof": eof });
        once(self.service(Method::POST, name, "/stdin").json(&body)).await
    }

    /// Stops and removes a service; its log stays. A name that is not there is an error (404).
    pub async fn delete(&self, name: &ServiceName) -> Result<()> {
        json::<serde_json::Value>(self.service(Method::DELETE, name, ""))
            .await
            .map(drop)
    }

    /// A service's log lines, oldest first; the channel closes at the end.
    pub async fn logs(
        &self,
        name: &ServiceName,
        query: &LogQuery,
    ) -> Result<mpsc::Receiver<LogLine>> {
        let mut parameters = vec![("follow", query.follow.to_string())];
        if let Some(tail) = query.tail {
            parameters.push(("lines", tail.to_string()));
        }
        if let Some(since) = query.since {
            parameters.push(("since", since.to_string()));
        }
        if let Some(stream) = query.stream {
            parameters.push(("stream", stream.word().to_owned()));
        }
        let request = self.service(Method::GET, name, "/logs").query(&parameters);
        let answer = checked(request.send().await?).await?;
        let (sender, receiver) = mpsc::channel(256);
        tokio::spawn(async move {
            let mut body = answer.bytes_stream();
            let mut rest = Vec::new();
            while let Some(Ok(chunk)) = body.next().await {
                rest.extend_from_slice(&chunk);
                let Some(end) = rest.iter().rposition(|byte| *byte == b'\n') else {
                    continue;
                };
                for line in rest[..end].split(|byte| *byte == b'\n') {
                    let Some(line) = LogLine::parse(line) else {
                        continue;
                    };
                    if sender.send(line).await.is_err() {
                        return;
                    }
                }
                rest.drain(..=end);
            }
        });
        Ok(receiver)
    }

    /// Lets another program supervise the sandbox; answers once that serves. Should it not come up, the
    /// one before does again, and tells its own version.
    pub async fn upgrade(&self, program: &Path) -> Result<HealthReport> {
        let before = self.health().await?.pid;
        let body = serde_json::json!({ "program": program });
        once::<serde_json::Value>(self.request(Method::POST, "/v1/upgrade").json(&body)).await?;
        loop {
            // The successor answers at the same socket.
            let now = self.health().await?;
            if now.pid != before {
                return Ok(now);
            }
        }
    }

    /// Stops every service and the supervisor; answers when the services are gone.
    pub async fn shutdown(&self) -> Result<()> {
        let request = self.request(Method::POST, "/v1/shutdown");
        json::<serde_json::Value>(request).await.map(drop)
    }

    fn service(&self, method: Method, name: &ServiceName, tail: &str) -> RequestBuilder {
        self.request(method, &format!("/v1/services/{name}{tail}"))
    }

    /// A request to any route, by its path and query.
    pub fn request(&self, method: Method, path: &str) -> RequestBuilder {
        self.http
            .request(method, format!("http://supervisor{path}"))
    }
}

/// How often what may be asked for twice is asked for.
const TRIES: usize = 5;

/// Asks for what may be asked for twice: a supervisor that is killed while it answers is replaced at once,
/// behind the same socket.
pub(super) async fn json<T: DeserializeOwned>(request: RequestBuilder) -> Result<T> {
    for _ in 1..TRIES {
        let Some(again) = request.try_clone() else {
            break;
        };
        match whole(again).await {
            Err(Broken::Off(_)) => {}
            Err(Broken::For(error)) => return Err(error),
            Ok(answer) => return Ok(answer),
        }
    }
    once(request).await
}

/// Asks for what must not happen twice.
pub(super) async fn once<T: DeserializeOwned>(request: RequestBuilder) -> Result<T> {
    whole(request).await.map_err(|broken| match broken {
        Broken::Off(error) | Broken::For(error) => error,
    })
}

/// Why there is no answer.
enum Broken {
    /// It broke off, though somebody was there.
    Off(ClientError),
    /// It is an error, or nobody is there.
    For(ClientError),
}

impl From<reqwest::Error> for Broken {
    fn from(error: reqwest::Error) -> Self {
        match error.is_connect() || error.is_timeout() {
            true => Self::For(error.into()),
            false => Self::Off(error.into()),
        }
    }
}

async fn answered(request: RequestBuilder) -> Result<Response, Broken> {
    let answer = request.send().await?;
    checked(answer).await.map_err(Broken::For)
}

async fn whole<T: DeserializeOwned>(request: RequestBuilder) -> Result<T, Broken> {
    Ok(answered(request).await?.json().await?)
}

/// Reads how a start gets on, up to its end.
async fn started(
    request: RequestBuilder,
    told: &mut (dyn FnMut(&ServiceObject) + Send),
) -> Result<ServiceObject, Broken> {
    let answer = answered(request).await?;
    let mut lines = Lines::of(answer);
    while let Some(line) = lines.next().await? {
        match serde_json::from_slice(&line) {
            Ok(StartEvent::Changed { service }) => told(&service),
            Ok(StartEvent::Done { service }) => return Ok(*service),
            Ok(StartEvent::Refused { status, body }) => {
                return Err(Broken::For(refusal(status, body)));
            }
            Err(error) => return Err(Broken::For(ClientError::unreachable(&error))),
        }
    }
    let ended = io::Error::from(io::ErrorKind::UnexpectedEof);
    Err(Broken::Off(ClientError::unreachable(&ended)))
}

/// The lines of a body, as they come.
struct Lines {
    answer: Response,
    rest: Vec<u8>,
}

impl Lines {
    fn of(answer: Response) -> Self {
        let rest = Vec::new();
        Self { answer, rest }
    }

    /// The next line, without its end. What has none is not told.
    async fn next(&mut self) -> Result<Option<Vec<u8>>, reqwest::Error> {
        loop {
            if let Some(end) = memchr::memchr(b'\n', &self.rest) {
                let mut line: Vec<u8> = self.rest.drain(..=end).collect();
                line.pop();
                return Ok(Some(line));
            }
            match self.answer.chunk().await? {
                Some(chunk) => self.rest.extend_from_slice(&chunk),
                None => return Ok(None),
            }
        }
    }
}

/// The answer, or the error that its body describes.
pub(super) async fn checked(answer: Response) -> Result<Response> {
    let status = answer.status();
    if status.is_success() {
        return Ok(answer);
    }
    let text = answer.text().await?;
    let mut body: ErrorBody = serde_json::from_str(&text).unwrap_or_default();
    if body.error.is_empty() {
        body.error = text;
    }
    Err(refusal(status.as_u16(), body))
}

fn refusal(status: u16, body: ErrorBody) -> ClientError {
    ClientError {
        status: Some(status),
        code: body.code,
        message: match body.error.is_empty() {
            false => body.error,
            true => format!("the supervisor answered {status}"),
        },
        log_tail: body.log_tail,
    }
}
