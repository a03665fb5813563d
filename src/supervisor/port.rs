//! Ports of this machine, on loopback.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::time::timeout;

use super::os;
use crate::model::ServiceSpec;

/// How long one connection may take (protocol page iris, §4.5).
const LIMIT: Duration = Duration::from_secs(1);

const LOOPBACK: [IpAddr; 2] = [
    IpAddr::V4(Ipv4Addr::LOCALHOST),
    IpAddr::V6(Ipv6Addr::LOCALHOST),
];

/// Connects to whoever listens on a port of loopback, over IPv4 or IPv6. If nobody does within a second on either, the
/// error is that of IPv4.
pub async fn connect(port: u16) -> io::Result<TcpStream> {
    let mut first = None;
    for address in LOOPBACK {
        let connecting = TcpStream::connect(SocketAddr::new(address, port));
        let error = match timeout(LIMIT, connecting).await {
            // A connection to a port that nobody listens on can meet itself.
            Ok(Ok(stream)) if stream.local_addr().ok() == stream.peer_addr().ok() => {
                io::ErrorKind::ConnectionRefused.into()
            }
            Ok(connected @ Ok(_)) => return connected,
            Ok(Err(error)) => error,
            Err(late) => late.into(),
        };
        first.get_or_insert(error);
    }
    Err(first.unwrap_or_else(|| io::ErrorKind::ConnectionRefused.into()))
}

/// Who has the port at which a service that is not running is probed, in words; `None` if it is free. Otherwise a
/// stranger's listener would count as the service (protocol page iris, §4.5).
pub(super) async fn taken(spec: &ServiceSpec) -> Option<String> {
    let port = spec.health.as_ref()?.probe.port()?;
    if connect(port).await.is_err() {
        return None;
    }
    let holder = tokio::task::spawn_blocking(move || os::port_holder(port)).await;
    let by = match holder.ok().flatten() {
        Some(holder) => format!(" by {holder}"),
        None => String::new(),
    };
    Some(format!("port {port} is already in use{by}"))
}
