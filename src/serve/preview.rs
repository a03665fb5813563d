//! The URLs of services: `/preview/<sandbox>/…` leads to the sandbox's HTTP service, `/preview/<sandbox>-<port>/…`
//! to a port that a protocol has exposed. A link with `share=TOKEN` lets in whoever has it. All sandboxes share this machine's ports.

use std::error::Error;
use std::net::Ipv4Addr;
use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::{Path, Request, State};
use axum::http::{HeaderMap, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use axum::routing::any;
use hyper::client::conn::http1::handshake;
use hyper_util::rt::TokioIo;
use secrecy::{ExposeSecret, SecretString};
use tokio::net::TcpStream;

use super::auth;
use super::engine::{Access, Engine, EngineError, Kind, Sandbox, service_name};
use crate::supervisor::{ServiceObject, Until};

/// The routes below `/preview`.
pub(super) fn router(engine: Engine) -> Router {
    Router::new()
        .route("/preview/{key}", any(follow))
        .route("/preview/{key}/", any(follow))
        .route("/preview/{key}/{*path}", any(follow_below))
        .with_state(engine)
}

/// The URL that leads to a sandbox's HTTP service.
pub(super) fn url(engine: &Engine, sandbox: &Sandbox) -> String {
    format!("{}/preview/{}", engine.base_url(), sandbox.id())
}

/// The URL that leads to a port of a sandbox, once that is exposed.
pub fn port_url(engine: &Engine, sandbox: &Sandbox, port: u16) -> String {
    format!("{}/preview/{}-{port}", engine.base_url(), sandbox.id())
}

/// What the token of a link is called behind the `?`.
const SHARE: &str = "share=";

/// The link to a URL, for whoever gets it.
pub fn link(url: &str, token: &SecretString) -> String {
    format!("{url}?{SHARE}{}", token.expose_secret())
}

/// The port that the URL of the service's sandbox leads to, if it leads to this service.
pub(super) fn http_port(service: &ServiceObject) -> Option<u16> {
    service.definition.as_ref()?.http_port
}

async fn follow(state: State<Engine>, Path(key): Path<String>, request: Request) -> Response {
    lead(state.0, &key, request).await
}

async fn follow_below(
    state: State<Engine>,
    Path((key, _)): Path<(String, String)>,
    request: Request,
) -> Response {
    lead(state.0, &key, request).await
}

fn refusal(status: StatusCode, text: impl Into<String>) -> Response {
    (status, format!("{}\n", text.into())).into_response()
}

async fn lead(engine: Engine, key: &str, request: Request) -> Response {
    let (id, port) = match key.split_once('-') {
        Some((id, port)) => (id, Some(port)),
        None => (key, None),
    };
    let nothing = || refusal(StatusCode::NOT_FOUND, "there is nothing here");
    let (Ok(sandbox), Ok(port)) = (engine.sandbox(id), port.map(str::parse).transpose()) else {
        return nothing();
    };
    let record = sandbox.record();
    let access = match (shared(&request), port) {
        (Some(token), port) => {
            if !record.shares.values().any(|it| it.admits(token, port)) {
                return refusal(StatusCode::UNAUTHORIZED, "this link does not hold");
            }
            Some(Access::Public)
        }
        (None, Some(port)) => record.previews.get(&port).copied(),
        (None, None) => Some(record.access),
    };
    match access {
        None => return nothing(),
        Some(Access::Owner) if !is_owner(&engine, request.headers(), &sandbox) => {
            return refusal(
                StatusCode::UNAUTHORIZED,
                "the token is missing or another one",
            );
        }
        Some(Access::Owner | Access::Public) => {}
    }
    let port = match port {
        Some(port) => port,
        None => match service_port(&sandbox).await {
            Ok(port) => port,
            Err(error) => return refusal(StatusCode::BAD_GATEWAY, error.message),
        },
    };
    match ask(port, &format!("/preview/{key}"), request).await {
        Ok(answer) => answer,
        Err(error) => refusal(StatusCode::BAD_GATEWAY, format!("port {port}: {error}")),
    }
}

/// The token of a link.
fn shared(request: &Request) -> Option<&str> {
    let mut pairs = request.uri().query()?.split('&');
    pairs.find_map(|pair| pair.strip_prefix(SHARE))
}

/// A path with what is behind it, without the token of a link.
fn without_share(target: &str) -> String {
    let Some((path, query)) = target.split_once('?') else {
        return target.to_owned();
    };
    let pairs = query.split('&').filter(|pair| !pair.starts_with(SHARE));
    match pairs.collect::<Vec<_>>().join("&") {
        rest if rest.is_empty() => path.to_owned(),
        rest => format!("{path}?{rest}"),
    }
}

fn is_owner(engine: &Engine, headers: &HeaderMap, sandbox: &Sandbox) -> bool {
    let account = auth::account(engine, headers);
    account.is_some_and(|account| account.by_id(sandbox.id().as_str()).is_ok())
}

/// The port of the sandbox's HTTP service, which is started if it does not run.
async fn service_port(sandbox: &Arc<Sandbox>) -> Result<u16, EngineError> {
    let all = sandbox.services().await?;
    let found = all
        .iter()
        .find_map(|service| Some((service, http_port(service)?)));
    let none = || EngineError::new(Kind::NotFound, "no service has an HTTP port");
    let (service, port) = found.ok_or_else(none)?;
    if !service.fine_state().is_up() {
        let name = service_name(&service.name)?;
        sandbox.start_service(&name, Until::Settled).await?;
    }
    Ok(port)
}

/// Asks what listens at a port of this machine.
async fn ask(
    port: u16,
    below: &str,
    request: Request,
) -> Result<Response, Box<dyn Error + Send + Sync>> {
    let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await?;
    let (mut sender, connection) = handshake(TokioIo::new(stream)).await?;
    tokio::spawn(async move {
        if let Err(error) = connection.await {
            tracing::debug!(%error, "a service has hung up");
        }
    });
    let (mut parts, body) = request.into_parts();
    let target = parts
        .uri
        .path_and_query()
        .map_or("/", |target| target.as_str());
    let target = target.strip_prefix(below).unwrap_or(target);
    let target = without_share(target);
    let slash = if target.starts_with('/') { "" } else { "/" };
    parts.uri = format!("{slash}{target}").parse::<Uri>()?;
    // Each side has a connection, and a name, of its own; the token is not the service's business.
    for name in [
        header::CONNECTION,
        header::UPGRADE,
        header::AUTHORIZATION,
        header::HOST,
    ] {
        parts.headers.remove(name);
    }
    let host = format!("127.0.0.1:{port}").parse()?;
    parts.headers.insert(header::HOST, host);
    let answer = sender.send_request(Request::from_parts(parts, body)).await;
    let mut answer = answer?.map(Body::new);
    answer.headers_mut().remove(header::CONNECTION);
    Ok(answer)
}
