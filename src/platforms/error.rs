//! Why a platform could not do what it was asked.

use crate::event::Failure;
use crate::model::{MissingSecret, SandboxName};

/// Why a platform could not do what it was asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}", .0.message)]
pub struct PlatformError(pub Failure);

impl PlatformError {
    /// An error with nothing but words.
    pub fn new(message: impl Into<String>) -> Self {
        Self(Failure {
            message: message.into(),
            log_tail: Vec::new(),
            hint: None,
        })
    }

    /// What was to be done in a sandbox that is not there.
    pub fn no_sandbox(sandbox: &SandboxName) -> Self {
        Self::new(format!("there is no sandbox `{sandbox}`")).hint("gabion apply makes it")
    }

    /// What was to be ended is not there, or is a service's.
    pub fn no_process(sandbox: &SandboxName, id: &str) -> Self {
        let text = format!("there is no process `{id}` in `{sandbox}` that is no service");
        Self::new(text).hint(format!("gabion ps {sandbox} lists them"))
    }

    /// What was to be made is there.
    pub fn taken(sandbox: &SandboxName) -> Self {
        Self::new(format!("there is a sandbox `{sandbox}` already"))
    }

    /// Adds what to do next.
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.0.hint = Some(hint.into());
        self
    }
}

impl From<MissingSecret> for PlatformError {
    fn from(missing: MissingSecret) -> Self {
        Self::new(missing.to_string())
    }
}

impl From<std::io::Error> for PlatformError {
    fn from(error: std::io::Error) -> Self {
        Self::new(error.to_string())
    }
}
