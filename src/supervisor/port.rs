//! Whether the port that a service is probed at is free before it starts: otherwise a stranger's
//! listener would count as the service (protocol page iris, §4.5).

use super::{os, probe};
use crate::model::ServiceSpec;

/// Who has the port of a service that is not running, in words; `None` if it is free.
pub(super) async fn taken(spec: &ServiceSpec) -> Option<String> {
    let port = spec.health.as_ref()?.probe.port()?;
    if !probe::accepts(port).await {
        return None;
    }
    let holder = tokio::task::spawn_blocking(move || os::port_holder(port)).await;
    let by = match holder.ok().flatten() {
        Some(holder) => format!(" by {holder}"),
        None => String::new(),
    };
    Some(format!("port {port} is already in use{by}"))
}
