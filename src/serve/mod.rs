//! `gabion serve`: one HTTP server that speaks the platforms' own protocols over real local sandboxes.
//!
//! In: requests of a platform's clients. Out: what the platform would answer, with real processes behind it.
//!
//! * [`engine`] holds the sandboxes: accounts (one for each token), records of what platforms keep about a
//!   sandbox, services, commands, files, checkpoints. Its words are the model's.
//! * A protocol is a folder with one function, `router(engine) -> Router`, and translates between its
//!   platform's words and the engine's: `sprites`, `iris`, `miosa`, `pocketenv`. It is added by one line in
//!   `protocols`. It finds the caller's account with [`auth::account`], refuses in its platform's shape,
//!   and keeps what only it knows about a sandbox or service in the record (`Record::extra`). It has no
//!   processes, and keeps nothing itself but what may be forgotten.
//! * [`preview`] leads to the ports of services, for every protocol that gives URLs.
//! * [`faults`] stands before all of them and knows none of them: latency, failures, lost replies, and the
//!   log of requests.
//! * `listen` is the HTTP server below.
//!
//! A request is worked on to its end even if the client hangs up, in every protocol.

pub mod auth;
pub mod engine;
pub mod faults;
mod iris;
mod listen;
pub mod miosa;
pub mod pocketenv;
pub mod preview;
mod sprites;
mod switches;

use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;

pub use engine::{Engine, Settings};
pub use faults::Faults;
pub use listen::{ServeError, Server};
pub use switches::Switches;

/// Every protocol, each on paths of its own.
fn protocols(engine: &Engine, switches: Switches) -> Router {
    Router::new()
        .merge(sprites::router(engine.clone()))
        .merge(iris::router(engine.clone()))
        .merge(miosa::router(engine.clone(), switches.miosa))
        .merge(pocketenv::router(engine.clone(), switches.pocketenv))
        .merge(preview::router(engine.clone()))
}

impl Server {
    /// Takes the address (port 0 is one that is free) and opens the accounts. `switches` decide what the
    /// pages of protocols leave open.
    pub async fn bind(
        address: SocketAddr,
        settings: &Settings,
        faults: Arc<Faults>,
        switches: Switches,
    ) -> Result<Self, ServeError> {
        let listener = listen::take(address).await?;
        let engine = Engine::open(settings, listener.local_addr()?)?;
        let protocols = protocols(&engine, switches);
        Ok(Self::new(listener, protocols, engine, faults))
    }
}
