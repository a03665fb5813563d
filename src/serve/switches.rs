//! What protocol pages leave open, or what real servers do now and then: how this server decides it.

use serde::de::DeserializeOwned;

use super::{miosa, pocketenv};

/// The decisions of every protocol that has some.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Switches {
    pub miosa: miosa::Switches,
    pub pocketenv: pocketenv::Switches,
}

/// Reads `name` or `name=value`, as `pid-string` or `logs=lines`.
pub fn read<T: DeserializeOwned>(
    texts: impl IntoIterator<Item = impl AsRef<str>>,
) -> Result<T, String> {
    let pairs = texts.into_iter().map(|text| {
        let text = text.as_ref();
        let (name, value) = text.split_once('=').unwrap_or((text, "true"));
        let value = serde_json::from_str(value).unwrap_or_else(|_| value.into());
        (name.to_owned(), value)
    });
    let all = serde_json::Value::Object(pairs.collect());
    serde_json::from_value(all).map_err(|error| error.to_string())
}
