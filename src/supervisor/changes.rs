//! What owners publish, for whoever listens. A listener that is slow misses some and is told so; it
//! never holds up an owner.

use std::sync::Arc;

use tokio::sync::broadcast;

use super::wire::ServiceObject;
use crate::model::ServiceName;

/// How many changes are kept for a slow listener.
const KEPT: usize = 256;

/// Something that has happened to a service.
#[derive(Debug, Clone)]
pub(super) enum Change {
    /// Its owner has published another state.
    Changed(Arc<ServiceObject>),
    /// It is gone.
    Deleted(ServiceName),
}

/// Where changes are told.
#[derive(Debug)]
pub(super) struct Changes(broadcast::Sender<Change>);

impl Default for Changes {
    fn default() -> Self {
        Self(broadcast::Sender::new(KEPT))
    }
}

impl Changes {
    pub(super) fn changed(&self, object: &Arc<ServiceObject>) {
        // Usually nobody listens.
        let _ = self.0.send(Change::Changed(object.clone()));
    }

    pub(super) fn deleted(&self, name: &ServiceName) {
        if !name.is_process() {
            let _ = self.0.send(Change::Deleted(name.clone()));
        }
    }

    /// Everything from now on.
    pub(super) fn listen(&self) -> broadcast::Receiver<Change> {
        self.0.subscribe()
    }
}
