//! The platforms' own clients, from their registries, drive real processes. `.ci/clients` brings them.

use std::path::PathBuf;

use crate::rig::{ALICE, Rig};

/// Runs a program of `tests/serve/clients` with the address of a server; it checks what it does.
async fn succeeds(program: &str, interpreter: &str, options: &[&str]) {
    let rig = Rig::new().await;
    let clients = std::env::var_os("GABION_CLIENTS").expect("run by .ci/clients");
    let clients = PathBuf::from(clients);
    let source = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/serve/clients");
    // Beside the packages, where they are found.
    let copy = clients.join(program);
    std::fs::copy(source.join(program), &copy).unwrap();
    let interpreter = match clients.join(interpreter) {
        own if own.exists() => own,
        _ => interpreter.into(),
    };
    let mut command = tokio::process::Command::new(interpreter);
    command.args(options).arg(&copy).args([&rig.url, ALICE]);
    command.env("SPRITES_CLIENT_SIGNALS", "0");
    command.env("MIOSA_BASE_URL", &rig.url);
    command.env("MIOSA_API_KEY", ALICE);
    let ran = command.output().await.unwrap();
    let said = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let (stdout, stderr) = (said(&ran.stdout), said(&ran.stderr));
    assert!(ran.status.success(), "{}\n{stdout}\n{stderr}", ran.status);
    assert!(rig.faults.requests().len() > 20);
}

#[tokio::test]
#[ignore = "needs the clients: .ci/clients cargo test --test serve -- --ignored"]
async fn sprites_in_python() {
    succeeds("drive_sprites.py", "venv/bin/python", &[]).await;
}

#[tokio::test]
#[ignore = "needs the clients: .ci/clients cargo test --test serve -- --ignored"]
async fn miosa_in_python() {
    succeeds("drive_miosa.py", "venv/bin/python", &[]).await;
}

#[tokio::test]
#[ignore = "needs the clients: .ci/clients cargo test --test serve -- --ignored"]
async fn sprites_in_javascript() {
    // A WebSocket that takes headers; newer Nodes have it anyway.
    succeeds("drive_sprites.mjs", "node", &["--experimental-websocket"]).await;
}
