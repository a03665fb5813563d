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

    /// `text` with every value in it replaced by `${secret.name}`. Values of less than four bytes are
    /// left: they are part of many words.
    pub fn conceal(&self, text: &str) -> String {
        let mut text = text.to_owned();
        for (name, value) in self.iter() {
            let value = value.expose_secret();
            if value.len() >= 4 && text.contains(value) {
                text = text.replace(value, &format!("${{secret.{name}}}"));
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
        let mut expanded = BTreeMap::new();
        for (key, text) in &spec.env {
            let mut value = String::new();
            let mut rest = text.as_str();
            while let Some(start) = rest.find("${secret.") {
                value.push_str(&rest[..start]);
                let after = &rest[start + "${secret.".len()..];
                match after.split_once('}') {
                    Some((name, tail)) if spec.secrets.contains_key(name) => {
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
            expanded.insert(key.clone(), SecretString::from(value));
        }
        Ok(expanded)
    }
}

impl std::fmt::Debug for Secrets {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
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
