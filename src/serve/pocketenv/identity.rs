//! Ids, names and times as Pocketenv writes them (protocol page pocketenv, §2).

use jiff::Timestamp;
use sha2::{Digest, Sha256};

use crate::serve::engine::{Account, Sandbox};

const BASE62: &[u8] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
const BASE32: &[u8] = b"0123456789abcdefghijklmnopqrstuv";

/// `sbx_` and 22 letters and digits that stand for the engine's id.
pub(super) fn sandbox_id(sandbox: &Sandbox) -> String {
    format!("sbx_{}", signs(sandbox.id().as_str(), BASE62, 22))
}

/// The id of a catalogue's entry.
pub(super) fn template_id(name: &str) -> String {
    format!("sbx_{}", signs(name, BASE62, 22))
}

/// The id of a service that was defined by another protocol.
pub(super) fn service_id(sandbox: &Sandbox, service: &str) -> String {
    let both = format!("{}/{service}", sandbox.id());
    format!("svc_{}", signs(&both, BASE32, 20))
}

/// A new id: `var_`, …
pub(super) fn new_id(prefix: &str) -> String {
    let sign = || char::from(BASE32[fastrand::usize(..BASE32.len())]);
    let signs: String = std::iter::repeat_with(sign).take(20).collect();
    format!("{prefix}_{signs}")
}

/// Who an account is: what its token says, if that is one of the platform's.
pub(super) fn did(account: &Account) -> String {
    let usual = || format!("did:plc:{}", signs(account.name(), BASE32, 24));
    account.did().map_or_else(usual, str::to_owned)
}

/// The id of an account as a person.
pub(super) fn person_id(account: &Account) -> String {
    format!("rec_{}", signs(account.name(), BASE32, 20))
}

/// What an account is called.
pub(super) fn handle(account: &Account) -> String {
    format!("{}.localhost.test", account.name())
}

/// Where the record of a sandbox is.
pub(super) fn uri(account: &Account, sandbox: &Sandbox) -> String {
    let key = signs(sandbox.id().as_str(), BASE32, 13);
    format!("at://{}/io.pocketenv.sandbox/{key}", did(account))
}

/// `2026-04-15T09:36:50.123Z`.
pub(super) fn shown(time: Timestamp) -> String {
    time.strftime("%Y-%m-%dT%H:%M:%S%.3fZ").to_string()
}

/// Signs that stand for a text: the same for the same text.
fn signs(text: &str, alphabet: &[u8], count: usize) -> String {
    let digest = Sha256::digest(text);
    let signs = digest.iter().cycle().take(count);
    let sign = |byte: &u8| char::from(alphabet[usize::from(*byte) % alphabet.len()]);
    signs.map(sign).collect()
}
