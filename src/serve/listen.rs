//! The HTTP server: one task for each connection, and connections that can be hung up on.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::http::Request;
use axum::response::Response;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tower_service::Service;

use super::engine::{Engine, EngineError};
use super::faults::{Faults, HungUp};

/// Why there is no serving.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The address cannot be used.
    #[error("cannot listen on {0}: {1}")]
    Address(SocketAddr, #[source] io::Error),
    /// The sandboxes cannot be read.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// The address cannot be told.
    #[error(transparent)]
    Io(#[from] io::Error),
}

pub(super) async fn take(address: SocketAddr) -> Result<TcpListener, ServeError> {
    let taken = TcpListener::bind(address).await;
    taken.map_err(|error| ServeError::Address(address, error))
}

/// A server that has its address and is ready to run.
pub struct Server {
    listener: TcpListener,
    router: Router,
    engine: Engine,
    faults: Arc<Faults>,
}

impl Server {
    pub(super) fn new(
        listener: TcpListener,
        router: Router,
        engine: Engine,
        faults: Arc<Faults>,
    ) -> Self {
        Self {
            listener,
            router,
            engine,
            faults,
        }
    }

    /// Its sandboxes.
    pub fn engine(&self) -> &Engine {
        &self.engine
    }

    /// Serves until `end`, which hangs up on everybody. Sandboxes go on.
    pub async fn run(self, end: impl Future<Output = ()>) {
        let mut connections = JoinSet::new();
        tokio::pin!(end);
        loop {
            tokio::select! {
                () = &mut end => return,
                Some(_) = connections.join_next() => {}
                accepted = self.listener.accept() => match accepted {
                    Ok((stream, _)) => {
                        let (router, faults) = (self.router.clone(), self.faults.clone());
                        connections.spawn(attend(stream, router, faults));
                    }
                    Err(error) => {
                        // Out of descriptors, most likely: others are freed meanwhile.
                        tracing::warn!(%error, "cannot accept a connection");
                        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
                    }
                },
            }
        }
    }
}

async fn attend(stream: TcpStream, router: Router, faults: Arc<Faults>) {
    // Small frames are to be seen one by one, and at once.
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "a client went before it was heard");
        return;
    }
    let service = service_fn(move |request: Request<Incoming>| {
        let (router, faults) = (router.clone(), faults.clone());
        async move {
            let request = request.map(Body::new);
            faults
                .pass(request, |request| detached(router, request))
                .await
        }
    });
    let serving = http1::Builder::new().serve_connection(TokioIo::new(stream), service);
    if let Err(error) = serving.with_upgrades().await {
        tracing::debug!(%error, "a connection broke off");
    }
}

/// Has the request answered by a task of its own, which comes to its end if the client hangs up.
async fn detached(router: Router, request: Request<Body>) -> Result<Response, HungUp> {
    let mut router = router;
    let answering = tokio::spawn(async move {
        let answer: Result<Response, Infallible> = router.call(request).await;
        answer
    });
    match answering.await {
        Ok(Ok(response)) => Ok(response),
        Ok(Err(never)) => match never {},
        Err(error) => {
            tracing::error!(%error, "a request was not answered");
            Err(HungUp)
        }
    }
}
