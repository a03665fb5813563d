//! Links that let others follow the URLs of a sandbox. Each holds a token, of which only a digest is kept.

use std::io::{self, Read};
use std::time::Duration;

use jiff::Timestamp;
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// One link.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
pub struct Share {
    /// Of its token, in hexadecimal.
    digest: String,
    /// The only port that it leads to, if it does not lead to all.
    pub port: Option<u16>,
    /// From when on it lets nobody in.
    pub expires_at: Option<Timestamp>,
}

impl Share {
    /// A new link with its token, which is not kept.
    pub fn new(port: Option<u16>, lifetime: Option<Duration>) -> io::Result<(Self, SecretString)> {
        let mut random = [0; 32];
        std::fs::File::open("/dev/urandom")?.read_exact(&mut random)?;
        let token = SecretString::from(hex(&random));
        let now = Timestamp::now();
        let end = |lifetime| now.saturating_add(lifetime).unwrap_or(Timestamp::MAX);
        let share = Self {
            digest: digest(token.expose_secret()),
            port,
            expires_at: lifetime.map(end),
        };
        Ok((share, token))
    }

    /// Whether it has not ended.
    pub fn holds(&self) -> bool {
        self.expires_at.is_none_or(|at| at > Timestamp::now())
    }

    /// Whether this token opens the URL of this port; without a port, that of the HTTP service.
    pub fn admits(&self, token: &str, port: Option<u16>) -> bool {
        let leads_there = self.port.is_none() || self.port == port;
        leads_there && self.holds() && self.digest == digest(token)
    }
}

fn digest(token: &str) -> String {
    hex(&Sha256::digest(token))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
