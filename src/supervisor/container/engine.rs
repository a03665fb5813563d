//! A connection to a container engine.

use std::time::Duration;

use bollard::errors::Error;
use bollard::{API_DEFAULT_VERSION, Docker};

use super::find::{Address, EngineSettings, candidates};

/// How long an engine may take to say which version it speaks.
const HELLO: Duration = Duration::from_secs(5);

/// How long an engine may take to begin an answer, in seconds: it unpacks files before some.
const ANSWER: u64 = 120;

/// Why there is no engine, or what it said.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EngineError {
    /// None answers; where it was looked for, and what was there.
    #[error("no container engine answers (tried {})", .0.join(", "))]
    None(Vec<String>),
    /// A setting names an engine that we cannot use.
    #[error("{0}")]
    Setting(String),
    /// The engine refused something.
    #[error("{message}")]
    Refused {
        /// Its HTTP status.
        status: u16,
        /// Its words.
        message: String,
    },
    /// The connection broke, or the answer was not understood.
    #[error("the container engine does not answer: {0}")]
    Broken(String),
}

impl EngineError {
    /// What to do where there is no engine.
    pub const HINT: &'static str = "start Docker or Podman, or set DOCKER_HOST";

    /// Whether what was asked for does not exist.
    pub(super) fn is_not_found(&self) -> bool {
        matches!(self, Self::Refused { status: 404, .. })
    }
}

impl From<Error> for EngineError {
    fn from(error: Error) -> Self {
        match error {
            Error::DockerResponseServerError {
                status_code,
                message,
            } => Self::Refused {
                status: status_code,
                message: message.trim_end().to_owned(),
            },
            Error::DockerStreamError { error } => Self::Refused {
                status: 200,
                message: error,
            },
            other => Self::Broken(causes(&other)),
        }
    }
}

/// An error with everything behind it.
fn causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        source = cause.source();
    }
    text
}

/// A container engine that answered. Cheap to clone; every request is a connection of its own.
#[derive(Debug, Clone)]
pub(in crate::supervisor) struct Engine {
    pub(super) docker: Docker,
}

impl Engine {
    /// The first engine that answers.
    pub(in crate::supervisor) async fn connect(
        settings: &EngineSettings,
    ) -> Result<Self, EngineError> {
        let mut tried = Vec::new();
        for address in candidates(settings)? {
            match open(&address).await {
                Ok(docker) => return Ok(Self { docker }),
                Err(why) => tried.push(format!("{address}: {why}")),
            }
        }
        Err(EngineError::None(tried))
    }
}

#[cfg(test)]
impl Engine {
    /// One that is never asked.
    pub(in crate::supervisor) fn unreachable() -> Self {
        let docker = Docker::connect_with_http("http://127.0.0.1:1", 1, API_DEFAULT_VERSION);
        Self {
            docker: docker.unwrap(),
        }
    }
}

async fn open(address: &Address) -> Result<Docker, String> {
    let docker = match address {
        Address::Unix(path) => {
            // The client's own error would not say what is wrong with the socket.
            if let Err(error) = tokio::net::UnixStream::connect(path).await {
                return Err(match error.kind() {
                    std::io::ErrorKind::NotFound => "not there".to_owned(),
                    std::io::ErrorKind::PermissionDenied => "permission denied".to_owned(),
                    std::io::ErrorKind::ConnectionRefused => "nobody listens".to_owned(),
                    _ => error.to_string(),
                });
            }
            let path = path.to_str().ok_or("not a path that can be used")?;
            Docker::connect_with_unix(path, ANSWER, API_DEFAULT_VERSION)
        }
        Address::Tcp(address) => {
            Docker::connect_with_http(&format!("http://{address}"), ANSWER, API_DEFAULT_VERSION)
        }
    };
    let docker = docker.map_err(|error| EngineError::from(error).to_string())?;
    match tokio::time::timeout(HELLO, docker.negotiate_version()).await {
        Ok(Ok(docker)) => Ok(docker),
        Ok(Err(error)) => Err(causes(&error)),
        Err(_) => Err(format!("no answer within {} s", HELLO.as_secs())),
    }
}
