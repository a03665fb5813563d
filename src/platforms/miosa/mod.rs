//! Sandboxes on Miosa (protocol page miosa).
//!
//! A sandbox carries in its metadata whose it is, what it was made from, and a ledger for each service.
//! A service is a background process whose command begins with a marker (`command`), or, where the entry
//! says so, a named service of the platform (`named`); what Miosa does not do for either (readiness, tasks,
//! signals) is supplied by commands in the sandbox.
//!
//! * `client` has one method for each operation of the page, `wire` what goes over it.
//! * `observe` reads, `act` changes sandboxes, `services` what runs in them, `extras` what is no
//!   state: files, ports, variables, snapshots.

mod act;
mod capabilities;
mod client;
mod command;
mod describe;
mod exec;
mod extras;
mod files;
mod ledger;
mod named;
mod observe;
mod processes;
mod services;
mod shares;
mod size;
mod snapshots;
mod start;
mod wire;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::cloud::http::Backoff;
use super::cloud::settings::{Settings, Sources};
use super::{PlatformError, Result};
use crate::model::SandboxName;
use client::Api;

pub use capabilities::capabilities;

/// Where its address and token are looked for (protocol page miosa, §1).
const SOURCES: Sources = Sources {
    url: "https://api.miosa.ai/api/v1",
    url_vars: &["MIOSA_BASE_URL"],
    token_vars: &["MIOSA_API_KEY", "MIOSA_ACCESS_TOKEN"],
};

/// What the protocol page leaves open, and a manifest may settle.
#[derive(Debug, Clone, Copy)]
struct Options {
    /// Whether processes can be written to.
    stdin: bool,
    /// Whether setting variables leaves others as they are.
    merges_variables: bool,
    /// Whether all sandboxes of the account are listed, and not only those that were made for the stack.
    lists_account: bool,
    /// Whether a sandbox can be given another size.
    resizes_in_place: bool,
    /// How long a sandbox may take to be ready.
    ready_timeout: Duration,
    /// Whether services are the platform's own named ones instead of processes.
    named: bool,
    /// Whether those can be listed; if not, each is asked for by its name.
    lists_services: bool,
    /// Whether those get the environment that they are made with.
    service_env: bool,
}

/// The sandboxes of one stack on one Miosa account.
pub struct Miosa {
    api: Api,
    /// The entry's name in the manifest.
    entry: String,
    stack: String,
    options: Options,
    known: Mutex<BTreeMap<SandboxName, Arc<Known>>>,
}

/// A sandbox that was found or made.
struct Known {
    id: String,
    /// Held while its metadata is changed, which can only be replaced whole.
    metadata: tokio::sync::Mutex<()>,
}

/// Whether there is a token.
pub fn has_access(settings: &Settings<'_>) -> bool {
    settings.has_token(&SOURCES)
}

impl Miosa {
    /// The platform of a manifest's entry.
    pub fn open(settings: &Settings<'_>, stack: &str) -> Result<Self> {
        let mut endpoint = settings.endpoint(&SOURCES)?;
        endpoint.url = with_version(&endpoint.url.to_string(), settings)?;
        // Retries as the vendor's own client makes them (protocol page miosa, §2).
        endpoint.passing = &[500];
        endpoint.backoff = Backoff {
            tries: 4,
            ..Backoff::default()
        };
        let options = Options {
            stdin: settings.flag("stdin", false)?,
            merges_variables: settings.flag("merges_variables", false)?,
            lists_account: settings.flag("lists_account", false)?,
            resizes_in_place: settings.flag("resizes_in_place", false)?,
            ready_timeout: settings.duration("ready_timeout", Duration::from_secs(120))?,
            named: match settings.plain("services").as_deref() {
                None | Some("processes") => false,
                Some("named") => true,
                Some(other) => {
                    let why = format!("`{other}` is neither `processes` nor `named`");
                    return Err(settings.wrong("services", &why));
                }
            },
            lists_services: settings.flag("lists_services", true)?,
            service_env: settings.flag("service_env", true)?,
        };
        Ok(Self {
            api: Api(settings.client(endpoint)?),
            entry: settings.name.to_owned(),
            stack: stack.to_owned(),
            options,
            known: Mutex::default(),
        })
    }

    fn known(&self) -> MutexGuard<'_, BTreeMap<SandboxName, Arc<Known>>> {
        // The map is whole after every statement, so a panic elsewhere cannot have torn it.
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Remembers where a sandbox is.
    fn found(&self, sandbox: &SandboxName, id: &str) -> Arc<Known> {
        let mut known = self.known();
        match known.get(sandbox) {
            Some(it) if it.id == id => it.clone(),
            _ => {
                let it = Arc::new(Known {
                    id: id.to_owned(),
                    metadata: tokio::sync::Mutex::new(()),
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
        let ours = self.owned().await?;
        let mut ours = ours.into_iter().filter(|(owner, _)| owner == sandbox);
        let first = ours.next();
        if ours.next().is_some() {
            let text = format!("there are several sandboxes `{sandbox}` of this stack");
            return Err(PlatformError::new(text));
        }
        Ok(first.map(|(_, record)| self.found(sandbox, &record.id)))
    }

    /// As [`Miosa::find`]; that there is none is an error.
    async fn get(&self, sandbox: &SandboxName) -> Result<Arc<Known>> {
        self.find(sandbox)
            .await?
            .ok_or_else(|| PlatformError::no_sandbox(sandbox))
    }
}

/// The URL with the version of the API at its end, as the vendor's client completes it.
fn with_version(url: &str, settings: &Settings<'_>) -> Result<super::cloud::http::BaseUrl> {
    let url = url.trim_end_matches('/');
    let last = url.rsplit('/').next().unwrap_or_default();
    let version = last.strip_prefix('v').is_some_and(|digits| {
        !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit())
    });
    let whole = match version {
        true => url.to_owned(),
        false => format!("{url}/api/v1"),
    };
    super::cloud::http::BaseUrl::parse(&whole)
        .map_err(|error| settings.wrong("url", &error.to_string()))
}
