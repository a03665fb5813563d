//! A server before another one, which it passes everything on to; or answers what would change something
//! with an error that repeats all that it was sent.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{HeaderMap, Method, Response, Uri, header};
use gabion::platforms::cloud::http::tls;
use serde_json::json;
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::served::{Served, runtime};

pub struct Echo {
    /// Where it is.
    pub url: String,
    passing: Arc<Passing>,
    _end: DropGuard,
}

struct Passing {
    http: reqwest::Client,
    own: String,
    to: String,
    repeats: AtomicBool,
}

impl Echo {
    pub fn before(served: &Served) -> Self {
        let to = served.url.clone();
        let end = CancellationToken::new();
        let until = end.clone();
        let (told, heard) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            runtime().block_on(async {
                let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
                let own = format!("http://{}", listener.local_addr().unwrap());
                let http = reqwest::Client::builder().no_proxy();
                let http = http.tls_backend_preconfigured(tls::unused().unwrap());
                let passing = Arc::new(Passing {
                    http: http.build().unwrap(),
                    own,
                    to,
                    repeats: AtomicBool::new(false),
                });
                let router = Router::new().fallback(pass).with_state(passing.clone());
                told.send(passing).unwrap();
                tokio::select! {
                    served = axum::serve(listener, router) => served.unwrap(),
                    () = until.cancelled() => {}
                }
            });
        });
        let passing = heard.recv().unwrap();
        Self {
            url: passing.own.clone(),
            passing,
            _end: end.drop_guard(),
        }
    }

    /// Whether it repeats what it is sent from now on.
    pub fn repeats(&self, repeats: bool) {
        self.passing.repeats.store(repeats, Ordering::Relaxed);
    }
}

async fn pass(
    State(passing): State<Arc<Passing>>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
) -> Response<Body> {
    // These ask, too, or else nothing would ever get to be sent.
    let asks = method == Method::GET || uri.path().contains(".SandboxService/");
    if passing.repeats.load(Ordering::Relaxed) && !asks {
        let token = headers.get(header::AUTHORIZATION);
        let token = token.map_or("", |it| it.to_str().unwrap());
        let body = String::from_utf8_lossy(&body);
        let message = format!("you sent {token} {uri} {body}");
        let answer = json!({ "error": "internal", "message": message }).to_string();
        let answer = Response::builder().status(500).body(Body::from(answer));
        return answer.unwrap();
    }
    let request = passing
        .http
        .request(method, format!("{}{uri}", passing.to))
        .headers(headers)
        .body(body);
    let answer = match request.send().await {
        Ok(answer) => answer,
        Err(_) => return Response::builder().status(502).body(Body::empty()).unwrap(),
    };
    let mut passed = Response::builder().status(answer.status());
    let content = answer.headers().get(header::CONTENT_TYPE).cloned();
    let is_json = content
        .as_ref()
        .is_some_and(|it| it.as_bytes().ends_with(b"json"));
    if let Some(content) = content {
        passed = passed.header(header::CONTENT_TYPE, content);
    }
    // A command's output is told in chunks, which have to stay as they are.
    if !is_json {
        return passed
            .body(Body::from_stream(answer.bytes_stream()))
            .unwrap();
    }
    match answer.text().await {
        // A sandbox's own address is to be asked through this server as well.
        Ok(text) => passed
            .body(text.replace(&passing.to, &passing.own).into())
            .unwrap(),
        Err(_) => Response::builder().status(502).body(Body::empty()).unwrap(),
    }
}
