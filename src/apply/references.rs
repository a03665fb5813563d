//! The URLs that a definition names and that its plan could not know: asked for just before the definition
//! is written.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, PoisonError};

use crate::model::{Reference, ServiceAddress, ServiceSpec, Url};
use crate::platforms::{PlatformError, Platforms};

/// The definitions of one apply as they were written, so that what is started is the same.
pub(super) struct References<'p> {
    platforms: &'p Platforms,
    resolved: Mutex<HashMap<ServiceAddress, Arc<ServiceSpec>>>,
}

impl<'p> References<'p> {
    pub fn new(platforms: &'p Platforms) -> Self {
        Self {
            platforms,
            resolved: Mutex::default(),
        }
    }

    /// The definition that the plan has for `service`, with every URL put in.
    pub async fn resolve(
        &self,
        service: &ServiceAddress,
        spec: &Arc<ServiceSpec>,
    ) -> Result<Arc<ServiceSpec>, PlatformError> {
        if spec.references.is_empty() {
            return Ok(Arc::clone(spec));
        }
        let known = || self.resolved.lock().unwrap_or_else(PoisonError::into_inner);
        let written = known().get(service).cloned();
        if let Some(written) = written {
            return Ok(written);
        }
        let references: BTreeSet<Reference> = spec.references.values().cloned().collect();
        let urls = self.platforms.urls(&references).await;
        let missing = references
            .iter()
            .find_map(|reference| match urls.get(reference) {
                Some(Url::Known(_)) => None,
                Some(Url::Unknown { reason }) => Some(PlatformError::new(format!(
                    "the URL of `{}` cannot be read: {reason}",
                    reference.service
                ))),
                None => Some(not_reached(reference)),
            });
        if let Some(error) = missing {
            return Err(error);
        }
        let resolved = spec.resolved(|reference| match urls.get(reference)? {
            Url::Known(url) => Some(url.clone()),
            Url::Unknown { .. } => None,
        });
        let resolved = Arc::new(resolved);
        known().insert(service.clone(), Arc::clone(&resolved));
        Ok(resolved)
    }
}

fn not_reached(reference: &Reference) -> PlatformError {
    let Reference { service, port } = reference;
    let text = format!("`{service}` has no URL: its port {port} is not exposed");
    let sandbox = &service.sandbox;
    PlatformError::new(text).hint(format!("gabion expose {sandbox} {port}"))
}
