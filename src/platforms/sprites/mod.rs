//! Sprites of Fly.io (protocol page sprites): microVMs with services, one REST API for all of them.
//!
//! In: addresses and specs. Out: observations and effects. Whose a sprite is stands in its labels
//! (`labels`), whose a service is in its environment (`definition`); nothing without such a mark is
//! touched. What Sprites lacks (readiness, tasks, stopped services) is supplied in `start`. A write
//! that may or may not have been done is judged by reading what is there.

mod act;
mod capabilities;
mod checkpoint;
mod client;
mod definition;
mod describe;
mod dialog;
mod exec;
mod extras;
mod files;
mod frames;
mod labels;
mod logs;
mod observe;
mod proxy;
mod restart;
mod sessions;
mod start;
mod wire;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard, PoisonError};

use secrecy::ExposeSecret;

pub use capabilities::capabilities;

use super::cloud::mark::Owner;
use super::cloud::settings::{Settings, Sources};
use super::{PlatformError, Result};
use crate::model::{SandboxName, SandboxSpec, ServiceAddress, ServiceName};
use client::Client;
use definition::Mark;
use wire::Service;

/// Where the settings are looked for (§1).
const SOURCES: Sources = Sources {
    url: "https://api.sprites.dev",
    url_vars: &["SPRITES_API_URL"],
    token_vars: &["SPRITES_TOKEN", "SPRITE_TOKEN"],
};

/// The sprites of one stack.
#[derive(Debug)]
pub struct Sprites {
    client: Client,
    /// The name of the entry in the manifest.
    name: String,
    stack: String,
    region: Option<String>,
    /// What was read last, so that writing needs no further reads.
    seen: Mutex<BTreeMap<SandboxName, Seen>>,
}

/// A sprite of ours as it was read last, or written since.
#[derive(Debug, Clone)]
struct Seen {
    /// Its name on the platform.
    sprite: String,
    spec: SandboxSpec,
    services: BTreeMap<ServiceName, SeenService>,
    /// Services without our mark.
    foreign: BTreeSet<String>,
    /// Whether all its services were stopped, as one does with a sandbox, since it was read.
    stopped: bool,
}

/// A service of ours as it was read last, or written since.
#[derive(Clone)]
struct SeenService {
    mark: Mark,
    service: Service,
}

impl std::fmt::Debug for SeenService {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // What is echoed holds secrets.
        f.debug_tuple("SeenService").field(&self.mark).finish()
    }
}

/// Whether there is a token.
pub fn has_access(settings: &Settings<'_>) -> bool {
    settings.has_token(&SOURCES)
}

impl Sprites {
    /// The platform of a manifest's entry.
    pub fn open(settings: &Settings<'_>, stack: &str) -> Result<Self> {
        let client = settings.client(settings.endpoint(&SOURCES)?)?;
        let region = settings.text("region", &[]);
        Ok(Self {
            client: Client::new(client),
            name: settings.name.to_owned(),
            stack: stack.to_owned(),
            region: region.map(|text| text.expose_secret().to_owned()),
            seen: Mutex::default(),
        })
    }

    fn owner(&self, sandbox: &SandboxName) -> Owner {
        Owner {
            stack: self.stack.clone(),
            sandbox: sandbox.clone(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<SandboxName, Seen>> {
        // Whole after every statement.
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is known of a sandbox; it is read if nothing is.
    async fn seen(&self, sandbox: &SandboxName) -> Result<Seen> {
        if let Some(seen) = self.lock().get(sandbox) {
            return Ok(seen.clone());
        }
        self.read_all().await?;
        self.lock()
            .get(sandbox)
            .cloned()
            .ok_or_else(|| PlatformError::no_sandbox(sandbox))
    }

    /// The sprite of a service, and the service itself if it is there. One that is there and not ours is
    /// an error: it is not to be touched.
    async fn seen_service(
        &self,
        address: &ServiceAddress,
    ) -> Result<(String, Option<SeenService>)> {
        let seen = self.seen(&address.sandbox).await?;
        if seen.foreign.contains(address.service.as_str()) {
            let text = format!(
                "sprite `{}` has a service `{}` that gabion has not made",
                seen.sprite, address.service
            );
            return Err(PlatformError::new(text).hint("give one of the two another name"));
        }
        Ok((seen.sprite, seen.services.get(&address.service).cloned()))
    }

    /// Remembers a service as it is now. `None`: it is gone.
    fn note(&self, address: &ServiceAddress, service: Option<&Service>) {
        let owner = self.owner(&address.sandbox);
        let mut seen = self.lock();
        let Some(seen) = seen.get_mut(&address.sandbox) else {
            return;
        };
        let marked = service.and_then(|service| Some((Mark::of(service, &owner)?, service)));
        match marked {
            Some((mark, service)) => {
                let service = service.clone();
                let known = SeenService { mark, service };
                seen.services.insert(address.service.clone(), known);
            }
            None => {
                seen.services.remove(&address.service);
            }
        }
    }
}
