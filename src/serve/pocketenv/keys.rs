//! SSH and Tailscale keys: protocol page pocketenv, §8. They are stored, sealed as they come, and no start of a
//! sandbox puts them anywhere: the platform writes the one to `~/.ssh`, which is the user's own here, and joins
//! a tailnet with the other.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::call::{Call, Keys, told};
use super::identity;
use super::note::{Note, StoredKey};
use super::problem::{Answer, Problem};

/// What a key is for. A sandbox has one of each.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Key {
    Ssh,
    Tailscale,
}

impl Key {
    /// What its secret half is called in bodies and answers.
    fn secret(self) -> &'static str {
        match self {
            Self::Ssh => "privateKey",
            Self::Tailscale => "authKey",
        }
    }

    fn of(self, note: &mut Note) -> &mut Option<StoredKey> {
        match self {
            Self::Ssh => &mut note.ssh_key,
            Self::Tailscale => &mut note.tailscale_key,
        }
    }

    /// Of the secret half only what its owner wants to be shown.
    fn object(self, stored: &StoredKey) -> Value {
        let mut object = json!({
            "id": stored.id,
            "createdAt": identity::shown(stored.created_at),
        });
        object[self.secret()] = json!(stored.redacted);
        if self == Self::Ssh {
            object["publicKey"] = json!(stored.public);
        }
        object
    }
}

pub(super) async fn show(call: Call, key: Key) -> Answer {
    let sandbox = call.own(call.needed_param("id")?, Keys::Id)?;
    let mut note = sandbox.map(|sandbox| Note::of(&sandbox));
    let stored = note.as_mut().and_then(|note| key.of(note).as_ref());
    told(key.object(stored.ok_or_else(Problem::nothing)?))
}

pub(super) async fn put(call: Call, key: Key) -> Answer {
    let input = &call.input;
    let id = input.needed_text("id")?;
    let stored = StoredKey {
        id: identity::new_id("key"),
        secret: input.needed_text(key.secret())?,
        public: match key {
            Key::Ssh => Some(input.needed_text("publicKey")?),
            Key::Tailscale => None,
        },
        redacted: input.text("redacted")?,
        created_at: Timestamp::now(),
    };
    let sandbox = call.own(&id, Keys::Id)?;
    let sandbox = sandbox.ok_or_else(|| Problem::not_found("Sandbox"))?;
    Note::change(&sandbox, |note| *key.of(note) = Some(stored))?;
    told(json!({}))
}
