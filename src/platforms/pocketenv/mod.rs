//! Pocketenv: sandboxes and services behind XRPC (protocol page pocketenv).
//!
//! The platform keeps names, descriptions, topics and ports of sandboxes, and names, descriptions and
//! commands of services; owner marks stand in the descriptions (`label`), everything else that a service
//! has is in its command (`command`). After every error it is read what became of the request
//! (`surely`).

mod act;
mod api;
mod backups;
mod capabilities;
mod command;
mod describe;
mod files;
mod inside;
mod keys;
mod label;
mod logs;
mod observe;
mod ports;
mod sandboxes;
mod seal;
mod sealed_files;
mod secrets;
mod services;
mod storage;
mod surely;
mod tasks;
mod volumes;
mod wire;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::OnceCell;

pub use capabilities::capabilities;
pub(crate) use observe::did_of_token;

use api::Api;
use seal::Seal;
use secrecy::ExposeSecret;
use storage::Storage;

use super::cloud::http::Budget;
use super::cloud::mark::Owner;
use super::cloud::settings::{Settings, Sources};
use super::{PlatformError, Result};
use crate::model::{SandboxName, SandboxSpec};

/// Where it is, and the variables of its own tools (protocol page pocketenv, §1).
const SOURCES: Sources = Sources {
    url: "https://api.pocketenv.io",
    url_vars: &["POCKETENV_API_URL"],
    token_vars: &["POCKETENV_TOKEN"],
};

/// Where folders go by on their way (§9).
const STORAGE: Sources = Sources {
    url: "https://sandbox.pocketenv.io",
    url_vars: &["POCKETENV_STORAGE_URL"],
    ..SOURCES
};

/// What sandboxes are made from that name no base.
const BASE: &str = "openclaw";

/// Who runs sandboxes; only here do services work.
const CLOUDFLARE: &str = "cloudflare";

/// 500 requests in 30 seconds.
const BUDGET: Budget = Budget {
    per_second: Some(500.0 / 30.0),
    burst: 400.0,
    at_once: 100,
};

/// The pauses between two looks at what takes its time: from the first on, up to the second.
const PAUSES: [Duration; 2] = [Duration::from_millis(100), Duration::from_secs(2)];

/// The sandboxes of one stack.
pub struct Pocketenv(Arc<Inner>);

struct Inner {
    api: Api,
    storage: Storage,
    stack: String,
    provider: String,
    base: String,
    /// What is backed up, where the entry says so.
    backup_directory: Option<String>,
    /// How long a sandbox may take to be made.
    ready_timeout: Duration,
    /// The user's DID where the platform does not tell it: that of the token.
    own: Option<String>,
    did: OnceCell<String>,
    /// The ids of sandboxes by their names in the stack.
    ids: Mutex<BTreeMap<SandboxName, String>>,
    /// The services that were down in each sandbox that was stopped from here, all by their ids.
    down: Mutex<BTreeMap<String, Vec<String>>>,
    /// Held while one is made: two that are made at once could not be told apart after an error.
    creating: tokio::sync::Mutex<()>,
    /// Held while a sandbox is started to bring new secrets into effect.
    refreshing: tokio::sync::Mutex<()>,
}

/// Whether there is a token.
pub fn has_access(settings: &Settings<'_>) -> bool {
    settings.has_token(&SOURCES)
}

impl Pocketenv {
    /// The platform of a manifest's entry.
    pub fn open(settings: &Settings<'_>, stack: &str) -> Result<Self> {
        let mut endpoint = settings.endpoint(&SOURCES)?;
        if endpoint.url.is_tls() {
            endpoint.budget = BUDGET;
        }
        let key = settings.text("public_key", &["POCKETENV_PUBLIC_KEY"]);
        let key = key.as_ref().map_or(seal::DEFAULT, |it| it.expose_secret());
        let seal = Seal::new(key)
            .ok_or_else(|| settings.wrong("public_key", "it is not 64 hexadecimal digits"))?;
        let own = endpoint
            .token
            .as_ref()
            .and_then(|token| did_of_token(token.expose_secret()));
        let named = settings.text("storage_url", STORAGE.url_vars).is_some();
        let elsewhere = settings.text("url", SOURCES.url_vars).is_some();
        // The token of another server is not for the hosted one's storage.
        let mut storage = match elsewhere && !named {
            true => settings.endpoint(&SOURCES)?,
            false => settings.endpoint_at("storage_url", &STORAGE)?,
        };
        if storage.url.is_tls() {
            storage.budget = BUDGET;
        }
        let inner = Inner {
            storage: Storage::new(settings.client(storage)?),
            api: Api::new(settings.client(endpoint)?, seal),
            stack: stack.to_owned(),
            provider: settings
                .plain("provider")
                .unwrap_or_else(|| CLOUDFLARE.to_owned()),
            base: settings.plain("base").unwrap_or_else(|| BASE.to_owned()),
            backup_directory: settings.plain("backup_directory"),
            ready_timeout: settings.duration("ready_timeout", Duration::from_secs(60))?,
            own,
            did: OnceCell::new(),
            ids: Mutex::default(),
            down: Mutex::default(),
            creating: tokio::sync::Mutex::default(),
            refreshing: tokio::sync::Mutex::default(),
        };
        Ok(Self(Arc::new(inner)))
    }
}

impl Inner {
    fn ids(&self) -> MutexGuard<'_, BTreeMap<SandboxName, String>> {
        // Whole after every statement, so a panic elsewhere cannot have torn it.
        self.ids.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn down(&self) -> MutexGuard<'_, BTreeMap<String, Vec<String>>> {
        // As above.
        self.down.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn owner(&self, sandbox: &SandboxName) -> Owner {
        Owner {
            stack: self.stack.clone(),
            sandbox: sandbox.clone(),
        }
    }

    /// What a sandbox is called on the platform, where names are unique among all users.
    fn name(&self, sandbox: &SandboxName, spec: &SandboxSpec) -> String {
        let usual = || format!("{}-{sandbox}", self.stack);
        spec.name.clone().unwrap_or_else(usual)
    }

    /// The id of a sandbox that is there.
    async fn id(&self, sandbox: &SandboxName) -> Result<String> {
        self.find(sandbox)
            .await?
            .ok_or_else(|| PlatformError::no_sandbox(sandbox))
    }

    /// The id of a sandbox, if it is there.
    async fn find(&self, sandbox: &SandboxName) -> Result<Option<String>> {
        let known = self.ids().get(sandbox).cloned();
        if known.is_some() {
            return Ok(known);
        }
        self.list().await?;
        Ok(self.ids().get(sandbox).cloned())
    }
}
