//! A server of its own for each test, in this process.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use gabion::platforms::Act;
use gabion::platforms::cloud::http::tls;
use gabion::platforms::local::Local;
use gabion::serve::{Faults, Server, Settings, Switches};
use reqwest::{Method, RequestBuilder, Response};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

const EXE: &str = env!("CARGO_BIN_EXE_gabion");

/// The tokens of two accounts.
pub const ALICE: &str = "org/alice/secret-of-alice";
pub const BOB: &str = "org/bob/secret-of-bob";

/// What any wait in a test may take on a busy machine.
const LIMIT: Duration = Duration::from_secs(30);

/// As long as passes are valid usually.
const USUAL_LIFETIME: Duration = Duration::from_secs(3600);

pub struct Rig {
    pub url: String,
    pub faults: Arc<Faults>,
    pub http: reqwest::Client,
    /// Of the next server.
    pub pass_lifetime: Duration,
    home: PathBuf,
    switches: Switches,
    end: CancellationToken,
    _temp: Option<tempfile::TempDir>,
}

impl Rig {
    pub async fn new() -> Self {
        Self::switched(Switches::default()).await
    }

    /// One that decides what the pages of protocols leave open.
    pub async fn switched(switches: impl Into<Switches>) -> Self {
        let temp = tempfile::tempdir().unwrap();
        let mut rig = Self::with(temp.path(), USUAL_LIFETIME, switches.into()).await;
        rig._temp = Some(temp);
        rig
    }

    /// With the sandboxes that are there.
    async fn with(home: &Path, pass_lifetime: Duration, switches: Switches) -> Self {
        let tokens = vec![ALICE.into(), BOB.into()];
        let mut settings = Settings::new(home.to_owned(), EXE.into(), tokens);
        settings.pass_lifetime = pass_lifetime;
        let faults = Arc::new(Faults::default());
        let address = "127.0.0.1:0".parse().unwrap();
        let server = Server::bind(address, &settings, faults.clone(), switches.clone())
            .await
            .unwrap();
        let url = server.engine().base_url();
        let http = reqwest::Client::builder().no_proxy();
        let http = http.tls_backend_preconfigured(tls::unused().unwrap());
        let end = CancellationToken::new();
        tokio::spawn(server.run(end.clone().cancelled_owned()));
        Self {
            url,
            faults,
            http: http.build().unwrap(),
            pass_lifetime,
            home: home.to_owned(),
            switches,
            end,
            _temp: None,
        }
    }

    /// Ends the server and starts another one over the same sandboxes.
    pub async fn restart(&mut self) {
        self.end.cancel();
        let next = Self::with(&self.home, self.pass_lifetime, self.switches.clone()).await;
        self.url.clone_from(&next.url);
        self.faults = next.faults.clone();
        self.end = next.end.clone();
        std::mem::forget(next);
    }

    pub fn home(&self) -> &Path {
        &self.home
    }

    pub fn request(&self, method: Method, path: &str) -> RequestBuilder {
        let request = self.http.request(method, format!("{}{path}", self.url));
        request.bearer_auth(ALICE)
    }

    /// Asks, and tells status and body; an empty body is `null`.
    pub async fn ask(&self, method: &str, path: &str, body: Value) -> (u16, Value) {
        let mut request = self.request(method.parse().unwrap(), path);
        if !body.is_null() {
            request = request.json(&body);
        }
        told(in_time(request.send()).await.unwrap()).await
    }

    pub async fn get(&self, path: &str) -> Value {
        let (status, body) = self.ask("GET", path, Value::Null).await;
        assert_eq!(status, 200, "{path}: {body}");
        body
    }

    pub async fn post(&self, path: &str) -> (u16, Value) {
        self.ask("POST", path, Value::Null).await
    }

    /// Makes a sprite.
    pub async fn sprite(&self, name: &str) -> Value {
        let (status, body) = self
            .ask("POST", "/v1/sprites", json!({ "name": name }))
            .await;
        assert_eq!(status, 201, "{body}");
        body
    }

    /// A whole stream of events.
    pub async fn events(&self, method: &str, path: &str, body: Value) -> Vec<Value> {
        let mut stream = self.stream(method, path, body).await;
        let mut events = Vec::new();
        while let Some(event) = stream.next().await {
            events.push(event);
        }
        events
    }

    /// A stream of events that is read one by one.
    pub async fn stream(&self, method: &str, path: &str, body: Value) -> Stream {
        let request = self.request(method.parse().unwrap(), path).json(&body);
        let answer = in_time(request.send()).await.unwrap();
        assert_eq!(answer.status().as_u16(), 200, "{path}");
        assert_eq!(answer.headers()["content-type"], "application/x-ndjson");
        Stream::of(answer)
    }

    /// Stores and starts a service, and tells what it is then.
    pub async fn put(&self, sprite: &str, service: &str, body: Value) -> Value {
        let path = format!("/v1/sprites/{sprite}/services/{service}");
        self.events("PUT", &format!("{path}?duration=0s"), body)
            .await;
        self.get(&path).await
    }

    /// The first state of a service that fits.
    pub async fn until(&self, sprite: &str, service: &str, fits: impl Fn(&Value) -> bool) -> Value {
        let path = format!("/v1/sprites/{sprite}/services/{service}");
        in_time(async {
            loop {
                let service = self.get(&path).await;
                if fits(&service) {
                    return service;
                }
                tokio::task::yield_now().await;
            }
        })
        .await
    }
}

/// Status and body of an answer.
pub async fn told(answer: Response) -> (u16, Value) {
    let status = answer.status().as_u16();
    let text = answer.text().await.unwrap();
    let body = match text.is_empty() {
        true => Value::Null,
        false => serde_json::from_str(&text).unwrap_or(Value::String(text)),
    };
    (status, body)
}

pub struct Stream {
    answer: Response,
    rest: Vec<u8>,
}

impl Stream {
    pub fn of(answer: Response) -> Self {
        let rest = Vec::new();
        Self { answer, rest }
    }

    pub async fn next(&mut self) -> Option<Value> {
        loop {
            if let Some(end) = self.rest.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.rest.drain(..=end).collect();
                return Some(serde_json::from_slice(&line).unwrap());
            }
            let chunk = in_time(self.answer.chunk()).await.unwrap()?;
            self.rest.extend_from_slice(&chunk);
        }
    }
}

pub fn kinds(events: &[Value]) -> Vec<&str> {
    events
        .iter()
        .map(|event| event["type"].as_str().unwrap())
        .collect()
}

pub fn shell(line: &str) -> Value {
    json!({ "cmd": "/bin/sh", "args": ["-c", line] })
}

pub async fn in_time<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(LIMIT, future).await.expect("too slow")
}

impl Drop for Rig {
    /// Removes every sandbox.
    fn drop(&mut self) {
        self.end.cancel();
        let home = self.home.clone();
        let removing = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build();
            runtime.unwrap().block_on(async {
                let stacks = std::fs::read_dir(home.join("sandboxes"))
                    .into_iter()
                    .flatten();
                for stack in stacks.flatten() {
                    let name = stack.file_name().into_string().unwrap();
                    let local = Local::new(&home, name, EXE);
                    for sandbox in local.sandboxes().unwrap() {
                        local.delete_sandbox(&sandbox).await.unwrap();
                    }
                }
            });
        });
        let removed = removing.join();
        assert!(removed.is_ok() || std::thread::panicking());
    }
}
