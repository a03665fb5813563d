//! The clouds: what their clients share, and each of them against real servers.

#[path = "../common/mod.rs"]
mod common;
mod http;
mod iris;
mod miosa;
mod pocketenv;
mod rig;
mod served;
mod sprites;
mod supply;
mod sweep;
