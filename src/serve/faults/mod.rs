//! What stands between clients and protocols and knows none of them: latency, things that go wrong on
//! purpose, and the log of requests.
//!
//! For tests, [`Faults`] is shared with the server that was given it: rules can be replaced and the log
//! read while it runs. The command line makes the same of `--latency`, `--fail`, `--seed` and `--fault`.

mod log;
mod rule;

use std::io;
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use axum::Json;
use axum::body::{Body, HttpBody};
use axum::http::{HeaderValue, Request, StatusCode, header};
use axum::response::{IntoResponse, Response};
use futures_util::{StreamExt, stream};
use serde_json::json;

pub use log::Logged;
pub use rule::{Fault, Rule, RuleError, When};

use log::Log;

/// The client gets no answer: its connection is closed.
#[derive(Debug, thiserror::Error)]
#[error("hung up")]
pub struct HungUp;

/// What is to happen to requests.
#[derive(Debug, Clone, Default)]
pub struct Plan {
    /// How long every request takes on its way.
    pub latency: Duration,
    /// The part of requests, from 0 to 1, to which any of [`Fault::KINDS`] happens.
    pub fail: f64,
    /// What chance is made of: the same requests in the same order meet the same faults.
    pub seed: u64,
    /// The first one that is met counts; it comes before chance.
    pub rules: Vec<Rule>,
}

struct State {
    plan: Plan,
    chance: fastrand::Rng,
}

/// What happens to requests on their way, and which there were.
pub struct Faults {
    state: Mutex<State>,
    log: Log,
}

impl Default for Faults {
    fn default() -> Self {
        Self::new(Plan::default())
    }
}

impl Faults {
    /// Does what `plan` says.
    pub fn new(plan: Plan) -> Self {
        Self {
            state: Mutex::new(State {
                chance: fastrand::Rng::with_seed(plan.seed),
                plan,
            }),
            log: Log::default(),
        }
    }

    /// Appends a line of JSON for every request to this file, too.
    pub fn logged_to(self, path: &Path) -> io::Result<Self> {
        let log = Log::append_to(path)?;
        Ok(Self { log, ..self })
    }

    /// From now on does what `plan` says, and forgets the requests so far.
    pub fn reset(&self, plan: Plan) {
        let mut state = self.state();
        state.chance = fastrand::Rng::with_seed(plan.seed);
        state.plan = plan;
        self.log.clear();
    }

    /// Every request since the last reset, in the order in which they came.
    pub fn requests(&self) -> Vec<Logged> {
        self.log.requests()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Whole after every statement, so a panic elsewhere cannot have torn it.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is to go wrong with a request.
    fn decide(&self, method: &str, path: &str) -> Option<Fault> {
        let mut state = self.state();
        let State { plan, chance } = &mut *state;
        // Every rule counts every request.
        let met = plan.rules.iter_mut().map(|rule| rule.meets(method, path));
        let met = met.fold(None, Option::or);
        let unlucky = chance.f64() < plan.fail;
        let kind = chance.choice(Fault::KINDS);
        met.or(kind.filter(|_| unlucky))
    }

    /// Takes one request through.
    pub(super) async fn pass<F>(
        &self,
        request: Request<Body>,
        inner: impl FnOnce(Request<Body>) -> F,
    ) -> Result<Response, HungUp>
    where
        F: Future<Output = Result<Response, HungUp>>,
    {
        let (method, path) = (request.method().as_str(), request.uri().path());
        let mut logged = self.log.begin(method, path);
        let fault = self.decide(method, path);
        logged.fault = fault.map(|fault| fault.to_string());
        let latency = self.state().plan.latency;
        if !latency.is_zero() {
            tokio::time::sleep(latency).await;
        }
        let answer = match fault {
            None => inner(request).await,
            Some(fault) => match fault.when() {
                When::Before => wrong(fault, Response::default()),
                When::After => {
                    let done = inner(request).await;
                    done.and_then(|answer| wrong(fault, answer))
                }
            },
        };
        logged.status = answer.as_ref().ok().map(|answer| answer.status().as_u16());
        self.log.end(logged);
        answer
    }
}

/// What a client gets instead of an answer.
fn wrong(fault: Fault, answer: Response) -> Result<Response, HungUp> {
    match fault {
        Fault::Lost(_) => Err(HungUp),
        Fault::Truncated => truncated(answer),
        Fault::Status(_, status, wait) => {
            let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
            let code = match status {
                StatusCode::TOO_MANY_REQUESTS => "resource_exhausted",
                StatusCode::SERVICE_UNAVAILABLE => "unavailable",
                _ => "internal",
            };
            // So that clients of all platforms find their words in it.
            let text = "this went wrong on purpose";
            let body = json!({ "ok": false, "error": text, "code": code, "message": text });
            let mut answer = (status, Json(body)).into_response();
            if let Some(wait) = wait {
                let headers = answer.headers_mut();
                headers.insert(header::RETRY_AFTER, HeaderValue::from(wait));
            }
            Ok(answer)
        }
    }
}

/// The answer up to the middle of its first piece.
fn truncated(answer: Response) -> Result<Response, HungUp> {
    if answer.body().size_hint().exact() == Some(0) {
        return Err(HungUp);
    }
    let (mut parts, body) = answer.into_parts();
    // The length would be another one.
    parts.headers.remove(header::CONTENT_LENGTH);
    let first = body.into_data_stream().take(1).map(|piece| match piece {
        Ok(piece) => Ok(piece.slice(..piece.len() / 2)),
        Err(error) => Err(io::Error::other(error)),
    });
    let broken = stream::once(async {
        // What was said so far is on its way before the connection is closed.
        tokio::task::yield_now().await;
        Err(io::Error::other("truncated on purpose"))
    });
    Ok(Response::from_parts(
        parts,
        Body::from_stream(first.chain(broken)),
    ))
}
