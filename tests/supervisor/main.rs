//! The supervisor, end to end: real processes, through the client.
#![cfg(target_os = "linux")]

mod acceptance;
mod escape;
mod health;
mod keeper;
mod life;
mod limits;
mod liveness;
mod logs;
mod probes;
mod rig;
mod safety;
