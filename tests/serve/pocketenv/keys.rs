//! SSH and Tailscale keys: protocol page pocketenv, §8.

use serde_json::{Value, json};

use super::{boxed, done, get, path, post};
use crate::rig::{BOB, Rig, told};

const SHOWN: &str = "-----BEGIN ***---";

fn ssh(id: &str, public: &str) -> Value {
    json!({ "id": id, "publicKey": public, "privateKey": "sealed", "redacted": SHOWN })
}

async fn has_none(rig: &Rig, operation: &str) {
    let nothing = json!({ "error": "XRPCNotSupported", "message": "Not found" });
    assert_eq!(get(rig, operation).await, (404, nothing), "{operation}");
}

#[tokio::test]
async fn a_key_is_replaced_and_shown_without_its_secret_half() {
    let (rig, id) = boxed().await;
    let show = format!("sandbox.getSshKeys?id={id}");
    has_none(&rig, &show).await;
    for public in ["ssh-ed25519 AAAA one", "ssh-ed25519 BBBB two"] {
        let put = done(&rig, "sandbox.putSshKeys", ssh(&id, public)).await;
        assert_eq!(put, json!({}));
        let (_, key) = get(&rig, &show).await;
        assert_eq!(key["publicKey"], public);
        assert_eq!(key["privateKey"], SHOWN);
        assert!(key["id"].is_string() && key["createdAt"].is_string());
        assert_eq!(key.as_object().unwrap().len(), 4, "{key}");
    }
    let show = format!("sandbox.getTailscaleAuthKey?id={id}");
    has_none(&rig, &show).await;
    let key = json!({ "id": id, "authKey": "sealed", "redacted": "tskey-***abc" });
    assert_eq!(
        done(&rig, "sandbox.putTailscaleAuthKey", key).await,
        json!({})
    );
    let (_, key) = get(&rig, &show).await;
    assert_eq!(key["authKey"], "tskey-***abc");
    assert_eq!(key.as_object().unwrap().len(), 3, "{key}");
    // What nobody says how to show is not shown.
    let key = json!({ "id": id, "authKey": "sealed" });
    done(&rig, "sandbox.putTailscaleAuthKey", key).await;
    assert_eq!(get(&rig, &show).await.1["authKey"], Value::Null);
}

#[tokio::test]
async fn a_key_is_of_ones_own_sandbox_by_its_id() {
    let (rig, id) = boxed().await;
    done(&rig, "sandbox.putSshKeys", ssh(&id, "ssh-ed25519 AAAA")).await;
    let (_, found) = get(&rig, &format!("sandbox.getSandbox?id={id}")).await;
    let name = found["sandbox"]["name"].as_str().unwrap();
    has_none(&rig, &format!("sandbox.getSshKeys?id={name}")).await;
    for other in [name, "nope"] {
        let (status, body) = post(&rig, "sandbox.putSshKeys", ssh(other, "x")).await;
        assert_eq!((status, &body["error"]), (404, &json!("XRPCNotSupported")));
        assert_eq!(body["message"], "Sandbox not found");
    }
    let show = format!("{}{}?id={id}", rig.url, path("sandbox.getSshKeys"));
    let theirs = rig.http.get(&show).bearer_auth(BOB).send().await.unwrap();
    assert_eq!(told(theirs).await.0, 404);
    assert_eq!(rig.http.get(&show).send().await.unwrap().status(), 401);

    let half = json!({ "id": id, "publicKey": "ssh-ed25519 AAAA" });
    let (status, body) = post(&rig, "sandbox.putSshKeys", half).await;
    assert_eq!(status, 400);
    assert_eq!(
        body["message"],
        "Input must have the property \"privateKey\""
    );
}
