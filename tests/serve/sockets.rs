//! WebSockets: commands and ports (protocol page sprites, §5 and §6).

use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::{WebSocketStream, client_async};

use crate::rig::{ALICE, Rig, in_time};

const EXEC: &str = "/v1/sprites/box/exec";

struct Socket(WebSocketStream<TcpStream>);

impl Socket {
    async fn open(rig: &Rig, path: &str) -> Self {
        let host = rig.url.strip_prefix("http://").unwrap();
        let mut request = format!("ws://{host}{path}").into_client_request().unwrap();
        let token = format!("Bearer {ALICE}").parse().unwrap();
        request.headers_mut().insert("authorization", token);
        let stream = TcpStream::connect(host).await.unwrap();
        Self(in_time(client_async(request, stream)).await.unwrap().0)
    }

    async fn exec(rig: &Rig, line: &str, more: &str) -> Self {
        let line: String = line.bytes().map(|byte| format!("%{byte:02x}")).collect();
        Self::open(
            rig,
            &format!("{EXEC}?cmd=sh&cmd=-c&cmd={line}&path=sh{more}"),
        )
        .await
    }

    async fn next(&mut self) -> Message {
        in_time(self.0.next()).await.unwrap().unwrap()
    }

    async fn text(&mut self) -> Value {
        serde_json::from_str(self.next().await.to_text().unwrap()).unwrap()
    }

    async fn send(&mut self, message: impl Into<Message>) {
        in_time(self.0.send(message.into())).await.unwrap();
    }

    /// Everything of one stream until the exit frame: what was said, and the code.
    async fn rest(&mut self) -> (Vec<u8>, Vec<u8>, u8) {
        let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
        loop {
            let frame = self.next().await.into_data();
            match frame[0] {
                1 => stdout.extend_from_slice(&frame[1..]),
                2 => stderr.extend_from_slice(&frame[1..]),
                3 => return (stdout, stderr, frame[1]),
                other => panic!("a frame of kind {other}"),
            }
        }
    }

    /// What a terminal shows until it shows `end`.
    async fn shows(&mut self, end: &str) {
        let mut shown = String::new();
        while !shown.contains(end) {
            shown.push_str(&String::from_utf8_lossy(&self.next().await.into_data()));
        }
    }
}

async fn boxed() -> Rig {
    let rig = Rig::new().await;
    rig.sprite("box").await;
    rig
}

#[tokio::test]
async fn a_command_reads_writes_and_ends() {
    let rig = boxed().await;
    let mut socket = Socket::exec(&rig, "cat; echo oops >&2; exit 3", "&stdin=true").await;
    let info = socket.text().await;
    assert_eq!(
        (&info["type"], &info["tty"]),
        (&json!("session_info"), &json!(false))
    );
    socket.send(b"\x00one ".to_vec()).await;
    socket.send(b"\x00two".to_vec()).await;
    socket.send(vec![4]).await;
    assert_eq!(
        socket.rest().await,
        (b"one two".to_vec(), b"oops\n".to_vec(), 3)
    );
    let Message::Close(Some(close)) = socket.next().await else {
        panic!("not closed");
    };
    assert_ne!(close.code, CloseCode::Normal);
}

#[tokio::test]
async fn a_slow_reader_misses_nothing() {
    let rig = boxed().await;
    let line = "head -c 5000000 /dev/zero; echo end";
    let mut socket = Socket::exec(&rig, line, "").await;
    socket.text().await;
    // Until the command cannot go on: then it has not ended.
    let sessions = async || rig.get(EXEC).await["sessions"].as_array().unwrap().len();
    for _ in 0..100 {
        assert_eq!(sessions().await, 1);
    }
    let (stdout, _, code) = socket.rest().await;
    assert_eq!((stdout.len(), code), (5_000_004, 0));
    assert!(stdout.ends_with(b"\0end\n"));
}

#[tokio::test]
async fn signals_reach_a_command() {
    let rig = boxed().await;
    let line = "trap 'echo caught; exit 7' USR1; echo ready; while :; do sleep 0.01; done";
    let mut socket = Socket::exec(&rig, line, "").await;
    socket.text().await;
    assert_eq!(socket.next().await.into_data().as_ref(), b"\x01ready\n");
    socket
        .send(json!({ "type": "signal", "signal": "USR1" }).to_string())
        .await;
    let (stdout, _, code) = socket.rest().await;
    assert_eq!((stdout.as_slice(), code), (b"caught\n".as_slice(), 7));
}

#[tokio::test]
async fn a_terminal_has_a_size_and_gets_another() {
    let rig = boxed().await;
    let line =
        "stty size; trap 'stty size; exit 0' WINCH; echo ready; while :; do sleep 0.01; done";
    let mut socket = Socket::exec(&rig, line, "&tty=true&rows=30&cols=100").await;
    assert_eq!(socket.text().await["tty"], true);
    socket.shows("30 100\r\nready\r\n").await;
    socket
        .send(json!({ "type": "resize", "rows": 40, "cols": 120 }).to_string())
        .await;
    socket.shows("40 120\r\n").await;
    assert_eq!(
        socket.text().await,
        json!({ "type": "exit", "exit_code": 0 })
    );
    let Message::Close(Some(close)) = socket.next().await else {
        panic!("not closed");
    };
    assert_eq!(close.code, CloseCode::Normal);
}

#[tokio::test]
async fn a_command_ends_with_its_client_unless_it_is_detachable() {
    let rig = boxed().await;
    let count = async || rig.get(EXEC).await["sessions"].as_array().unwrap().len();
    let mut socket = Socket::exec(&rig, "exec sleep 1000", "").await;
    socket.text().await;
    assert_eq!(count().await, 1);
    drop(socket);
    in_time(async { while count().await != 0 {} }).await;

    let line = "echo begun; read line; echo got $line; exec sleep 1000";
    let mut left = Socket::exec(&rig, line, "&tty=true&detachable=true").await;
    let id = left.text().await["session_id"].as_str().unwrap().to_owned();
    left.shows("begun").await;
    drop(left);
    // What it said before is told once more.
    let mut joined = Socket::open(&rig, &format!("{EXEC}/{id}?stdin=true")).await;
    assert_eq!(joined.text().await["session_id"], id.as_str());
    joined.shows("begun").await;
    joined.send(b"hello\n".to_vec()).await;
    joined.shows("got hello").await;
    drop(joined);
    assert_eq!(count().await, 1);
    let kill = format!("{EXEC}/{id}/kill?signal=KILL");
    rig.events("POST", &kill, json!({})).await;
    assert_eq!(count().await, 0);
}

#[tokio::test]
async fn a_command_may_go_on_for_a_while_without_its_client() {
    let rig = boxed().await;
    let more = "&max_run_after_disconnect=100ms";
    let mut socket = Socket::exec(&rig, "exec sleep 1000", more).await;
    socket.text().await;
    let begun = std::time::Instant::now();
    drop(socket);
    in_time(async {
        while rig.get(EXEC).await["sessions"] != json!([]) {
            tokio::task::yield_now().await;
        }
    })
    .await;
    assert!(begun.elapsed() >= Duration::from_millis(100));
}

#[tokio::test]
async fn a_port_is_reached_through_a_socket() {
    let rig = boxed().await;
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let (mut read, mut write) = stream.split();
        tokio::io::copy(&mut read, &mut write).await.unwrap();
    });
    let mut socket = Socket::open(&rig, "/v1/sprites/box/proxy").await;
    socket
        .send(json!({ "host": "localhost", "port": port }).to_string())
        .await;
    assert_eq!(socket.text().await, json!({ "status": "connected" }));
    socket.send(b"echo".to_vec()).await;
    assert_eq!(socket.next().await.into_data().as_ref(), b"echo");
    let mut other = Socket::open(&rig, "/v1/sprites/box/proxy").await;
    other
        .send(json!({ "host": "example.org", "port": 80 }).to_string())
        .await;
    assert_eq!(other.text().await["status"], "error");
}
