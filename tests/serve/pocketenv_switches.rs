//! Pocketenv where it behaves otherwise: protocol page pocketenv, §4.4, §5 and §11.

use gabion::serve::faults::Plan;
use gabion::serve::pocketenv::Switches;
use reqwest::Method;
use serde_json::{Value, json};

use crate::rig::{Rig, told};

async fn switched(switches: &[&str]) -> Rig {
    Rig::switched(Switches::read(switches).unwrap()).await
}

async fn ask(rig: &Rig, method: &str, operation: &str, body: Value) -> (u16, Value) {
    let path = format!("/xrpc/io.pocketenv.{operation}");
    rig.ask(method, &path, body).await
}

/// Makes a sandbox, and tells its id.
async fn made(rig: &Rig, provider: &str) -> String {
    let body = json!({ "base": "openclaw", "provider": provider });
    let (status, made) = ask(rig, "POST", "sandbox.createSandbox", body).await;
    assert_eq!(status, 200, "{made}");
    made["id"].as_str().unwrap().to_owned()
}

async fn status(rig: &Rig, id: &str) -> Value {
    let show = format!("sandbox.getSandbox?id={id}");
    ask(rig, "GET", &show, Value::Null).await.1["sandbox"]["status"].clone()
}

/// The only service.
async fn service(rig: &Rig, id: &str) -> Value {
    let list = format!("service.getServices?sandboxId={id}");
    ask(rig, "GET", &list, Value::Null).await.1["services"][0].clone()
}

#[tokio::test]
async fn lenient_servers_take_an_empty_object_for_no_body() {
    let rig = switched(&["lenient"]).await;
    let id = made(&rig, "cloudflare").await;
    let stop = format!("sandbox.stopSandbox?id={id}");
    let (status, body) = ask(&rig, "POST", &stop, json!({ "a": 1 })).await;
    assert_eq!((status, &body["error"]), (400, &json!("InvalidRequest")));
    for body in [json!({}), Value::Null] {
        assert_eq!(ask(&rig, "POST", &stop, body).await, (200, json!({})));
    }
}

#[tokio::test]
async fn profiles_that_nobody_can_tell_are_empty() {
    let rig = switched(&["empty-profile"]).await;
    for query in ["", "?did=did:plc:abc"] {
        let show = format!("actor.getProfile{query}");
        assert_eq!(ask(&rig, "GET", &show, Value::Null).await, (200, json!({})));
    }
}

#[tokio::test]
async fn other_providers_take_their_time() {
    let rig = switched(&["initializing=2"]).await;
    let id = made(&rig, "cloudflare").await;
    assert_eq!(status(&rig, &id).await, "RUNNING");
    let id = made(&rig, "modal").await;
    let exec = format!("sandbox.exec?id={id}");
    let (refused, _) = ask(&rig, "POST", &exec, json!({ "command": "true" })).await;
    assert_eq!(refused, 400);
    assert_eq!(status(&rig, &id).await, "INITIALIZING");
    assert_eq!(status(&rig, &id).await, "INITIALIZING");
    assert_eq!(status(&rig, &id).await, "RUNNING");
    let (ran, _) = ask(&rig, "POST", &exec, json!({ "command": "true" })).await;
    assert_eq!(ran, 200);
}

#[tokio::test]
async fn what_is_initializing_is_neither_running_nor_stopped_and_can_be_deleted() {
    let rig = switched(&["stuck"]).await;
    let id = made(&rig, "e2b").await;
    let (_, profile) = ask(&rig, "GET", "actor.getProfile", Value::Null).await;
    let list = format!(
        "actor.getActorSandboxes?did={}",
        profile["did"].as_str().unwrap()
    );
    for (filter, count) in [("", 1), ("&isRunning=true", 0), ("&isRunning=false", 0)] {
        let list = format!("{list}{filter}");
        let (_, body) = ask(&rig, "GET", &list, Value::Null).await;
        assert_eq!(body["total"], count, "{filter}");
    }
    let start = format!("sandbox.startSandbox?id={id}");
    assert_eq!(ask(&rig, "POST", &start, json!({})).await.0, 400);
    let stop = format!("sandbox.stopSandbox?id={id}");
    assert_eq!(ask(&rig, "POST", &stop, Value::Null).await.0, 400);
    assert_eq!(status(&rig, &id).await, "INITIALIZING");
    let delete = format!("sandbox.deleteSandbox?id={id}");
    assert_eq!(ask(&rig, "POST", &delete, Value::Null).await.0, 200);
}

#[tokio::test]
async fn starts_may_be_answered_and_not_done() {
    let rig = switched(&["silent-starts=2"]).await;
    let id = made(&rig, "cloudflare").await;
    let add = format!("service.addService?sandboxId={id}");
    let body = json!({ "service": { "name": "api", "command": "exec sleep 1000" } });
    assert_eq!(ask(&rig, "POST", &add, body).await, (200, Value::Null));
    let added = service(&rig, &id).await;
    assert_eq!(added["status"], "STOPPED");
    let start = format!(
        "service.startService?serviceId={}",
        added["id"].as_str().unwrap()
    );
    for status in ["STOPPED", "RUNNING"] {
        assert_eq!(ask(&rig, "POST", &start, Value::Null).await.0, 200);
        assert_eq!(service(&rig, &id).await["status"], status);
    }
}

#[tokio::test]
async fn an_operation_fails_by_its_name() {
    let rig = Rig::new().await;
    let faults = |rule: &str| {
        let rule = format!("POST /xrpc/io.pocketenv.sandbox.createSandbox:{rule}@1");
        let rules = vec![rule.parse().unwrap()];
        let plan = Plan {
            rules,
            ..Plan::default()
        };
        rig.faults.reset(plan);
    };
    let create = || async {
        let path = "/xrpc/io.pocketenv.sandbox.createSandbox";
        let request = rig.request(Method::POST, path);
        let request = request.json(&json!({ "base": "openclaw" }));
        request.send().await.unwrap()
    };
    faults("before=429/7");
    let refused = create().await;
    assert_eq!(refused.headers()["retry-after"], "7");
    assert_eq!(told(refused).await.0, 429);
    faults("after=500");
    assert_eq!(told(create().await).await.0, 500);
    let (_, profile) = ask(&rig, "GET", "actor.getProfile", Value::Null).await;
    let list = format!(
        "actor.getActorSandboxes?did={}",
        profile["did"].as_str().unwrap()
    );
    assert_eq!(ask(&rig, "GET", &list, Value::Null).await.1["total"], 1);
}

#[tokio::test]
async fn whoever_asks_too_often_is_told_to_wait() {
    let rig = switched(&["rate=2"]).await;
    let path = "/xrpc/io.pocketenv.sandbox.getSandbox?id=nope";
    let show = || async { rig.request(Method::GET, path).send().await.unwrap() };
    for left in ["1", "0"] {
        let answer = show().await;
        assert_eq!(answer.headers()["x-ratelimit-limit"], "2");
        assert_eq!(answer.headers()["x-ratelimit-remaining"], left);
        assert_eq!(told(answer).await, (200, json!({})));
    }
    let answer = show().await;
    assert_eq!(answer.headers()["x-ratelimit-remaining"], "0");
    assert_eq!(answer.headers()["retry-after"], "30");
    let body = json!({ "error": "Too many requests, please try again later." });
    assert_eq!(told(answer).await, (429, body));
}
