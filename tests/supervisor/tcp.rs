//! The API over TCP: who is let in, and where it listens.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use rustix::process::Signal;
use serde_json::Value;

use crate::rig::*;

pub const TOKEN: &str = "0123456789abcdef-of-the-test";

/// A supervisor that listens on TCP.
pub struct Served {
    child: Child,
    url: String,
    _dir: tempfile::TempDir,
}

impl Served {
    pub async fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        make_sandbox(dir.path());
        let token = dir.path().join("token");
        std::fs::write(&token, format!("{TOKEN}\n")).unwrap();
        let mode = std::fs::Permissions::from_mode(0o600);
        std::fs::set_permissions(&token, mode).unwrap();
        let mut child = Command::new(EXE)
            .arg("supervise")
            .arg(dir.path())
            .args(["--listen", "127.0.0.1:0", "--token-file"])
            .arg(&token)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut line = String::new();
        let mut stdout = BufReader::new(child.stdout.take().unwrap());
        stdout.read_line(&mut line).unwrap();
        let url = line.strip_prefix("ready ").unwrap().trim().to_owned();
        Self {
            child,
            url,
            _dir: dir,
        }
    }

    async fn get(&self, path: &str, token: Option<&str>) -> (u16, Value) {
        let mut request = http().build().unwrap().get(format!("{}{path}", self.url));
        if let Some(token) = token {
            request = request.bearer_auth(token);
        }
        let answer = request.send().await.unwrap();
        (answer.status().as_u16(), answer.json().await.unwrap())
    }

    pub async fn status(&self, path: &str, token: Option<&str>) -> u16 {
        self.get(path, token).await.0
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        kill(self.child.id(), Signal::TERM);
        let _ = self.child.wait();
    }
}

/// A stand-in for a supervisor in `dir` that answers every request with `body`.
pub async fn answering(dir: &Path, body: String) -> tokio::task::JoinHandle<()> {
    let listener = std::os::unix::net::UnixListener::bind(dir.join("supervisor.sock")).unwrap();
    tokio::task::spawn_blocking(move || {
        // The first connection only asks whether anybody is there.
        for stream in listener.incoming().take(2) {
            let mut stream = stream.unwrap();
            let mut reader = BufReader::new(stream.try_clone().unwrap());
            let mut line = String::new();
            while reader.read_line(&mut line).unwrap() > 0 && line != "\r\n" {
                line.clear();
            }
            let length = body.len();
            let head = format!(
                "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n"
            );
            let _ = stream.write_all((head + &body).as_bytes());
        }
    })
}

#[tokio::test]
async fn only_the_token_lets_in_and_health_tells_little_without_it() {
    let served = Served::new().await;
    for path in [
        "/v1/services",
        "/v1/openapi.json",
        "/v1/files?path=/etc/passwd",
        "/nowhere",
    ] {
        let (status, answer) = served.get(path, None).await;
        assert_eq!(
            (status, &answer["code"]),
            (401, &"unauthorized".into()),
            "{path}"
        );
        assert_eq!(served.status(path, Some(&TOKEN[1..])).await, 401, "{path}");
    }
    assert_eq!(
        served.get("/v1/health", None).await,
        (200, serde_json::json!({ "ok": true }))
    );
    let (_, health) = served.get("/v1/health", Some(TOKEN)).await;
    assert_eq!(health["keeper_pid"], served.child.id());
    assert_eq!(served.status("/nowhere", Some(TOKEN)).await, 404);
}

#[test]
fn what_is_not_safe_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    make_sandbox(dir.path());
    let open = dir.path().join("open");
    std::fs::write(&open, TOKEN).unwrap();
    let mode = std::fs::Permissions::from_mode(0o644);
    std::fs::set_permissions(&open, mode).unwrap();
    let supervise = |arguments: &[&str], token: Option<&str>| {
        let mut command = Command::new(EXE);
        command.env_remove("GABION_SUPERVISOR_TOKEN");
        if let Some(token) = token {
            command.env("GABION_SUPERVISOR_TOKEN", token);
        }
        let output = command
            .arg("supervise")
            .arg(dir.path())
            .args(arguments)
            .output();
        let output = output.unwrap();
        assert!(!output.status.success(), "{arguments:?}");
        String::from_utf8(output.stdout).unwrap() + &String::from_utf8(output.stderr).unwrap()
    };
    let local = ["--listen", "127.0.0.1:0"];
    assert!(supervise(&local, None).contains("at least 16 characters"));
    assert!(supervise(&local, Some("short")).contains("at least 16 characters"));
    assert!(supervise(&["--listen", "0.0.0.0:0"], Some(TOKEN)).contains("--insecure"));
    let file = [
        "--listen",
        "127.0.0.1:0",
        "--token-file",
        open.to_str().unwrap(),
    ];
    assert!(supervise(&file, None).contains("chmod 600"));
}
