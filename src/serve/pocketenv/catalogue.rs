//! What sandboxes are made from: protocol page pocketenv, §4.1 and §4.3.

use serde_json::{Value, json};

use super::call::{Call, told};
use super::identity;
use super::problem::Answer;

/// The bases of the provider `cloudflare`. The other providers have only the first.
pub(super) const BASES: [&str; 21] = [
    "openclaw",
    "pkgx",
    "opencode",
    "nix",
    "mise",
    "kiro",
    "kilo",
    "gemini",
    "docker",
    "crush",
    "copilot",
    "codex",
    "claude-code",
    "amp",
    "opencrust",
    "nullclaw",
    "picoclaw",
    "zeroclaw",
    "wasmer",
    "nanoclaw",
    "cursor",
];

/// Whose the bases are.
const PUBLISHER: &str = "did:plc:pocketenvpocketenvpocket";

fn uri(name: &str) -> String {
    format!("at://{PUBLISHER}/io.pocketenv.sandbox/{name}")
}

/// The base that a text means: a short name, an id, or a URI.
pub(super) fn base(text: &str) -> Option<&'static str> {
    let means =
        |name: &&str| *name == text || identity::template_id(name) == text || uri(name) == text;
    BASES.into_iter().find(means)
}

/// The entry of a base, as a sandbox.
pub(super) fn entry(name: &str) -> Value {
    json!({
        "id": identity::template_id(name),
        "name": name,
        "displayName": name,
        "description": null,
        "logo": null,
        "readme": null,
        "installs": 0,
        "uri": uri(name),
        "createdAt": "2026-01-01T00:00:00.000Z",
    })
}

pub(super) async fn list(call: Call) -> Answer {
    let page = call.page(30)?;
    told(json!({
        "sandboxes": page.of(BASES.iter().map(|name| entry(name))),
        "total": BASES.len(),
    }))
}
