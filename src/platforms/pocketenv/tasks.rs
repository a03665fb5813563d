//! Tasks: services of the platform that end, which it does not notice.

use std::time::Duration;

use tokio::time::Instant;

use super::Inner;
use super::inside::Within;
use super::services::Wanted;
use crate::model::show_duration;
use crate::platforms::cloud::supply::task::wait_script;
use crate::platforms::{PlatformError, Progress, Result};

/// How long one question waits for the end, in seconds.
const SLICE: u64 = 2;

impl Inner {
    /// Returns once a task has exited 0, and notes that.
    pub(super) async fn finish(&self, within: &Within<'_>, progress: &dyn Progress) -> Result<()> {
        let ended = self.exit_code(within, progress).await;
        let found = self
            .service_of(within.id, &within.at.sandbox, &within.at.service)
            .await?;
        let Some((service, _)) = found else {
            return Err(PlatformError::new("it is gone"));
        };
        self.stop_running(within.id, &service.id).await?;
        match ended? {
            0 => {
                let stored = self.stored(within.at, within.spec, Wanted::Done);
                self.update(within.id, &service, &stored).await
            }
            code => Err(within.failed(format!("exited with code {code}")).await),
        }
    }

    async fn exit_code(&self, within: &Within<'_>, progress: &dyn Progress) -> Result<i32> {
        let began = Instant::now();
        let limit = within.spec.timeout.map_or(Duration::MAX, |limit| limit.0);
        let script = wait_script(&within.files().exit, SLICE);
        let mut told = false;
        while began.elapsed() < limit {
            let (code, said) = within.run(&script).await?;
            if code == 0 {
                let code = said.trim().parse();
                return code.map_err(|_| PlatformError::new("its exit code cannot be read"));
            }
            if !told {
                progress.waiting("not finished yet");
                told = true;
            }
        }
        let limit = show_duration(limit);
        Err(PlatformError::new(format!("not finished after {limit}")))
    }
}
