//! What is written on a sandbox or service, so that any machine knows whose it is and from which
//! definition it was made.
//!
//! A mark is a spec in normal form, which holds secrets by digest only, as a short text of letters,
//! digits, `-` and `_` (base64url of JSON). Platforms that limit the length of a text get it in pieces.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::model::{SandboxName, SandboxSpec, ServiceName, ServiceSpec};

/// What a label, topic or name of ours begins with.
pub const PREFIX: &str = "gabion";

/// Whose a thing is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Owner {
    /// The stack.
    pub stack: String,
    /// The sandbox within the stack.
    pub sandbox: SandboxName,
}

impl Owner {
    /// `gabion:shop/web`: short, and readable for people.
    pub fn label(&self) -> String {
        format!("{PREFIX}:{}/{}", self.stack, self.sandbox)
    }

    /// Reads [`Owner::label`].
    pub fn from_label(label: &str) -> Option<Self> {
        let (stack, sandbox) = label
            .strip_prefix(PREFIX)?
            .strip_prefix(':')?
            .split_once('/')?;
        // Stacks have names of the same kind.
        let stack = SandboxName::new(stack).ok()?.as_str().to_owned();
        let sandbox = SandboxName::new(sandbox).ok()?;
        Some(Self { stack, sandbox })
    }
}

/// What is written on a sandbox.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SandboxMark {
    /// Whose it is.
    #[serde(flatten)]
    pub owner: Owner,
    /// What it was made from.
    pub spec: SandboxSpec,
}

/// What is written on a service.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ServiceMark {
    /// Whose it is.
    #[serde(flatten)]
    pub owner: Owner,
    /// Its name in its sandbox.
    pub service: ServiceName,
    /// What it was made from.
    pub spec: ServiceSpec,
}

/// A mark as text.
pub fn encode(mark: &impl Serialize) -> String {
    // Specs are plain data: their JSON can always be written.
    URL_SAFE_NO_PAD.encode(serde_json::to_vec(mark).unwrap_or_default())
}

/// Reads [`encode`]. `None` if that is no such mark.
pub fn decode<T: DeserializeOwned>(text: &str) -> Option<T> {
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(text).ok()?).ok()
}

/// A text in pieces of at most `longest` bytes, each with its number: `NAME.2.REST`. `text` must be
/// ASCII, as [`encode`] makes it.
pub fn split(name: &str, text: &str, longest: usize) -> Vec<String> {
    // Room for a number of up to three digits.
    let room = longest.saturating_sub(name.len() + 5).max(1);
    let pieces = text.as_bytes().chunks(room).enumerate();
    pieces
        .map(|(number, piece)| format!("{name}.{number}.{}", String::from_utf8_lossy(piece)))
        .collect()
}

/// Reads [`split`] out of texts in any order, others among them. `None` if there is none, or one is
/// missing.
pub fn join<'a>(name: &str, texts: impl IntoIterator<Item = &'a str>) -> Option<String> {
    let numbered = texts.into_iter().filter_map(|text| {
        let rest = text.strip_prefix(name)?.strip_prefix('.')?;
        let (number, piece) = rest.split_once('.')?;
        Some((number.parse::<usize>().ok()?, piece))
    });
    let mut pieces: Vec<_> = numbered.collect();
    pieces.sort_unstable();
    let whole = pieces
        .iter()
        .enumerate()
        .all(|(at, (number, _))| at == *number);
    (whole && !pieces.is_empty()).then(|| pieces.into_iter().map(|(_, piece)| piece).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Program;

    fn owner() -> Owner {
        Owner {
            stack: "shop".to_owned(),
            sandbox: SandboxName::new("web").unwrap(),
        }
    }

    #[test]
    fn owners_are_read_from_their_labels() {
        assert_eq!(owner().label(), "gabion:shop/web");
        assert_eq!(Owner::from_label("gabion:shop/web"), Some(owner()));
        for other in [
            "gabion",
            "gabion:shop",
            "gabion:/web",
            "x:shop/web",
            "gabion:a/b/c",
            "",
        ] {
            assert_eq!(Owner::from_label(other), None, "{other}");
        }
    }

    #[test]
    fn marks_survive_being_cut_into_pieces() {
        let mut spec = ServiceSpec::new(Program::Shell {
            command: "echo „ä“ $X \"'".repeat(20),
        });
        spec.env.insert("A".to_owned(), "${secret.a}".to_owned());
        let service = ServiceName::new("api").unwrap();
        let mark = ServiceMark {
            owner: owner(),
            service,
            spec,
        };
        let text = encode(&mark);
        assert_eq!(decode(&text), Some(mark));
        let mut pieces = split("gabion-spec", &text, 60);
        assert!(pieces.len() > 10 && pieces.iter().all(|piece| piece.len() <= 60));
        pieces.reverse();
        pieces.insert(3, "other.1.x".to_owned());
        let joined = join("gabion-spec", pieces.iter().map(String::as_str));
        assert_eq!(joined.as_deref(), Some(text.as_str()));
        pieces.remove(1);
        assert_eq!(join("gabion-spec", pieces.iter().map(String::as_str)), None);
        assert_eq!(join("gabion-spec", []), None);
        for damaged in ["", "!", "e30", &text[1..]] {
            assert_eq!(decode::<ServiceMark>(damaged), None);
        }
    }
}
