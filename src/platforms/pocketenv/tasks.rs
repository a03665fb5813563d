//! Tasks: services of the platform that end, which it does not notice.

use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::Inner;
use super::inside::Within;
use super::services::Wanted;
use crate::model::show_duration;
use crate::platforms::cloud::supply::task::wait_script;
use crate::platforms::{PlatformError, Progress, Result};

/// How long one question waits for the end, in seconds.
const SLICE: u64 = 2;

/// How often in a row a question may stay without an answer.
const LOST: u32 = 3;

/// The pause after one that did.
const PAUSE: Duration = Duration::from_millis(500);

/// How the wait for a task ended.
enum End {
    Exited(i32),
    TimedOut(Duration),
}

impl Inner {
    /// Returns once a task has exited 0, and notes that. A task whose end could not be learned runs on, so that
    /// the next apply asks again.
    pub(super) async fn finish(&self, within: &Within<'_>, progress: &dyn Progress) -> Result<()> {
        let end = self.end(within, progress).await?;
        let found = self
            .service_of(within.id, &within.at.sandbox, &within.at.service)
            .await?;
        let Some((service, _)) = found else {
            return Err(PlatformError::new("it is gone"));
        };
        if let End::Exited(0) = end {
            // Noted first: one that is stopped without this note is run again.
            let stored = self.stored(within.at, within.spec, Wanted::Done);
            self.update(within.id, &service, &stored).await?;
        }
        self.stop_running(within.id, &service.id).await?;
        match end {
            End::Exited(0) => Ok(()),
            End::Exited(code) => Err(within.failed(format!("exited with code {code}")).await),
            End::TimedOut(limit) => {
                let limit = show_duration(limit);
                Err(PlatformError::new(format!("not finished after {limit}")))
            }
        }
    }

    async fn end(&self, within: &Within<'_>, progress: &dyn Progress) -> Result<End> {
        let began = Instant::now();
        let limit = within.spec.timeout.map_or(Duration::MAX, |limit| limit.0);
        let script = wait_script(&within.files().exit, SLICE);
        let (mut told, mut lost) = (false, 0);
        while began.elapsed() < limit {
            match within.run(&script).await {
                Ok((0, said)) => {
                    let code = said.trim().parse().map(End::Exited);
                    return code.map_err(|_| PlatformError::new("its exit code cannot be read"));
                }
                Ok(_) => lost = 0,
                Err(error) => {
                    lost += 1;
                    if lost == LOST {
                        return Err(error);
                    }
                    sleep(PAUSE).await;
                }
            }
            if !told {
                progress.waiting("not finished yet");
                told = true;
            }
        }
        Ok(End::TimedOut(limit))
    }
}
