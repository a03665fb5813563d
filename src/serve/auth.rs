//! Who asks: a bearer token is an account, and everything of one account is invisible to the others.

use std::sync::Arc;

use axum::http::{HeaderMap, header};
use secrecy::{ExposeSecret, SecretString};
use sha2::{Digest, Sha256};

use super::engine::{Account, Engine};

/// The account whose token the request shows. Only digests are compared, so the time it takes tells
/// nothing about a token.
pub fn account(engine: &Engine, headers: &HeaderMap) -> Option<Arc<Account>> {
    engine.account(&Sha256::digest(bearer(headers)?).into())
}

/// The bearer token of a request.
pub fn bearer(headers: &HeaderMap) -> Option<&[u8]> {
    let value = headers.get(header::AUTHORIZATION)?.as_bytes();
    let (scheme, token) = value.split_at_checked("Bearer ".len())?;
    scheme.eq_ignore_ascii_case(b"Bearer ").then_some(token)
}

pub(super) fn digest(token: &SecretString) -> [u8; 32] {
    Sha256::digest(token.expose_secret()).into()
}

/// The name of the stack that an account's sandboxes are in: the same whenever the token is the same.
pub fn account_name(token: &SecretString) -> String {
    let mut hash = Sha256::new();
    // Another digest than the one that opens the account.
    hash.update(b"account\0");
    hash.update(token.expose_secret());
    let hex = hash
        .finalize()
        .iter()
        .take(6)
        .map(|byte| format!("{byte:02x}"))
        .collect::<String>();
    format!("serve-{hex}")
}
