//! Sandboxes on iris (protocol page iris): a gateway makes and lists them, and each has a data plane of
//! its own, which is what the supervisor of a local sandbox serves, too.
//!
//! A sandbox carries in its key-value store one document (`document`): whose it is, what it was made
//! from, and for each service its definition and what was asked for last.
//!
//! * `gateway` and `plane` have one method for each operation, `wire` what goes over them.
//! * `observe` reads, `act` changes sandboxes, `services` what runs in them, `files` its
//!   files, `extras` what else is no state: logs, checkpoints, commands.

mod act;
mod capabilities;
mod describe;
mod document;
mod extras;
mod files;
mod gateway;
mod observe;
mod plane;
mod services;
mod wire;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::cloud::http::{BaseUrl, Connections, Endpoint};
use super::cloud::settings::{Settings, Sources};
use super::{PlatformError, Result};
use crate::model::{SandboxName, Secrets};
use document::Document;
use gateway::Gateway;
use plane::Plane;

pub use capabilities::capabilities;

/// Where the gateway and its key are looked for (protocol page iris, §2).
const SOURCES: Sources = Sources {
    url: "https://api.iris.dev",
    url_vars: &["IRIS_GATEWAY_URL"],
    token_vars: &["IRIS_API_KEY"],
};

/// The sandboxes of one stack on one iris account, or in one supervisor that is spoken to directly.
pub struct Iris {
    access: Access,
    /// The entry's name in the manifest.
    entry: String,
    stack: String,
    /// What no error shows.
    secrets: Secrets,
    /// How long a data plane may take to answer.
    ready_timeout: Duration,
    /// The pools of data planes.
    planes: Connections,
    known: Mutex<BTreeMap<SandboxName, Arc<Known>>>,
}

/// How sandboxes are reached.
enum Access {
    /// Through the gateway, which makes as many as are wanted.
    Gateway(Gateway),
    /// One data plane, which is there already.
    Direct(Arc<Plane>),
}

/// A sandbox that was found or made.
struct Known {
    id: String,
    plane: Arc<Plane>,
    /// Held while its document is changed, which can only be replaced whole.
    document: tokio::sync::Mutex<()>,
}

impl Known {
    async fn read(&self) -> Result<Option<Document>> {
        Ok(self.plane.value(document::KEY).await?)
    }

    /// The document of a sandbox that is ours.
    async fn marked(&self) -> Result<Document> {
        let missing = || {
            let text = format!("sandbox {} does not carry the mark of this stack", self.id);
            PlatformError::new(text)
        };
        self.read().await?.ok_or_else(missing)
    }

    /// Changes it.
    async fn change(&self, change: impl FnOnce(&mut Document)) -> Result<()> {
        let _one_at_a_time = self.document.lock().await;
        let before = self.marked().await?;
        let mut after = before.clone();
        change(&mut after);
        if after != before {
            self.plane.set_value(document::KEY, &after).await?;
        }
        Ok(())
    }
}

/// Whether there is a key, or a data plane to be spoken to directly.
pub fn has_access(settings: &Settings<'_>) -> bool {
    settings.plain("data_plane_url").is_some() || settings.has_token(&SOURCES)
}

impl Iris {
    /// The platform of a manifest's entry.
    pub fn open(settings: &Settings<'_>, stack: &str) -> Result<Self> {
        let access = match settings.plain("data_plane_url") {
            Some(url) => {
                let url = BaseUrl::parse(&url)
                    .map_err(|error| settings.wrong("data_plane_url", &error.to_string()))?;
                let token = settings.text("data_plane_token", &[]);
                let client = settings.client(Endpoint::new(url, token))?;
                Access::Direct(Arc::new(Plane::direct(client)))
            }
            None => {
                let service = settings.plain("gateway_service");
                let service = service.unwrap_or_else(|| gateway::SERVICE.to_owned());
                let client = settings.client(settings.endpoint(&SOURCES)?)?;
                Access::Gateway(Gateway::new(client, service))
            }
        };
        Ok(Self {
            access,
            entry: settings.name.to_owned(),
            stack: stack.to_owned(),
            secrets: settings.secrets.clone(),
            ready_timeout: settings.duration("ready_timeout", Duration::from_secs(60))?,
            planes: Connections::default(),
            known: Mutex::default(),
        })
    }

    fn known(&self) -> MutexGuard<'_, BTreeMap<SandboxName, Arc<Known>>> {
        // The map is whole after every statement, so a panic elsewhere cannot have torn it.
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Remembers where a sandbox is.
    fn found(&self, sandbox: &SandboxName, id: &str, plane: &Arc<Plane>) -> Arc<Known> {
        let mut known = self.known();
        match known.get(sandbox) {
            Some(it) if it.id == id => it.clone(),
            _ => {
                let it = Arc::new(Known {
                    id: id.to_owned(),
                    plane: plane.clone(),
                    document: tokio::sync::Mutex::new(()),
                });
                known.insert(sandbox.clone(), it.clone());
                it
            }
        }
    }

    /// Where a sandbox of the stack is; `None` if there is none.
    async fn find(&self, sandbox: &SandboxName) -> Result<Option<Arc<Known>>> {
        if let Some(known) = self.known().get(sandbox) {
            return Ok(Some(known.clone()));
        }
        self.look().await?;
        Ok(self.known().get(sandbox).cloned())
    }

    /// As [`Iris::find`]; that there is none is an error.
    async fn get(&self, sandbox: &SandboxName) -> Result<Arc<Known>> {
        self.find(sandbox)
            .await?
            .ok_or_else(|| PlatformError::no_sandbox(sandbox))
    }
}
