//! The time between two probes while a service is not ready yet.

use std::time::Duration;

use tokio::sync::Semaphore;
use tokio::time::sleep;

use crate::supervisor::os;

/// The shortest; a probe of a port takes a tenth of it.
const SHORTEST: Duration = Duration::from_micros(250);

/// What the runtime's timer can do: it has whole milliseconds and adds one.
const COARSE: Duration = Duration::from_millis(1);

/// The longest.
const LONGEST: Duration = Duration::from_millis(100);

/// How many services may be asked more often than each [`COARSE`]: where many start at once, asking them
/// takes the processor from them.
static CLOSELY: Semaphore = Semaphore::const_new(2);

/// A part of the time since the start, so that a fast service is seen fast and a slow one is not
/// bothered; never longer than what is left.
#[derive(Debug, Clone, Copy)]
pub(super) struct Pause {
    /// The part is one of so many.
    pub part: u32,
    pub shortest: Duration,
}

impl Pause {
    /// Between probes that cost a connection.
    pub(super) const CONNECTION: Self = Self {
        part: 25,
        shortest: SHORTEST,
    };

    /// Between probes that cost a process.
    pub(super) const PROCESS: Self = Self {
        part: 10,
        shortest: COARSE,
    };

    fn length(self, elapsed: Duration, left: Duration) -> Duration {
        (elapsed / self.part)
            .clamp(self.shortest, LONGEST)
            .min(left)
    }

    /// Waits, when this much time has passed since the start.
    pub(super) async fn wait(self, elapsed: Duration, left: Duration) {
        let length = self.length(elapsed, left);
        if length < 2 * COARSE
            && let Ok(_permit) = CLOSELY.try_acquire()
            && os::sleep(length).await.is_ok()
        {
            return;
        }
        sleep(length.max(COARSE).min(left)).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_a_part_within_bounds() {
        let left = Duration::from_secs(30);
        for (elapsed, expected) in [(0, 1), (5, 1), (50, 5), (500, 50), (20_000, 100)] {
            let elapsed = Duration::from_millis(elapsed);
            assert_eq!(
                Pause::PROCESS.length(elapsed, left),
                Duration::from_millis(expected)
            );
        }
        let soon = Duration::from_micros(10);
        assert_eq!(Pause::CONNECTION.length(Duration::ZERO, left), SHORTEST);
        assert_eq!(Pause::CONNECTION.length(Duration::from_secs(9), soon), soon);
    }

    #[tokio::test]
    async fn it_is_over_when_its_time_has_passed() {
        for shortest in [Duration::from_micros(300), Duration::from_millis(3)] {
            let began = std::time::Instant::now();
            let pause = Pause { part: 25, shortest };
            pause.wait(Duration::ZERO, Duration::from_secs(30)).await;
            assert!(began.elapsed() >= shortest);
        }
    }
}
