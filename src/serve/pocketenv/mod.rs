//! The Pocketenv protocol (protocol page pocketenv): `/xrpc/io.pocketenv.…`.
//!
//! A sandbox runs while its supervisor serves. What only Pocketenv knows about it is in `note::Note`; ids
//! are made from the engine's own, so that every protocol's sandboxes have one. A request goes through
//! `call`, which checks it as the platform does, to one function per operation.

mod attached;
mod backups;
mod call;
mod catalogue;
mod identity;
mod input;
mod keys;
mod note;
mod ports;
mod preferences;
mod problem;
mod rate;
mod sandboxes;
pub mod seal;
mod services;
mod start;
mod status;
mod storage;
mod switches;

use std::sync::Arc;

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::routing::{any, get, post};
use futures_util::future::BoxFuture;

use self::call::{Call, Served, Takes};
use self::problem::Answer;
use super::engine::Engine;
use attached::Kind;
use keys::Key;

pub use self::switches::Switches;

/// What the record of a sandbox is asked for.
const PROTOCOL: &str = "pocketenv";

/// What every operation's name begins with.
const PREFIX: &str = "io.pocketenv.";

/// How an operation is carried out.
type Run = fn(Call) -> BoxFuture<'static, Answer>;

/// Every route of the protocol.
pub(super) fn router(engine: Engine, switches: Switches) -> Router {
    Router::new()
        .route("/xrpc/{nsid}", any(call::answer))
        .route("/cp", post(storage::put))
        .layer(DefaultBodyLimit::max(storage::LARGEST))
        .route("/cp/{uuid}", get(storage::take))
        .with_state(Served {
            engine,
            rate: Arc::new(rate::Rate::new(switches.rate)),
            switches: Arc::new(switches),
            storage: Arc::default(),
        })
}

/// A row of the table: name, what the request carries, what it does.
macro_rules! operations {
    ($($name:literal $takes:ident $run:expr;)*) => {
        &[$(($name, Takes::$takes, |call| Box::pin($run(call)))),*]
    };
}

/// What is documented and has no handler: protocol page pocketenv, §8.
const ABSENT: [&str; 3] = [
    "sandbox.updateSandboxSettings",
    "sandbox.getTailscaleToken",
    "sandbox.putTailscaleToken",
];

/// The operation index: protocol page pocketenv, §3.
#[rustfmt::skip]
const OPERATIONS: &[(&str, Takes, Run)] = operations! {
    "actor.getProfile" Query sandboxes::profile;
    "actor.getActorSandboxes" Query sandboxes::of_actor;
    "sandbox.createSandbox" Input sandboxes::create;
    "sandbox.getSandbox" Query sandboxes::show;
    "sandbox.getSandboxes" Query catalogue::list;
    "sandbox.startSandbox" Input start::start;
    "sandbox.stopSandbox" Nothing start::stop;
    "sandbox.deleteSandbox" Nothing sandboxes::remove;
    "sandbox.claimSandbox" Nothing sandboxes::claim;
    "sandbox.exec" Input sandboxes::exec;
    "sandbox.exposePort" Input ports::expose;
    "sandbox.unexposePort" Input ports::unexpose;
    "sandbox.getExposedPorts" Query ports::list;
    "sandbox.exposeVscode" Nothing ports::expose_vscode;
    "sandbox.getSshKeys" Query |call| keys::show(call, Key::Ssh);
    "sandbox.putSshKeys" Input |call| keys::put(call, Key::Ssh);
    "sandbox.getTailscaleAuthKey" Query |call| keys::show(call, Key::Tailscale);
    "sandbox.putTailscaleAuthKey" Input |call| keys::put(call, Key::Tailscale);
    "sandbox.createBackup" Input backups::create;
    "sandbox.getBackups" Query backups::list;
    "sandbox.restoreBackup" Input backups::restore;
    "sandbox.pushDirectory" Input storage::push;
    "sandbox.pullDirectory" Input storage::pull;
    "sandbox.getPreferences" Query preferences::list;
    "sandbox.putPreferences" Input preferences::put;
    "service.addService" Input services::add;
    "service.getServices" Query services::list;
    "service.updateService" Input services::update;
    "service.startService" Nothing services::start;
    "service.stopService" Nothing services::stop;
    "service.restartService" Nothing services::restart;
    "service.deleteService" Nothing services::remove;
    "variable.addVariable" Input |call| attached::add(call, Kind::Variable);
    "variable.getVariables" Query |call| attached::list(call, Kind::Variable);
    "variable.getVariable" Query |call| attached::show(call, Kind::Variable);
    "variable.updateVariable" Input |call| attached::update(call, Kind::Variable);
    "variable.deleteVariable" Nothing |call| attached::remove(call, Kind::Variable);
    "secret.addSecret" Input |call| attached::add(call, Kind::Secret);
    "secret.getSecrets" Query |call| attached::list(call, Kind::Secret);
    "secret.getSecret" Query |call| attached::show(call, Kind::Secret);
    "secret.updateSecret" Input |call| attached::update(call, Kind::Secret);
    "secret.deleteSecret" Nothing |call| attached::remove(call, Kind::Secret);
    "file.addFile" Input |call| attached::add(call, Kind::File);
    "file.getFiles" Query |call| attached::list(call, Kind::File);
    "file.getFile" Query |call| attached::show(call, Kind::File);
    "file.updateFile" Input |call| attached::update(call, Kind::File);
    "file.deleteFile" Nothing |call| attached::remove(call, Kind::File);
    "volume.addVolume" Input |call| attached::add(call, Kind::Volume);
    "volume.getVolumes" Query |call| attached::list(call, Kind::Volume);
    "volume.getVolume" Query |call| attached::show(call, Kind::Volume);
    "volume.updateVolume" Input |call| attached::update(call, Kind::Volume);
    "volume.deleteVolume" Nothing |call| attached::remove(call, Kind::Volume);
};
