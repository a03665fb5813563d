//! One `GET` to loopback, plain or over TLS.

use std::future::pending;

use http_body_util::{BodyExt, Empty};
use hyper::body::{Bytes, Incoming};
use hyper::header::{CONNECTION, HOST, HeaderName, HeaderValue, USER_AGENT};
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};

use super::miss::{Answers, Miss, closed, no_http_answer, question};
use super::tls;
use crate::model::{HttpProbe, Scheme};
use crate::supervisor::port;

/// How much of a body is searched.
const SEARCHED: usize = 1 << 20;
/// How much of the body of a bad answer is read.
const READ: usize = 4 << 10;

pub(super) async fn attempt(probe: &HttpProbe, answers: Answers<'_>) -> Result<(), Miss> {
    let Ok(stream) = port::connect(probe.port).await else {
        return Err(closed(probe.port));
    };
    match probe.scheme {
        Scheme::Http => ask(stream, probe, answers).await,
        Scheme::Https => match tls::connect(stream, probe.host.as_deref()).await {
            Ok(stream) => ask(stream, probe, answers).await,
            Err(error) => Err(no_http_answer(probe).with(Some(error))),
        },
    }
}

async fn ask(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    probe: &HttpProbe,
    answers: Answers<'_>,
) -> Result<(), Miss> {
    let unanswered = |_| no_http_answer(probe);
    let request = request(probe).map_err(|error| Miss::plain(error.to_string()))?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
        .await
        .map_err(unanswered)?;
    let exchange = async {
        let answer = sender.send_request(request).await.map_err(unanswered)?;
        judge(answer, probe, answers).await
    };
    // Its end is told to the exchange.
    let connection = async {
        let _ = connection.await;
        pending().await
    };
    tokio::select! {
        verdict = exchange => verdict,
        never = connection => never,
    }
}

fn request(probe: &HttpProbe) -> Result<Request<Empty<Bytes>>, hyper::http::Error> {
    let mut request = Request::get(target(&probe.path)).body(Empty::new())?;
    let headers = request.headers_mut();
    headers.insert(USER_AGENT, HeaderValue::from_static("gabion"));
    let host = match &probe.host {
        Some(host) => HeaderValue::from_str(host)?,
        None => HeaderValue::from_str(&format!("localhost:{}", probe.port))?,
    };
    headers.insert(HOST, host);
    for (name, value) in &probe.headers {
        let name = HeaderName::from_bytes(name.as_bytes())?;
        headers.insert(name, HeaderValue::from_str(value)?);
    }
    headers.insert(CONNECTION, HeaderValue::from_static("close"));
    Ok(request)
}

/// A path as it goes over the wire: without a fragment, other characters than those of a URL escaped.
fn target(path: &str) -> String {
    let mut target = String::new();
    for byte in path.split('#').next().unwrap_or_default().bytes() {
        match byte {
            b'"' | b'<' | b'>' | b'\\' | b'^' | b'`' | b'{' | b'|' | b'}' | ..=b' ' | 0x7f.. => {
                target.push_str(&format!("%{byte:02X}"));
            }
            _ => target.push(char::from(byte)),
        }
    }
    target
}

async fn judge(
    answer: Response<Incoming>,
    probe: &HttpProbe,
    answers: Answers<'_>,
) -> Result<(), Miss> {
    let status = answer.status().as_u16();
    let question = question(probe);
    let body = answer.into_body();
    if !probe.accepts(status) {
        let (start, _) = read(body, READ, None).await;
        let said = answers.clean(&String::from_utf8_lossy(&start));
        let miss = Miss::new(
            format!("{question} answered {status}"),
            format!("{question} still answered {status}"),
        );
        return Err(miss.with(said));
    }
    let Some(wanted) = &probe.body else {
        return Ok(());
    };
    match read(body, SEARCHED, Some(wanted.as_bytes())).await {
        (_, true) => Ok(()),
        (start, false) => {
            let text = format!("{question} answered {status} without `{wanted}`");
            let start = &start[..start.len().min(READ)];
            Err(Miss::plain(text).with(answers.clean(&String::from_utf8_lossy(start))))
        }
    }
}

/// Reads a body up to its end, up to `most` bytes, or until `wanted` is in it.
async fn read(mut body: Incoming, most: usize, wanted: Option<&[u8]>) -> (Vec<u8>, bool) {
    let mut whole: Vec<u8> = Vec::new();
    while whole.len() < most {
        // What breaks off is judged by what has come.
        let Some(Ok(frame)) = body.frame().await else {
            break;
        };
        let Ok(data) = frame.into_data() else {
            continue;
        };
        let before = whole.len();
        whole.extend_from_slice(&data[..data.len().min(most - before)]);
        if let Some(wanted) = wanted {
            let from = before.saturating_sub(wanted.len());
            let mut places = whole[from..].windows(wanted.len().max(1));
            if wanted.is_empty() || places.any(|place| place == wanted) {
                return (whole, true);
            }
        }
    }
    (whole, false)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_target_is_a_path_and_nothing_else() {
        for (path, expected) in [
            ("/healthz?full=1", "/healthz?full=1"),
            ("/a b\u{e9}#top", "/a%20b%C3%A9"),
            ("/@example.org/", "/@example.org/"),
        ] {
            assert_eq!(target(path), expected);
            assert!(request(&HttpProbe::new(80, path)).is_ok());
        }
    }
}
