//! Short-lived tokens, each for one sandbox: what a gateway hands out and a data plane takes.

use std::collections::HashMap;
use std::io::{self, Read};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use secrecy::{ExposeSecret, SecretString};
use sha2::{Digest, Sha256};

use super::Sandbox;

/// A token and the time from which on it is none.
pub struct Pass {
    /// What is to be shown.
    pub token: SecretString,
    /// When it ends.
    pub expires_at: Timestamp,
}

struct Known {
    sandbox: Arc<Sandbox>,
    expires_at: Timestamp,
}

/// The tokens that are valid, by their digests. They end with the server.
pub(super) struct Passes {
    lifetime: Duration,
    known: Mutex<HashMap<[u8; 32], Known>>,
}

impl Passes {
    /// Each token is valid for so long.
    pub(super) fn new(lifetime: Duration) -> Self {
        Self {
            lifetime,
            known: Mutex::default(),
        }
    }

    pub(super) fn issue(&self, sandbox: Arc<Sandbox>) -> io::Result<Pass> {
        let mut random = [0; 32];
        std::fs::File::open("/dev/urandom")?.read_exact(&mut random)?;
        let token: String = random.iter().map(|byte| format!("{byte:02x}")).collect();
        let token = SecretString::from(token);
        let now = Timestamp::now();
        let expires_at = now.saturating_add(self.lifetime).unwrap_or(Timestamp::MAX);
        // Whole after every statement, so a panic elsewhere cannot have torn it.
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.retain(|_, pass| pass.expires_at > now);
        let digest = Sha256::digest(token.expose_secret()).into();
        known.insert(
            digest,
            Known {
                sandbox,
                expires_at,
            },
        );
        Ok(Pass { token, expires_at })
    }

    /// The sandbox that a token is for, if it is valid.
    pub(super) fn sandbox(&self, token: &[u8]) -> Option<Arc<Sandbox>> {
        let digest: [u8; 32] = Sha256::digest(token).into();
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let pass = known.get(&digest)?;
        (pass.expires_at > Timestamp::now()).then(|| pass.sandbox.clone())
    }
}
