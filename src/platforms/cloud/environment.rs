//! Environments as clouds get them.

use std::collections::BTreeMap;

use secrecy::{ExposeSecret, SecretString};
use serde_json::{Map, Value};

/// An object of names and values. Holds secrets: only for the body of a request.
pub fn exposed(env: &BTreeMap<String, SecretString>) -> Value {
    let pairs = env.iter();
    pairs
        .map(|(name, value)| (name.clone(), Value::from(value.expose_secret())))
        .collect::<Map<_, _>>()
        .into()
}
