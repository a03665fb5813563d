//! What may be asked again, and when.

use std::time::Duration;

use jiff::Timestamp;
use reqwest::StatusCode;
use reqwest::header::{HeaderMap, RETRY_AFTER};

/// What may be asked again by the client itself. Whatever it may not repeat, its caller decides
/// about after reading what became of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Retry {
    /// Asking twice does no more than asking once: reads, and writes of the same whole to the same
    /// place. Repeated after broken connections, 429, 502, 503 and 504.
    Safe,
    /// Creates, process starts: repeated only after what certainly did nothing, which is a
    /// connection that was never made, and 429.
    IfNotDone,
    /// Not even that.
    Never,
}

/// How often and how slowly a platform is asked again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Backoff {
    /// How often a request is made in all before its failure stands; 429 does not count.
    pub tries: u32,
    /// The first delay; each further one is twice as long. Up to half of it is added by chance.
    pub first: Duration,
    /// The longest delay that a platform may ask for; beyond, its answer stands as an error.
    pub patience: Duration,
}

impl Default for Backoff {
    /// Three tries from 250 ms on (protocol page iris, §3), a minute of patience.
    fn default() -> Self {
        Self {
            tries: 3,
            first: Duration::from_millis(250),
            patience: Duration::from_secs(60),
        }
    }
}

impl Backoff {
    /// The delay before try `number` (the first is 1).
    pub(super) fn before(&self, number: u32) -> Duration {
        let doublings = number.saturating_sub(2).min(16);
        let delay = self.first.saturating_mul(1 << doublings);
        delay
            .mul_f64(1.0 + fastrand::f64() / 2.0)
            .min(self.patience)
    }
}

/// Whether a status says that asking again may help.
pub(super) fn is_passing(status: StatusCode, also: &[u16]) -> bool {
    matches!(status.as_u16(), 502..=504) || also.contains(&status.as_u16())
}

/// What `Retry-After` asks for: seconds, or a date.
pub(super) fn asked_delay(headers: &HeaderMap) -> Option<Duration> {
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    if let Ok(seconds) = text.parse::<f64>() {
        return Duration::try_from_secs_f64(seconds).ok();
    }
    let date = jiff::fmt::rfc2822::parse(text).ok()?.timestamp();
    let left = date.duration_since(Timestamp::now());
    Some(Duration::try_from(left).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(text: &str) -> Option<Duration> {
        let mut headers = HeaderMap::new();
        headers.insert(RETRY_AFTER, text.parse().unwrap());
        asked_delay(&headers)
    }

    #[test]
    fn delays_grow_and_are_never_longer_than_patience() {
        let backoff = Backoff::default();
        let first = backoff.before(2);
        assert!(first >= backoff.first && first <= backoff.first * 2);
        assert!(backoff.before(3) >= backoff.first * 2);
        assert_eq!(backoff.before(u32::MAX), backoff.patience);
    }

    #[test]
    fn platforms_ask_for_delays_in_seconds_or_by_date() {
        assert_eq!(asked("2"), Some(Duration::from_secs(2)));
        assert_eq!(asked("0.5"), Some(Duration::from_millis(500)));
        assert_eq!(asked("Wed, 21 Oct 2015 07:28:00 GMT"), Some(Duration::ZERO));
        assert!(asked("Wed, 21 Oct 2093 07:28:00 GMT").unwrap() > Duration::from_secs(1 << 30));
        for odd in ["-1", "soon", "", "1e400"] {
            assert_eq!(asked(odd), None, "{odd:?}");
        }
    }
}
