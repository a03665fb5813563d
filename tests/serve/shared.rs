//! One engine below all protocols.

use serde_json::{Value, json};

use crate::rig::{Rig, shell};

#[tokio::test]
async fn a_service_made_through_one_protocol_is_seen_through_the_others() {
    let rig = Rig::new().await;
    let plane = rig.iris("box").await;
    let body = json!({ "cmd": "/bin/sh", "args": ["-c", "exec sleep 1000"], "env": { "A": "1" } });
    plane.ask("PUT", "/v1/services/by-iris", body).await;
    plane
        .ask("POST", "/v1/services/by-iris/start", Value::Null)
        .await;
    let by_sprites = rig.put("box", "by-sprites", shell("exec sleep 1000")).await;

    let sprites = rig.get("/v1/sprites/box/services").await;
    let names: Vec<_> = sprites
        .as_array()
        .unwrap()
        .iter()
        .map(|it| &it["name"])
        .collect();
    assert_eq!(names, ["by-iris", "by-sprites"]);
    assert_eq!(sprites[0]["state"]["status"], "running");
    assert_eq!(sprites[0]["env"], json!({ "A": "1" }));

    let (_, iris) = plane
        .ask("GET", "/v1/services/by-sprites", Value::Null)
        .await;
    assert_eq!(
        (&iris["status"], &iris["pid"]),
        (&json!("running"), &by_sprites["state"]["pid"])
    );

    rig.post("/v1/sprites/box/services/by-iris/stop").await;
    let (_, stopped) = plane.ask("GET", "/v1/services/by-iris", Value::Null).await;
    assert_eq!(stopped["status"], "stopped");
}

#[tokio::test]
async fn a_sandbox_made_through_one_protocol_is_seen_through_the_others() {
    let rig = Rig::new().await;
    let made = rig.sprite("box").await;
    let (_, listed) = rig.call("ListSandboxes", json!({})).await;
    assert_eq!(listed["sandboxes"][0]["id"], made["id"]);
    assert_eq!(listed["sandboxes"][0]["name"], "box");
    rig.call("SuspendSandbox", json!({ "sandbox_id": made["id"] }))
        .await;
    assert_eq!(rig.get("/v1/sprites/box").await["status"], "cold");
    // Any request wakes a sprite.
    assert_eq!(rig.get("/v1/sprites/box/services").await, json!([]));
    assert_eq!(rig.get("/v1/sprites/box").await["status"], "running");
    rig.call("DeleteSandbox", json!({ "sandbox_id": made["id"] }))
        .await;
    assert_eq!(rig.ask("GET", "/v1/sprites/box", Value::Null).await.0, 404);
}
