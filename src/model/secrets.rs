//! Secret values: they live in memory only and cannot be printed.

use std::collections::BTreeMap;

use secrecy::{ExposeSecret, SecretString};
use sha2::{Digest, Sha256};

use super::{ServiceAddress, ServiceSpec};

/// The values behind `${secret.name}`, by name. Its `Debug` shows names only.
#[derive(Default, Clone)]
pub struct Secrets(BTreeMap<String, SecretString>);

/// A definition uses a secret whose value is not at hand.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the value of secret `{0}` is not at hand")]
pub struct MissingSecret(pub String);

impl Secrets {
    /// Adds or replaces one value.
    pub fn insert(&mut self, name: impl Into<String>, value: SecretString) {
        self.0.insert(name.into(), value);
    }

    /// Adds or replaces every value of `other`.
    pub fn extend(&mut self, other: Secrets) {
        self.0.extend(other.0);
    }

    /// The value of one secret.
    pub fn get(&self, name: &str) -> Option<&SecretString> {
        self.0.get(name)
    }

    /// Names and values, in order of name.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &SecretString)> {
        self.0.iter().map(|(name, value)| (name.as_str(), value))
    }

    /// `text` with every value in it replaced by `${secret.name}`: as it is, as JSON writes it, and as
    /// URLs do. So is every line of a longer one. Values of less than four bytes and lines of less than eight
    /// are left: they are part of many words.
    pub fn conceal(&self, text: &str) -> String {
        let values = self.iter().map(|(name, it)| (name, it.expose_secret()));
        let parts = values.flat_map(|(name, value)| parts(value).map(move |part| (name, part)));
        let mut shapes: Vec<_> = parts
            .flat_map(|(name, part)| shapes(part).map(|shape| (shape, name)))
            .collect();
        // One value may be the beginning of another.
        shapes.sort_by_key(|(shape, _)| std::cmp::Reverse(shape.len()));
        let mut text = text.to_owned();
        for (shape, name) in shapes {
            if text.contains(&shape) {
                text = text.replace(&shape, &format!("${{secret.{name}}}"));
            }
        }
        text
    }

    /// The values that `spec` uses, and no others.
    pub fn used_by(&self, spec: &ServiceSpec) -> Result<Secrets, MissingSecret> {
        let pick = |name: &String| {
            let value = self
                .0
                .get(name)
                .ok_or_else(|| MissingSecret(name.clone()))?;
            Ok((name.clone(), value.clone()))
        };
        spec.secrets
            .keys()
            .map(pick)
            .collect::<Result<_, _>>()
            .map(Secrets)
    }

    /// The environment of `spec` with every `${secret.name}` that it declares replaced by its value.
    ///
    /// Only names in `spec.secrets` are replaced: any other `${…}` is the service's own business.
    pub fn expand_env(
        &self,
        spec: &ServiceSpec,
    ) -> Result<BTreeMap<String, SecretString>, MissingSecret> {
        let expanded = |(key, text): (&String, &String)| {
            let value = self.expand(text, |name| spec.secrets.contains_key(name))?;
            Ok((key.clone(), value))
        };
        spec.env.iter().map(expanded).collect()
    }

    /// `text` with `${secret.name}` replaced by its value for every name that `is_used`.
    pub fn expand(
        &self,
        text: &str,
        is_used: impl Fn(&str) -> bool,
    ) -> Result<SecretString, MissingSecret> {
        let mut value = String::new();
        let mut rest = text;
        while let Some(start) = rest.find("${secret.") {
            value.push_str(&rest[..start]);
            let after = &rest[start + "${secret.".len()..];
            match after.split_once('}') {
                Some((name, tail)) if is_used(name) => {
                    let secret = self
                        .get(name)
                        .ok_or_else(|| MissingSecret(name.to_owned()))?;
                    value.push_str(secret.expose_secret());
                    rest = tail;
                }
                _ => {
                    value.push_str("${secret.");
                    rest = after;
                }
            }
        }
        value.push_str(rest);
        Ok(SecretString::from(value))
    }
}

impl std::fmt::Debug for Secrets {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

/// What of a value is concealed: all of it, but for its last line end, and each of its lines.
fn parts(value: &str) -> impl Iterator<Item = &str> {
    let whole = value.trim_end_matches(['\r', '\n']);
    let lines = whole.contains('\n').then(|| whole.lines().map(str::trim));
    let lines = lines.into_iter().flatten().filter(|line| line.len() >= 8);
    let whole = Some(whole).filter(|whole| whole.len() >= 4);
    whole.into_iter().chain(lines)
}

/// How a value is written by those who repeat what they were sent.
fn shapes(value: &str) -> [String; 4] {
    let json = serde_json::Value::from(value).to_string();
    let escaped = |space: &str| {
        let shown = |byte: u8| match byte {
            b'-' | b'.' | b'_' => char::from(byte).to_string(),
            byte if byte.is_ascii_alphanumeric() => char::from(byte).to_string(),
            b' ' => space.to_owned(),
            byte => format!("%{byte:02X}"),
        };
        value.bytes().map(shown).collect()
    };
    // Without its quotes.
    let inner = json[1..json.len() - 1].to_owned();
    [value.to_owned(), inner, escaped("+"), escaped("%20")]
}

/// The salted digest that stands for a secret's value in a definition, so that a changed value is
/// seen without being stored. The salt is the place it is used at.
pub fn digest(stack: &str, at: &ServiceAddress, name: &str, value: &SecretString) -> String {
    let mut hash = Sha256::new();
    for part in [stack, &at.to_string(), name, value.expose_secret()] {
        hash.update((part.len() as u64).to_le_bytes());
        hash.update(part);
    }
    hash.finalize()
        .iter()
        .take(16)
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_concealed_however_they_are_written() {
        let mut secrets = Secrets::default();
        for (name, value) in [
            ("new", "hunter2-and-more"),
            ("old", "hunter2"),
            ("odd", "a \"quoted\"\nline/"),
            ("tiny", "abc"),
            ("file", "first line\n  second line\n}\n"),
        ] {
            secrets.insert(name, SecretString::from(value));
        }
        for (text, shown) in [
            (
                "hunter2-and-more or hunter2",
                "${secret.new} or ${secret.old}",
            ),
            ("a \"quoted\"\nline/.", "${secret.odd}."),
            (r#"{"x":"a \"quoted\"\nline/"}"#, r#"{"x":"${secret.odd}"}"#),
            ("?x=a+%22quoted%22%0Aline%2F&y", "?x=${secret.odd}&y"),
            ("?x=a%20%22quoted%22%0Aline%2F", "?x=${secret.odd}"),
            ("abc of words", "abc of words"),
            ("first line\n  second line\n}", "${secret.file}"),
            ("what is second line } ?", "what is ${secret.file} } ?"),
        ] {
            assert_eq!(secrets.conceal(text), shown);
        }
    }
}
