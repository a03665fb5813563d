//! The iris protocol (protocol page iris): the gateway at its Connect paths, and the data plane of each
//! sandbox below `/iris/<sandbox>`, which is the `domain` that the gateway tells.
//!
//! A sandbox is named by its id; names are labels. The data plane is what its supervisor serves, behind a
//! token that the gateway has made for it.

mod connect;
mod data;
mod gateway;

use axum::Router;
use axum::routing::{any, post};

use super::engine::{Engine, Sandbox};

/// Every route of the protocol.
pub(super) fn router(engine: Engine) -> Router {
    Router::new()
        .route("/iris.v1.SandboxService/{method}", post(gateway::call))
        .route("/iris/{sandbox}/{*path}", any(data::forward))
        .with_state(engine)
}

/// Where the data plane of a sandbox is reached.
fn domain(engine: &Engine, sandbox: &Sandbox) -> String {
    format!("{}/iris/{}", engine.base_url(), sandbox.id())
}
