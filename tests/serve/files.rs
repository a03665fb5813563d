//! The files of a sprite: protocol page sprites, §6.

use serde_json::{Value, json};

use crate::rig::{Rig, told};

const FS: &str = "/v1/sprites/box/fs";

async fn write(rig: &Rig, query: &str, bytes: &'static [u8]) -> (u16, Value) {
    let request = rig.request("PUT".parse().unwrap(), &format!("{FS}/write?{query}"));
    told(request.body(bytes).send().await.unwrap()).await
}

#[tokio::test]
async fn files_are_written_read_listed_moved_and_removed() {
    let rig = Rig::new().await;
    rig.sprite("box").await;
    let (status, _) = write(
        &rig,
        "path=a/b.txt&workingDir=/tmp&mkdirParents=true&mode=0640",
        b"hey",
    )
    .await;
    assert_eq!(status, 200);
    let read = rig.request(
        "GET".parse().unwrap(),
        &format!("{FS}/read?path=/tmp/a/b.txt"),
    );
    assert_eq!(
        read.send().await.unwrap().bytes().await.unwrap().as_ref(),
        b"hey"
    );
    let listed = rig.get(&format!("{FS}/list?path=a&workingDir=/tmp")).await;
    assert_eq!(listed["count"], 1);
    let entry = &listed["entries"][0];
    let expected = json!(["b.txt", "/tmp/a/b.txt", "file", 3, "0640", false]);
    let told = json!([
        entry["name"],
        entry["path"],
        entry["type"],
        entry["size"],
        entry["mode"],
        entry["isDir"]
    ]);
    assert_eq!(told, expected);
    // One file is asked about in the same way.
    let stat = rig.get(&format!("{FS}/list?path=/tmp/a/b.txt")).await;
    assert_eq!(stat["entries"], listed["entries"]);
    let body = json!({ "source": "a/b.txt", "dest": "c.txt", "workingDir": "/tmp" });
    assert_eq!(rig.ask("POST", &format!("{FS}/rename"), body).await.0, 200);
    let (status, _) = rig
        .ask(
            "DELETE",
            &format!("{FS}/delete?path=/tmp/c.txt"),
            Value::Null,
        )
        .await;
    assert_eq!(status, 200);
    let (status, body) = rig
        .ask("GET", &format!("{FS}/read?path=/tmp/c.txt"), Value::Null)
        .await;
    assert_eq!(
        (status, &body["code"], &body["path"]),
        (404, &json!("ENOENT"), &json!("/tmp/c.txt"))
    );
}

#[tokio::test]
async fn folders_above_a_file_are_made_only_if_that_is_asked_for() {
    let rig = Rig::new().await;
    rig.sprite("box").await;
    assert_eq!(write(&rig, "path=/tmp/x/y", b"").await.0, 404);
    assert_eq!(
        write(&rig, "path=/tmp/x/y&mkdirParents=true", b"").await.0,
        200
    );
    let delete = format!("{FS}/delete?path=/tmp/x");
    let (status, body) = rig.ask("DELETE", &delete, Value::Null).await;
    assert_eq!((status, &body["code"]), (409, &json!("ENOTEMPTY")));
    assert_eq!(
        rig.ask("DELETE", &format!("{delete}&recursive=true"), Value::Null)
            .await
            .0,
        200
    );
}

#[tokio::test]
async fn files_are_copied_and_get_other_permissions() {
    let rig = Rig::new().await;
    rig.sprite("box").await;
    write(&rig, "path=/tmp/d/one&mkdirParents=true", b"hey").await;
    let copy = |body: Value| rig.ask("POST", "/v1/sprites/box/fs/copy", body);
    let body = json!({ "source": "d", "dest": "e", "workingDir": "/tmp" });
    assert_eq!(copy(body.clone()).await.1["code"], "EISDIR");
    let mut body = body;
    body["recursive"] = json!(true);
    assert_eq!(copy(body).await.0, 200);
    let body = json!({ "path": "/tmp/e/one", "mode": "0755" });
    assert_eq!(
        rig.ask("POST", "/v1/sprites/box/fs/chmod", body).await.0,
        200
    );
    let listed = rig.get(&format!("{FS}/list?path=/tmp/e")).await;
    assert_eq!(listed["entries"][0]["mode"], "0755");
    let body = json!({ "source": "/tmp/none", "dest": "/tmp/x" });
    assert_eq!(copy(body).await.1["code"], "ENOENT");
}

#[tokio::test]
async fn no_file_is_too_large() {
    let rig = Rig::new().await;
    rig.sprite("box").await;
    let bytes: Vec<u8> = (0..5u32 << 20).map(|n| (n % 251) as u8).collect();
    let path = format!("{FS}/write?path=/tmp/large&mode=0600");
    let written = rig
        .request("PUT".parse().unwrap(), &path)
        .body(bytes.clone());
    assert_eq!(written.send().await.unwrap().status().as_u16(), 200);
    let read = rig.request(
        "GET".parse().unwrap(),
        &format!("{FS}/read?path=/tmp/large"),
    );
    let read = read.send().await.unwrap().bytes().await.unwrap();
    assert!(read == bytes);
}
