//! The Sprites protocol (protocol page sprites): `/v1/sprites`.
//!
//! A sprite is a sandbox whose name is unique in its account; any request wakes it. What only Sprites
//! knows about a sprite is in [`SpriteNote`].

mod checkpoints;
mod exec;
mod feed;
mod files;
mod manage;
mod problem;
mod proxy;
mod request;
mod services;

mod stream;
mod watching;

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::routing::{any, delete, get, post, put};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::BTreeMap;

use self::problem::Problem;
use super::engine::Engine;

/// What the record of a sandbox is asked for.
const PROTOCOL: &str = "sprites";

/// The largest file that is written, in bytes; it is held in memory.
const LARGEST_FILE: usize = 256 << 20;

/// What only Sprites knows about a sandbox.
#[derive(Default, Serialize, Deserialize)]
struct SpriteNote {
    /// As it was asked for.
    #[serde(default)]
    config: Option<Value>,
    /// The checkpoints by their number, `v3` being 3.
    #[serde(default)]
    checkpoints: BTreeMap<u64, String>,
    /// The number of the next checkpoint.
    #[serde(default)]
    next_checkpoint: u64,
    /// The network policy, as it was set.
    #[serde(default)]
    network_policy: Option<Value>,
}

/// Every route of the protocol.
pub(super) fn router(engine: Engine) -> Router {
    Router::new()
        .route("/v1/sprites", get(manage::list).post(manage::create))
        .nest("/v1/sprites/{name}", of_one())
        .with_state(engine)
}

/// The routes of one sprite.
fn of_one() -> Router<Engine> {
    Router::new()
        .route(
            "/",
            get(manage::show).put(manage::update).delete(manage::remove),
        )
        .route("/restart", post(manage::restart))
        .route("/check", get(manage::check))
        .route("/upgrade", post(manage::upgrade))
        .route("/services", get(services::list))
        .route("/services/signal", post(services::signal))
        .route(
            "/services/{service}",
            get(services::show)
                .put(services::define)
                .delete(services::remove),
        )
        .route("/services/{service}/start", post(services::start))
        .route("/services/{service}/stop", post(services::stop))
        .route("/services/{service}/restart", post(services::restart))
        .route("/services/{service}/logs", get(services::logs))
        .route("/checkpoint", post(checkpoints::create))
        .route("/checkpoints", get(checkpoints::list))
        .route(
            "/checkpoints/{id}",
            get(checkpoints::show).delete(checkpoints::remove),
        )
        .route("/checkpoints/{id}/restore", post(checkpoints::restore))
        .route("/exec", get(exec::list_or_run).post(exec::run))
        .route("/exec/{session}", get(exec::attach))
        .route("/exec/{session}/kill", post(exec::kill))
        .route("/proxy", get(proxy::open))
        .route("/fs/read", get(files::read))
        .route(
            "/fs/write",
            put(files::write).layer(DefaultBodyLimit::max(LARGEST_FILE)),
        )
        .route("/fs/list", get(files::list))
        .route("/fs/delete", delete(files::remove))
        .route("/fs/rename", post(files::rename))
        .route("/fs/copy", post(files::copy))
        .route("/fs/chmod", post(files::chmod))
        .route(
            "/policy/network",
            get(manage::network_policy).post(manage::set_network_policy),
        )
        .fallback(any(|| async {
            Problem::new(404, "not_found", "there is no such route")
        }))
}
