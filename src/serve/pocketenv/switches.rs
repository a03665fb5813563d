//! What real servers do now and then, and clients have to bear (protocol page pocketenv, §11).

use serde::{Deserialize, Serialize};

/// How this server behaves. The default of each is what the platform does in general.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct Switches {
    /// Operations without input take `{}`.
    pub lenient: bool,
    /// `getProfile` answers `{}`.
    pub no_profile: bool,
    /// So often a new sandbox is told as `INITIALIZING`, of providers other than `cloudflare`.
    pub initializing: u32,
    /// So many starts of services in a new sandbox are answered with 200, and do nothing.
    pub idle_starts: u32,
}
