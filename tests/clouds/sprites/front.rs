//! A server in front of another one: commands and connections to ports go as a script says, everything else is passed
//! on.

use std::io::{Read, Write, copy};
use std::net::{Shutdown, TcpListener, TcpStream};

use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Role};
use tokio_tungstenite::tungstenite::{Message, WebSocket};

use crate::served::Served;

/// How commands are run.
#[derive(Clone, Copy)]
pub enum Way {
    /// Over a WebSocket.
    Socket,
    /// Over HTTP: who asks for a WebSocket is told what runs.
    List,
    /// Over HTTP: who asks for a WebSocket is refused.
    Refuse(u16),
}

pub struct Front {
    pub url: String,
}

impl Front {
    /// Every command says these frames.
    pub fn of(served: &Served, way: Way, frames: &[Vec<u8>]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let behind = served.url.strip_prefix("http://").unwrap().to_owned();
        let frames = frames.to_vec();
        // Ends with the program.
        std::thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                let (behind, frames) = (behind.clone(), frames.clone());
                std::thread::spawn(move || serve(client, &behind, way, &frames));
            }
        });
        Self { url }
    }
}

/// One request; whoever has another one connects again.
fn serve(mut client: TcpStream, behind: &str, way: Way, frames: &[Vec<u8>]) {
    let messages: Vec<_> = frames.iter().cloned().map(Message::binary).collect();
    let head = head(&mut client);
    let Some((first, rest)) = head.split_once("\r\n") else {
        return;
    };
    let is_port = first.contains("/proxy ");
    match first.contains("/exec?") || is_port {
        false => pass_on(
            client,
            behind,
            &format!("{first}\r\nconnection: close\r\n{rest}"),
        ),
        true if is_port => say_messages(client, &head, &messages),
        true if first.starts_with("POST") => say_chunks(client, &head, frames),
        true => match way {
            Way::Socket => {
                let hello = Message::text(r#"{"type":"session_info"}"#);
                say_messages(client, &head, &[&[hello], &messages[..]].concat());
            }
            Way::List => answer(client, "200 OK", r#"{"sessions":[]}"#),
            Way::Refuse(status) => answer(client, &format!("{status} No"), "{}"),
        },
    }
}

fn head(client: &mut TcpStream) -> String {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") && matches!(client.read(&mut byte), Ok(1)) {
        head.push(byte[0]);
    }
    String::from_utf8(head).unwrap()
}

fn field<'h>(head: &'h str, name: &str) -> Option<&'h str> {
    let mut fields = head.lines().filter_map(|line| line.split_once(": "));
    fields.find_map(|(key, value)| key.eq_ignore_ascii_case(name).then_some(value))
}

fn pass_on(mut client: TcpStream, behind: &str, head: &str) {
    let mut server = TcpStream::connect(behind).unwrap();
    server.write_all(head.as_bytes()).unwrap();
    let (mut from, mut to) = (client.try_clone().unwrap(), server.try_clone().unwrap());
    let up = std::thread::spawn(move || copy(&mut from, &mut to));
    let _ = copy(&mut server, &mut client);
    let _ = client.shutdown(Shutdown::Both);
    let _ = up.join();
}

fn answer(mut client: TcpStream, status: &str, body: &str) {
    let length = body.len();
    let head = format!("HTTP/1.1 {status}\r\ncontent-length: {length}\r\nconnection: close\r\n");
    let _ = client.write_all(format!("{head}\r\n{body}").as_bytes());
}

/// Each frame is a chunk.
fn say_chunks(mut client: TcpStream, head: &str, frames: &[Vec<u8>]) {
    let length = field(head, "content-length").map_or(0, |it| it.parse().unwrap());
    client.read_exact(&mut vec![0; length]).unwrap();
    let head = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\nconnection: close\r\n\r\n";
    client.write_all(head.as_bytes()).unwrap();
    for frame in frames.iter().map(Vec::as_slice).chain([&[][..]]) {
        let size = format!("{:x}\r\n", frame.len());
        let _ = client.write_all(&[size.as_bytes(), frame, b"\r\n"].concat());
    }
}

fn say_messages(mut client: TcpStream, head: &str, messages: &[Message]) {
    let key = field(head, "sec-websocket-key").unwrap();
    let accepted = derive_accept_key(key.as_bytes());
    let head = format!(
        "HTTP/1.1 101 Switching Protocols\r\nconnection: Upgrade\r\nupgrade: websocket\r\n\
         sec-websocket-accept: {accepted}\r\n\r\n"
    );
    client.write_all(head.as_bytes()).unwrap();
    let mut socket = WebSocket::from_raw_socket(client, Role::Server, None);
    for message in messages {
        let _ = socket.send(message.clone());
    }
    let _ = socket.close(Some(CloseFrame {
        code: CloseCode::Normal,
        reason: "".into(),
    }));
    while socket.read().is_ok() {}
}
