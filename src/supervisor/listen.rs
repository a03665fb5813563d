//! Serving the API over TCP, beside the Unix socket: with a token, and on loopback unless told
//! otherwise.

use std::future::Future;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use axum::Router;
use axum::serve::Listener;
use secrecy::SecretString;
use tokio_util::sync::CancellationToken;

use super::api::{Token, guarded};

/// What a supervisor serves over TCP, and to whom.
#[derive(Debug)]
pub struct Listen {
    /// Where; port 0 is one that is free.
    pub address: SocketAddr,
    /// What a client has to show.
    pub token: SecretString,
    /// Whether an address that other machines reach is meant: requests, and the token with them, are
    /// not encrypted.
    pub insecure: bool,
}

/// A TCP socket that listens, and the token of those who may ask.
#[derive(Debug)]
pub struct Bound {
    /// The socket.
    pub socket: OwnedFd,
    /// What a client has to show.
    pub token: SecretString,
}

/// Why there is no serving over TCP.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    /// Others could read the token on its way.
    #[error(
        "{0} can be reached from other machines, and neither requests nor the token are encrypted: \
         listen on 127.0.0.1, behind something that speaks TLS, or say --insecure"
    )]
    NotLoopback(SocketAddr),
    /// A token that anybody can guess.
    #[error("the token must have at least 16 characters, none of them a space")]
    WeakToken,
    /// The file of the token can be read by others.
    #[error("others may read {0}: chmod 600 it")]
    OpenFile(std::path::PathBuf),
    /// The file or the address cannot be used.
    #[error("{0}: {1}")]
    Io(String, #[source] io::Error),
}

/// Reads the token from a file that nobody else may read.
pub fn token_from(path: &Path) -> Result<SecretString, ListenError> {
    let failed = |error| ListenError::Io(path.display().to_string(), error);
    let mut file = std::fs::File::open(path).map_err(failed)?;
    let mode = file.metadata().map_err(failed)?.permissions().mode();
    if mode & 0o077 != 0 {
        return Err(ListenError::OpenFile(path.to_owned()));
    }
    let text = io::read_to_string(&mut file).map_err(failed)?;
    Ok(SecretString::from(text.trim_end().to_owned()))
}

impl Listen {
    /// Takes the address, for the keeper to hold.
    pub fn bind(self) -> Result<Bound, ListenError> {
        if !self.address.ip().is_loopback() && !self.insecure {
            return Err(ListenError::NotLoopback(self.address));
        }
        if Token::new(&self.token).is_none() {
            return Err(ListenError::WeakToken);
        }
        let failed = |error| ListenError::Io(format!("cannot listen on {}", self.address), error);
        let listener = TcpListener::bind(self.address).map_err(failed)?;
        listener.set_nonblocking(true).map_err(failed)?;
        Ok(Bound {
            socket: listener.into(),
            token: self.token,
        })
    }
}

/// Serves whoever shows the token, on any listener.
pub(super) fn serve_guarded<L>(
    listener: L,
    router: Router,
    token: Token,
    closed: CancellationToken,
) -> impl Future<Output = io::Result<()>> + Send
where
    L: Listener,
    L::Addr: std::fmt::Debug,
{
    serve_until(listener, guarded(router, token), closed)
}

/// Serves everybody that the listener lets in, until `closed`.
pub(super) async fn serve_until<L>(
    listener: L,
    router: Router,
    closed: CancellationToken,
) -> io::Result<()>
where
    L: Listener,
    L::Addr: std::fmt::Debug,
{
    axum::serve(listener, router)
        .with_graceful_shutdown(async move { closed.cancelled().await })
        .await
}
