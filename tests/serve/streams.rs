//! The stream rules of the protocol page sprites, §3.

use serde_json::{Value, json};

use crate::rig::{Rig, kinds, shell};

const WEB: &str = "/v1/sprites/box/services/web";

async fn boxed() -> Rig {
    let rig = Rig::new().await;
    rig.sprite("box").await;
    rig
}

#[tokio::test]
async fn a_start_tells_started_the_output_and_complete() {
    let rig = boxed().await;
    let body = shell("echo one; echo two >&2; exec sleep 1000");
    let mut stream = rig
        .stream("PUT", &format!("{WEB}?duration=20s"), body)
        .await;
    let mut events = Vec::new();
    while events.len() < 3 {
        // Each line comes as it is written: the stream is far from its end.
        events.push(stream.next().await.unwrap());
    }
    assert_eq!(events[0]["type"], "started");
    let mut output: Vec<_> = events[1..]
        .iter()
        .map(|it| (&it["type"], &it["data"]))
        .collect();
    output.sort_by_key(|(kind, _)| kind.to_string());
    assert_eq!(
        output,
        [
            (&json!("stderr"), &json!("two\n")),
            (&json!("stdout"), &json!("one\n"))
        ]
    );
    for event in &events {
        assert!(event["timestamp"].is_u64(), "{event}");
    }
}

#[tokio::test]
async fn complete_comes_after_the_duration_even_if_nothing_is_written() {
    let rig = boxed().await;
    let begun = std::time::Instant::now();
    let events = rig
        .events(
            "PUT",
            &format!("{WEB}?duration=300ms"),
            shell("exec sleep 1000"),
        )
        .await;
    assert!(begun.elapsed() >= std::time::Duration::from_millis(300));
    assert_eq!(kinds(&events), ["started", "complete"]);
    let files = &events[1]["log_files"];
    assert_eq!(files["combined"], "/.sprite/logs/services/web.log");
}

#[tokio::test]
async fn an_early_death_is_an_exit_after_all_that_was_written() {
    let rig = boxed().await;
    let line = "for n in 1 2 3 4 5 6 7 8 9; do echo $n; done; exit 3";
    let mut stream = rig
        .stream("PUT", &format!("{WEB}?duration=20s"), shell(line))
        .await;
    let mut texts = String::new();
    loop {
        let event = stream.next().await.unwrap();
        match event["type"].as_str().unwrap() {
            "stdout" => texts.push_str(event["data"].as_str().unwrap()),
            "exit" => {
                assert_eq!(event["exit_code"], 3);
                break;
            }
            _ => {}
        }
    }
    assert_eq!(texts, "1\n2\n3\n4\n5\n6\n7\n8\n9\n");
}

#[tokio::test]
async fn a_program_that_is_not_there_starts_and_exits_with_the_reason() {
    let rig = boxed().await;
    let events = rig
        .events(
            "PUT",
            &format!("{WEB}?duration=0s"),
            json!({ "cmd": "no-such-program" }),
        )
        .await;
    assert_eq!(kinds(&events), ["started", "error", "exit", "complete"]);
    assert!(
        events[1]["data"]
            .as_str()
            .unwrap()
            .contains("no-such-program")
    );
    let state = &rig.get(WEB).await["state"];
    assert_eq!(state["status"], "failed");
}

#[tokio::test]
async fn a_stop_tells_stopping_stopped_complete_and_is_refused_the_second_time() {
    let rig = boxed().await;
    rig.put("box", "web", shell("exec sleep 1000")).await;
    let events = rig
        .events("POST", &format!("{WEB}/stop"), Value::Null)
        .await;
    assert_eq!(kinds(&events), ["stopping", "stopped", "complete"]);
    let (status, body) = rig.post(&format!("{WEB}/stop")).await;
    assert_eq!((status, &body["error"]), (409, &json!("not_running")));
}

#[tokio::test]
async fn a_stop_kills_what_does_not_end_in_time() {
    let rig = boxed().await;
    rig.put(
        "box",
        "web",
        shell("trap '' TERM; echo deaf; while :; do sleep 1000; done"),
    )
    .await;
    let mut logs = rig
        .stream("GET", &format!("{WEB}/logs?duration=20s"), Value::Null)
        .await;
    assert_eq!(logs.next().await.unwrap()["data"], "deaf\n");
    let events = rig
        .events("POST", &format!("{WEB}/stop?timeout=100ms"), Value::Null)
        .await;
    assert_eq!(kinds(&events), ["stopping", "stopped", "complete"]);
    assert_eq!(rig.get(WEB).await["state"]["status"], "stopped");
}

#[tokio::test]
async fn a_restart_tells_the_stop_and_the_start_and_no_exit() {
    let rig = boxed().await;
    let first = rig.put("box", "web", shell("exec sleep 1000")).await;
    let events = rig
        .events("POST", &format!("{WEB}/restart?duration=0s"), Value::Null)
        .await;
    assert_eq!(
        kinds(&events),
        ["stopping", "stopped", "started", "complete"]
    );
    let second = rig.get(WEB).await;
    assert_eq!(second["state"]["status"], "running");
    assert_ne!(first["state"]["pid"], second["state"]["pid"]);
}

#[tokio::test]
async fn hanging_up_does_not_stop_the_service() {
    let rig = boxed().await;
    let body = shell("exec sleep 1000");
    let mut stream = rig
        .stream("PUT", &format!("{WEB}?duration=20s"), body)
        .await;
    assert_eq!(stream.next().await.unwrap()["type"], "started");
    drop(stream);
    assert_eq!(rig.get(WEB).await["state"]["status"], "running");
}

#[tokio::test]
async fn a_long_line_is_told_in_lines_of_less_than_64_kib() {
    let rig = boxed().await;
    // Every sign of it takes six bytes in JSON.
    let line = r"head -c 200000 /dev/zero | tr '\0' '\001'; echo; exec sleep 1000";
    let path = format!("{WEB}?duration=20s");
    let answer = rig
        .request("PUT".parse().unwrap(), &path)
        .json(&shell(line))
        .send()
        .await;
    let mut answer = answer.unwrap();
    let (mut text, mut length, mut longest) = (String::new(), 0, 0);
    while length < 200_001 {
        let chunk = answer.chunk().await.unwrap().unwrap();
        text.push_str(std::str::from_utf8(&chunk).unwrap());
        while let Some(end) = text.find('\n') {
            longest = longest.max(end);
            let event: Value = serde_json::from_str(&text[..end]).unwrap();
            length += event["data"].as_str().unwrap_or_default().len();
            text.drain(..=end);
        }
    }
    assert!(longest < 64 << 10, "{longest}");
}

#[tokio::test]
async fn logs_tell_the_last_lines_and_follow_for_the_duration() {
    let rig = boxed().await;
    rig.put(
        "box",
        "web",
        shell("echo 1; echo 2; echo 3; exec sleep 1000"),
    )
    .await;
    let mut following = rig
        .stream("GET", &format!("{WEB}/logs?duration=20s"), Value::Null)
        .await;
    for text in ["1\n", "2\n", "3\n"] {
        assert_eq!(following.next().await.unwrap()["data"], text);
    }
    let events = rig
        .events("GET", &format!("{WEB}/logs?lines=2"), Value::Null)
        .await;
    let texts: Vec<_> = events.iter().map(|event| &event["data"]).collect();
    assert_eq!(texts, ["2\n", "3\n"]);
    let (status, _) = rig
        .ask("GET", "/v1/sprites/box/services/none/logs", Value::Null)
        .await;
    assert_eq!(status, 404);
}

#[tokio::test]
async fn the_status_is_told_before_the_stream_begins() {
    let rig = boxed().await;
    let cases = [
        ("PUT", "web?duration=soon", shell("true"), 400),
        ("PUT", "web", json!({ "args": ["x"] }), 400),
        ("PUT", "web", json!({ "cmd": "sh", "needs": ["none"] }), 400),
        ("PUT", "web", json!({ "cmd": "sh", "needs": ["web"] }), 400),
        ("PUT", "a%2Fb", shell("true"), 400),
        ("POST", "web/start", Value::Null, 404),
        ("POST", "web/stop", Value::Null, 404),
        ("POST", "web/restart", Value::Null, 404),
    ];
    for (method, path, body, expected) in cases {
        let path = format!("/v1/sprites/box/services/{path}");
        let (status, answer) = rig.ask(method, &path, body).await;
        assert_eq!(status, expected, "{method} {path}: {answer}");
        assert!(answer["error"].is_string() && answer["message"].is_string());
    }
}
