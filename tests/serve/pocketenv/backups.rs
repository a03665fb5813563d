//! Backups: protocol page pocketenv, §8.

use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

use super::{boxed, done, get, path, post, run};
use crate::rig::{BOB, Rig, in_time, told};

async fn backups(rig: &Rig, id: &str) -> Vec<Value> {
    let (status, body) = get(rig, &format!("sandbox.getBackups?id={id}")).await;
    assert_eq!(status, 200, "{body}");
    body["backups"].as_array().unwrap().clone()
}

/// Asks for a backup, and waits until it is in the list.
async fn made(rig: &Rig, id: &str, body: Value) -> Value {
    let create = format!("sandbox.createBackup?id={id}");
    assert_eq!(done(rig, &create, body.clone()).await, Value::Null);
    in_time(async {
        loop {
            let all = backups(rig, id).await.into_iter();
            let mut same = all.filter(|it| it["description"] == body["description"]);
            if let Some(backup) = same.next() {
                return backup;
            }
        }
    })
    .await
}

/// How long it is kept.
fn kept_for(backup: &Value) -> SignedDuration {
    let time = |key: &str| -> Timestamp { backup[key].as_str().unwrap().parse().unwrap() };
    time("expiresAt").duration_since(time("createdAt"))
}

#[tokio::test]
async fn a_backup_is_of_one_folder_only() {
    let (rig, id) = boxed().await;
    let workspace = run(&rig, &id, "pwd").await.trim().to_owned();
    let directories = ["data".to_owned(), format!("{workspace}/other/../data")];
    for (directory, name) in directories.iter().zip(["relative", "absolute"]) {
        let fill = "mkdir -p data/sub other; echo old | tee data/a data/sub/.b other/a";
        run(&rig, &id, fill).await;
        let body = json!({ "directory": directory, "description": name, "ttl": 3600 });
        let backup = made(&rig, &id, body).await;
        assert_eq!(backup["directory"], *directory);
        assert_eq!(kept_for(&backup), SignedDuration::from_hours(1));
        let spoil = "echo new | tee data/a data/more other/a; rm -r data/sub";
        run(&rig, &id, spoil).await;
        let body = json!({ "backupId": backup["id"] });
        let restored = done(&rig, "sandbox.restoreBackup", body).await;
        assert_eq!(restored, Value::Null);
        let now = "cat data/a data/sub/.b other/a; ls data";
        assert_eq!(run(&rig, &id, now).await, "old\nold\nnew\na\nsub\n");
    }
    // Also of a folder that is gone.
    run(&rig, &id, "rm -r data").await;
    let body = json!({ "backupId": backups(&rig, &id).await[0]["id"] });
    done(&rig, "sandbox.restoreBackup", body).await;
    assert_eq!(run(&rig, &id, "cat data/a").await, "old\n");
}

#[tokio::test]
async fn what_is_not_the_sandboxes_own_is_not_backed_up() {
    let (rig, id) = boxed().await;
    run(&rig, &id, "mkdir data; ln -s /etc link").await;
    for directory in ["/etc", "..", "data/../../x", "link", "/"] {
        let body = json!({ "directory": directory });
        let create = format!("sandbox.createBackup?id={id}");
        let (status, body) = post(&rig, &create, body).await;
        assert_eq!((status, &body["error"]), (400, &json!("InvalidRequest")));
    }
    assert_eq!(backups(&rig, &id).await, Vec::<Value>::new());
}

#[tokio::test]
async fn a_backup_is_kept_for_its_time() {
    let (rig, id) = boxed().await;
    let create = format!("sandbox.createBackup?id={id}");
    let short = json!({ "directory": ".", "description": "short", "ttl": 1 });
    done(&rig, &create, short).await;
    let usual = made(
        &rig,
        &id,
        json!({ "directory": ".", "description": "usual" }),
    )
    .await;
    assert_eq!(kept_for(&usual), SignedDuration::from_hours(72));
    in_time(async { while backups(&rig, &id).await.len() != 1 {} }).await;
    let (status, body) = post(&rig, &create, json!({ "directory": ".", "ttl": 0 })).await;
    assert_eq!(status, 400);
    assert_eq!(body["message"], "Input/ttl can not be less than 1");
    let (status, body) = post(&rig, &create, json!({})).await;
    assert_eq!(status, 400);
    assert_eq!(
        body["message"],
        "Input must have the property \"directory\""
    );
}

#[tokio::test]
async fn an_unknown_backup_and_a_provider_that_has_none() {
    let (rig, id) = boxed().await;
    let (status, body) = post(&rig, "sandbox.restoreBackup", json!({ "backupId": "x" })).await;
    assert_eq!((status, &body["error"]), (404, &json!("XRPCNotSupported")));
    assert_eq!(body["message"], "Backup not found");

    let backup = made(
        &rig,
        &id,
        json!({ "directory": ".", "description": "mine" }),
    )
    .await;
    let restore = format!("{}{}", rig.url, path("sandbox.restoreBackup"));
    let theirs = rig.http.post(restore).bearer_auth(BOB);
    let theirs = theirs.json(&json!({ "backupId": backup["id"] })).send();
    assert_eq!(told(theirs.await.unwrap()).await.0, 404);

    let body = json!({ "base": "openclaw", "provider": "modal" });
    let other = done(&rig, "sandbox.createSandbox", body).await;
    let create = format!("sandbox.createBackup?id={}", other["id"].as_str().unwrap());
    let (status, body) = post(&rig, &create, json!({ "directory": "." })).await;
    assert_eq!(status, 400);
    assert_eq!(body["message"], "Sandbox provider does not support backup");
}
