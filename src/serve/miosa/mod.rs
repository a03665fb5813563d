//! The Miosa protocol (protocol page miosa): `/api/v1/sandboxes`.
//!
//! A sandbox has a UUID, which stands for the engine's id, and a name that need not be unique. Its
//! background processes are the engine's services without a restart policy, so that other protocols see
//! them too; a service of another protocol is a process here. What the page leaves open is decided by
//! [`Switches`].

mod commands;
mod env;
mod exec;
mod files;
mod identity;
mod life;
mod memory;
mod ports;
mod problem;
mod processes;
mod reply;
mod request;
mod resources;
mod sandboxes;
mod services;
mod shares;
mod snapshots;
mod switches;
mod usage;

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::middleware::from_fn_with_state;
use axum::routing::{any, delete, get, post};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use self::memory::Memory;
use self::problem::Problem;
use self::resources::Resources;
use super::engine::Engine;

pub use self::switches::{LogShape, Resize, Switches};

/// What the record of a sandbox is asked for.
const PROTOCOL: &str = "miosa";

/// The largest body, in bytes.
const LARGEST: usize = 64 << 20;

/// What every handler has at hand. Cheap to clone.
#[derive(Clone)]
struct Miosa(Arc<Inner>);

struct Inner {
    engine: Engine,
    switches: Switches,
    memory: Memory,
}

impl Miosa {
    fn engine(&self) -> &Engine {
        &self.0.engine
    }

    fn switches(&self) -> &Switches {
        &self.0.switches
    }

    fn memory(&self) -> &Memory {
        &self.0.memory
    }
}

/// What only Miosa knows about a sandbox.
#[derive(Clone, Default, Serialize, Deserialize)]
#[serde(default)]
struct Note {
    slug: Option<String>,
    template: Option<String>,
    size: Option<String>,
    /// What it has instead of what its size has.
    resources: Option<Resources>,
    /// What it is to have once it is resumed.
    resources_later: Option<Resources>,
    metadata: Map<String, Value>,
    /// `external_project_id` and its like, as they were given.
    external: BTreeMap<String, String>,
    always_on: bool,
    ephemeral: bool,
    timeout_sec: Option<u64>,
    idle_timeout_sec: u64,
    /// When it is paused, unless it is always on.
    deadline: Option<Timestamp>,
    /// Whether its processes are held.
    paused: bool,
    /// How often it is still to be told as `provisioning`.
    provisioning: u32,
    /// How often it is still to be told as not ready.
    unready: u32,
    /// How often a resume is still to be refused.
    unresumable: u32,
    previews: BTreeMap<String, u16>,
}

/// Every route of the protocol.
pub(super) fn router(engine: Engine, switches: Switches) -> Router {
    let miosa = Miosa(Arc::new(Inner {
        engine,
        switches,
        memory: Memory::default(),
    }));
    let routes = Router::new()
        .route("/sandboxes", get(sandboxes::list).post(sandboxes::create))
        .route("/sandboxes/by-name/{name}", get(sandboxes::by_name))
        .nest("/sandboxes/{id}", of_one())
        .fallback(any(unknown))
        .layer(from_fn_with_state(miosa.clone(), memory::repeated))
        .layer(from_fn_with_state(miosa.clone(), reply::finished))
        .layer(DefaultBodyLimit::max(LARGEST))
        .with_state(miosa);
    Router::new().nest("/api/v1", routes)
}

async fn unknown() -> Problem {
    Problem::new(404, "NOT_FOUND", "there is no such route")
}

/// The routes of one sandbox.
fn of_one() -> Router<Miosa> {
    let one = get(sandboxes::show)
        .patch(sandboxes::update)
        .delete(sandboxes::remove);
    Router::new()
        .route("/", one)
        .route("/tags", axum::routing::patch(sandboxes::set_tags))
        .route("/stop", post(life::stop))
        .route("/pause", post(life::pause))
        .route("/resume", post(life::resume))
        .route("/extend", post(life::extend))
        .route("/resources", get(resources::show).patch(resources::change))
        .route("/readiness", get(life::readiness))
        .route("/usage", get(usage::total))
        .route("/metrics", get(usage::recent))
        .merge(of_processes())
        .merge(of_files())
        .route("/exec", post(exec::run))
        .route("/exec/stream", post(exec::stream))
        .route("/ports", get(ports::list))
        .route("/expose", post(ports::expose))
        .route("/previews", get(ports::previews).post(ports::preview))
        .route(
            "/previews/{preview}",
            get(ports::show_preview).delete(ports::remove_preview),
        )
        .route(
            "/previews/{preview}/share",
            post(shares::share_preview).delete(shares::unshare_preview),
        )
        .route("/preview-token", post(shares::token))
        .route("/shares", get(shares::list).post(shares::create))
        .route("/shares/{share}", delete(shares::delete))
        .route("/env", get(env::list).put(env::set))
        .route("/env/sync", post(env::sync))
        .route("/env/{key}", delete(env::remove))
        .route("/snapshots", get(snapshots::list).post(snapshots::create))
        .route(
            "/snapshots/{snapshot}",
            get(snapshots::show).delete(snapshots::remove),
        )
        .route("/restore/{snapshot}", post(snapshots::restore))
        .route("/fork", post(snapshots::fork))
        .fallback(any(unknown))
}

fn of_processes() -> Router<Miosa> {
    Router::new()
        .route("/processes", get(processes::list).post(processes::start))
        .route(
            "/processes/{pid}",
            get(processes::show).delete(processes::stop),
        )
        .route("/processes/{pid}/logs", get(processes::logs))
        .route("/processes/{pid}/stream", get(processes::stream))
        .route("/processes/{pid}/stdin", post(processes::stdin))
        .route("/commands", get(processes::list).post(commands::run))
        .route("/commands/{pid}", get(processes::show))
        .route("/commands/{pid}/logs", get(processes::logs))
        .route("/commands/{pid}/kill", post(commands::kill))
        .route("/services", get(services::list).post(services::create))
        .route(
            "/services/{service}",
            get(services::show).delete(services::remove),
        )
        .route("/services/{service}/start", post(services::start))
        .route("/services/{service}/stop", post(services::stop))
        .route("/services/{service}/restart", post(services::restart))
        .route("/services/{service}/logs", get(services::logs))
}

fn of_files() -> Router<Miosa> {
    Router::new()
        .route("/fs", get(files::list).delete(files::remove))
        .route("/fs/read", get(files::read))
        .route("/fs/download", get(files::download))
        .route("/fs/write", post(files::write))
        .route("/fs/write-many", post(files::write_many))
        .route("/fs/mkdir", post(files::make_folder))
        .route("/fs/stat", post(files::stat))
        .route("/files", get(files::list_legacy).post(files::write_legacy))
        .route("/files/{*path}", get(files::download_legacy))
}
