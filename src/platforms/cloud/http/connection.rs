//! Connection pools and budgets, one per account, kept for as long as the process speaks to it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use secrecy::ExposeSecret;
use sha2::{Digest, Sha256};
use tokio::time::Instant;

use super::limiter::Limiter;
use super::{BaseUrl, Endpoint, tls};
use crate::platforms::PlatformError;

/// How long a connection may take to come about.
const CONNECT: Duration = Duration::from_secs(10);

/// How long a connection is kept without a request: less than servers and middle boxes do.
const IDLE: Duration = Duration::from_secs(30);

/// The pools and budgets of a process. Platforms that are opened again and again (by `watch`, or
/// under two names) share them.
#[derive(Debug, Default)]
pub struct Connections(Mutex<HashMap<Account, Arc<Connection>>>);

/// A place and whoever speaks to it; of the token there is a digest only.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Account(BaseUrl, [u8; 32]);

/// A pool and a budget.
#[derive(Debug)]
pub(super) struct Connection {
    pub http: reqwest::Client,
    pub limiter: Limiter,
}

impl Connections {
    /// The pool and the budget for an endpoint; new ones for an account that is new.
    pub(super) fn get(&self, endpoint: &Endpoint) -> Result<Arc<Connection>, PlatformError> {
        let token = endpoint.token.as_ref().map(ExposeSecret::expose_secret);
        let digest = Sha256::digest(token.unwrap_or_default()).into();
        let account = Account(endpoint.url.clone(), digest);
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(connection) = known.get(&account) {
            return Ok(connection.clone());
        }
        let http = open(&endpoint.url).map_err(|why| {
            PlatformError::new(format!(
                "no connection to {} can be made: {why}",
                endpoint.url
            ))
        })?;
        let limiter = Limiter::new(endpoint.budget, Instant::now());
        let connection = Arc::new(Connection { http, limiter });
        known.insert(account, connection.clone());
        Ok(connection)
    }
}

fn open(url: &BaseUrl) -> Result<reqwest::Client, String> {
    let tls = match url.is_tls() {
        true => tls::verified(),
        false => tls::unused(),
    };
    let mut builder = reqwest::Client::builder()
        .tls_backend_preconfigured(tls.map_err(|error| error.to_string())?)
        .user_agent(concat!("gabion/", env!("CARGO_PKG_VERSION")))
        // A redirect could take the token elsewhere.
        .redirect(reqwest::redirect::Policy::none())
        .connect_timeout(CONNECT)
        .pool_idle_timeout(IDLE)
        .tcp_nodelay(true)
        .no_proxy();
    if let Some(socket) = url.socket() {
        builder = builder.unix_socket(socket.as_path());
    }
    builder.build().map_err(|error| error.to_string())
}
