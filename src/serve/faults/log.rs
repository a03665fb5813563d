//! The requests that have come in.

use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};

use jiff::Timestamp;
use serde::Serialize;

/// One request. Neither its parameters nor its headers and body: they may hold secrets.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Logged {
    /// Its number, counted from 1.
    pub number: usize,
    /// When it came in.
    pub at: Timestamp,
    /// `PUT`.
    pub method: String,
    /// Without what is behind the `?`.
    pub path: String,
    /// The status that it was answered with; `None` if it was not.
    pub status: Option<u16>,
    /// What went wrong on purpose: `after=lost`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fault: Option<String>,
}

#[derive(Debug, Default)]
struct State {
    requests: Vec<Logged>,
    /// A line of JSON is appended once a request was answered.
    file: Option<File>,
}

/// Every request since the last reset.
#[derive(Debug, Default)]
pub(super) struct Log(Mutex<State>);

impl Log {
    /// Appends to a file, too.
    pub(super) fn append_to(path: &Path) -> io::Result<Self> {
        let mut options = File::options();
        let file = options.create(true).append(true).mode(0o600).open(path)?;
        Ok(Self(Mutex::new(State {
            requests: Vec::new(),
            file: Some(file),
        })))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Whole after every statement, so a panic elsewhere cannot have torn it.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes that a request has come in.
    pub(super) fn begin(&self, method: &str, path: &str) -> Logged {
        let mut state = self.state();
        let logged = Logged {
            number: state.requests.len() + 1,
            at: Timestamp::now(),
            method: method.to_owned(),
            path: path.to_owned(),
            status: None,
            fault: None,
        };
        state.requests.push(logged.clone());
        logged
    }

    /// Notes how it was answered.
    pub(super) fn end(&self, logged: Logged) {
        let mut state = self.state();
        if let Some(file) = &mut state.file {
            let line = serde_json::to_string(&logged).map_err(io::Error::from);
            if let Err(error) = line.and_then(|line| writeln!(file, "{line}")) {
                tracing::warn!(%error, "the log of requests cannot be written");
            }
        }
        // Unless it was reset meanwhile.
        let own = state.requests.get_mut(logged.number - 1);
        if let Some(own) = own.filter(|own| own.at == logged.at) {
            *own = logged;
        }
    }

    pub(super) fn requests(&self) -> Vec<Logged> {
        self.state().requests.clone()
    }

    pub(super) fn clear(&self) {
        self.state().requests.clear();
    }
}
