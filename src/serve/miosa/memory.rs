//! What outlives a request and a sandbox: replies by their idempotency key, and what was destroyed. It ends
//! with the server.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use axum::body::{Body, Bytes, to_bytes};
use axum::extract::{Request, State};
use axum::http::{HeaderMap, StatusCode};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use serde_json::Value;
use sha2::{Digest, Sha256};

use super::problem::Problem;
use super::{LARGEST, Miosa};
use crate::serve::auth;

/// So many of each are remembered.
const KEPT: usize = 10_000;

#[derive(Clone)]
struct Reply {
    /// Of what was asked.
    asked: [u8; 32],
    status: StatusCode,
    headers: HeaderMap,
    body: Bytes,
    problem: Option<Problem>,
}

/// Held while the request with this key is worked on for the first time.
type Slot = Arc<tokio::sync::Mutex<Option<Reply>>>;

#[derive(Default)]
struct Kept {
    replies: HashMap<(String, String), Slot>,
    order: VecDeque<(String, String)>,
    /// By account, then by UUID.
    destroyed: BTreeMap<String, BTreeMap<String, Value>>,
}

/// Remembers.
#[derive(Default)]
pub(super) struct Memory {
    kept: Mutex<Kept>,
    /// Held while a process is given a name.
    pub naming: tokio::sync::Mutex<()>,
}

impl Memory {
    fn kept(&self) -> MutexGuard<'_, Kept> {
        // Whole after every statement, so a panic elsewhere cannot have torn it.
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn slot(&self, key: (String, String)) -> Slot {
        let mut kept = self.kept();
        if !kept.replies.contains_key(&key) {
            kept.order.push_back(key.clone());
            if kept.order.len() > KEPT
                && let Some(oldest) = kept.order.pop_front()
            {
                kept.replies.remove(&oldest);
            }
        }
        kept.replies.entry(key).or_default().clone()
    }

    /// Remembers the last record of a sandbox of an account.
    pub(super) fn bury(&self, account: &str, uuid: &str, record: Value) {
        let mut kept = self.kept();
        let graves = kept.destroyed.entry(account.to_owned()).or_default();
        if graves.len() >= KEPT {
            graves.pop_first();
        }
        graves.insert(uuid.to_owned(), record);
    }

    /// What was destroyed in an account.
    pub(super) fn destroyed(&self, account: &str) -> Vec<Value> {
        let kept = self.kept();
        let graves = kept.destroyed.get(account).into_iter().flatten();
        graves.map(|(_, record)| record.clone()).collect()
    }

    /// One of them.
    pub(super) fn grave(&self, account: &str, uuid: &str) -> Option<Value> {
        self.kept().destroyed.get(account)?.get(uuid).cloned()
    }
}

/// Answers a request whose `Idempotency-Key` was there before as it was answered then.
pub(super) async fn repeated(State(miosa): State<Miosa>, request: Request, next: Next) -> Response {
    let key = request.headers().get("idempotency-key");
    let key = key.and_then(|key| key.to_str().ok()).map(str::to_owned);
    let account = auth::account(miosa.engine(), request.headers());
    let (Some(key), Some(account)) = (key, account) else {
        return next.run(request).await;
    };
    let (parts, body) = request.into_parts();
    let Ok(body) = to_bytes(body, LARGEST).await else {
        return Problem::new(413, "TOO_LARGE", "the body is too large").into_response();
    };
    let mut asked = Sha256::new();
    asked.update(format!("{} {}\n", parts.method, parts.uri));
    asked.update(&body);
    let asked: [u8; 32] = asked.finalize().into();
    let slot = miosa.memory().slot((account.name().to_owned(), key));
    let mut slot = slot.lock().await;
    if let Some(before) = slot.as_ref() {
        return match before.asked == asked {
            true => before.clone().into_response(),
            false => Problem::new(
                409,
                "IDEMPOTENCY_PAYLOAD_MISMATCH",
                "this key was used for another request",
            )
            .into_response(),
        };
    }
    let response = next.run(Request::from_parts(parts, Body::from(body))).await;
    let (parts, body) = response.into_parts();
    let reply = Reply {
        asked,
        status: parts.status,
        problem: parts.extensions.get::<Problem>().cloned(),
        headers: parts.headers,
        body: to_bytes(body, usize::MAX).await.unwrap_or_default(),
    };
    // One that failed may be tried again.
    if reply.status.is_success() {
        *slot = Some(reply.clone());
    }
    reply.into_response()
}

impl IntoResponse for Reply {
    fn into_response(self) -> Response {
        let mut response = (self.status, self.headers, self.body).into_response();
        if let Some(problem) = self.problem {
            response.extensions_mut().insert(problem);
        }
        response
    }
}
