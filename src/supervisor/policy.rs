//! What comes after a process has ended, or after a try to start it has failed. Pure.

use std::time::Duration;

use crate::model::{Restart, RestartPolicy, ServiceKind};

/// Being ready for so long makes earlier failures forgotten (protocol page iris, §4.5).
pub(super) const FORGIVEN_AFTER: Duration = Duration::from_secs(30);

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
    /// Another try after so long, before jitter.
    Retry(Duration),
}

/// Decides. `requested` tells whether this try was asked for (then the asker hears of what hindered
/// it, and decides); `row` counts the restarts in a row.
pub(super) fn next(
    kind: ServiceKind,
    restart: &Restart,
    ending: Ending,
    requested: bool,
    row: u32,
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
        (Ending::Crash | Ending::EarlyCrash, OnFailure | Always) => true,
        (Ending::Clean | Ending::EarlyClean, policy) => policy == Always,
    };
    match (retry, ending) {
        (false, Ending::Clean) => Next::Stopped,
        (false, _) => Next::Failed,
        (true, _) if restart.max_restarts.is_some_and(|max| row >= max) => Next::Failed,
        (true, _) => Next::Retry(back_off(restart, row)),
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
    use crate::model::HumanDuration;

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
            (Unspawnable, false, Next::Failed, Next::Failed, Next::Failed),
            (Hindered, true, Next::Failed, Next::Failed, Next::Failed),
            (Hindered, false, Next::Failed, again, again),
        ] {
            for (policy, expected) in [(No, no), (OnFailure, on_failure), (Always, always)] {
                let found = next(ServiceKind::Service, &restart(policy), ending, requested, 0);
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
            assert_eq!(
                next(ServiceKind::Task, &restart, ending, false, 0),
                expected
            );
        }
    }

    #[test]
    fn back_off_doubles_up_to_its_bound_and_ends_at_the_limit() {
        let mut policy = restart(RestartPolicy::OnFailure);
        policy.max_backoff = HumanDuration::from_secs(1);
        let crash =
            |policy: &Restart, row| next(ServiceKind::Service, policy, Ending::Crash, false, row);
        for (row, millis) in [(0, 0), (1, 100), (2, 200), (4, 800), (5, 1000), (40, 1000)] {
            let expected = Next::Retry(Duration::from_millis(millis));
            assert_eq!(crash(&policy, row), expected, "{row}");
        }
        policy.max_restarts = Some(3);
        assert_eq!(crash(&policy, 2), Next::Retry(Duration::from_millis(200)));
        assert_eq!(crash(&policy, 3), Next::Failed);
    }

    #[test]
    fn jitter_stays_within_a_fifth() {
        for _ in 0..100 {
            let delay = jitter(Duration::from_secs(1)).as_secs_f64();
            assert!((0.8..=1.2).contains(&delay));
        }
    }
}
