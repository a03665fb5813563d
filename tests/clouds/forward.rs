//! Ports of a sandbox as ports of this machine.

use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Stdio};
use std::thread;

use rustix::process::{Pid, Signal, kill_process};

use crate::common::{Project, free_port};
use crate::projects::{flat, on};
use crate::served::Served;
use crate::sprites::front::{Front, Way};

/// Says back whatever it hears, to many at once; what it says to `bye` is its last word.
const ECHO: &str = r#"import socketserver
class Echo(socketserver.BaseRequestHandler):
    def handle(self):
        while data := self.request.recv(65536):
            self.request.sendall(data)
            if data == b"bye": return
class Server(socketserver.ThreadingTCPServer):
    allow_reuse_address = True
    daemon_threads = True
import sys
Server(("127.0.0.1", int(sys.argv[1])), Echo).serve_forever()
"#;

fn sandboxes(port: u16) -> String {
    let script = serde_json::to_string(ECHO).expect("JSON");
    format!(
        "  web:
    services:
      echo:
        cmd: python3
        args: [-c, {script}, \"{port}\"]
        ports: [{port}]
        health: {{ tcp: {port} }}
      mute: {{ cmd: sleep, args: [\"1000\"] }}
"
    )
}

/// A `gabion forward` that runs, and where it listens.
struct Forward {
    child: Child,
    at: SocketAddr,
}

impl Forward {
    fn start(project: &Project, address: &str, port: u16) -> Self {
        let ports = format!("0:{port}");
        let mut command = project.command(&["forward", address, &ports]);
        let command = command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("gabion runs");
        let mut line = String::new();
        let out = child.stdout.as_mut().expect("its output");
        BufReader::new(out).read_line(&mut line).expect("a line");
        let (at, there) = line.trim_end().split_once(" -> ").expect("two places");
        assert_eq!(there, format!("web:{port}"));
        let at: SocketAddr = at.parse().expect("an address");
        assert!(at.ip().is_loopback());
        Self { child, at }
    }

    fn connect(&self) -> TcpStream {
        TcpStream::connect(self.at).expect("a connection")
    }

    /// What it says of so many connections that failed.
    fn complaints(&mut self, count: usize) -> Vec<String> {
        let errors = self.child.stderr.as_mut().expect("its errors");
        let lines = BufReader::new(errors).lines().take(count);
        lines.map(|line| line.expect("text")).collect()
    }

    /// Ends it as Ctrl-C does, and returns what else it has said.
    fn end(mut self) -> String {
        let pid = Pid::from_child(&self.child);
        kill_process(pid, Signal::INT).expect("it ran until now");
        let ended = self.child.wait().expect("its end");
        assert_eq!(ended.signal(), Some(Signal::INT.as_raw()), "{ended}");
        let mut said = String::new();
        let errors = self.child.stderr.as_mut().expect("its errors");
        errors.read_to_string(&mut said).expect("text");
        said
    }
}

/// Both sides speak at once, more than fits on the way.
fn much_is_said_back(forward: &Forward, seed: u8) {
    let said: Vec<u8> = (0..4_000_000_u32)
        .map(|at| (at % 251) as u8 ^ seed)
        .collect();
    let mut stream = forward.connect();
    let mut speaking = stream.try_clone().expect("another handle");
    let words = said.clone();
    let speaker = thread::spawn(move || speaking.write_all(&words).expect("it listens"));
    let mut heard = vec![0; said.len()];
    stream.read_exact(&mut heard).expect("as much as was said");
    speaker.join().expect("all was said");
    assert!(heard == said);
}

fn carries(project: &Project, port: u16) {
    project.ok(&["apply", "--yes"]);
    let forward = Forward::start(project, "web", port);
    thread::scope(|scope| {
        for seed in 0..3 {
            let forward = &forward;
            scope.spawn(move || much_is_said_back(forward, seed));
        }
    });
    // The other side ends it.
    let mut stream = forward.connect();
    stream.write_all(b"bye").expect("it listens");
    let mut last = String::new();
    stream.read_to_string(&mut last).expect("text");
    assert_eq!(last, "bye");
    // This side ends first, and hears what is said to its last word.
    let mut stream = forward.connect();
    let last = vec![b'x'; 1_000_000];
    stream.write_all(&last).expect("it listens");
    stream.shutdown(Shutdown::Write).expect("the other half");
    let mut heard = vec![0; last.len()];
    stream.read_exact(&mut heard).expect("all of it");
    assert!(heard == last);
    assert_eq!(forward.end(), "");

    // Nobody is there: that is told, and others are carried all the same.
    let nobody = free_port();
    let mut forward = Forward::start(project, "web/echo", nobody);
    for _ in 0..2 {
        let mut stream = forward.connect();
        // An end, or a reset.
        let read = stream.read(&mut [0]);
        assert!(matches!(read, Ok(0) | Err(_)), "{read:?}");
    }
    let of = format!("web:{nobody}: ");
    for said in forward.complaints(2) {
        assert!(said.starts_with(&of) && said.contains("refused"), "{said}");
    }
    assert_eq!(forward.end(), "");

    // Where the machine has IPv6, so do its ports.
    if let Ok(listener) = TcpListener::bind("[::1]:0") {
        let port = listener.local_addr().expect("an address").port();
        let forward = Forward::start(project, "web", port);
        let mut near = forward.connect();
        let (mut far, _) = listener.accept().expect("a connection");
        far.write_all(b"six").expect("it listens");
        drop(far);
        let mut heard = String::new();
        near.read_to_string(&mut heard).expect("text");
        assert_eq!(heard, "six");
        assert_eq!(forward.end(), "");
    }

    let taken = TcpListener::bind("127.0.0.1:0").expect("a port");
    let at = taken.local_addr().expect("an address");
    let run = project.run(&["forward", "web", &format!("{}:{port}", at.port())]);
    assert_eq!(run.code(), Some(1), "{run}");
    let said = flat(&run);
    assert!(
        said.contains(&format!("{at}: Address already in use")),
        "{run}"
    );
    assert!(
        said.contains(&format!("gabion forward web 0:{port}")),
        "{run}"
    );
    let run = project.run(&["forward", "web/mute"]);
    assert_eq!(run.code(), Some(64), "{run}");
    assert!(flat(&run).contains("`web/mute` declares no ports"), "{run}");
}

#[test]
fn on_this_machine() {
    let port = free_port();
    let sandboxes = sandboxes(port);
    let project = Project::new(&format!(
        "version: 1\nstack: ports\nsandboxes:\n{sandboxes}"
    ));
    carries(&project, port);
}

#[test]
fn on_sprites() {
    let served = Served::start();
    let port = free_port();
    carries(&on(&served, "sprites", &sandboxes(port)), port);
}

#[test]
fn a_connection_that_ends_before_it_is_made_is_told() {
    let served = Served::start();
    let project = on(&served, "sprites", "  web: {}\n");
    project.ok(&["apply", "--yes"]);
    let front = Front::of(&served, Way::Socket, &[]);
    project.edit(&served.url, &front.url);
    let mut forward = Forward::start(&project, "web", 80);
    let mut stream = forward.connect();
    let read = stream.read(&mut [0]);
    let kind = read.expect_err("a reset").kind();
    assert_eq!(kind, ErrorKind::ConnectionReset);
    let said = forward.complaints(1).remove(0);
    assert_eq!(said, "web:80: closed before it was connected");
    assert_eq!(forward.end(), "");
}

#[test]
fn where_nothing_is_carried_that_is_said() {
    for kind in ["iris", "pocketenv", "miosa"] {
        let served = Served::start();
        let project = on(&served, kind, "  web: {}\n");
        project.ok(&["apply", "--yes"]);
        let run = project.run(&["forward", "web", "8080"]);
        assert_eq!(run.code(), Some(1), "{run}");
        let says = "cannot carry connections to ports";
        assert!(flat(&run).contains(says), "{run}");
    }
}
