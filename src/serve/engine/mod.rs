//! The sandboxes that all protocols share: real local sandboxes of the platform `local`, one stack for
//! each account, with a record of what the platforms keep about them.
//!
//! In: what protocols ask for, in the model's words. Out: the same. It has no processes of its own and no
//! logic about services: `platforms::local` makes and removes sandboxes, their supervisors run them.

mod account;
mod error;
mod exec;
mod files;
mod output;
mod passes;
mod record;
mod sandbox;
mod services;
mod share;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use secrecy::{ExposeSecret, SecretString};

pub use account::{Account, Wish};
pub use error::{EngineError, Kind, Result};
pub use exec::{Ask, Exec, Program, Ran};
pub use output::{Event, Piece, Reader};
pub use passes::Pass;
pub use record::{Access, Record, ServiceNote};
pub use sandbox::Sandbox;
pub use services::{Defined, Known, service_name};
pub use share::Share;

use passes::Passes;

use super::auth::{account_name, digest};
use crate::model::IsolationWish;
use crate::platforms::pocketenv::did_of_token;

/// Where the engine keeps its sandboxes, and whose they are.
#[derive(Debug)]
pub struct Settings {
    /// As of every other command: sandboxes are kept under `sandboxes/`.
    pub home: PathBuf,
    /// The gabion program, which is also the supervisor.
    pub program: PathBuf,
    /// Each is an account of its own.
    pub tokens: Vec<SecretString>,
    /// How sandboxes are kept apart from the machine.
    pub isolation: IsolationWish,
    /// How long a token for one sandbox is valid: an hour on iris.
    pub pass_lifetime: Duration,
}

impl Settings {
    /// The usual settings.
    pub fn new(home: PathBuf, program: PathBuf, tokens: Vec<SecretString>) -> Self {
        Self {
            home,
            program,
            tokens,
            isolation: IsolationWish::Auto,
            pass_lifetime: Duration::from_secs(3600),
        }
    }
}

/// The accounts and their sandboxes. Cheap to clone.
#[derive(Clone)]
pub struct Engine(Arc<Inner>);

/// The name of the account that no token opens.
const UNCLAIMED: &str = "serve-unclaimed";

struct Inner {
    /// By the digest of their token.
    accounts: BTreeMap<[u8; 32], Arc<Account>>,
    /// What was made by nobody in particular.
    unclaimed: Arc<Account>,
    passes: Passes,
    address: SocketAddr,
}

impl Engine {
    /// Opens every account and finds its sandboxes. `address` is where this server is reached.
    pub fn open(settings: &Settings, address: SocketAddr) -> Result<Self> {
        let mut accounts = BTreeMap::new();
        for token in &settings.tokens {
            let account = Account::open(
                settings,
                account_name(token),
                did_of_token(token.expose_secret()),
            )?;
            accounts.insert(digest(token), Arc::new(account));
        }
        let unclaimed = Account::open(settings, UNCLAIMED.to_owned(), None)?;
        for sandbox in unclaimed.sandboxes() {
            let Some(owner) = sandbox.record().claimed_by else {
                continue;
            };
            // What belongs to a token that is not given this time, nobody has.
            let claimed = unclaimed.let_go(sandbox.id());
            let account = accounts.values().find(|account| account.name() == owner);
            if let (Some(account), Some(sandbox)) = (account, claimed) {
                account.take_in(sandbox);
            }
        }
        let passes = Passes::new(settings.pass_lifetime);
        Ok(Self(Arc::new(Inner {
            accounts,
            unclaimed: Arc::new(unclaimed),
            passes,
            address,
        })))
    }

    /// The account that a token with this digest opens.
    pub(super) fn account(&self, digest: &[u8; 32]) -> Option<Arc<Account>> {
        self.0.accounts.get(digest).cloned()
    }

    /// Makes a token for one sandbox.
    pub fn issue_pass(&self, sandbox: Arc<Sandbox>) -> Result<Pass> {
        Ok(self.0.passes.issue(sandbox)?)
    }

    /// The sandbox that a token was made for, if it is still valid.
    pub fn sandbox_of_pass(&self, token: &[u8]) -> Option<Arc<Sandbox>> {
        self.0.passes.sandbox(token)
    }

    /// A sandbox by its id, whoever it belongs to.
    pub fn sandbox(&self, id: &str) -> Result<Arc<Sandbox>> {
        let found = self.accounts().find_map(|account| account.by_id(id).ok());
        found.ok_or_else(|| EngineError::not_found("sandbox", id))
    }

    /// Every account.
    pub fn accounts(&self) -> impl Iterator<Item = &Arc<Account>> {
        self.0.accounts.values()
    }

    /// The account of what belongs to nobody; no token opens it.
    pub fn unclaimed(&self) -> &Arc<Account> {
        &self.0.unclaimed
    }

    /// Gives a sandbox that is nobody's to an account.
    pub fn claim(&self, sandbox: &Sandbox, account: &Account) -> Result<()> {
        let taken = self.0.unclaimed.let_go(sandbox.id());
        let sandbox =
            taken.ok_or_else(|| EngineError::not_found("sandbox", sandbox.id().as_str()))?;
        let owner = account.name().to_owned();
        let noted = sandbox.update(|record| record.claimed_by = Some(owner));
        match noted {
            Ok(()) => account.take_in(sandbox),
            Err(_) => self.0.unclaimed.take_in(sandbox),
        }
        noted
    }

    /// The address under which clients reach this server: `http://127.0.0.1:8080`.
    pub fn base_url(&self) -> String {
        format!("http://{}", self.0.address)
    }
}
