//! What stands between clients and protocols and knows neither: latency, and a log of requests.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use axum::body::Body;
use axum::http::Request;
use axum::response::Response;
use jiff::Timestamp;
use serde::Serialize;

/// The client gets no answer: its connection is closed.
#[derive(Debug, thiserror::Error)]
#[error("hung up on purpose")]
pub struct HungUp;

/// One request, as it came in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Logged {
    /// When.
    pub at: Timestamp,
    /// `PUT`.
    pub method: String,
    /// Without what is behind the `?`.
    pub path: String,
    /// The status that it was answered with; `None` while it is not, or if the client was hung up on.
    pub status: Option<u16>,
}

/// What happens to requests on their way.
#[derive(Debug, Default)]
pub struct Faults {
    /// How long every request takes on its way.
    latency: Duration,
    log: Mutex<Vec<Logged>>,
}

impl Faults {
    /// Nothing but latency.
    pub fn with_latency(latency: Duration) -> Self {
        Self {
            latency,
            log: Mutex::default(),
        }
    }

    fn log(&self) -> MutexGuard<'_, Vec<Logged>> {
        // Whole after every statement, so a panic elsewhere cannot have torn it.
        self.log.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Every request so far, in the order in which they came.
    pub fn requests(&self) -> Vec<Logged> {
        self.log().clone()
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
        let logged = Logged {
            at: Timestamp::now(),
            method: request.method().to_string(),
            path: request.uri().path().to_owned(),
            status: None,
        };
        let index = {
            let mut log = self.log();
            log.push(logged);
            log.len() - 1
        };
        if !self.latency.is_zero() {
            tokio::time::sleep(self.latency).await;
        }
        let answer = inner(request).await?;
        if let Some(logged) = self.log().get_mut(index) {
            logged.status = Some(answer.status().as_u16());
        }
        Ok(answer)
    }
}
