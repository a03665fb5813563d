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
mod record;
mod sandbox;
mod services;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use secrecy::SecretString;

pub use account::{Account, Wish};
pub use error::{EngineError, Kind, Result};
pub use exec::{Ask, Exec, Program, Ran};
pub use output::{Event, Piece, Reader};
pub use record::{Record, ServiceNote};
pub use sandbox::Sandbox;
pub use services::{Defined, service_name};

use super::auth::{account_name, digest};
use crate::model::IsolationWish;

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
}

/// The accounts and their sandboxes. Cheap to clone.
#[derive(Clone)]
pub struct Engine(Arc<Inner>);

struct Inner {
    /// By the digest of their token.
    accounts: BTreeMap<[u8; 32], Arc<Account>>,
    address: SocketAddr,
}

impl Engine {
    /// Opens every account and finds its sandboxes. `address` is where this server is reached.
    pub fn open(settings: &Settings, address: SocketAddr) -> Result<Self> {
        let mut accounts = BTreeMap::new();
        for token in &settings.tokens {
            let account = Account::open(settings, account_name(token))?;
            accounts.insert(digest(token), Arc::new(account));
        }
        Ok(Self(Arc::new(Inner { accounts, address })))
    }

    /// The account that a token with this digest opens.
    pub(super) fn account(&self, digest: &[u8; 32]) -> Option<Arc<Account>> {
        self.0.accounts.get(digest).cloned()
    }

    /// Every account.
    pub fn accounts(&self) -> impl Iterator<Item = &Arc<Account>> {
        self.0.accounts.values()
    }

    /// The address under which clients reach this server: `http://127.0.0.1:8080`.
    pub fn base_url(&self) -> String {
        format!("http://{}", self.0.address)
    }
}
