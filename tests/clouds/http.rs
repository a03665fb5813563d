//! The shared HTTP layer, against real sockets: what is repeated, what is not, and what errors say.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use gabion::model::Secrets;
use gabion::platforms::cloud::http::{
    Backoff, BaseUrl, Client, Connections, Endpoint, HttpError, Outcome, Retry,
};
use secrecy::SecretString;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// What a server does with one request.
#[derive(Clone)]
enum Reply {
    /// Writes these bytes, and goes on with the connection.
    Bytes(Vec<u8>),
    /// Writes these bytes, and hangs up.
    Last(Vec<u8>),
    /// Answers nothing and keeps the connection.
    Silence,
}

fn answer(status: &str, headers: &str, body: &str) -> Reply {
    let length = body.len();
    let head = format!("HTTP/1.1 {status}\r\ncontent-length: {length}\r\n{headers}\r\n");
    Reply::Bytes([head.as_bytes(), body.as_bytes()].concat())
}

fn ok() -> Reply {
    answer("200 OK", "", "{\"fine\":true}")
}

fn hang_up() -> Reply {
    Reply::Last(Vec::new())
}

/// A server that plays a script, and keeps what it was sent.
struct Server {
    url: String,
    seen: Arc<Mutex<Vec<String>>>,
    connections: Arc<Mutex<usize>>,
}

impl Server {
    /// The last reply is given for ever.
    async fn playing(replies: Vec<Reply>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let replies = Arc::new(Mutex::new(VecDeque::from(replies)));
        let seen = Arc::new(Mutex::new(Vec::new()));
        let connections = Arc::new(Mutex::new(0));
        let (sights, count) = (seen.clone(), connections.clone());
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                *count.lock().unwrap() += 1;
                tokio::spawn(serve(stream, replies.clone(), sights.clone()));
            }
        });
        Self {
            url,
            seen,
            connections,
        }
    }

    fn seen(&self) -> Vec<String> {
        self.seen.lock().unwrap().clone()
    }

    fn client(&self) -> Client {
        self.client_with(|_| {})
    }

    fn client_with(&self, change: impl FnOnce(&mut Endpoint)) -> Client {
        let mut secrets = Secrets::default();
        secrets.insert("db", SecretString::from("hunter2hunter2"));
        client(&self.url, secrets, change)
    }
}

fn client(url: &str, secrets: Secrets, change: impl FnOnce(&mut Endpoint)) -> Client {
    let url = BaseUrl::parse(url).unwrap();
    let mut endpoint = Endpoint::new(url, Some(SecretString::from("s3cret-token")));
    endpoint.backoff = Backoff {
        first: Duration::from_millis(1),
        ..Backoff::default()
    };
    change(&mut endpoint);
    Client::new(&Connections::default(), endpoint, secrets).unwrap()
}

async fn serve(
    mut stream: TcpStream,
    replies: Arc<Mutex<VecDeque<Reply>>>,
    seen: Arc<Mutex<Vec<String>>>,
) {
    while let Some(request) = read_request(&mut stream).await {
        seen.lock().unwrap().push(request);
        let reply = {
            let mut replies = replies.lock().unwrap();
            match replies.len() {
                1 => replies[0].clone(),
                _ => replies.pop_front().unwrap(),
            }
        };
        match reply {
            Reply::Bytes(bytes) => stream.write_all(&bytes).await.unwrap(),
            Reply::Last(bytes) => {
                stream.write_all(&bytes).await.unwrap();
                return;
            }
            Reply::Silence => std::future::pending().await,
        }
    }
}

async fn read_request(stream: &mut TcpStream) -> Option<String> {
    let mut bytes = Vec::new();
    loop {
        let text = String::from_utf8_lossy(&bytes).into_owned();
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let length = head.lines().find_map(|line| {
                let (name, value) = line.split_once(':')?;
                name.eq_ignore_ascii_case("content-length")
                    .then(|| value.trim().parse().unwrap())
            });
            if body.len() >= length.unwrap_or(0usize) {
                return Some(text);
            }
        }
        match stream.read_buf(&mut bytes).await {
            Ok(0) | Err(_) => return None,
            Ok(_) => {}
        }
    }
}

async fn get(client: &Client) -> Result<Value, HttpError> {
    client.get(&["v1", "things"]).fetch().await
}

#[tokio::test]
async fn a_request_is_as_it_was_built_and_connections_are_kept() {
    let server = Server::playing(vec![ok()]).await;
    let client = server.client();
    let sent = client
        .put(&["v1", "a/b", "c d"])
        .query("duration", "1s")
        .query("x", "ä&b")
        .json(&json!({"a": 1}))
        .send()
        .await
        .unwrap();
    assert_eq!(sent.status, 200);
    for _ in 0..5 {
        get(&client).await.unwrap();
    }
    let seen = server.seen();
    let first = &seen[0];
    assert!(first.starts_with("PUT /v1/a%2Fb/c%20d?duration=1s&x=%C3%A4%26b HTTP/1.1\r\n"));
    assert!(first.contains("authorization: Bearer s3cret-token\r\n"));
    assert!(first.contains("content-type: application/json\r\n"));
    assert!(first.ends_with("\r\n\r\n{\"a\":1}"));
    assert_eq!(*server.connections.lock().unwrap(), 1);
}

#[tokio::test]
async fn what_may_be_repeated_is_repeated_three_times_in_all() {
    for passing in [
        answer("503 Service Unavailable", "", ""),
        answer("502 Bad Gateway", "", "<html>"),
        answer("504 Gateway Timeout", "", "{}"),
        answer("200 OK", "", "{\"cut\":"),
        Reply::Last(b"HTTP/1.1 200 OK\r\ncontent-length: 99\r\n\r\n{".to_vec()),
        hang_up(),
    ] {
        let server = Server::playing(vec![passing.clone(), passing.clone(), ok()]).await;
        assert_eq!(get(&server.client()).await.unwrap()["fine"], true);
        assert_eq!(server.seen().len(), 3);

        let server = Server::playing(vec![passing]).await;
        let error = get(&server.client()).await.unwrap_err();
        assert_eq!(error.tries, 3, "{error}");
        assert_eq!(error.outcome, Outcome::Unknown);
        assert_eq!(server.seen().len(), 3);
    }
}

#[tokio::test]
async fn what_may_have_been_done_is_not_repeated_unless_that_is_safe() {
    for reply in [
        answer("503 Service Unavailable", "", ""),
        answer("500 Internal Server Error", "", ""),
        hang_up(),
    ] {
        let server = Server::playing(vec![reply]).await;
        let client = server.client();
        let error = client.post(&["v1", "things"]).send().await.unwrap_err();
        assert!(error.may_be_done(), "{error}");
        assert_eq!(server.seen().len(), 1);
    }
    let server = Server::playing(vec![hang_up(), ok()]).await;
    let client = server.client();
    let keyed = client.post(&["v1", "things"]).idempotency_key("k-1");
    keyed.send().await.unwrap();
    let seen = server.seen();
    assert_eq!(seen.len(), 2);
    assert!(
        seen.iter()
            .all(|it| it.contains("idempotency-key: k-1\r\n"))
    );
}

#[tokio::test]
async fn what_was_certainly_not_done_says_so() {
    for status in [
        "400 Bad Request",
        "404 Not Found",
        "409 Conflict",
        "301 Moved",
    ] {
        let server = Server::playing(vec![answer(status, "location: http://x\r\n", "")]).await;
        let error = get(&server.client()).await.unwrap_err();
        assert_eq!(error.outcome, Outcome::NotDone, "{error}");
        assert_eq!(server.seen().len(), 1);
    }
    // Nobody listens there: the port was given back.
    let free = TcpListener::bind("127.0.0.1:0")
        .await
        .unwrap()
        .local_addr()
        .unwrap();
    let client = client(&format!("http://{free}"), Secrets::default(), |_| {});
    let error = client.post(&["v1"]).send().await.unwrap_err();
    assert_eq!(error.outcome, Outcome::NotDone, "{error}");
    assert_eq!((error.status, error.tries), (None, 3));
}

#[tokio::test]
async fn a_lost_reply_is_not_forgotten_when_a_later_try_was_certainly_not_done() {
    let refused = answer("404 Not Found", "", "");
    let server = Server::playing(vec![hang_up(), refused]).await;
    let error = server
        .client()
        .delete(&["v1", "x"])
        .send()
        .await
        .unwrap_err();
    assert!(error.is_not_found() && error.may_be_done(), "{error:?}");
}

#[tokio::test]
async fn a_429_is_waited_out_by_all_who_share_the_account() {
    let slow = answer("429 Too Many Requests", "retry-after: 1\r\n", "{}");
    let server = Server::playing(vec![slow.clone(), ok()]).await;
    let client = server.client();
    let began = Instant::now();
    client.post(&["v1"]).send().await.unwrap();
    assert!(began.elapsed() >= Duration::from_secs(1));
    assert_eq!(server.seen().len(), 2);

    let long = answer("429 Too Many Requests", "retry-after: 3600\r\n", "{}");
    let server = Server::playing(vec![long]).await;
    let error = get(&server.client()).await.unwrap_err();
    assert_eq!(error.retry_after, Some(Duration::from_secs(3600)));
    assert_eq!(error.outcome, Outcome::NotDone);
    assert_eq!(server.seen().len(), 1);

    let server = Server::playing(vec![slow, ok()]).await;
    let never = server
        .client()
        .post(&["v1"])
        .retry(Retry::Never)
        .send()
        .await;
    assert_eq!(never.unwrap_err().status, Some(429));
}

#[tokio::test]
async fn a_web_socket_is_asked_for_once_and_may_be_missing() {
    let idle = Duration::from_secs(60);
    let missing = [
        ok(),
        answer("404 Not Found", "", ""),
        answer("405 Method Not Allowed", "", ""),
        answer("426 Upgrade Required", "", ""),
    ];
    for reply in missing {
        let server = Server::playing(vec![reply]).await;
        let client = server.client();
        let socket = client.get(&["v1", "exec"]).socket(idle).await;
        assert!(socket.unwrap().is_none());
        let seen = server.seen();
        assert!(
            seen.len() == 1 && seen[0].contains("upgrade: websocket\r\n"),
            "{seen:?}"
        );
    }
    // Any of these may have begun what was asked for.
    let other = "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: x\r\n\r\n";
    for reply in [
        answer("503 Service Unavailable", "", ""),
        Reply::Bytes(other.as_bytes().to_vec()),
        hang_up(),
    ] {
        let server = Server::playing(vec![reply]).await;
        let client = server.client();
        let socket = client.get(&["v1", "exec"]).socket(idle).await;
        assert!(socket.err().unwrap().may_be_done());
        assert_eq!(server.seen().len(), 1);
    }
}

#[tokio::test]
async fn silence_ends_a_try() {
    let server = Server::playing(vec![Reply::Silence]).await;
    let client = server.client_with(|it| it.timeout = Duration::from_millis(30));
    let error = client.post(&["v1"]).send().await.unwrap_err();
    assert!(error.may_be_done());
    assert_eq!(error.to_string(), "POST /v1: no answer after 30 ms");
}

#[tokio::test]
async fn errors_name_the_request_and_show_neither_query_nor_token_nor_secret() {
    let body = json!({
        "error": "bad_env",
        "message": "PW=hunter2hunter2 with s3cret-token\nis bad",
    });
    let reply = answer(
        "400 Bad Request",
        "fly-request-id: 01ABC\r\n",
        &body.to_string(),
    );
    let server = Server::playing(vec![reply]).await;
    let client = server.client();
    let request = client.put(&["v1", "x"]).query("env", "PW=hunter2hunter2");
    let error = request.send().await.unwrap_err();
    assert_eq!(
        error.to_string(),
        "PUT /v1/x: 400 bad_env: PW=${secret.db} with ${secret.token} is bad (request 01ABC)"
    );
    assert!(error.has_code("BAD_ENV"));
    let all = format!("{error:?} {client:?}");
    assert!(!all.contains("hunter2") && !all.contains("s3cret"), "{all}");
}

#[tokio::test]
async fn a_secret_is_concealed_before_a_long_text_is_cut() {
    let repeated = |before: usize| format!("{} hunter2hunter2 and so on", "x".repeat(before));
    for before in 285..302 {
        for body in [
            repeated(before),
            json!({ "message": repeated(before) }).to_string(),
            json!({ "error": { "code": repeated(before) } }).to_string(),
        ] {
            let reply = answer("400 Bad Request", "", &body);
            let server = Server::playing(vec![reply]).await;
            let error = get(&server.client()).await.unwrap_err().to_string();
            assert!(!error.contains("hun"), "{before}: {error}");
        }
    }
}

#[tokio::test]
async fn another_token_is_used_from_the_next_request_on() {
    let server = Server::playing(vec![ok()]).await;
    let client = server.client();
    get(&client).await.unwrap();
    client.set_token(SecretString::from("second"));
    get(&client.clone()).await.unwrap();
    assert!(server.seen()[1].contains("authorization: Bearer second\r\n"));
}

fn chunks(chunks: &[&str]) -> Vec<u8> {
    let mut bytes = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n".to_vec();
    for chunk in chunks {
        bytes.extend(format!("{:x}\r\n{chunk}\r\n", chunk.len()).bytes());
    }
    bytes
}

#[tokio::test]
async fn lines_are_whole_however_they_are_sent() {
    let mut bytes = chunks(&["{\"a\"", ":1}\n\n{\"b\":2}\r\n{\"c", "\":3}"]);
    bytes.extend(b"0\r\n\r\n");
    let server = Server::playing(vec![Reply::Bytes(bytes)]).await;
    let client = server.client();
    let mut lines = client
        .get(&["v1"])
        .lines(Duration::from_secs(60))
        .await
        .unwrap();
    let mut read = Vec::new();
    while let Some(line) = lines.next().await.unwrap() {
        read.push(line);
    }
    assert_eq!(read, ["{\"a\":1}", "", "{\"b\":2}", "{\"c\":3}"]);
}

#[tokio::test]
async fn a_stream_that_breaks_off_or_falls_silent_is_an_error_that_says_so() {
    let cut = Reply::Last(chunks(&["one\ntw"]));
    let server = Server::playing(vec![cut]).await;
    let client = server.client();
    let lines = client.get(&["v1"]).lines(Duration::from_secs(60));
    let mut lines = lines.await.unwrap();
    assert_eq!(lines.next().await.unwrap().as_deref(), Some("one"));
    let error = lines.next().await.unwrap_err();
    assert!(error.message.starts_with("the answer broke off"), "{error}");
    assert!(error.may_be_done());

    let server = Server::playing(vec![Reply::Bytes(chunks(&["one\n"]))]).await;
    let client = server.client();
    let mut lines = client
        .get(&["v1"])
        .lines(Duration::from_millis(30))
        .await
        .unwrap();
    lines.next().await.unwrap();
    let error = lines.next().await.unwrap_err();
    assert_eq!(error.message, "no more of the answer for 30 ms");
}

#[tokio::test]
async fn events_are_read_as_the_standard_says() {
    let text = ": hello\n\nevent: log\ndata: a\ndata: b\n\ndata:c\nid: 7\n\nretry: 1\n\n";
    let mut bytes = chunks(&[text]);
    bytes.extend(b"0\r\n\r\n");
    let server = Server::playing(vec![Reply::Bytes(bytes)]).await;
    let client = server.client();
    let lines = client.get(&["v1"]).lines(Duration::from_secs(60));
    let mut lines = lines.await.unwrap();
    let mut read = Vec::new();
    while let Some(event) = lines.next_event().await.unwrap() {
        read.push((event.name, event.data));
    }
    let expected = [("log", "a\nb"), ("", "c")];
    assert_eq!(read, expected.map(|(a, b)| (a.to_owned(), b.to_owned())));
}

#[tokio::test]
async fn a_unix_socket_is_a_place_too() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("x.sock");
    let listener = tokio::net::UnixListener::bind(&path).unwrap();
    let served = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut request = vec![0; 1024];
        let read = stream.read(&mut request).await.unwrap();
        let reply = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}";
        stream.write_all(reply).await.unwrap();
        String::from_utf8_lossy(&request[..read]).into_owned()
    });
    let url = format!("unix://{}", path.display());
    let client = client(&url, Secrets::default(), |_| {});
    let _: Value = client.get(&["v1", "health"]).fetch().await.unwrap();
    assert!(
        served
            .await
            .unwrap()
            .starts_with("GET /v1/health HTTP/1.1\r\n")
    );
}
