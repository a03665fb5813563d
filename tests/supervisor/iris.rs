//! The acceptance list of the protocol page iris, §8, by its numbers.

use std::net::TcpStream;

use gabion::model::{Probe, ServiceState};
use gabion::supervisor::Status;
use rustix::process::Signal;
use serde_json::json;

use crate::rig::*;

#[tokio::test]
async fn iris_01_put_get_start() {
    let rig = Rig::new().await;
    let port = free_port();
    rig.put("web", &server(port, 0)).await;
    let object = rig.get("web").await;
    assert_eq!((object.status, object.pid), (Status::Stopped, None));
    assert_eq!(object.desired, "down");
    let object = rig.start("web").await.unwrap();
    assert_eq!(object.status, Status::Running);
    assert!(alive(object.pid.unwrap()));
    assert!(TcpStream::connect(("127.0.0.1", port)).is_ok());
    assert_eq!(rig.client.list().await.unwrap(), [object]);
}

#[tokio::test]
async fn iris_02_needs_are_started_first_and_awaited() {
    let rig = Rig::new().await;
    let mut a = exec(&["sleep", "600"]);
    a.needs = vec![need("b")];
    let mut b = server(free_port(), 100);
    b.needs = vec![need("c")];
    rig.put("a", &a).await;
    rig.put("b", &b).await;
    rig.put("c", &server(free_port(), 100)).await;
    let a = rig.start("a").await.unwrap();
    for (name, dependent) in [("c", rig.get("b").await), ("b", a)] {
        assert_eq!(rig.get(name).await.status, Status::Running);
        let opened = rig.lines(name, 1).await[0].at;
        assert!(dependent.started_at.unwrap() >= opened, "{name}");
    }
}

#[tokio::test]
async fn iris_03_missing_needs_and_cycles() {
    let rig = Rig::new().await;
    let mut a = exec(&["sleep", "600"]);
    a.needs = vec![need("b")];
    rig.put("a", &a).await;
    let error = rig.start("a").await.unwrap_err();
    assert_eq!(error.status, Some(409));
    assert_eq!(error.code, "dependency_not_found");
    assert_eq!(error.message, "`a` needs `b`, which is not defined");
    let mut b = exec(&["sleep", "600"]);
    b.needs = vec![need("a")];
    let error = rig.client.put(&named("b"), &b, &Default::default()).await;
    let error = error.unwrap_err();
    assert_eq!(
        (error.status, error.code.as_str()),
        (Some(400), "dependency_cycle")
    );
    assert!(error.message.contains("b -> a -> b"), "{error}");
    assert!(
        rig.client
            .get(&named("b"))
            .await
            .unwrap_err()
            .is_not_found()
    );
    b.needs = vec![need("b")];
    let error = rig.client.put(&named("b"), &b, &Default::default()).await;
    assert_eq!(error.unwrap_err().status, Some(400));
}

#[tokio::test]
async fn iris_04_a_port_that_never_opens() {
    let rig = Rig::new().await;
    let port = free_port();
    let mut spec = shell("echo over; exec sleep 600");
    spec.health = health(Probe::Tcp { port });
    spec.health.as_mut().unwrap().timeout = millis(300);
    rig.put("web", &spec).await;
    let error = rig.start("web").await.unwrap_err();
    assert_eq!(
        (error.status, error.code.as_str()),
        (Some(504), "health_timeout")
    );
    assert_eq!(error.message, format!("port {port} not open after 0.3 s"));
    assert_eq!(error.log_tail.last().unwrap(), "over");
    let object = rig.get("web").await;
    assert_eq!(object.status, Status::Failed);
    assert_eq!(object.pid, None);
    assert_eq!(rig.running(), 0);
}

#[tokio::test]
async fn iris_05_a_taken_port() {
    let rig = Rig::new().await;
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    rig.put("web", &server(port, 0)).await;
    let error = rig.start("web").await.unwrap_err();
    assert_eq!(error.code, "start_failed");
    let says = format!("port {port} is already in use by `");
    assert!(error.message.starts_with(&says), "{error}");
    assert!(
        error
            .message
            .ends_with(&format!("(pid {})", std::process::id()))
    );
    assert_eq!(rig.get("web").await.status, Status::Failed);
}

#[tokio::test]
async fn iris_06_what_ignores_sigterm_is_killed_with_its_children() {
    let rig = Rig::new().await;
    let mut spec = shell("trap '' TERM; sh -c 'echo $$; while :; do sleep 1; done' & wait");
    spec.stop.grace = millis(200);
    let object = rig.run("web", &spec).await;
    let child: u32 = rig.lines("web", 1).await[0].text.parse().unwrap();
    let child = rig.host(child);
    assert!(alive(child));
    let before = std::time::Instant::now();
    let stopped = rig.stop("web").await;
    assert!(before.elapsed().as_millis() >= 200);
    assert_eq!(stopped.status, Status::Stopped);
    assert_eq!(exit_of(&stopped).signal.as_deref(), Some("KILL"));
    assert!(!alive(object.pid.unwrap()) && !alive(child));
    // Again: nothing to do.
    assert_eq!(rig.stop("web").await.status, Status::Stopped);
}

#[tokio::test]
async fn iris_07_a_put_does_not_touch_the_process() {
    let rig = Rig::new().await;
    let first = rig.run("web", &shell("echo one; exec sleep 600")).await;
    let changed = rig.put("web", &shell("echo two; exec sleep 600")).await;
    assert_eq!(changed.pid, first.pid);
    assert_eq!((changed.revision, changed.running_revision), (2, Some(1)));
    assert!(changed.observed().stale);
    // The same again is nothing new.
    assert_eq!(
        rig.put("web", &shell("echo two; exec sleep 600")).await,
        changed
    );
    rig.stop("web").await;
    let second = rig.start("web").await.unwrap();
    assert_ne!(second.pid, first.pid);
    assert_eq!(second.running_revision, Some(2));
    assert_eq!(rig.lines("web", 2).await[1].text, "two");
}

#[tokio::test]
async fn iris_08_a_killed_service_comes_back_and_a_stop_sticks() {
    let mut rig = Rig::new().await;
    let mut spec = exec(&["sleep", "600"]);
    spec.restart.backoff = millis(60_000);
    spec.restart.max_backoff = millis(60_000);
    let first = rig.run("web", &spec).await;
    kill(first.pid.unwrap(), Signal::KILL);
    // The first restart is at once.
    let second = rig
        .until("web", |o| o.status == Status::Running && o.pid != first.pid)
        .await;
    assert_eq!(second.restart_count, 1);
    assert_eq!(exit_of(&second).signal.as_deref(), Some("KILL"));
    kill(second.pid.unwrap(), Signal::KILL);
    let waits = rig.until_state("web", ServiceState::BackingOff).await;
    let due = waits.next_restart_at.unwrap();
    assert!(due > jiff::Timestamp::now() + jiff::SignedDuration::from_secs(40));
    assert_eq!(waits.status, Status::Failed);
    assert!(waits.error.unwrap().starts_with("killed by KILL after "));
    let stopped = rig.stop("web").await;
    assert_eq!(
        (stopped.status, stopped.next_restart_at),
        (Status::Stopped, None)
    );
    rig.relaunch(Signal::KILL).await;
    assert_eq!(rig.get("web").await.status, Status::Stopped);
    assert_eq!(rig.get("web").await.desired, "down");
}

#[tokio::test]
async fn iris_09_a_killed_keeper_doubles_nothing() {
    let mut rig = Rig::new().await;
    let port = free_port();
    let mut web = server(port, 0);
    web.needs = vec![need("base")];
    // Its child outlives it, unless somebody looks for it.
    rig.put("base", &shell("sleep 600 & echo $!; wait")).await;
    let before = rig.run("web", &web).await;
    rig.run("off", &exec(&["sleep", "600"])).await;
    rig.stop("off").await;
    let left: u32 = rig.lines("base", 1).await[0].text.parse().unwrap();
    let left = rig.host(left);
    rig.relaunch(Signal::KILL).await;
    assert!(!alive(before.pid.unwrap()) && !alive(left));
    let after = rig.until_state("web", ServiceState::Running).await;
    assert_ne!(after.pid, before.pid);
    assert!(after.seq > before.seq);
    let base = rig.get("base").await;
    assert!(base.started_at < after.started_at);
    assert_eq!(rig.lines("base", 2).await.len(), 2);
    assert_eq!(rig.texts("base").await.len(), 2);
    assert_eq!(rig.texts("web").await, ["opens", "opens"]);
    assert_eq!(rig.get("off").await.status, Status::Stopped);
}

#[tokio::test]
async fn iris_09_a_terminated_supervisor_stops_and_brings_back() {
    let mut rig = Rig::new().await;
    let mut web = shell("trap 'echo web; exit' TERM; echo up; sleep 600 & wait");
    web.needs = vec![need("db")];
    let db = shell("trap 'echo db; exit' TERM; echo up; sleep 600 & wait");
    rig.put("db", &db).await;
    let first = rig.run("web", &web).await;
    rig.lines("web", 1).await;
    rig.lines("db", 1).await;
    rig.relaunch(Signal::TERM).await;
    assert!(!alive(first.pid.unwrap()));
    rig.until_state("web", ServiceState::Running).await;
    let (web, db) = (rig.lines("web", 3).await, rig.lines("db", 3).await);
    assert_eq!((web[1].text.as_str(), db[1].text.as_str()), ("web", "db"));
    assert!(web[1].at < db[1].at, "a dependent stops first");
}

#[tokio::test]
async fn iris_10_delete() {
    let rig = Rig::new().await;
    let object = rig.run("web", &shell("echo x; exec sleep 600")).await;
    rig.lines("web", 1).await;
    rig.client.delete(&named("web")).await.unwrap();
    assert!(!alive(object.pid.unwrap()));
    assert!(
        rig.client
            .get(&named("web"))
            .await
            .unwrap_err()
            .is_not_found()
    );
    let again = rig.client.delete(&named("web")).await.unwrap_err();
    assert_eq!(
        (again.status, again.code.as_str()),
        (Some(404), "not_found")
    );
    assert!(rig.dir().join("logs/web.log").exists());
    assert!(!rig.dir().join("services/web.json").exists());
}

#[tokio::test]
async fn iris_14_empty_fields_equal_absent_ones() {
    let rig = Rig::new().await;
    let plain = json!({"cmd": "sleep", "args": ["1"]});
    let padded = json!({
        "cmd": "sleep", "args": ["1"], "env": {}, "working_dir": "", "user": null, "needs": [],
        "health_port": 0, "container": false, "image": "",
    });
    let (status, first) = rig.raw("PUT", "/v1/services/web", &plain.to_string()).await;
    assert_eq!((status, &first["ok"]), (200, &json!(true)));
    let (_, second) = rig
        .raw("PUT", "/v1/services/web", &padded.to_string())
        .await;
    assert_eq!(first, second);
    let (status, error) = rig.raw("PUT", "/v1/services/web", r#"{"cmd": ""}"#).await;
    assert_eq!(status, 400);
    let expected = json!({"ok": false, "error": "`cmd` is required", "code": "invalid_request"});
    assert_eq!(error, expected);
    for (method, path, status) in [
        ("PUT", "/v1/services/a%20b", 400),
        ("GET", "/v1/services/%ff", 400),
        ("GET", "/v1/services/nobody", 404),
        ("GET", "/v2", 404),
        ("PATCH", "/v1/services/web", 405),
    ] {
        assert_eq!(
            rig.raw(method, path, "{}").await.0,
            status,
            "{method} {path}"
        );
    }
    let huge = format!(r#"{{"cmd": "{}"}}"#, "x".repeat(3 << 20));
    let (status, error) = rig.raw("PUT", "/v1/services/web", &huge).await;
    assert_eq!((status, &error["ok"]), (413, &json!(false)));
}

#[tokio::test]
async fn iris_11_exec_tells_failures_and_time_outs_apart() {
    let rig = Rig::new().await;
    let body = json!({ "cmd": ["sh", "-c", "echo out; echo err >&2; exit 3"] });
    let (status, answer) = rig.raw("POST", "/v1/exec", &body.to_string()).await;
    assert_eq!(status, 200);
    assert_eq!(answer["stdout"], "out\n");
    assert_eq!(answer["stderr"], "err\n");
    assert_eq!(
        (&answer["exit_code"], &answer["ok"]),
        (&json!(3), &json!(false))
    );
    let body = json!({ "cmd": "echo before; sleep 600", "timeout_ms": 200 });
    let (status, answer) = rig.raw("POST", "/v1/exec", &body.to_string()).await;
    assert_eq!((status, &answer["exit_code"]), (200, &json!(124)));
    assert_eq!(
        (&answer["timed_out"], &answer["stdout"]),
        (&json!(true), &json!("before\n"))
    );
    // The limit of a service's exec has another name and unit: it means nothing here.
    let body = json!({ "cmd": ["true"], "timeout_secs": 0.000001, "timeout_ms": null });
    let (_, answer) = rig.raw("POST", "/v1/exec", &body.to_string()).await;
    assert_eq!(
        (&answer["exit_code"], &answer["ok"]),
        (&json!(0), &json!(true))
    );
}

/// The server's side: without the token, or with another one, the answer is 401, so that a client can
/// refresh its token and try once more. That refresh belongs to a client of the gateway, which has
/// tokens to refresh. The client's side: every shape of a list is read, and `unknown`, or a word that
/// is not known, is no failure but something to ask about again.
#[tokio::test]
async fn iris_13_tokens_lists_and_unknown() {
    let rig = crate::tcp::Served::new().await;
    assert_eq!(rig.status("/v1/services", None).await, 401);
    assert_eq!(
        rig.status("/v1/services", Some("another-token-of-16"))
            .await,
        401
    );
    assert_eq!(
        rig.status("/v1/services", Some(crate::tcp::TOKEN)).await,
        200
    );
    let object = json!({ "name": "a", "cmd": "b", "status": "activating", "container": false });
    for list in [
        json!([object]),
        json!({ "services": [object] }),
        json!({ "data": [object] }),
    ] {
        let dir = tempfile::tempdir().unwrap();
        let _server = crate::tcp::answering(dir.path(), list.to_string()).await;
        let client = gabion::supervisor::Client::open(dir.path())
            .unwrap()
            .unwrap();
        let listed = client.list().await.unwrap();
        assert_eq!(listed.len(), 1, "{list}");
        assert_eq!(listed[0].status, Status::Unknown);
        assert_eq!(listed[0].fine_state(), ServiceState::Unknown);
    }
}
