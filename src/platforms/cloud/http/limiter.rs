//! One budget of requests for all that speaks to a platform with one account.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::{Instant, sleep_until};

/// How many requests a platform takes.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Budget {
    /// Requests per second in the long run; `None` until a platform complains.
    pub per_second: Option<f64>,
    /// How many may be made at once after a quiet time.
    pub burst: f64,
    /// How many may be under way at a time.
    pub at_once: usize,
}

impl Default for Budget {
    fn default() -> Self {
        Self {
            per_second: None,
            burst: 50.0,
            at_once: 100,
        }
    }
}

/// A token bucket that is shared by every request, and emptied by a 429.
#[derive(Debug)]
pub(super) struct Limiter {
    budget: Budget,
    bucket: Mutex<Bucket>,
    places: Semaphore,
}

#[derive(Debug)]
struct Bucket {
    rate: Option<f64>,
    tokens: f64,
    filled: Instant,
    closed_until: Instant,
}

/// The rate that is gone down to after the first 429 of a platform without a budget.
const AFTER_COMPLAINT: f64 = 10.0;

/// No complaint slows requests down further than this, per second.
const SLOWEST: f64 = 0.5;

/// How much faster each answered request makes it again.
const RECOVERY: f64 = 1.01;

impl Limiter {
    pub fn new(budget: Budget, now: Instant) -> Self {
        Self {
            budget,
            bucket: Mutex::new(Bucket {
                rate: budget.per_second,
                tokens: budget.burst,
                filled: now,
                closed_until: now,
            }),
            places: Semaphore::new(budget.at_once.max(1)),
        }
    }

    /// Waits until one more request may be made; it is under way until the permit is dropped.
    pub async fn enter(&self) -> Option<SemaphorePermit<'_>> {
        // Never closed.
        let place = self.places.acquire().await.ok();
        loop {
            match self.take(Instant::now()) {
                None => return place,
                Some(at) => sleep_until(at).await,
            }
        }
    }

    /// Takes a token; if there is none, says when to ask again.
    fn take(&self, now: Instant) -> Option<Instant> {
        let mut bucket = self.lock();
        if now < bucket.closed_until {
            return Some(bucket.closed_until);
        }
        let rate = bucket.rate?;
        let gained = now.duration_since(bucket.filled).as_secs_f64() * rate;
        bucket.tokens = (bucket.tokens + gained).min(self.budget.burst.max(1.0));
        bucket.filled = now;
        if bucket.tokens >= 1.0 {
            bucket.tokens -= 1.0;
            return None;
        }
        let missing = (1.0 - bucket.tokens) / rate;
        Some(now + Duration::from_secs_f64(missing).max(Duration::from_millis(1)))
    }

    /// After a 429: nobody asks for `delay`, and all ask half as often from then on.
    pub fn complained(&self, delay: Duration, now: Instant) {
        let mut bucket = self.lock();
        bucket.closed_until = bucket.closed_until.max(now + delay);
        bucket.rate = Some(
            bucket
                .rate
                .map_or(AFTER_COMPLAINT, |rate| (rate / 2.0).max(SLOWEST)),
        );
        bucket.tokens = 1.0;
        bucket.filled = bucket.closed_until;
    }

    /// After an answer: back to the full rate, slowly.
    pub fn answered(&self) {
        let mut bucket = self.lock();
        if let Some(rate) = bucket.rate {
            let full = self.budget.per_second.unwrap_or(f64::MAX);
            bucket.rate = Some((rate * RECOVERY).min(full));
        }
    }

    fn lock(&self) -> MutexGuard<'_, Bucket> {
        self.bucket.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How long it takes, from `now` on, to make so many requests one after the other.
    fn time(limiter: &Limiter, now: &mut Instant, requests: usize) -> f64 {
        let began = *now;
        for _ in 0..requests {
            while let Some(later) = limiter.take(*now) {
                *now = later;
            }
        }
        now.duration_since(began).as_secs_f64()
    }

    #[test]
    fn a_burst_is_free_and_then_the_rate_holds() {
        let mut now = Instant::now();
        let budget = Budget {
            per_second: Some(10.0),
            burst: 5.0,
            at_once: 1,
        };
        let limiter = Limiter::new(budget, now);
        assert_eq!(time(&limiter, &mut now, 5), 0.0);
        let slow = time(&limiter, &mut now, 20);
        assert!((1.9..2.2).contains(&slow), "{slow}");
        let free = Limiter::new(Budget::default(), now);
        assert_eq!(time(&free, &mut now, 10_000), 0.0);
    }

    #[test]
    fn a_complaint_slows_everybody_down_for_a_while() {
        let mut now = Instant::now();
        let limiter = Limiter::new(Budget::default(), now);
        limiter.complained(Duration::from_secs(3), now);
        let first = time(&limiter, &mut now, 1);
        assert!((3.0..3.1).contains(&first), "{first}");
        let slow = time(&limiter, &mut now, 20);
        assert!((1.8..2.3).contains(&slow), "{slow}");
        for _ in 0..2000 {
            limiter.answered();
        }
        now += Duration::from_secs(10);
        let fast = time(&limiter, &mut now, 50);
        assert!(fast < 0.1, "{fast}");
    }

    #[tokio::test]
    async fn only_so_many_are_under_way() {
        let budget = Budget {
            at_once: 2,
            ..Budget::default()
        };
        let limiter = Limiter::new(budget, Instant::now());
        let first = limiter.enter().await;
        let _second = limiter.enter().await;
        let mut third = std::pin::pin!(limiter.enter());
        assert!(futures_util::poll!(third.as_mut()).is_pending());
        drop(first);
        assert!(third.await.is_some());
    }
}
