//! Connections to loopback.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::time::timeout;

use super::miss::{Miss, closed};

/// How long one connection may take (protocol page iris, §4.5).
const LIMIT: Duration = Duration::from_secs(1);

const LOOPBACK: [IpAddr; 2] = [
    IpAddr::V4(Ipv4Addr::LOCALHOST),
    IpAddr::V6(Ipv6Addr::LOCALHOST),
];

pub(super) async fn attempt(port: u16) -> Result<(), Miss> {
    match connect(port).await {
        Some(_) => Ok(()),
        None => Err(closed(port)),
    }
}

/// Whether a connection to a port on loopback is accepted.
pub(in crate::supervisor) async fn accepts(port: u16) -> bool {
    connect(port).await.is_some()
}

/// A connection to a port on loopback, if it is accepted.
pub(super) async fn connect(port: u16) -> Option<TcpStream> {
    for address in LOOPBACK {
        let connecting = TcpStream::connect(SocketAddr::new(address, port));
        if let Ok(Ok(stream)) = timeout(LIMIT, connecting).await
            // A connection to a port that nobody listens on can meet itself.
            && stream.local_addr().ok() != stream.peer_addr().ok()
        {
            return Some(stream);
        }
    }
    None
}
