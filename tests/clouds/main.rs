//! The clouds: what their clients share, and each of them against real servers.

mod http;
mod supply;
