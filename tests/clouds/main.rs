//! The clouds: what their clients share, and each of them against real servers.

mod acts;
mod atomic;
#[path = "../common/mod.rs"]
mod common;
mod example;
mod files;
mod forward;
mod fs;
mod http;
mod import;
mod iris;
mod kills;
mod logged;
mod miosa;
mod named;
mod pocketenv;
mod pocketenv_switches;
mod processes;
mod projects;
mod references;
mod resize;
mod secrecy;
mod served;
mod shares;
mod sprites;
mod supply;
mod sweep;
mod volumes;
