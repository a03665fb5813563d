//! Which kinds of platform there are, and how each is opened.
//!
//! A new kind is one row of [`KINDS`].

use std::path::Path;

use super::cloud::settings::Settings;
use super::{Act, PlatformError, Result, iris, local, miosa, pocketenv, sprites};
use crate::model::Capabilities;

/// What a platform is opened with.
#[derive(Clone, Copy)]
pub struct Opening<'a> {
    /// Its entry in the manifest, secrets, environment and connections.
    pub settings: Settings<'a>,
    /// The stack it is opened for.
    pub stack: &'a str,
    /// Where local state is kept.
    pub home: &'a Path,
    /// The gabion program, which is also the supervisor of local sandboxes.
    pub program: &'a Path,
}

/// One kind of platform.
struct Kind {
    capabilities: fn() -> &'static Capabilities,
    /// Whether it could be spoken to: an entry that nothing uses may lack its token.
    has_access: fn(&Settings<'_>) -> bool,
    open: fn(&Opening<'_>) -> Result<Box<dyn Act>>,
}

const KINDS: [Kind; 5] = [
    Kind {
        capabilities: local::capabilities,
        has_access: |_| true,
        open: |it| Ok(Box::new(local::Local::new(it.home, it.stack, it.program))),
    },
    Kind {
        capabilities: iris::capabilities,
        has_access: iris::has_access,
        open: |it| Ok(Box::new(iris::Iris::open(&it.settings, it.stack)?)),
    },
    Kind {
        capabilities: miosa::capabilities,
        has_access: miosa::has_access,
        open: |it| Ok(Box::new(miosa::Miosa::open(&it.settings, it.stack)?)),
    },
    Kind {
        capabilities: pocketenv::capabilities,
        has_access: pocketenv::has_access,
        open: |it| {
            Ok(Box::new(pocketenv::Pocketenv::open(
                &it.settings,
                it.stack,
            )?))
        },
    },
    Kind {
        capabilities: sprites::capabilities,
        has_access: sprites::has_access,
        open: |it| Ok(Box::new(sprites::Sprites::open(&it.settings, it.stack)?)),
    },
];

/// The capability tables of all kinds.
pub fn capabilities() -> Vec<&'static Capabilities> {
    KINDS.iter().map(|kind| (kind.capabilities)()).collect()
}

/// Opens the platform of an entry. `None`: nothing in the manifest lives there, and there is no token
/// for it.
pub fn open(opening: &Opening<'_>) -> Result<Option<Box<dyn Act>>> {
    let config = opening.settings.config;
    let kind = KINDS
        .iter()
        .find(|kind| (kind.capabilities)().kind == config.kind)
        .ok_or_else(|| {
            PlatformError::new(format!("there is no kind of platform `{}`", config.kind))
        })?;
    if !config.used && !(kind.has_access)(&opening.settings) {
        return Ok(None);
    }
    (kind.open)(opening).map(Some)
}
