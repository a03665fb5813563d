//! The supervisor, end to end: real processes, through the client.
#![cfg(target_os = "linux")]

mod api;
mod checkpoint;
mod escape;
mod health;
mod iris;
mod keeper;
mod life;
mod limits;
mod liveness;
mod logs;
mod probes;
mod processes;
mod rig;
mod safety;
mod tcp;
