//! Processes that are not services (protocol page miosa, §5).

use serde_json::{Value, json};

use crate::rig::*;

async fn start(rig: &Rig, body: Value) -> Value {
    let (status, process) = rig.raw("POST", "/v1/processes", &body.to_string()).await;
    assert_eq!(status, 201, "{process}");
    process
}

fn path(process: &Value) -> String {
    format!("/v1/processes/{}", process["pid"])
}

/// The lines of its stream, which ends with it.
async fn lines(rig: &Rig, process: &Value) -> Vec<Value> {
    let stream = format!("{}/stream", path(process));
    let (_, text) = in_time(rig.raw_text("GET", &stream, "")).await;
    let events = text.lines().filter_map(|line| line.strip_prefix("data: "));
    events
        .map(|data| serde_json::from_str(data).unwrap())
        .collect()
}

#[tokio::test]
async fn a_process_runs_is_shown_and_stays_in_the_list() {
    let rig = Rig::new().await;
    let body = json!({
        "command": "pwd; echo $A >&2; read line; echo got $line; exit 3",
        "cwd": "/usr", "env": { "A": "1" }, "name": "web",
    });
    let process = start(&rig, body).await;
    assert_eq!(
        (&process["status"], &process["exit_code"]),
        (&json!("running"), &Value::Null)
    );
    assert_eq!(
        (&process["name"], &process["cwd"]),
        (&json!("web"), &json!("/usr"))
    );
    let pid = process["pid"].as_u64().unwrap() as u32;
    assert!(alive(pid));
    let stdin = format!("{}/stdin", path(&process));
    let given = json!({ "data": "it\n" }).to_string();
    assert_eq!(
        rig.raw("POST", &stdin, &given).await,
        (200, json!({ "ok": true }))
    );
    let lines = lines(&rig, &process).await;
    assert!(
        lines.contains(&json!({ "stream": "stderr", "line": "1" })),
        "{lines:?}"
    );
    assert!(
        lines.contains(&json!({ "stream": "stdout", "line": "got it" })),
        "{lines:?}"
    );
    let (_, ended) = rig.raw("GET", &path(&process), "").await;
    assert_eq!(
        (&ended["status"], &ended["exit_code"]),
        (&json!("failed"), &json!(3))
    );
    assert_eq!(ended["started_at"], process["started_at"]);
    let (_, listed) = rig.raw("GET", "/v1/processes", "").await;
    assert_eq!(listed, json!([ended]));
    let (_, logs) = rig
        .raw("GET", &format!("{}/logs", path(&process)), "")
        .await;
    let logs = logs["data"].as_str().unwrap();
    assert!(
        logs.contains("/usr\n") && logs.contains("got it\n"),
        "{logs}"
    );
    let (_, logs) = rig
        .raw("GET", &format!("{}/logs?tail=1", path(&process)), "")
        .await;
    assert_eq!(logs["data"].as_str().unwrap().lines().count(), 1);
    assert_eq!(rig.raw("POST", &stdin, &given).await.0, 409);
    assert_eq!(rig.raw("DELETE", &path(&process), "").await, (200, ended));
    // It is no service.
    assert_eq!(rig.raw("GET", "/v1/services", "").await.1, json!([]));
    assert_eq!(
        std::fs::read_dir(rig.dir().join("services"))
            .unwrap()
            .count(),
        0
    );
}

#[tokio::test]
async fn a_process_is_stopped_with_its_tree() {
    let rig = Rig::new().await;
    let tree = "trap '' TERM; sleep 600 & echo $!; wait";
    let process = start(&rig, json!({ "cmd": "sh", "args": ["-c", tree] })).await;
    let mut stream = rig.stream(&format!("{}/stream", path(&process))).await;
    let child = stream.event().await["line"].as_str().unwrap().parse();
    let child = rig.host(child.unwrap());
    // It ends at SIGKILL, after the grace period.
    let (_, stopped) = in_time(rig.raw("DELETE", &path(&process), "")).await;
    assert_eq!(
        (&stopped["status"], &stopped["exit_code"]),
        (&json!("stopped"), &json!(137))
    );
    assert!(!alive(child) && !alive(process["pid"].as_u64().unwrap() as u32));
    assert_eq!(rig.raw("GET", "/v1/processes/1", "").await.0, 404);
    assert_eq!(rig.raw("GET", "/v1/processes/x", "").await.0, 404);
}

#[tokio::test]
async fn a_process_ends_at_its_time_out_and_at_the_end_of_its_input() {
    let rig = Rig::new().await;
    let late = start(&rig, json!({ "command": "sleep 600", "timeout": 0.1 })).await;
    lines(&rig, &late).await;
    let (_, late) = rig.raw("GET", &path(&late), "").await;
    assert_eq!(late["status"], "failed");
    assert!(
        late["error"].as_str().unwrap().starts_with("timeout"),
        "{late}"
    );
    let reader = start(&rig, json!({ "command": "cat" })).await;
    let given = json!({ "data": "a", "eof": true }).to_string();
    rig.raw("POST", &format!("{}/stdin", path(&reader)), &given)
        .await;
    assert_eq!(
        lines(&rig, &reader).await,
        [json!({ "stream": "stdout", "line": "a" })]
    );
    let (_, reader) = rig.raw("GET", &path(&reader), "").await;
    assert_eq!(
        (&reader["status"], &reader["exit_code"]),
        (&json!("stopped"), &json!(0))
    );
    for body in [
        json!({}),
        json!({ "command": "" }),
        json!({ "command": "a", "cmd": "b" }),
        json!({ "command": "a", "timeout": -1 }),
        json!({ "command": "a", "env": { "A": 1 } }),
    ] {
        assert_eq!(
            rig.raw("POST", "/v1/processes", &body.to_string()).await.0,
            400,
            "{body}"
        );
    }
    let lost = json!({ "cmd": "no-such-program" }).to_string();
    assert_eq!(rig.raw("POST", "/v1/processes", &lost).await.0, 500);
}

#[tokio::test]
async fn what_has_ended_long_ago_is_forgotten_with_its_log() {
    let rig = Rig::new().await;
    let kept = start(&rig, json!({ "command": "sleep 600" })).await;
    for _ in 0..105 {
        let process = start(&rig, json!({ "command": "echo x" })).await;
        lines(&rig, &process).await;
    }
    start(&rig, json!({ "command": "echo x" })).await;
    let (_, listed) = rig.raw("GET", "/v1/processes", "").await;
    let listed = listed.as_array().unwrap();
    assert_eq!((listed.len(), &listed[0]), (101, &kept));
    let logs = std::fs::read_dir(rig.dir().join("logs")).unwrap();
    assert!(logs.count() <= 101);
}

#[tokio::test]
async fn processes_outlive_a_killed_supervisor_and_end_with_one_that_is_told_to() {
    let mut rig = Rig::new().await;
    let ended = start(&rig, json!({ "command": "echo x" })).await;
    lines(&rig, &ended).await;
    let body = json!({ "command": "echo a; cat; echo b; exit 4", "name": "cat", "cwd": "/" });
    let process = start(&rig, body).await;
    let deaf = start(&rig, json!({ "command": "exec <&-; sleep 600" })).await;
    rig.kill_supervisor().await;
    // What the last supervisor saw end is forgotten; the others are as they were.
    let (_, listed) = rig.raw("GET", "/v1/processes", "").await;
    assert_eq!(listed, json!([process, deaf]));
    assert_eq!(rig.raw("GET", &path(&ended), "").await.0, 404);
    for (data, eof) in [("one\n", false), ("two\n", true)] {
        let given = json!({ "data": data, "eof": eof }).to_string();
        let (status, _) = rig
            .raw("POST", &format!("{}/stdin", path(&process)), &given)
            .await;
        assert_eq!(status, 200);
    }
    let texts: Vec<_> = lines(&rig, &process)
        .await
        .into_iter()
        .map(|l| l["line"].clone())
        .collect();
    assert_eq!(texts, ["a", "one", "two", "b"]);
    let (_, process) = rig.raw("GET", &path(&process), "").await;
    assert_eq!(
        (&process["status"], &process["exit_code"]),
        (&json!("failed"), &json!(4))
    );
    rig.relaunch(rustix::process::Signal::TERM).await;
    assert!(!alive(deaf["pid"].as_u64().unwrap() as u32));
    assert_eq!(rig.raw("GET", "/v1/processes", "").await.1, json!([]));
    let logs = std::fs::read_dir(rig.dir().join("logs")).unwrap();
    assert_eq!(logs.count(), 0);
}
