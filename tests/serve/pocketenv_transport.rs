//! Pocketenv: what every operation has in common, as protocol page pocketenv says in §1.

use reqwest::Method;
use reqwest::header::CONTENT_TYPE;
use serde_json::{Value, json};

use crate::pocketenv::{boxed, done, get, own, path, post};
use crate::rig::{Rig, in_time, told};

#[tokio::test]
async fn what_is_documented_and_does_not_exist_is_no_json() {
    let rig = Rig::new().await;
    for operation in [
        "sandbox.updateSandboxSettings",
        "sandbox.getTailscaleToken",
        "sandbox.putTailscaleToken",
    ] {
        let (status, body) = post(&rig, operation, json!({})).await;
        assert_eq!(status, 404, "{operation}");
        assert!(body.as_str().unwrap().starts_with("<!DOCTYPE html>"));
    }
}

#[tokio::test]
async fn a_provider_that_is_not_for_everybody_is_forbidden() {
    let rig = Rig::new().await;
    let body = json!({ "base": "openclaw", "provider": "blaxel" });
    let (status, body) = post(&rig, "sandbox.createSandbox", body).await;
    let error = json!("SandboxProviderError");
    assert_eq!((status, &body["error"]), (403, &error));
    assert_eq!(own(&rig).await["total"], 0);
}

#[tokio::test]
async fn every_answer_tells_what_is_left_of_the_rate() {
    let rig = Rig::new().await;
    let mut left = 500;
    for operation in ["sandbox.getSandbox?id=nope", "sandbox.nope"] {
        let request = rig.request(Method::GET, &path(operation));
        let answer = in_time(request.send()).await.unwrap();
        let number = |name: &str| -> i64 {
            let value = answer.headers()[name].to_str().unwrap();
            value.parse().unwrap()
        };
        left -= 1;
        assert_eq!(number("x-ratelimit-limit"), 500);
        assert_eq!(number("x-ratelimit-remaining"), left);
        let now = jiff::Timestamp::now().as_second();
        assert!((now - 1..=now + 31).contains(&number("x-ratelimit-reset")));
    }
}

#[tokio::test]
async fn what_is_attached_is_told_in_pages_of_20() {
    let (rig, id) = boxed().await;
    for at in 0..21 {
        let variable = json!({ "sandboxId": id, "name": format!("V{at}"), "value": "" });
        let body = json!({ "variable": variable });
        done(&rig, "variable.addVariable", body).await;
    }
    let list = format!("variable.getVariables?sandboxId={id}");
    for (page, count) in [
        ("", 20),
        ("&offset=20", 1),
        ("&limit=1000", 21),
        ("&offset=30", 0),
    ] {
        let (_, body) = get(&rig, &format!("{list}{page}")).await;
        assert_eq!(body["variables"].as_array().unwrap().len(), count, "{page}");
        assert_eq!(body["total"], 21, "{page}");
    }
    for (page, says) in [
        ("&limit=some", "Error: limit can not be less than 1"),
        ("&offset=-1", "Error: offset can not be less than 0"),
    ] {
        let (status, body) = get(&rig, &format!("{list}{page}")).await;
        assert_eq!((status, &body["message"]), (400, &json!(says)), "{page}");
    }
}

#[tokio::test]
async fn parameters_are_needed_or_ignored() {
    let rig = Rig::new().await;
    let says = |text: &str| json!({ "error": "InvalidRequest", "message": text });
    let missing = says("Error: Params must have the property \"id\"");
    for query in ["", "?id="] {
        let show = format!("sandbox.getSandbox{query}");
        assert_eq!(get(&rig, &show).await, (400, missing.clone()), "{query}");
    }
    let show = "sandbox.getSandbox?id=nope&other=1";
    assert_eq!(get(&rig, show).await, (200, json!({})));
    let nobody = says("Error: did must be a valid did or a handle");
    let list = "actor.getActorSandboxes?did=nobody";
    assert_eq!(get(&rig, list).await, (400, nobody));
}

#[tokio::test]
async fn what_has_nothing_to_say_has_no_type() {
    let (rig, id) = boxed().await;
    let unexpose = path(&format!("sandbox.unexposePort?id={id}"));
    let request = rig.request(Method::POST, &unexpose);
    let request = request.json(&json!({ "port": 18080 }));
    let answer = in_time(request.send()).await.unwrap();
    assert_eq!(answer.headers().get(CONTENT_TYPE), None);
    assert_eq!(answer.headers()["content-length"], "0");
    assert_eq!(told(answer).await, (200, Value::Null));
}
