//! The Miosa protocol: protocol page miosa.

use serde_json::{Value, json};

use crate::rig::Rig;

const PATH: &str = "/api/v1/sandboxes";

async fn made(rig: &Rig, body: Value) -> String {
    let (status, body) = rig.ask("POST", PATH, body).await;
    assert_eq!(status, 201, "{body}");
    body["data"]["id"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn a_key_makes_one_sandbox_however_often_it_is_sent() {
    let rig = Rig::new().await;
    let send = async |key: &str, name: &str| {
        let request = rig.request(reqwest::Method::POST, PATH);
        let request = request.header("idempotency-key", key);
        let answer = request.json(&json!({ "name": name })).send().await.unwrap();
        let status = answer.status().as_u16();
        let body: Value = answer.json().await.unwrap();
        (status, body)
    };
    let (first, again) = tokio::join!(send("k1", "web"), send("k1", "web"));
    assert_eq!(first, again);
    assert_eq!(send("k1", "web").await, first);
    let (status, body) = send("k1", "other").await;
    assert_eq!(status, 409);
    assert_eq!(body["error"]["code"], "IDEMPOTENCY_PAYLOAD_MISMATCH");
    // Names need not be unique.
    assert_eq!(send("k2", "web").await.0, 201);
    let all = rig.get(PATH).await;
    assert_eq!(all["data"].as_array().unwrap().len(), 2);
}

#[tokio::test]
async fn a_process_is_a_service_elsewhere_and_a_service_is_a_process_here() {
    let rig = Rig::new().await;
    let id = made(&rig, json!({ "name": "web" })).await;
    let path = format!("{PATH}/{id}/processes");
    let body = json!({ "command": "exec sleep 1000", "name": "one" });
    let (status, started) = rig.ask("POST", &path, body).await;
    assert_eq!(status, 201, "{started}");
    let seen = rig.get("/v1/sprites/web/services/one").await;
    assert_eq!(seen["state"]["pid"], started["data"]["pid"]);
    let two = rig
        .put("web", "two", crate::rig::shell("exec sleep 1000"))
        .await;
    let all = rig.get(&path).await;
    let pids: Vec<_> = all["data"]
        .as_array()
        .unwrap()
        .iter()
        .map(|it| &it["pid"])
        .collect();
    assert_eq!(pids, [&started["data"]["pid"], &two["state"]["pid"]]);
}

#[tokio::test]
async fn what_was_destroyed_says_so_and_names_are_no_ids() {
    let rig = Rig::new().await;
    let id = made(&rig, json!({ "name": "web" })).await;
    let (status, body) = rig
        .ask("DELETE", &format!("{PATH}/{id}"), Value::Null)
        .await;
    assert_eq!((status, &body["data"]["state"]), (200, &json!("destroyed")));
    let body = rig.get(&format!("{PATH}/{id}")).await;
    assert_eq!(body["data"]["state"], "destroyed");
    assert_eq!(rig.get(PATH).await, json!({ "data": [] }));
    let (status, body) = rig.ask("GET", &format!("{PATH}/web"), Value::Null).await;
    assert_eq!(
        (status, &body["error"]["code"]),
        (400, &json!("INVALID_ID"))
    );
    let (status, body) = rig.ask("GET", "/api/v1/nothing", Value::Null).await;
    assert_eq!((status, &body["error"]["code"]), (404, &json!("NOT_FOUND")));
}
