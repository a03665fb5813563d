//! Whose is what, and who is told.

use std::io::{BufRead, BufReader, Read};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::{Value, json};

use crate::rig::{ALICE, BOB, Rig, in_time, shell, told};

#[tokio::test]
async fn without_a_token_nothing_is_told() {
    let rig = Rig::new().await;
    rig.sprite("box").await;
    for path in [
        "/v1/sprites",
        "/v1/sprites/box",
        "/v1/sprites/none",
        "/v1/sprites/box/services",
    ] {
        for token in [None, Some(""), Some("org/alice/secret-of-alic"), Some("x")] {
            let mut request = rig.http.get(format!("{}{path}", rig.url));
            if let Some(token) = token {
                request = request.bearer_auth(token);
            }
            let (status, body) = told(in_time(request.send()).await.unwrap()).await;
            assert_eq!(
                (status, &body["error"]),
                (401, &json!("unauthorized")),
                "{path}"
            );
        }
    }
}

#[tokio::test]
async fn an_account_sees_nothing_of_another() {
    let rig = Rig::new().await;
    let made = rig.sprite("box").await;
    let bobs = |method: &str, path: &str, body: Value| {
        let request = rig
            .http
            .request(method.parse().unwrap(), format!("{}{path}", rig.url));
        let request = request.bearer_auth(BOB).json(&body);
        async move { told(in_time(request.send()).await.unwrap()).await }
    };
    assert_eq!(
        bobs("GET", "/v1/sprites", Value::Null).await.1["sprites"],
        json!([])
    );
    for (method, path) in [
        ("GET", "/v1/sprites/box"),
        ("DELETE", "/v1/sprites/box"),
        ("PUT", "/v1/sprites/box"),
        ("GET", "/v1/sprites/box/services"),
        ("GET", "/v1/sprites/box/exec"),
        ("GET", "/v1/sprites/box/fs/list?path=/"),
        ("POST", "/v1/sprites/box/checkpoint"),
    ] {
        assert_eq!(
            bobs(method, path, json!({})).await.0,
            404,
            "{method} {path}"
        );
    }
    let (status, other) = bobs("POST", "/v1/sprites", json!({ "name": "box" })).await;
    assert_eq!(status, 201);
    assert_ne!(other["id"], made["id"]);
    assert_eq!(bobs("DELETE", "/v1/sprites/box", Value::Null).await.0, 204);
    assert_eq!(rig.get("/v1/sprites/box").await["id"], made["id"]);
}

#[tokio::test]
async fn what_is_kept_is_its_owners_only_and_holds_no_token() {
    let rig = Rig::new().await;
    rig.sprite("box").await;
    rig.put("box", "web", shell("env; exec sleep 1000")).await;
    let mut records = 0;
    look(rig.home(), &mut |path| {
        let bytes = std::fs::read(path).unwrap();
        for token in [ALICE, BOB] {
            let found = bytes
                .windows(token.len())
                .any(|part| part == token.as_bytes());
            assert!(!found, "{}", path.display());
        }
        if path.ends_with("platform.json") {
            records += 1;
            let mode = std::fs::metadata(path).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o600);
        }
    });
    assert_eq!(records, 1);
}

fn look(dir: &Path, at: &mut dyn FnMut(&Path)) {
    for entry in std::fs::read_dir(dir).unwrap().flatten() {
        let kind = entry.file_type().unwrap();
        if kind.is_dir() {
            look(&entry.path(), at);
        } else if kind.is_file() {
            at(&entry.path());
        }
    }
}

/// A `gabion serve` in a process of its own, up to its end here.
struct Served(std::process::Child);

impl Drop for Served {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn a_token_has_one_server_at_a_time() {
    let home = tempfile::tempdir().unwrap();
    let serve = |token: &str| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_gabion"));
        command
            .args(["serve", "--token", token])
            .env("GABION_HOME", home.path())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        Served(command.spawn().unwrap())
    };
    let ready = |served: &mut Served| {
        let mut said = String::new();
        let stdout = served.0.stdout.as_mut().unwrap();
        BufReader::new(stdout).read_line(&mut said).unwrap();
        assert!(said.starts_with("ready "), "{said:?}");
    };
    let mut first = serve("planted-one");
    ready(&mut first);
    let mut second = serve("planted-one");
    let mut said = String::new();
    let stderr = second.0.stderr.as_mut().unwrap();
    stderr.read_to_string(&mut said).unwrap();
    assert!(!second.0.wait().unwrap().success());
    let who = format!("`gabion serve` (process {}", first.0.id());
    assert!(said.contains(&who), "{said}");
    assert!(!said.contains("planted"), "{said}");
    ready(&mut serve("planted-two"));
    drop(first);
    ready(&mut serve("planted-one"));
}
