//! How many requests are answered in which time: protocol page pocketenv, §1.
//!
//! All clients are on this machine, so they share one count.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use axum::Json;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use jiff::Timestamp;
use serde_json::json;

/// So many are answered in a window on the platform.
const USUAL: u64 = 500;

/// How long a window is.
const WINDOW: Duration = Duration::from_secs(30);

/// Counts requests.
pub(super) struct Rate {
    /// How many are answered; without it, all are.
    most: Option<u64>,
    window: Mutex<Window>,
}

#[derive(Clone, Copy)]
struct Window {
    began: Instant,
    count: u64,
}

/// Where in its window a request is.
pub(super) struct Counted {
    most: u64,
    left: u64,
    /// When the next window begins, in seconds since 1970.
    reset: i64,
    /// Whether it is to be answered.
    pub within: bool,
}

impl Rate {
    pub fn new(most: Option<u64>) -> Self {
        let window = Window {
            began: Instant::now(),
            count: 0,
        };
        Self {
            most,
            window: Mutex::new(window),
        }
    }

    /// Counts one request.
    pub fn count(&self) -> Counted {
        let window = self.window.lock();
        // Whole after every statement, so a panic elsewhere cannot have torn it.
        let mut window = window.unwrap_or_else(PoisonError::into_inner);
        if window.began.elapsed() >= WINDOW {
            window.began = Instant::now();
            window.count = 0;
        }
        window.count += 1;
        let rest = WINDOW.saturating_sub(window.began.elapsed());
        let most = self.most.unwrap_or(USUAL);
        Counted {
            most,
            left: most.saturating_sub(window.count),
            reset: (Timestamp::now() + rest).as_second(),
            within: self.most.is_none_or(|most| window.count <= most),
        }
    }
}

impl Counted {
    /// What is answered to a request too many.
    pub fn refused() -> Response {
        // Alone among the errors, it has no message.
        let body = json!({ "error": "Too many requests, please try again later." });
        let mut answer = (StatusCode::TOO_MANY_REQUESTS, Json(body)).into_response();
        let wait = HeaderValue::from(WINDOW.as_secs());
        answer.headers_mut().insert(header::RETRY_AFTER, wait);
        answer
    }

    /// Tells it with an answer.
    pub fn tell(&self, answer: &mut Response) {
        let headers = answer.headers_mut();
        headers.insert("x-ratelimit-limit", self.most.into());
        headers.insert("x-ratelimit-remaining", self.left.into());
        headers.insert("x-ratelimit-reset", self.reset.into());
    }
}
