//! Values that clients seal for the server (protocol page pocketenv, §7): libsodium's sealed boxes in
//! base64url. The key of this server is known to everybody: it protects nothing, it only lets clients
//! seal as they do for the platform.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use crypto_box::SecretKey;
use sha2::{Digest, Sha256};

fn key() -> SecretKey {
    let bytes: [u8; 32] = Sha256::digest("gabion serve: pocketenv").into();
    SecretKey::from(bytes)
}

/// What clients seal with, in hexadecimal: for `POCKETENV_PUBLIC_KEY`.
pub fn public_key() -> String {
    let bytes = key().public_key().to_bytes();
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// How many bytes a sealed box has beside what is in it.
const OVERHEAD: usize = 48;

/// What was sealed. What is no sealed box is taken as it is: the platform does not check it.
pub(super) fn open(text: &str) -> String {
    let bytes = URL_SAFE_NO_PAD.decode(text).unwrap_or_default();
    match key().unseal(&bytes).map(String::from_utf8) {
        Ok(Ok(value)) => value,
        Err(_) if bytes.len() >= OVERHEAD => {
            tracing::warn!("a value may be sealed for another server: see gabion serve --help");
            text.to_owned()
        }
        _ => text.to_owned(),
    }
}
