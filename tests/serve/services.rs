//! What becomes of services: protocol page sprites, §3, "Semantics", and of the sprites that they are in.

use futures_util::future::join_all;
use serde_json::{Value, json};

use crate::rig::{Rig, Stream, shell};

const SERVICES: &str = "/v1/sprites/box/services";

async fn boxed() -> Rig {
    let rig = Rig::new().await;
    rig.sprite("box").await;
    rig
}

#[tokio::test]
async fn a_definition_is_told_as_it_was_given() {
    let rig = boxed().await;
    rig.put("box", "db", shell("exec sleep 1000")).await;
    let wanted = json!({
        "cmd": "/bin/sh", "args": ["-c", "exec sleep 1000"], "env": { "MODE": "dev" }, "dir": "/tmp",
        "needs": ["db"], "http_port": 3000,
    });
    let told = rig.put("box", "web", wanted.clone()).await;
    for (key, value) in wanted.as_object().unwrap() {
        assert_eq!(told[key], *value, "{key}");
    }
    assert_eq!(told["name"], "web");
    assert_eq!(told["state"]["status"], "running");
    assert!(told["state"]["pid"].is_u64() && told["state"]["started_at"].is_string());
    let listed = rig.get(SERVICES).await;
    let names: Vec<_> = listed
        .as_array()
        .unwrap()
        .iter()
        .map(|it| &it["name"])
        .collect();
    assert_eq!(names, ["db", "web"]);
}

#[tokio::test]
async fn only_another_definition_replaces_the_process() {
    let rig = boxed().await;
    let first = rig.put("box", "web", shell("exec sleep 1000")).await;
    let same = rig.put("box", "web", shell("exec sleep 1000")).await;
    assert_eq!(first["state"]["pid"], same["state"]["pid"]);
    let changed = rig.put("box", "web", shell("exec sleep 1001")).await;
    assert_ne!(first["state"]["pid"], changed["state"]["pid"]);
}

#[tokio::test]
async fn of_definitions_that_arrive_together_the_one_that_is_told_runs() {
    let rig = boxed().await;
    for round in 0..20 {
        let path = format!("{SERVICES}/web{round}");
        let watched = format!("{path}?duration=1ms");
        let all = (0..4).map(|seconds| {
            let wanted = json!({ "cmd": "/bin/sleep", "args": [format!("{}", 1000 + seconds)] });
            rig.events("PUT", &watched, wanted)
        });
        join_all(all).await;
        let told = rig.get(&path).await;
        let live = std::fs::read_to_string(format!("/proc/{}/cmdline", told["state"]["pid"]));
        let live = live.unwrap();
        let args: Vec<_> = live.trim_end_matches('\0').split('\0').skip(1).collect();
        assert_eq!(told["args"], json!(args), "round {round}");
    }
}

#[tokio::test]
async fn the_environment_of_a_sprite_is_below_that_of_its_services_and_commands() {
    let rig = Rig::new().await;
    let body = json!({ "name": "box", "environment": { "A": "sprite", "B": "sprite" } });
    assert_eq!(rig.ask("POST", "/v1/sprites", body).await.0, 201);
    let mut wanted = shell("echo $A $B; exec sleep 1000");
    wanted["env"] = json!({ "B": "service" });
    let told = rig.put("box", "web", wanted).await;
    assert_eq!(told["env"], json!({ "B": "service" }));
    let logs = format!("{SERVICES}/web/logs?duration=20s");
    let mut logs = rig.stream("GET", &logs, Value::Null).await;
    assert_eq!(logs.next().await.unwrap()["data"], "sprite service\n");
}

#[tokio::test]
async fn a_second_http_port_is_refused() {
    let rig = boxed().await;
    let mut wanted = shell("exec sleep 1000");
    wanted["http_port"] = json!(3000);
    rig.put("box", "web", wanted.clone()).await;
    let (status, body) = rig.ask("PUT", &format!("{SERVICES}/api"), wanted).await;
    assert_eq!(status, 409);
    assert_eq!(
        body["message"],
        "another service already has an HTTP port configured"
    );
}

#[tokio::test]
async fn what_is_needed_is_started_first() {
    let rig = boxed().await;
    rig.put("box", "db", shell("exec sleep 1000")).await;
    let (_, events) = rig.post(&format!("{SERVICES}/db/stop")).await;
    assert!(events.is_string());
    let mut wanted = shell("exec sleep 1000");
    wanted["needs"] = json!(["db"]);
    let web = rig.put("box", "web", wanted).await;
    assert_eq!(web["state"]["status"], "running");
    assert_eq!(
        rig.get(&format!("{SERVICES}/db")).await["state"]["status"],
        "running"
    );
}

#[tokio::test]
async fn signals_are_sent_and_a_killed_service_comes_back() {
    let rig = boxed().await;
    let first = rig.put("box", "web", shell("exec sleep 1000")).await;
    let signal = |name: &str, signal: Value| {
        let body = json!({ "name": name, "signal": signal });
        let rig = &rig;
        async move { rig.ask("POST", &format!("{SERVICES}/signal"), body).await.0 }
    };
    assert_eq!(signal("web", json!("SIGCONT")).await, 204);
    assert_eq!(signal("web", json!(9)).await, 204);
    let is_new = |it: &Value| {
        it["state"]["status"] == "running" && it["state"]["pid"] != first["state"]["pid"]
    };
    let second = rig.until("box", "web", is_new).await;
    assert_eq!(second["state"]["restart_count"], 1);
    assert_eq!(signal("web", json!("NOPE")).await, 400);
    assert_eq!(signal("none", json!("HUP")).await, 404);
    rig.post(&format!("{SERVICES}/web/stop")).await;
    assert_eq!(signal("web", json!("HUP")).await, 409);
}

#[tokio::test]
async fn a_stopped_service_stays_down_when_the_sprite_restarts_and_others_come_back() {
    let rig = boxed().await;
    rig.put("box", "web", shell("exec sleep 1000")).await;
    rig.put("box", "old", shell("exec sleep 1000")).await;
    rig.post(&format!("{SERVICES}/old/stop")).await;
    let (status, body) = rig.post("/v1/sprites/box/restart").await;
    assert_eq!((status, &body["sprite_name"]), (200, &json!("box")));
    rig.until("box", "web", |it| it["state"]["status"] == "running")
        .await;
    assert_eq!(
        rig.get(&format!("{SERVICES}/old")).await["state"]["status"],
        "stopped"
    );
}

#[tokio::test]
async fn a_deleted_service_is_gone_and_not_there_the_second_time() {
    let rig = boxed().await;
    rig.put("box", "web", shell("exec sleep 1000")).await;
    let path = format!("{SERVICES}/web");
    assert_eq!(
        rig.ask("DELETE", &path, Value::Null).await,
        (204, Value::Null)
    );
    assert_eq!(rig.ask("DELETE", &path, Value::Null).await.0, 404);
    assert_eq!(rig.ask("GET", &path, Value::Null).await.0, 404);
    assert_eq!(rig.get(SERVICES).await, json!([]));
}

#[tokio::test]
async fn a_sprite_is_made_once_changed_and_removed() {
    let rig = Rig::new().await;
    let body = json!({ "name": "box", "labels": ["a"], "url_settings": { "auth": "public" } });
    let (status, made) = rig.ask("POST", "/v1/sprites", body.clone()).await;
    assert_eq!((status, &made["labels"]), (201, &json!(["a"])));
    assert_eq!(made["url_settings"]["auth"], "public");
    assert_eq!(rig.ask("POST", "/v1/sprites", body).await.0, 400);
    assert_eq!(
        rig.ask("POST", "/v1/sprites", json!({ "name": "../x" }))
            .await
            .0,
        400
    );
    let (status, changed) = rig
        .ask("PUT", "/v1/sprites/box", json!({ "labels": ["b"] }))
        .await;
    assert_eq!((status, &changed["labels"]), (200, &json!(["b"])));
    assert_eq!(changed["url_settings"]["auth"], "public");
    assert_eq!(rig.get("/v1/sprites/box/check").await["status"], "healthy");
    assert_eq!(
        rig.ask("DELETE", "/v1/sprites/box", Value::Null).await,
        (204, Value::Null)
    );
    assert_eq!(
        rig.ask("DELETE", "/v1/sprites/box", Value::Null).await.0,
        404
    );
    assert_eq!(rig.get("/v1/sprites").await["sprites"], json!([]));
}

#[tokio::test]
async fn many_askers_for_one_name_get_one_sprite() {
    let rig = Rig::new().await;
    let asks = (0..8).map(|_| rig.ask("POST", "/v1/sprites", json!({ "name": "box" })));
    let mut statuses: Vec<_> = futures_util::future::join_all(asks).await;
    statuses.sort_by_key(|(status, _)| *status);
    let statuses: Vec<_> = statuses.iter().map(|(status, _)| *status).collect();
    assert_eq!(statuses, [201, 400, 400, 400, 400, 400, 400, 400]);
    assert_eq!(
        rig.get("/v1/sprites").await["sprites"]
            .as_array()
            .unwrap()
            .len(),
        1
    );
}

#[tokio::test]
async fn lists_come_in_pages() {
    let rig = Rig::new().await;
    for name in ["a1", "a2", "a3", "b1"] {
        rig.sprite(name).await;
    }
    let mut names = Vec::new();
    let mut path = "/v1/sprites?prefix=a&max_results=2".to_owned();
    loop {
        let page = rig.get(&path).await;
        let sprites = page["sprites"].as_array().unwrap();
        names.extend(
            sprites
                .iter()
                .map(|it| it["name"].as_str().unwrap().to_owned()),
        );
        if page["has_more"] == false {
            break;
        }
        let token = page["next_continuation_token"].as_str().unwrap();
        let token: String = token.bytes().map(|byte| format!("%{byte:02x}")).collect();
        path = format!("/v1/sprites?prefix=a&max_results=2&continuation_token={token}");
    }
    assert_eq!(names, ["a1", "a2", "a3"]);
}

#[tokio::test]
async fn everything_is_there_again_with_the_next_server() {
    let mut rig = Rig::new().await;
    let body = json!({ "name": "box", "labels": ["a"] });
    let (_, made) = rig.ask("POST", "/v1/sprites", body).await;
    let before = rig.put("box", "web", shell("exec sleep 1000")).await;
    rig.restart().await;
    let after = rig.get("/v1/sprites/box").await;
    for key in ["id", "labels", "created_at"] {
        assert_eq!(made[key], after[key], "{key}");
    }
    let service = rig.get(&format!("{SERVICES}/web")).await;
    assert_eq!(before["state"]["pid"], service["state"]["pid"]);
}

#[tokio::test]
async fn checkpoints_are_numbered_and_rewind_files_and_definitions() {
    let rig = boxed().await;
    rig.put("box", "web", shell("echo 1 > kept; exec sleep 1000"))
        .await;
    let checkpoint = "/v1/sprites/box/checkpoint";
    let events = rig
        .events("POST", checkpoint, json!({ "comment": "clean" }))
        .await;
    assert_eq!(events.last().unwrap()["type"], "complete");
    rig.put("box", "web", shell("echo 2 > kept; exec sleep 1000"))
        .await;
    rig.put("box", "late", shell("exec sleep 1000")).await;
    rig.events("POST", checkpoint, json!({})).await;
    let all = rig.get("/v1/sprites/box/checkpoints").await;
    let ids: Vec<_> = all.as_array().unwrap().iter().map(|it| &it["id"]).collect();
    assert_eq!(ids, ["v0", "v1"]);
    assert_eq!(all[0]["comment"], "clean");
    let restore = "/v1/sprites/box/checkpoints/v0/restore";
    let events = rig.events("POST", restore, Value::Null).await;
    assert_eq!(events.last().unwrap()["type"], "complete");
    let services = rig.get(SERVICES).await;
    assert_eq!(services.as_array().unwrap().len(), 1);
    assert_eq!(services[0]["args"][1], "echo 1 > kept; exec sleep 1000");
    let one = "/v1/sprites/box/checkpoints/v0";
    assert_eq!(rig.ask("DELETE", one, Value::Null).await.0, 204);
    assert_eq!(rig.ask("GET", one, Value::Null).await.0, 404);
    // A number is not given twice.
    rig.events("POST", checkpoint, json!({})).await;
    let all = rig.get("/v1/sprites/box/checkpoints").await;
    let ids: Vec<_> = all.as_array().unwrap().iter().map(|it| &it["id"]).collect();
    assert_eq!(ids, ["v1", "v2"]);
}

#[tokio::test]
async fn a_watched_list_tells_what_changes() {
    let rig = Rig::new().await;
    rig.sprite("a1").await;
    rig.sprite("b1").await;
    let request = rig.request("GET".parse().unwrap(), "/v1/sprites?prefix=a");
    let request = request.header("accept", "application/x-ndjson");
    let mut lines = Stream::of(request.send().await.unwrap());
    let first = lines.next().await.unwrap();
    assert_eq!(
        (&first["name"], &first["status"]),
        (&json!("a1"), &json!("running"))
    );
    rig.sprite("a2").await;
    assert_eq!(lines.next().await.unwrap()["name"], "a2");
    rig.ask("DELETE", "/v1/sprites/a1", Value::Null).await;
    let last = lines.next().await.unwrap();
    assert_eq!(
        (&last["name"], &last["type"]),
        (&json!("a1"), &json!("deleted"))
    );
}
