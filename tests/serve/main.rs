//! `gabion serve`, asked over HTTP as clients of the platforms ask: real sandboxes, real processes.

mod accounts;
mod clients;
mod exec;
mod faults;
mod files;
mod iris;
mod iris_list;
mod miosa;
mod pocketenv;
mod pocketenv_switches;
mod pocketenv_transport;
mod preview;
mod rig;
mod services;
mod shared;
mod sockets;
mod streams;
