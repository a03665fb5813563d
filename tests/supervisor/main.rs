//! The supervisor, end to end: real processes, through the client.
#![cfg(target_os = "linux")]

mod acceptance;
mod health;
mod life;
mod limits;
mod logs;
mod rig;
mod safety;
