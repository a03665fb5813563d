//! What comes after a process has ended, or after a try to start it has failed. Pure.

use std::fmt;
use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::model::{HumanDuration, Restart, RestartPolicy, ServiceKind};

/// The restarts of a service so far: plain values, so that another supervisor can go on with them.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct History {
    /// Since the last start on request.
    pub restarts: u32,
    /// In a row: none of them was followed by being ready for long.
    pub row: u32,
    /// When the last ones were, as far back as the limit may look.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub recent: Vec<Timestamp>,
}

impl History {
    /// Counts one restart.
    pub(super) fn count(&mut self, restart: &Restart, now: Timestamp) {
        self.restarts = self.restarts.saturating_add(1);
        self.row = self.row.saturating_add(1);
        match (restart.within, restart.max_restarts) {
            (Some(_), Some(max)) => {
                self.recent.push(now);
                let excess = self.recent.len().saturating_sub(max as usize);
                self.recent.drain(..excess);
            }
            _ => self.recent.clear(),
        }
    }

    /// It was ready for so long before it ended.
    pub(super) fn was_ready(&mut self, restart: &Restart, ready: Duration) {
        if ready >= restart.reset_after.0 {
            self.row = 0;
        }
    }

    /// The restarts that count towards the limit.
    fn counted(&self, restart: &Restart, now: Timestamp) -> u32 {
        let Some(within) = restart.within else {
            return self.row;
        };
        let age = |at: &Timestamp| Duration::try_from(now.duration_since(*at));
        // A clock that was set back makes them young, not old.
        let counts = |at: &&Timestamp| age(at).is_ok_and(|age| age <= within.0) || now < **at;
        u32::try_from(self.recent.iter().filter(counts).count()).unwrap_or(u32::MAX)
    }
}

/// How a process, or a try to start one, has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ending {
    /// It was ready and exited with 0; for a task: it exited with 0.
    Clean,
    /// It ended otherwise after it was ready; for a task: it ended otherwise.
    Crash,
    /// It exited with 0 before it was ready.
    EarlyClean,
    /// It ended otherwise before it was ready.
    EarlyCrash,
    /// It could not be executed, and trying again will not help.
    Unspawnable,
    /// It was ready, then its health check failed, and it was stopped to be started again.
    Unhealthy,
    /// It did not become ready in time, its port was taken, or what it needs did not start.
    Hindered,
}

/// What comes next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Next {
    /// Stopped, with nothing to complain about.
    Stopped,
    /// A task that is done.
    Completed,
    /// Failed for good.
    Failed,
    /// Failed for good, because it was restarted too often.
    GivenUp(GivenUp),
    /// Another try after so long, before jitter.
    Retry(Duration),
}

/// How often is too often.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct GivenUp {
    restarts: u32,
    within: Option<HumanDuration>,
}

impl fmt::Display for GivenUp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.restarts {
            0 => f.write_str("no restarts are allowed")?,
            1 => f.write_str("gave up after 1 restart")?,
            many => write!(f, "gave up after {many} restarts")?,
        }
        match self.within {
            Some(within) if self.restarts > 0 => write!(f, " within {within}"),
            _ => Ok(()),
        }
    }
}

/// Decides. `requested` tells whether this try was asked for (then the asker hears of what hindered
/// it, and decides).
pub(super) fn next(
    kind: ServiceKind,
    restart: &Restart,
    ending: Ending,
    requested: bool,
    history: &History,
    now: Timestamp,
) -> Next {
    use RestartPolicy::{Always, No, OnFailure};
    if kind == ServiceKind::Task {
        return match ending {
            Ending::Clean | Ending::EarlyClean => Next::Completed,
            _ => Next::Failed,
        };
    }
    let retry = match (ending, restart.policy) {
        (Ending::Unspawnable, _) | (_, No) => false,
        (Ending::Hindered, OnFailure | Always) => !requested,
        (Ending::Crash | Ending::EarlyCrash | Ending::Unhealthy, OnFailure | Always) => true,
        (Ending::Clean | Ending::EarlyClean, policy) => policy == Always,
    };
    match (retry, ending) {
        (false, Ending::Clean) => Next::Stopped,
        (false, _) => Next::Failed,
        (true, _) => match restart.max_restarts {
            Some(max) if history.counted(restart, now) >= max => Next::GivenUp(GivenUp {
                restarts: max,
                within: restart.within,
            }),
            _ => Next::Retry(back_off(restart, history.row)),
        },
    }
}

/// Nothing for the first restart in a row, then `backoff`, doubled each time up to `max_backoff`.
fn back_off(restart: &Restart, row: u32) -> Duration {
    match row.checked_sub(1) {
        None => Duration::ZERO,
        Some(doublings) => {
            let factor = 2_u32.saturating_pow(doublings);
            let delay = restart.backoff.0.saturating_mul(factor);
            delay.min(restart.max_backoff.0)
        }
    }
}

/// `delay` give or take a fifth, so that services that fail together do not come back together.
pub(super) fn jitter(delay: Duration) -> Duration {
    delay.mul_f64(0.8 + 0.4 * fastrand::f64())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `count` restarts in a row, one each second up to now.
    fn row(restart: &Restart, count: u32) -> History {
        let mut history = History::default();
        for second in 0..count {
            history.count(restart, at(second));
        }
        history
    }

    fn at(second: u32) -> Timestamp {
        Timestamp::from_second(1_000_000 + i64::from(second)).unwrap()
    }

    fn restart(policy: RestartPolicy) -> Restart {
        Restart {
            policy,
            ..Restart::default()
        }
    }

    #[test]
    fn every_ending_under_every_policy() {
        use Ending::*;
        use RestartPolicy::{Always, No, OnFailure};
        let again = Next::Retry(Duration::ZERO);
        for (ending, requested, no, on_failure, always) in [
            (Clean, true, Next::Stopped, Next::Stopped, again),
            (Crash, true, Next::Failed, again, again),
            (EarlyClean, true, Next::Failed, Next::Failed, again),
            (EarlyCrash, true, Next::Failed, again, again),
            (Unhealthy, true, Next::Failed, again, again),
            (Unspawnable, false, Next::Failed, Next::Failed, Next::Failed),
            (Hindered, true, Next::Failed, Next::Failed, Next::Failed),
            (Hindered, false, Next::Failed, again, again),
        ] {
            for (policy, expected) in [(No, no), (OnFailure, on_failure), (Always, always)] {
                let (kind, none) = (ServiceKind::Service, History::default());
                let found = next(kind, &restart(policy), ending, requested, &none, at(0));
                assert_eq!(found, expected, "{ending:?} {policy:?}");
            }
        }
    }

    #[test]
    fn tasks_are_never_started_again() {
        for (ending, expected) in [
            (Ending::Clean, Next::Completed),
            (Ending::Crash, Next::Failed),
            (Ending::Hindered, Next::Failed),
        ] {
            let restart = restart(RestartPolicy::Always);
            let (kind, none) = (ServiceKind::Task, History::default());
            let found = next(kind, &restart, ending, false, &none, at(0));
            assert_eq!(found, expected);
        }
    }

    #[test]
    fn back_off_doubles_up_to_its_bound_and_ends_at_the_limit() {
        let mut policy = restart(RestartPolicy::OnFailure);
        policy.max_backoff = HumanDuration::from_secs(1);
        let crash = |policy: &Restart, count| {
            let (kind, history) = (ServiceKind::Service, row(policy, count));
            next(kind, policy, Ending::Crash, false, &history, at(count))
        };
        for (row, millis) in [(0, 0), (1, 100), (2, 200), (4, 800), (5, 1000), (40, 1000)] {
            let expected = Next::Retry(Duration::from_millis(millis));
            assert_eq!(crash(&policy, row), expected, "{row}");
        }
        policy.max_restarts = Some(3);
        assert_eq!(crash(&policy, 2), Next::Retry(Duration::from_millis(200)));
        let Next::GivenUp(why) = crash(&policy, 3) else {
            panic!("it goes on")
        };
        assert_eq!(why.to_string(), "gave up after 3 restarts");
    }

    #[test]
    fn the_limit_looks_at_the_row_or_at_a_time() {
        let mut policy = restart(RestartPolicy::OnFailure);
        policy.max_restarts = Some(3);
        let ends = |policy: &Restart, history: &History, second| {
            let kind = ServiceKind::Service;
            let next = next(kind, policy, Ending::Crash, false, history, at(second));
            match next {
                Next::GivenUp(why) => Some(why.to_string()),
                _ => None,
            }
        };
        // In a row: however long ago, until it was ready for long.
        let mut history = row(&policy, 3);
        assert!(ends(&policy, &history, 1000).is_some());
        history.was_ready(&policy, Duration::from_secs(29));
        assert!(ends(&policy, &history, 1000).is_some());
        history.was_ready(&policy, Duration::from_secs(30));
        assert!(ends(&policy, &history, 1000).is_none());
        // Within a time: however long it was ready in between.
        policy.within = Some(HumanDuration::from_secs(10));
        let mut history = row(&policy, 3);
        history.was_ready(&policy, Duration::from_secs(30));
        let why = ends(&policy, &history, 10).unwrap();
        assert_eq!(why, "gave up after 3 restarts within 10s");
        // The first of them, in second 0, is too long ago.
        assert!(ends(&policy, &history, 11).is_none());
        history.count(&policy, at(11));
        assert_eq!(history.recent.len(), 3);
        assert!(ends(&policy, &history, 11).is_some());
        let text = serde_json::to_string(&history).unwrap();
        assert_eq!(serde_json::from_str::<History>(&text).unwrap(), history);
    }

    #[test]
    fn jitter_stays_within_a_fifth() {
        for _ in 0..100 {
            let delay = jitter(Duration::from_secs(1)).as_secs_f64();
            assert!((0.8..=1.2).contains(&delay));
        }
    }
}
