//! Exec, files, key-value store, events, and the document that describes them.

use std::collections::BTreeSet;
use std::os::unix::fs::PermissionsExt;

use gabion::model::{Health, Probe, Secrets, ServiceKind};
use gabion::supervisor::{ServiceObject, Status};
use serde_json::{Value, json};

use crate::rig::*;

async fn exec_json(rig: &Rig, body: Value) -> (u16, Value) {
    in_time(rig.raw("POST", "/v1/exec", &body.to_string())).await
}

#[tokio::test]
async fn exec_has_input_folder_environment_and_exit_codes() {
    let rig = Rig::new().await;
    let body = json!({
        "cmd": ["sh", "-c", "cat; pwd; echo $A"], "dir": "/usr", "env": { "A": "1" }, "stdin": "in\n",
    });
    let (_, answer) = exec_json(&rig, body).await;
    assert_eq!(answer["stdout"], "in\n/usr\n1\n");
    assert!(answer["duration_ms"].is_u64());
    for (cmd, code) in [
        (json!("sh -c 'kill -TERM $$'; exit $?"), 143),
        (json!(["no-such-program"]), 127),
        (json!(["/etc/passwd"]), 126),
        (json!("exit 255"), 255),
    ] {
        let (status, answer) = exec_json(&rig, json!({ "cmd": cmd })).await;
        assert_eq!((status, &answer["exit_code"]), (200, &json!(code)), "{cmd}");
    }
    let (_, answer) = exec_json(&rig, json!({ "cmd": "printf 'a\\377b'" })).await;
    assert_eq!(answer["stdout"], "a\u{fffd}b");
    for body in [
        json!({}),
        json!({ "cmd": [] }),
        json!({ "cmd": 3 }),
        json!({ "cmd": ["a", 1] }),
        json!({ "cmd": "true", "dir": "/no/such" }),
        json!({ "cmd": "true", "env": { "A=B": "1" } }),
        json!({ "cmd": "true", "timeout_ms": 3_600_001 }),
    ] {
        assert_eq!(exec_json(&rig, body.clone()).await.0, 400, "{body}");
    }
}

#[tokio::test]
async fn exec_keeps_ten_mebibytes_of_each_stream() {
    let rig = Rig::new().await;
    let body = json!({ "cmd": "head -c 12000000 /dev/zero | tr '\\0' x; echo done >&2" });
    let (_, answer) = exec_json(&rig, body).await;
    assert_eq!(answer["stdout"].as_str().unwrap().len(), 10 << 20);
    assert_eq!(
        (&answer["stderr"], &answer["truncated"]),
        (&json!("done\n"), &json!(true))
    );
}

#[tokio::test]
async fn nothing_of_a_command_is_left_when_it_is_answered() {
    let rig = Rig::new().await;
    // One that stays in the session, one that leaves it, and one that leaves its parents, too.
    let tree = "sleep 600.1 & setsid sleep 600.2 & (setsid sh -c 'exec sleep 600.3' &)\n";
    let seen = "for n in 1 2 3; do
        until cat /proc/[0-9]*/cmdline 2>/dev/null | tr '\\0' ' ' | grep -q sleep.600.$n; do :; done
    done; echo seen\n";
    for (end, limit) in [("", 60_000), ("trap '' TERM; sleep 600", 5_000)] {
        let body = json!({ "cmd": format!("{tree}{seen}{end}"), "timeout_ms": limit });
        let (_, answer) = exec_json(&rig, body).await;
        assert_eq!(answer["stdout"], "seen\n", "{answer}");
        assert_eq!(rig.running(), 0);
    }
}

#[tokio::test]
async fn hanging_up_ends_a_command() {
    let rig = Rig::new().await;
    let body = json!({ "cmd": "echo $$ > pid.new; mv pid.new pid; exec sleep 600" }).to_string();
    let file = rig.workspace().join("pid");
    let asking = rig.raw("POST", "/v1/exec", &body);
    let written = async {
        while !file.exists() {
            tokio::task::yield_now().await;
        }
        let told = std::fs::read_to_string(&file).unwrap();
        rig.host(told.trim().parse().unwrap())
    };
    let pid = tokio::select! {
        _ = asking => panic!("it ended"),
        pid = in_time(written) => pid,
    };
    gone(pid).await;
}

#[tokio::test]
async fn files_are_written_read_listed_moved_and_removed() {
    let rig = Rig::new().await;
    let top = rig.workspace();
    let top = top.to_str().unwrap();
    let at = |path: &str| format!("/v1/files?path={top}/{path}");
    let (status, answer) = rig.raw("POST", &at("a/b.txt"), "text").await;
    let path = format!("{top}/a/b.txt");
    assert_eq!(
        (status, answer),
        (200, json!({ "ok": true, "path": path, "size": 4 }))
    );
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "text");
    let mode = std::fs::metadata(&path).unwrap().permissions().mode();
    assert_eq!(mode & 0o7777, 0o644);
    let (_, answer) = rig
        .raw("GET", &format!("/v1/files/list?path={top}&depth=2"), "")
        .await;
    let entries = json!([
        { "name": "a", "is_dir": true, "size": answer["entries"][0]["size"] },
        { "name": "a/b.txt", "is_dir": false, "size": 4 },
    ]);
    assert_eq!(
        (&answer["entries"], &answer["truncated"]),
        (&entries, &json!(false))
    );
    let (_, answer) = rig
        .raw("GET", &format!("/v1/files/stat?path={path}"), "")
        .await;
    assert_eq!(
        (&answer["mode"], &answer["name"]),
        (&json!("0644"), &json!("b.txt"))
    );
    let body = json!({ "source": path, "destination": format!("{top}/c") }).to_string();
    assert_eq!(rig.raw("POST", "/v1/files/move", &body).await.0, 200);
    let body = json!({ "path": format!("{top}/d/e"), "parents": true }).to_string();
    assert_eq!(rig.raw("POST", "/v1/files/mkdir", &body).await.0, 200);
    assert_eq!(rig.raw("DELETE", &at("d"), "").await.0, 409);
    let deleted = json!({ "deleted": true, "ok": true });
    assert_eq!(
        rig.raw("DELETE", &(at("d") + "&recursive=true"), "").await,
        (200, deleted)
    );
    assert_eq!(rig.raw("DELETE", &at("d"), "").await.0, 404);
    assert_eq!(rig.raw("GET", &at("a/b.txt"), "").await.0, 404);
    assert_eq!(rig.raw("GET", "/v1/files?path=relative", "").await.0, 400);
    assert_eq!(rig.raw("GET", "/v1/files", "").await.0, 400);
    let large = "x".repeat((1 << 20) + 1);
    let (status, answer) = rig.raw("POST", &at("large"), &large).await;
    assert_eq!((status, &answer["code"]), (413, &json!("too_large")));
    let larger = "x".repeat(3 << 20);
    let (status, answer) = rig.raw("POST", &at("large"), &larger).await;
    assert_eq!((status, &answer["code"]), (413, &json!("too_large")));
}

#[tokio::test]
async fn the_store_keeps_values_over_a_restart() {
    let mut rig = Rig::new().await;
    let put = json!({ "value": { "owner": "me" }, "ttl_seconds": 3600 }).to_string();
    let (status, answer) = rig.raw("PUT", "/v1/store/reconciler%2Fmanaged", &put).await;
    assert_eq!((status, answer), (200, json!({ "ok": true })));
    let batch = json!({ "operations": [
        { "op": "set", "key": "run_1", "value": null },
        { "op": "set", "key": "run_2", "value": [2] },
        { "op": "set", "key": "batch", "value": 3 },
        { "op": "delete", "key": "run_2" },
    ]});
    let (_, answer) = rig.raw("POST", "/v1/store/batch", &batch.to_string()).await;
    assert_eq!(answer, json!({ "applied": 4, "ok": true }));
    rig.kill_supervisor().await;
    let (_, answer) = rig.raw("GET", "/v1/store?prefix=run_", "").await;
    assert_eq!(answer, json!({ "keys": ["run_1"], "truncated": false }));
    let (_, answer) = rig.raw("GET", "/v1/store?limit=2", "").await;
    assert_eq!(
        answer,
        json!({ "keys": ["batch", "reconciler/managed"], "truncated": true })
    );
    let (_, answer) = rig.raw("GET", "/v1/store/reconciler/managed", "").await;
    assert_eq!(answer["value"], json!({ "owner": "me" }));
    assert!(answer["expires_at"].is_string());
    assert_eq!(
        rig.raw("GET", "/v1/store/batch", "").await.1,
        json!({ "value": 3 })
    );
    assert_eq!(rig.raw("DELETE", "/v1/store/batch", "").await.0, 200);
    assert_eq!(rig.raw("DELETE", "/v1/store/batch", "").await.0, 404);
    assert_eq!(rig.raw("POST", "/v1/store/other", "{}").await.0, 405);
    for body in [
        json!({}),
        json!({ "value": 1, "ttl_seconds": 0 }),
        json!([1]),
    ] {
        assert_eq!(
            rig.raw("PUT", "/v1/store/a", &body.to_string()).await.0,
            400,
            "{body}"
        );
    }
    let torn = json!({ "operations": [
        { "op": "delete", "key": "run_1" }, { "op": "set", "key": "", "value": 1 },
    ]});
    assert_eq!(
        rig.raw("POST", "/v1/store/batch", &torn.to_string())
            .await
            .0,
        400
    );
    assert_eq!(rig.raw("GET", "/v1/store/run_1", "").await.0, 200);
}

#[tokio::test]
async fn events_tell_what_happens_from_the_first_state_on() {
    let rig = Rig::new().await;
    rig.put("a", &shell("sleep 600")).await;
    let mut events = rig.stream("/v1/events").await;
    let first = events.line().await;
    assert_eq!(
        (&first["event"], &first["service"]["name"]),
        (&json!("service"), &json!("a"))
    );
    assert_eq!(first["service"]["state"], "stopped");
    rig.start("a").await.unwrap();
    while events.line().await["service"]["state"] != "running" {}
    rig.client.delete(&named("a")).await.unwrap();
    let mut last = events.line().await;
    while last["event"] != "deleted" {
        last = events.line().await;
    }
    assert_eq!(last["name"], "a");
}

#[tokio::test]
async fn a_start_tells_how_it_gets_on_and_how_it_ends() {
    let rig = Rig::new().await;
    let mut spec = shell("echo about to; sleep 0.05; echo ready; sleep 600");
    spec.health = Some(Health::new(Probe::Log {
        contains: "ready".to_owned(),
    }));
    rig.put("good", &spec).await;
    let mut bad = shell("echo no such luck; exit 3");
    bad.kind = ServiceKind::Task;
    rig.put("bad", &bad).await;
    let mut told = Vec::new();
    let mut tell = |object: &ServiceObject| told.push((object.status, object.pid.is_some()));
    let secrets = Secrets::default();
    let name = named("good");
    let ready = rig.client.start_telling(&name, &secrets, &mut tell).await;
    assert_eq!(ready.unwrap().status, Status::Running);
    // Executed, but not ready yet.
    assert!(told.contains(&(Status::Unknown, true)), "{told:?}");
    let name = named("bad");
    let error = rig.client.start_telling(&name, &secrets, &mut |_| {}).await;
    let error = error.unwrap_err();
    assert_eq!(
        (error.status, error.code.as_str()),
        (Some(500), "start_failed")
    );
    assert_eq!(error.log_tail, ["no such luck"]);
}

#[tokio::test]
async fn a_slow_listener_is_told_so_and_holds_up_nobody() {
    let rig = Rig::new().await;
    rig.put("a", &shell("sleep 600")).await;
    let mut events = rig.stream("/v1/events").await;
    events.line().await;
    // Large states, so that what is on its way to the listener is soon full.
    let mut spec = shell("sleep 600");
    let mut changes = 0;
    while changes < 1_500 {
        spec.description = Some("x".repeat(8_000) + &changes.to_string());
        in_time(rig.put("a", &spec)).await;
        changes += 1;
    }
    let mut line = events.line().await;
    while line["event"] != "lagged" {
        line = events.line().await;
    }
    assert!(line["missed"].as_u64().unwrap() > 0);
}

#[tokio::test]
async fn services_read_what_they_are_given_where_they_say_so() {
    let rig = Rig::new().await;
    let mut spec = shell("cat; echo end");
    spec.stdin_open = true;
    spec.restart.policy = gabion::model::RestartPolicy::No;
    rig.run("cat", &spec).await;
    rig.client
        .send_stdin(&named("cat"), "one\n", false)
        .await
        .unwrap();
    assert_eq!(rig.lines("cat", 1).await[0].text, "one");
    rig.client
        .send_stdin(&named("cat"), "two\n", true)
        .await
        .unwrap();
    assert_eq!(rig.lines("cat", 3).await[2].text, "end");
    let ended = rig.until("cat", |object| object.pid.is_none()).await;
    assert_eq!(ended.exit_code, Some(0));
    let refused = rig
        .client
        .send_stdin(&named("cat"), "x", false)
        .await
        .unwrap_err();
    assert_eq!(
        (refused.status, refused.code.as_str()),
        (Some(409), "not_running")
    );
    rig.run("deaf", &shell("sleep 600")).await;
    let refused = rig
        .client
        .send_stdin(&named("deaf"), "x", false)
        .await
        .unwrap_err();
    assert_eq!(refused.status, Some(409));
    assert!(
        refused.message.contains("stdin_open"),
        "{}",
        refused.message
    );
}

#[test]
fn the_openapi_document_is_not_stale() {
    let path = format!(
        "{}/schemas/supervisor.openapi.json",
        env!("CARGO_MANIFEST_DIR")
    );
    let document = format!("{:#}\n", gabion::supervisor::openapi());
    if std::env::var_os("GABION_BLESS").is_some() {
        std::fs::write(&path, &document).unwrap();
    }
    let stored = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        stored == document,
        "schemas/supervisor.openapi.json is stale: run with GABION_BLESS=1"
    );
}

#[tokio::test]
async fn the_openapi_document_is_whole_and_served() {
    let rig = Rig::new().await;
    let (_, document) = rig.raw("GET", "/v1/openapi.json", "").await;
    assert_eq!(document, gabion::supervisor::openapi());
    let mut ids = BTreeSet::new();
    for (path, methods) in document["paths"].as_object().unwrap() {
        for (method, operation) in methods.as_object().unwrap() {
            let id = operation["operationId"].as_str().unwrap();
            assert!(ids.insert(id.to_owned()), "{id} is there twice");
            let responses = operation["responses"].as_object().unwrap();
            assert!(
                responses.keys().any(|status| status.starts_with('2')),
                "{method} {path}"
            );
            // What is described is served, and what is served in this way knows its path.
            let path = path
                .replace("{name}", "none")
                .replace("{pid}", "0")
                .replace("{key}", "k");
            if path != "/v1/shutdown" && path != "/v1/events" {
                let (status, answer) = rig.raw_text(&method.to_uppercase(), &path, "").await;
                assert_ne!(status, 405, "{method} {path}");
                assert!(
                    !answer.contains("no such route"),
                    "{method} {path}: {answer}"
                );
                let known = responses.contains_key(&status.to_string());
                assert!(
                    known,
                    "{method} {path} answered {status}, which it does not describe"
                );
            }
        }
    }
    // Every reference leads somewhere.
    let text = document.to_string();
    for reference in text.split("\"$ref\":\"#").skip(1) {
        let pointer = reference.split('"').next().unwrap();
        assert!(document.pointer(pointer).is_some(), "{pointer}");
    }
}

#[tokio::test]
async fn a_terminal_is_written_to_and_ends_with_a_character() {
    let rig = Rig::new().await;
    let mut spec = shell("stty -echo; echo up; read line; echo got $line; cat; echo end");
    (spec.tty, spec.stdin_open) = (true, true);
    spec.restart.policy = gabion::model::RestartPolicy::No;
    rig.run("shell", &spec).await;
    rig.until_line("shell", "up").await;
    let name = named("shell");
    rig.client.send_stdin(&name, "it\n", false).await.unwrap();
    rig.until_line("shell", "got it").await;
    rig.client.send_stdin(&name, "", true).await.unwrap();
    rig.until_line("shell", "end").await;
}
