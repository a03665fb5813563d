//! Sandboxes of nobody in particular, and how they become somebody's: protocol page pocketenv, §3 and §4.2.

use serde_json::{Value, json};

use super::{add, done, get, path, post, run, statuses};
use crate::rig::{BOB, Rig, told};

/// Makes a sandbox as a browser does without a user.
async fn anonymous(rig: &Rig) -> Value {
    let create = format!("{}{}", rig.url, path("sandbox.createSandbox"));
    let request = rig.http.post(create).header("x-challenge", "solved");
    let request = request.json(&json!({ "base": "openclaw" }));
    let (status, made) = told(request.send().await.unwrap()).await;
    assert_eq!(status, 200, "{made}");
    assert_eq!(made["uri"], Value::Null);
    made
}

async fn listed(rig: &Rig) -> Value {
    let (_, profile) = get(rig, "actor.getProfile").await;
    let did = profile["did"].as_str().unwrap();
    get(rig, &format!("actor.getActorSandboxes?did={did}"))
        .await
        .1
}

#[tokio::test]
async fn what_is_nobodys_becomes_the_first_ones_who_claims_it() {
    let mut rig = Rig::new().await;
    let made = anonymous(&rig).await;
    let (id, name) = (
        made["id"].as_str().unwrap().to_owned(),
        made["name"].as_str().unwrap(),
    );
    let show = format!("sandbox.getSandbox?id={name}");
    let (_, found) = get(&rig, &show).await;
    assert_eq!(found["sandbox"]["id"], *id);
    assert_eq!(found["sandbox"]["status"], "RUNNING");
    assert_eq!(found["sandbox"].get("owner"), None);
    assert_eq!(listed(&rig).await["total"], 0);
    let stop = format!("sandbox.stopSandbox?id={id}");
    assert_eq!(post(&rig, &stop, Value::Null).await.0, 404);

    let claim = format!("sandbox.claimSandbox?id={id}");
    let url = format!("{}{}", rig.url, path(&claim));
    let nobody = rig.http.post(&url).send().await.unwrap();
    assert_eq!(nobody.status(), 401);
    let by_name = format!("sandbox.claimSandbox?id={name}");
    assert_eq!(post(&rig, &by_name, Value::Null).await.0, 404);
    let claimed = done(&rig, &claim, Value::Null).await;
    assert_eq!(
        (&claimed["id"], &claimed["name"]),
        (&json!(id), &json!(name))
    );
    assert!(claimed["uri"].is_string() && claimed["createdAt"].is_string());

    let theirs = rig.http.post(&url).bearer_auth(BOB).send().await.unwrap();
    let (status, body) = told(theirs).await;
    assert_eq!((status, &body["error"]), (404, &json!("XRPCNotSupported")));
    assert_eq!(body["message"], "Sandbox not found");
    assert_eq!(post(&rig, &claim, Value::Null).await.0, 404);

    // It is the claimer's like any other, and stays so.
    assert_eq!(add(&rig, &id, "api", json!({})).await.0, 200);
    rig.restart().await;
    assert_eq!(listed(&rig).await["sandboxes"][0]["id"], *id);
    assert_eq!(statuses(&rig, &id).await, ["RUNNING"]);
    assert_eq!(run(&rig, &id, "echo here").await, "here\n");
    let (_, found) = get(&rig, &format!("sandbox.getSandbox?id={id}")).await;
    assert!(found["sandbox"]["owner"]["did"].is_string());
    assert_eq!(post(&rig, &claim, Value::Null).await.0, 404);
    let delete = format!("sandbox.deleteSandbox?id={id}");
    assert_eq!(post(&rig, &delete, Value::Null).await.0, 200);
    assert_eq!(listed(&rig).await["total"], 0);
}
