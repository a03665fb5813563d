//! What the pages of protocols leave open, and how this server decides it.

use serde::de::DeserializeOwned;
use serde_json::Value;

use super::{miosa, pocketenv};

/// The decisions of every protocol that has any; the default of each is its page's.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Switches {
    pub miosa: miosa::Switches,
    pub pocketenv: pocketenv::Switches,
}

impl From<miosa::Switches> for Switches {
    fn from(miosa: miosa::Switches) -> Self {
        Self {
            miosa,
            ..Self::default()
        }
    }
}

impl From<pocketenv::Switches> for Switches {
    fn from(pocketenv: pocketenv::Switches) -> Self {
        Self {
            pocketenv,
            ..Self::default()
        }
    }
}

/// Reads `name` or `name=value`, as `pid-string` or `logs=lines`.
pub(super) fn read<T: DeserializeOwned>(
    texts: impl IntoIterator<Item = impl AsRef<str>>,
) -> Result<T, String> {
    let pairs = texts.into_iter().map(|text| {
        let text = text.as_ref();
        let (name, value) = text.split_once('=').unwrap_or((text, "true"));
        let value = serde_json::from_str(value).unwrap_or_else(|_| value.into());
        (name.to_owned(), value)
    });
    let all = Value::Object(pairs.collect());
    serde_json::from_value(all).map_err(|error| error.to_string())
}
