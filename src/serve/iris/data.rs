//! The data plane: what the supervisor of a sandbox serves, for those who show a token that the gateway has
//! made for it (protocol page iris, §2, "Tokens", and §3).

use axum::Json;
use axum::body::Body;
use axum::extract::{Path, Request, State};
use axum::http::{HeaderName, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::json;

use crate::serve::auth;
use crate::serve::engine::Engine;

/// The groups of routes that are a sandbox's; others are about the supervisor itself.
const GROUPS: [&str; 9] = [
    "checkpoint",
    "checkpoints",
    "events",
    "exec",
    "files",
    "openapi.json",
    "processes",
    "services",
    "store",
];

/// What of a request's and an answer's headers is the sandbox's business.
const HEADERS: [HeaderName; 4] = [
    header::ACCEPT,
    header::CACHE_CONTROL,
    header::CONTENT_TYPE,
    HeaderName::from_static("x-file-mode"),
];

fn refusal(status: StatusCode, code: &str, error: &str) -> Response {
    let body = json!({ "ok": false, "error": error, "code": code });
    (status, Json(body)).into_response()
}

pub(super) async fn forward(
    State(engine): State<Engine>,
    Path((id, path)): Path<(String, String)>,
    request: Request,
) -> Response {
    let group = path
        .strip_prefix("v1/")
        .and_then(|rest| rest.split('/').next());
    if group == Some("health") {
        // Whether it serves is told to everybody.
        return match engine.sandbox(&id) {
            Ok(sandbox) if sandbox.is_up() => Json(json!({ "ok": true })).into_response(),
            _ => refusal(
                StatusCode::SERVICE_UNAVAILABLE,
                "unavailable",
                "it does not run",
            ),
        };
    }
    let token = auth::bearer(request.headers());
    let Some(sandbox) = token.and_then(|token| engine.sandbox_of_pass(token)) else {
        let text = "the token is missing, has expired, or is none of a data plane";
        return refusal(StatusCode::UNAUTHORIZED, "unauthorized", text);
    };
    if sandbox.id().as_str() != id {
        let text = "the token is another sandbox's";
        return refusal(StatusCode::FORBIDDEN, "forbidden", text);
    }
    if engine.sandbox(&id).is_err() {
        return refusal(StatusCode::NOT_FOUND, "not_found", "the sandbox is gone");
    }
    if !group.is_some_and(|group| GROUPS.contains(&group)) {
        return refusal(StatusCode::NOT_FOUND, "not_found", "there is no such route");
    }
    let client = match sandbox.client_if_up() {
        Ok(Some(client)) => client,
        Ok(None) => {
            let text = "the sandbox is suspended";
            return refusal(StatusCode::SERVICE_UNAVAILABLE, "unavailable", text);
        }
        Err(error) => {
            return refusal(
                StatusCode::SERVICE_UNAVAILABLE,
                "unavailable",
                &error.message,
            );
        }
    };
    let (parts, body) = request.into_parts();
    // As it was written: a name may hold an encoded slash.
    let target = parts
        .uri
        .path_and_query()
        .map_or("/", |target| target.as_str());
    let target = target
        .split_once(&format!("/{id}/"))
        .map_or("", |(_, target)| target);
    let mut asked = client.request(parts.method, &format!("/{target}"));
    for name in HEADERS {
        if let Some(value) = parts.headers.get(&name) {
            asked = asked.header(name, value);
        }
    }
    let body = reqwest::Body::wrap_stream(body.into_data_stream());
    match asked.body(body).send().await {
        Err(error) => {
            let text = error.without_url().to_string();
            refusal(StatusCode::SERVICE_UNAVAILABLE, "unavailable", &text)
        }
        Ok(answer) => {
            let mut forwarded = Response::new(Body::empty());
            *forwarded.status_mut() = answer.status();
            for name in HEADERS {
                if let Some(value) = answer.headers().get(&name) {
                    forwarded.headers_mut().insert(name, value.clone());
                }
            }
            *forwarded.body_mut() = Body::from_stream(answer.bytes_stream());
            forwarded
        }
    }
}
