//! Folders in and out: protocol page pocketenv, §9.

use serde_json::{Value, json};

use super::{boxed, done, post, run};
use crate::rig::{ALICE, BOB, Rig, in_time, told};

/// Puts an archive into the storage.
async fn put(rig: &Rig, token: &str, archive: &[u8]) -> (u16, Value) {
    let head = "--cut\r\nContent-Disposition: form-data; name=\"file\"; filename=\"a.tgz\"\r\n\r\n";
    let body = [head.as_bytes(), archive, b"\r\n--cut--\r\n"].concat();
    let request = rig.http.post(format!("{}/cp", rig.url)).body(body);
    let request = request.header("content-type", "multipart/form-data; boundary=cut");
    told(in_time(request.bearer_auth(token).send()).await.unwrap()).await
}

/// Takes one out of it.
async fn take(rig: &Rig, token: &str, uuid: &str) -> (u16, Vec<u8>) {
    let request = rig.http.get(format!("{}/cp/{uuid}", rig.url));
    let answer = in_time(request.bearer_auth(token).send()).await.unwrap();
    let status = answer.status().as_u16();
    (status, answer.bytes().await.unwrap().to_vec())
}

#[tokio::test]
async fn a_folder_goes_out_and_in_and_each_archive_once() {
    let (rig, id) = boxed().await;
    run(&rig, &id, "mkdir -p from/deep && echo text >from/deep/file").await;
    let folder = run(&rig, &id, "pwd").await;
    let folder = folder.trim();
    let push = json!({ "sandboxId": id, "directoryPath": format!("{folder}/from") });
    let pushed = done(&rig, "sandbox.pushDirectory", push.clone()).await;
    let uuid = pushed["uuid"].as_str().unwrap();
    // Nobody else gets it, and nobody gets it twice.
    assert_eq!(take(&rig, BOB, uuid).await.0, 404);
    let (status, archive) = take(&rig, ALICE, uuid).await;
    assert_eq!(status, 200);
    assert_eq!(take(&rig, ALICE, uuid).await.0, 404);

    let (status, stored) = put(&rig, ALICE, &archive).await;
    assert_eq!(status, 200, "{stored}");
    let pull = json!({
        "sandboxId": id,
        "directoryPath": format!("{folder}/to"),
        "uuid": stored["uuid"],
    });
    assert_eq!(
        done(&rig, "sandbox.pullDirectory", pull.clone()).await,
        Value::Null
    );
    assert_eq!(run(&rig, &id, "cat to/deep/file").await, "text\n");
    assert_eq!(post(&rig, "sandbox.pullDirectory", pull).await.0, 404);
    assert_eq!(
        run(&rig, &id, "ls -A /tmp | grep pocketenv | wc -l").await,
        "0\n"
    );

    // Only what runs has files, and only users have archives.
    let none = json!({ "sandboxId": id, "directoryPath": "/none" });
    assert_eq!(post(&rig, "sandbox.pushDirectory", none).await.0, 400);
    done_stop(&rig, &id).await;
    let (status, answer) = post(&rig, "sandbox.pushDirectory", push).await;
    assert_eq!(
        (status, &answer["message"]),
        (400, &json!("Sandbox is not running"))
    );
    let none = rig.http.post(format!("{}/cp", rig.url)).send();
    assert!(matches!(
        in_time(none).await.unwrap().status().as_u16(),
        400 | 401
    ));
}

async fn done_stop(rig: &Rig, id: &str) {
    let (status, _) = post(rig, &format!("sandbox.stopSandbox?id={id}"), Value::Null).await;
    assert_eq!(status, 200);
}
