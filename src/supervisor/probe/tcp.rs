//! Connections to loopback.

use super::miss::{Miss, closed};
use crate::supervisor::port;

pub(super) async fn attempt(port: u16) -> Result<(), Miss> {
    match port::connect(port).await {
        Ok(_) => Ok(()),
        Err(_) => Err(closed(port)),
    }
}
