//! Container services: one container per service, through the Docker Engine API, which Docker and
//! Podman both serve.
//!
//! In: a definition with an image, and where to look for an engine. Out: a [`Container`] that its
//! owner drives like a process; commands run inside it. Our supervisor restarts, never the engine.
//! Must not decide about restarts, and must not touch containers without this sandbox's labels.

mod engine;
mod exec;
mod find;
mod orphans;
mod output;
mod place;
mod process;
mod program;
mod pull;
mod start;

pub use engine::EngineError;
pub use find::EngineSettings;

pub(super) use engine::Engine;
pub(super) use exec::{exec_attached, find_running, run};
pub(super) use orphans::{clear_all, clear_stack, clear_unwanted, remove_service};
pub(super) use process::Container;
pub(super) use start::{Adopt, Order, StartError, Starting, Step};

/// Whether a container engine answers; why not, in words.
pub async fn probe_engine(settings: &EngineSettings) -> Result<(), EngineError> {
    Engine::connect(settings).await.map(drop)
}
