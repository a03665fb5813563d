//! Restarting a sprite itself (§2).

use std::time::Instant;

use super::Sprites;
use crate::model::SandboxName;
use crate::platforms::Result;

impl Sprites {
    /// Restarts a sprite if its services were stopped to that end, and awaits it. They stay stopped.
    pub(super) async fn begin_afresh(&self, sandbox: &SandboxName) -> Result<()> {
        let seen = self.seen(sandbox).await?;
        if !seen.stopped {
            return Ok(());
        }
        let began = Instant::now();
        match self.client.restart_sprite(&seen.sprite).await {
            // One that was begun is awaited all the same.
            Err(error) if !error.may_be_done() => return Err(error.into()),
            _ => {}
        }
        self.back(&seen.sprite, began).await?;
        if let Some(seen) = self.lock().get_mut(sandbox) {
            seen.stopped = false;
        }
        Ok(())
    }
}
