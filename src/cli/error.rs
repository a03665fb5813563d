//! What can go wrong on the command line, by whose fault it is, and the exit code of each.

use std::io;

use crate::apply::LockError;
use crate::plan::PlanError;
use crate::platforms::PlatformError;

/// Exit code for a wrong command line.
pub const USAGE: u8 = 64;
/// Exit code for a manifest that does not validate.
pub const BAD_MANIFEST: u8 = 65;
/// Exit code of an interrupted command.
pub const INTERRUPTED: u8 = 130;

/// Why a command ended early.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The command line asks for something that is not there or does not fit.
    #[error("{message}")]
    Usage {
        /// What is wrong.
        message: String,
        /// What to do.
        hint: Option<String>,
    },
    /// The manifest does not validate; its problems were shown already.
    #[error("the manifest is not valid")]
    Manifest,
    /// Something could not be done.
    #[error("{message}")]
    Failed {
        /// What, and why.
        message: String,
        /// What to do.
        hint: Option<String>,
    },
    /// A platform refused.
    #[error("{}", .0)]
    Platform(#[from] PlatformError),
    /// Somebody else is working on the stack.
    #[error("{0}")]
    Lock(#[from] LockError),
    /// A bug of ours.
    #[error("{0}")]
    Plan(#[from] PlanError),
    /// The user interrupted before anything was done.
    #[error("interrupted; nothing was changed")]
    Interrupted,
    /// Whoever reads our output has gone away.
    #[error("output closed")]
    OutputClosed,
}

impl Error {
    /// A wrong command line.
    pub fn usage(message: impl Into<String>) -> Self {
        Self::Usage {
            message: message.into(),
            hint: None,
        }
    }

    /// Something that could not be done.
    pub fn failed(message: impl Into<String>) -> Self {
        Self::Failed {
            message: message.into(),
            hint: None,
        }
    }

    /// The exit code.
    pub fn code(&self) -> u8 {
        match self {
            Self::Usage { .. } => USAGE,
            Self::Manifest => BAD_MANIFEST,
            Self::Failed { .. } | Self::Platform(_) | Self::Lock(_) | Self::Plan(_) => 1,
            Self::Interrupted => INTERRUPTED,
            Self::OutputClosed => 0,
        }
    }

    /// What to do next.
    pub fn hint(&self) -> Option<&str> {
        match self {
            Self::Usage { hint, .. } | Self::Failed { hint, .. } => hint.as_deref(),
            Self::Platform(error) => error.0.hint.as_deref(),
            Self::Lock(LockError::Held { .. }) => Some("wait for it with --lock-timeout 1m"),
            _ => None,
        }
    }
}

impl From<io::Error> for Error {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::BrokenPipe => Self::OutputClosed,
            _ => Self::failed(error.to_string()),
        }
    }
}

/// What commands return.
pub type Result<T, E = Error> = std::result::Result<T, E>;
