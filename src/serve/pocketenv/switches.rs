//! How else the platform is known to behave (protocol page pocketenv, §4.4, §5 and §11).

use serde::{Deserialize, Serialize};

use crate::serve::switches;

/// The other behaviours. By default there are none of them.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct Switches {
    /// `{}` is taken for no body.
    pub lenient: bool,
    /// Nobody's profile can be told: it is `{}`.
    pub empty_profile: bool,
    /// So often a new sandbox of another provider than `cloudflare` is told as `INITIALIZING`.
    pub initializing: u32,
    /// New sandboxes of other providers stay `INITIALIZING`.
    pub stuck: bool,
    /// So many requests are answered in 30 seconds; without it, all are.
    pub rate: Option<u64>,
    /// So many starts of services in a new sandbox are answered with 200, and leave them `STOPPED`.
    pub silent_starts: u32,
}

impl Switches {
    /// Reads `name` or `name=value`, as `lenient` or `initializing=3`.
    pub fn read(texts: impl IntoIterator<Item = impl AsRef<str>>) -> Result<Self, String> {
        switches::read(texts)
    }
}
