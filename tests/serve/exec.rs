//! Commands: protocol page sprites, §5.

use serde_json::{Value, json};

use crate::rig::{Rig, in_time};

const EXEC: &str = "/v1/sprites/box/exec";

async fn boxed() -> Rig {
    let rig = Rig::new().await;
    rig.sprite("box").await;
    rig
}

/// The frames of a command that is run over HTTP: what each stream said, and the exit code.
async fn run(rig: &Rig, pairs: &[(&str, &str)], input: &'static str) -> (String, String, u8) {
    let request = rig
        .request("POST".parse().unwrap(), EXEC)
        .query(pairs)
        .body(input);
    let mut answer = in_time(request.send()).await.unwrap();
    assert_eq!(answer.status().as_u16(), 200);
    let (mut stdout, mut stderr) = (String::new(), String::new());
    // As the page says: every block of data is a frame.
    while let Some(frame) = in_time(answer.chunk()).await.unwrap() {
        let text = String::from_utf8_lossy(&frame[1..]);
        match frame[0] {
            1 => stdout.push_str(&text),
            2 => stderr.push_str(&text),
            3 => {
                assert_eq!(frame.len(), 2);
                return (stdout, stderr, frame[1]);
            }
            other => panic!("a frame of kind {other}"),
        }
    }
    panic!("no exit frame");
}

#[tokio::test]
async fn a_command_over_http_gets_input_environment_and_folder() {
    let rig = boxed().await;
    let line = "cat; echo $A; pwd; echo oops >&2; exit 3";
    let pairs = [
        ("cmd", "sh"),
        ("cmd", "-c"),
        ("cmd", line),
        ("path", "sh"),
        ("env", "A=1"),
        ("dir", "/tmp"),
        ("stdin", "true"),
    ];
    let (stdout, stderr, code) = run(&rig, &pairs, "in\n").await;
    assert_eq!(
        (stdout.as_str(), stderr.as_str(), code),
        ("in\n1\n/tmp\n", "oops\n", 3)
    );
}

#[tokio::test]
async fn a_command_that_cannot_be_executed_says_why() {
    let rig = boxed().await;
    let (_, stderr, code) = run(&rig, &[("cmd", "no-such-program")], "").await;
    assert!(stderr.contains("no-such-program"), "{stderr}");
    assert_eq!(code, 127);
    assert_eq!(rig.ask("POST", EXEC, Value::Null).await.0, 400);
}

#[tokio::test]
async fn hanging_up_ends_a_command() {
    let rig = boxed().await;
    let pairs = [
        ("cmd", "sh"),
        ("cmd", "-c"),
        ("cmd", "echo begun; exec sleep 1000"),
    ];
    let request = rig.request("POST".parse().unwrap(), EXEC).query(&pairs);
    let mut answer = in_time(request.send()).await.unwrap();
    assert_eq!(
        in_time(answer.chunk()).await.unwrap().unwrap().as_ref(),
        b"\x01begun\n"
    );
    let sessions = rig.get(EXEC).await["sessions"].clone();
    assert_eq!(sessions[0]["command"], "sh -c echo begun; exec sleep 1000");
    drop(answer);
    in_time(async {
        while rig.get(EXEC).await["sessions"] != json!([]) {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

#[tokio::test]
async fn a_command_is_killed_if_the_signal_does_not_help() {
    let rig = boxed().await;
    let line = "trap '' TERM; echo deaf; while :; do sleep 1000; done";
    let pairs = [("cmd", "sh"), ("cmd", "-c"), ("cmd", line)];
    let request = rig.request("POST".parse().unwrap(), EXEC).query(&pairs);
    let mut answer = in_time(request.send()).await.unwrap();
    assert_eq!(
        in_time(answer.chunk()).await.unwrap().unwrap().as_ref(),
        b"\x01deaf\n"
    );
    let id = rig.get(EXEC).await["sessions"][0]["id"]
        .as_str()
        .unwrap()
        .to_owned();
    let kill = format!("{EXEC}/{id}/kill?signal=TERM&timeout=100ms");
    let events = rig.events("POST", &kill, json!({})).await;
    assert_eq!(
        crate::rig::kinds(&events),
        ["signal", "timeout", "killed", "exited", "complete"]
    );
    assert_eq!(events[3]["exit_code"], 137);
    assert_eq!(
        in_time(answer.chunk()).await.unwrap().unwrap().as_ref(),
        [3, 137]
    );
}
