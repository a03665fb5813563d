//! The acceptance list of the protocol page iris, §8, by its numbers, as a client of the gateway meets it.

use std::net::{TcpListener, TcpStream};

use serde_json::{Value, json};

use crate::iris::Plane;
use crate::rig::{Rig, in_time};

fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().port()
}

fn sleep() -> Value {
    json!({ "cmd": "sleep", "args": ["1000"] })
}

/// Opens a port after a tenth of a second, and says when.
fn server(port: u16) -> Value {
    let program = "
import socket, sys, time
time.sleep(0.1)
listener = socket.create_server(('127.0.0.1', int(sys.argv[1])))
print(time.time(), flush=True)
while True: listener.accept()[0].close()
";
    json!({ "cmd": "python3", "args": ["-Sc", program, port.to_string()], "health_port": port })
}

/// Whether a process runs; one that has ended may still be waiting to be reaped.
fn alive(pid: &Value) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let state = stat
        .rsplit_once(") ")
        .and_then(|(_, rest)| rest.chars().next());
    !matches!(state, None | Some('Z' | 'X'))
}

impl Plane<'_> {
    async fn put(&self, name: &str, body: Value) -> (u16, Value) {
        self.ask("PUT", &format!("/v1/services/{name}"), body).await
    }

    async fn get(&self, name: &str) -> Value {
        self.ask("GET", &format!("/v1/services/{name}"), Value::Null)
            .await
            .1
    }

    async fn start(&self, name: &str) -> (u16, Value) {
        self.ask("POST", &format!("/v1/services/{name}/start"), Value::Null)
            .await
    }

    async fn stop(&self, name: &str) -> (u16, Value) {
        self.ask("POST", &format!("/v1/services/{name}/stop"), Value::Null)
            .await
    }

    async fn run(&self, name: &str, body: Value) -> Value {
        assert_eq!(self.put(name, body).await.0, 200);
        let (status, started) = self.start(name).await;
        assert_eq!(status, 200, "{started}");
        started
    }

    async fn until(&self, name: &str, fits: impl Fn(&Value) -> bool) -> Value {
        in_time(async {
            loop {
                let service = self.get(name).await;
                if fits(&service) {
                    return service;
                }
            }
        })
        .await
    }
}

#[tokio::test]
async fn iris_01_put_get_start() {
    let rig = Rig::new().await;
    let plane = rig.iris("box").await;
    let port = free_port();
    plane.put("web", server(port)).await;
    let defined = plane.get("web").await;
    assert_eq!(
        (&defined["status"], &defined["pid"]),
        (&json!("stopped"), &Value::Null)
    );
    let (_, started) = plane.start("web").await;
    assert_eq!(started["status"], "running");
    assert!(alive(&started["pid"]));
    assert!(TcpStream::connect(("127.0.0.1", port)).is_ok());
}

#[tokio::test]
async fn iris_02_a_chain_of_needs_comes_up_in_order() {
    let rig = Rig::new().await;
    let plane = rig.iris("box").await;
    for (name, needs) in [("a", json!(["b"])), ("b", json!(["c"])), ("c", json!([]))] {
        let mut body = server(free_port());
        body["needs"] = needs;
        assert_eq!(plane.put(name, body).await.0, 200);
    }
    assert_eq!(plane.start("a").await.0, 200);
    let mut opened = jiff::Timestamp::MIN;
    for name in ["c", "b", "a"] {
        let service = plane.get(name).await;
        assert_eq!(service["status"], "running", "{name}");
        let started: jiff::Timestamp = service["started_at"].as_str().unwrap().parse().unwrap();
        assert!(started > opened, "{name}");
        let (_, log) = plane
            .ask("GET", &format!("/v1/services/{name}/logs"), Value::Null)
            .await;
        let seconds: f64 = log
            .as_str()
            .unwrap()
            .trim()
            .rsplit(' ')
            .next()
            .unwrap()
            .parse()
            .unwrap();
        opened = jiff::Timestamp::from_microsecond((seconds * 1e6) as i64).unwrap();
    }
}

#[tokio::test]
async fn iris_03_missing_needs_and_cycles() {
    let rig = Rig::new().await;
    let plane = rig.iris("box").await;
    let mut body = sleep();
    body["needs"] = json!(["b"]);
    assert_eq!(plane.put("a", body.clone()).await.0, 200);
    let (status, refused) = plane.start("a").await;
    assert_eq!(
        (status, &refused["code"]),
        (409, &json!("dependency_not_found"))
    );
    body["needs"] = json!(["a"]);
    let (status, refused) = plane.put("b", body.clone()).await;
    assert_eq!(
        (status, &refused["code"]),
        (400, &json!("dependency_cycle"))
    );
    assert!(
        refused["error"].as_str().unwrap().contains("b -> a -> b"),
        "{refused}"
    );
    let (status, refused) = plane.put("a", body).await;
    assert_eq!((status, &refused["ok"]), (400, &json!(false)));
}

#[tokio::test]
async fn iris_04_a_port_that_never_opens() {
    let rig = Rig::new().await;
    let plane = rig.iris("box").await;
    let mut body = json!({ "cmd": "sh", "args": ["-c", "echo $$; exec sleep 1000"] });
    body["health"] = json!({ "tcp": { "port": free_port() }, "timeout": "300ms" });
    body["restart"] = json!("no");
    plane.put("web", body).await;
    let (status, refused) = plane.start("web").await;
    assert_eq!((status, &refused["code"]), (504, &json!("health_timeout")));
    let service = plane.get("web").await;
    assert_eq!(
        (&service["status"], &service["pid"]),
        (&json!("failed"), &Value::Null)
    );
}

#[tokio::test]
async fn iris_05_a_taken_port() {
    let rig = Rig::new().await;
    let plane = rig.iris("box").await;
    let stranger = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut body = sleep();
    body["health_port"] = json!(stranger.local_addr().unwrap().port());
    plane.put("web", body).await;
    let (status, refused) = plane.start("web").await;
    assert_eq!((status, &refused["code"]), (500, &json!("start_failed")));
    assert_ne!(plane.get("web").await["status"], "running");
}

#[tokio::test]
async fn iris_06_what_ignores_sigterm_is_killed_with_its_children() {
    let rig = Rig::new().await;
    let plane = rig.iris("box").await;
    let line = "trap '' TERM; sleep 1000 & echo ready; while :; do sleep 1000; done";
    let mut body = json!({ "command": line, "stop": { "signal": "TERM", "grace": "100ms" } });
    body["health"] = json!({ "log": { "contains": "ready" } });
    let started = plane.run("web", body).await;
    let pid = started["pid"].as_u64().unwrap();
    let tree = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap();
    let children: Vec<_> = tree
        .split_whitespace()
        .map(|pid| json!(pid.parse::<u32>().unwrap()))
        .collect();
    assert!(!children.is_empty());
    let (status, stopped) = plane.stop("web").await;
    assert_eq!((status, &stopped["status"]), (200, &json!("stopped")));
    assert!(!alive(&started["pid"]) && !children.iter().any(alive));
}

#[tokio::test]
async fn iris_07_a_put_does_not_touch_the_process() {
    let rig = Rig::new().await;
    let plane = rig.iris("box").await;
    let first = plane.run("web", sleep()).await;
    let (_, put) = plane
        .put("web", json!({ "cmd": "sleep", "args": ["2000"] }))
        .await;
    assert_eq!(
        (&put["pid"], &put["status"]),
        (&first["pid"], &json!("running"))
    );
    plane.stop("web").await;
    let (_, second) = plane.start("web").await;
    assert_ne!(second["pid"], first["pid"]);
    assert_eq!(second["args"], json!(["2000"]));
    assert_eq!(second["revision"], second["running_revision"]);
}

#[tokio::test]
async fn iris_08_a_killed_service_comes_back_and_a_stop_sticks() {
    let rig = Rig::new().await;
    let plane = rig.iris("box").await;
    let mut body = sleep();
    // The first restart is at once, the second one never while this test lasts.
    body["restart"] = json!({ "policy": "on-failure", "backoff": "1h", "max_backoff": "1h" });
    let first = plane.run("web", body).await;
    let kill = json!({ "signal": "KILL" });
    plane
        .ask("POST", "/v1/services/web/signal", kill.clone())
        .await;
    let is_new = |it: &Value| it["status"] == "running" && it["pid"] != first["pid"];
    assert_eq!(plane.until("web", is_new).await["restart_count"], 1);
    plane.ask("POST", "/v1/services/web/signal", kill).await;
    let waiting = plane.until("web", |it| it["status"] == "failed").await;
    assert!(waiting["next_restart_at"].is_string());
    plane.stop("web").await;
    let stopped = plane.get("web").await;
    assert_eq!(
        (&stopped["status"], &stopped["next_restart_at"]),
        (&json!("stopped"), &Value::Null)
    );
}

#[tokio::test]
async fn iris_09_a_restart_of_the_daemon_doubles_nothing() {
    let mut rig = Rig::new().await;
    let plane = rig.iris("box").await;
    let port = free_port();
    let before = plane.run("web", server(port)).await;
    let id = json!({ "sandbox_id": plane.id });
    rig.restart().await;
    // The gateway's: the services do not notice, and there is a new token.
    let (_, got) = rig.call("GetSandbox", id.clone()).await;
    let (_, mut token) = rig.call("IssueDataPlaneToken", id.clone()).await;
    token["sandbox"] = got["sandbox"].clone();
    let plane = rig.plane(&token);
    assert_eq!(plane.get("web").await["pid"], before["pid"]);
    // The sandbox's: they are stopped, and start once.
    rig.call("SuspendSandbox", id.clone()).await;
    assert!(!alive(&before["pid"]));
    rig.call("ResumeSandbox", id).await;
    let after = plane.until("web", |it| it["status"] == "running").await;
    assert_ne!(after["pid"], before["pid"]);
    let (_, log) = plane.ask("GET", "/v1/services/web/logs", Value::Null).await;
    assert_eq!(log.as_str().unwrap().lines().count(), 2, "{log}");
}

#[tokio::test]
async fn iris_10_delete() {
    let rig = Rig::new().await;
    let plane = rig.iris("box").await;
    let running = plane.run("web", sleep()).await;
    let delete = || plane.ask("DELETE", "/v1/services/web", Value::Null);
    assert_eq!(
        delete().await,
        (200, json!({ "deleted": true, "ok": true }))
    );
    assert!(!alive(&running["pid"]));
    assert_eq!(plane.get("web").await["code"], "not_found");
    assert_eq!(delete().await.0, 404);
}

#[tokio::test]
async fn iris_11_exec_tells_failures_and_time_outs_apart() {
    let rig = Rig::new().await;
    let plane = rig.iris("box").await;
    let exec = |body: Value| plane.ask("POST", "/v1/exec", body);
    let (status, ran) = exec(json!({ "cmd": ["sh", "-c", "exit 3"] })).await;
    assert_eq!(
        (status, &ran["exit_code"], &ran["ok"]),
        (200, &json!(3), &json!(false))
    );
    let (status, ran) = exec(json!({ "cmd": ["sleep", "1000"], "timeout_ms": 100 })).await;
    assert_eq!(
        (status, &ran["exit_code"], &ran["timed_out"]),
        (200, &json!(124), &json!(true))
    );
    // The limit of a service's exec has another name and unit: it means nothing here.
    let (_, ran) = exec(json!({ "cmd": ["true"], "timeout_secs": 0.000001 })).await;
    assert_eq!(ran["exit_code"], 0);
    plane.put("web", sleep()).await;
    let inside = json!({ "cmd": ["true"], "timeout_secs": 10 });
    let (status, refused) = plane.ask("POST", "/v1/services/web/exec", inside).await;
    assert_eq!((status, &refused["code"]), (409, &json!("not_a_container")));
}

#[tokio::test]
async fn iris_12_the_lists_of_a_restore() {
    let rig = Rig::new().await;
    let plane = rig.iris("box").await;
    plane.run("kept", sleep()).await;
    let program = json!({ "cmd": "cp /bin/sleep /tmp/program" });
    plane.ask("POST", "/v1/exec", program).await;
    let broken = json!({ "cmd": "/tmp/program", "args": ["1000"] });
    plane.run("broken", broken).await;
    let (_, made) = plane
        .ask("POST", "/v1/checkpoints", json!({ "name": "before" }))
        .await;
    let id = json!({ "checkpoint_id": made["checkpoint_id"] });
    assert_eq!(
        plane
            .ask("POST", "/v1/checkpoints/wait", id.clone())
            .await
            .1["ok"],
        true
    );
    plane.stop("kept").await;
    plane.run("new", sleep()).await;
    // What is not in the workspace is not rewound.
    plane
        .ask("POST", "/v1/exec", json!({ "cmd": "rm /tmp/program" }))
        .await;
    let (status, restored) = plane.ask("POST", "/v1/checkpoints/restore", id).await;
    assert_eq!(status, 200);
    assert_eq!(restored["started_services"], json!(["kept"]));
    assert_eq!(restored["stopped_services"], json!(["new"]));
    assert_eq!(restored["failed_services"], json!(["broken"]));
    assert_eq!(restored["ok"], false);
    let missing = plane
        .ask("POST", "/v1/checkpoints/cp_none/restore", Value::Null)
        .await;
    assert_eq!(missing.0, 404);
}

#[tokio::test]
async fn iris_13_a_refused_token_is_replaced() {
    let mut rig = Rig::new().await;
    let old = rig.iris("box").await;
    let (id, token, domain) = (old.id.clone(), old.token.clone(), old.domain.clone());
    rig.restart().await;
    let domain = domain.replace(domain.split("/iris/").next().unwrap(), &rig.url);
    let made = json!({ "sandbox": { "id": id, "domain": domain }, "data_plane_token": token });
    let stale = rig.plane(&made);
    assert_eq!(stale.ask("GET", "/v1/services", Value::Null).await.0, 401);
    let (_, mut fresh) = rig
        .call("IssueDataPlaneToken", json!({ "sandbox_id": id }))
        .await;
    fresh["sandbox"] = made["sandbox"].clone();
    let fresh = rig.plane(&fresh);
    assert_eq!(
        fresh.ask("GET", "/v1/services", Value::Null).await,
        (200, json!([]))
    );
}

#[tokio::test]
async fn iris_14_empty_fields_equal_absent_ones() {
    let rig = Rig::new().await;
    let plane = rig.iris("box").await;
    let (_, first) = plane.put("web", sleep()).await;
    let mut padded = sleep();
    for (key, value) in [
        ("env", json!({})),
        ("working_dir", json!("")),
        ("user", Value::Null),
        ("needs", json!([])),
        ("health_port", json!(0)),
        ("container", json!(false)),
        ("image", json!("")),
    ] {
        padded[key] = value;
    }
    let (_, second) = plane.put("web", padded).await;
    assert_eq!(first, second);
    assert_eq!(second["revision"], 1);
}
