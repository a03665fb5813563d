//! Checkpoints and restores through the API (protocol page iris, §6 and §8).

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use gabion::model::{Restored, SandboxSpec, Secrets, ServiceState};
use rustix::process::Signal;
use serde_json::{Value, json};

use crate::rig::*;

fn sleeper() -> gabion::model::ServiceSpec {
    exec(&["sleep", "600"])
}

fn names(names: &[&str]) -> Vec<gabion::model::ServiceName> {
    names.iter().map(|name| named(name)).collect()
}

async fn create(rig: &Rig) -> String {
    let none = Secrets::default();
    let made = rig.client.create_checkpoint(None, &none);
    in_time(made).await.unwrap().id
}

async fn restore(rig: &Rig, id: &str) -> Restored {
    let none = Secrets::default();
    let restored = rig.client.restore_checkpoint(id, &none);
    in_time(restored).await.unwrap()
}

/// Writes what a platform would into the sandbox's `checkpoint` settings.
fn set_hooks(rig: &Rig, settings: Value) {
    let spec = serde_json::to_value(SandboxSpec::default()).unwrap();
    let mut text = json!({ "spec": spec });
    text["spec"]["checkpoint"] = settings;
    fs::write(rig.dir().join("sandbox.json"), text.to_string()).unwrap();
}

#[tokio::test]
async fn iris_12_files_and_services_are_rewound_and_told_in_disjoint_lists() {
    let rig = Rig::new().await;
    let workspace = rig.workspace();
    let folder = fs::metadata(&workspace).unwrap().ino();
    fs::write(workspace.join("data"), "before").unwrap();
    for name in ["kept", "stopped-later", "broken-later", "deleted-later"] {
        rig.run(name, &sleeper()).await;
    }
    rig.put("stopped-before", &sleeper()).await;
    fs::write(workspace.join("program"), "#!/bin/sh\nexec sleep 600\n").unwrap();
    let id = create(&rig).await;

    fs::write(workspace.join("data"), "after").unwrap();
    fs::write(workspace.join("more"), "after").unwrap();
    fs::remove_file(workspace.join("program")).unwrap();
    let old = rig.get("kept").await.pid.unwrap();
    rig.put("kept", &exec(&["sleep", "700"])).await;
    rig.stop("stopped-later").await;
    rig.client.delete(&named("deleted-later")).await.unwrap();
    rig.run("new-since", &sleeper()).await;
    rig.start("stopped-before").await.unwrap();

    let restored = restore(&rig, &id).await;
    let ran = ["broken-later", "deleted-later", "kept", "stopped-later"];
    assert_eq!(restored.started_services, names(&ran));
    assert_eq!(
        restored.stopped_services,
        names(&["new-since", "stopped-before"])
    );
    assert_eq!(restored.failed_services, []);
    assert_eq!(
        fs::read_to_string(workspace.join("data")).unwrap(),
        "before"
    );
    assert!(!workspace.join("more").exists() && workspace.join("program").exists());
    assert_eq!(fs::metadata(&workspace).unwrap().ino(), folder);
    for name in ran {
        assert_eq!(
            rig.get(name).await.state,
            Some(ServiceState::Running),
            "{name}"
        );
    }
    assert!(!alive(old));
    assert_eq!(rig.get("kept").await.args, ["600"]);
    assert_eq!(
        rig.get("stopped-before").await.state,
        Some(ServiceState::Stopped)
    );
    let gone = rig.client.get(&named("new-since")).await.unwrap_err();
    assert!(gone.is_not_found());

    // All of it is on disk, too.
    let mut rig = rig;
    rig.relaunch(Signal::TERM).await;
    let listed = rig.client.list().await.unwrap();
    assert_eq!(listed.len(), 5);
    rig.until_state("kept", ServiceState::Running).await;
    assert_eq!(rig.get("stopped-before").await.desired, "down");
}

#[tokio::test]
async fn what_does_not_come_back_is_told() {
    let rig = Rig::new().await;
    let port = free_port();
    rig.run("broken", &server(port, 0)).await;
    rig.run("fine", &sleeper()).await;
    let id = create(&rig).await;
    rig.stop("broken").await;
    // A stranger takes its place.
    let _stranger = std::net::TcpListener::bind(("127.0.0.1", port)).unwrap();
    let path = format!("/v1/checkpoints/{id}/restore");
    let (status, answer) = rig.raw("POST", &path, "").await;
    assert_eq!(status, 200, "{answer}");
    assert_eq!(answer["ok"], false);
    assert_eq!(answer["failed_services"], json!(["broken"]));
    assert_eq!(answer["started_services"], json!(["fine"]));
    assert!(answer["restore_duration_ms"].is_u64());
}

#[tokio::test]
async fn the_routes_in_both_numbers() {
    let rig = Rig::new().await;
    fs::write(rig.workspace().join("a"), vec![b'x'; 2048]).unwrap();
    let (status, begun) = rig
        .raw("POST", "/v1/checkpoint", r#"{"name":"first"}"#)
        .await;
    assert_eq!((status, &begun["ok"]), (200, &json!(true)), "{begun}");
    let id = begun["checkpoint_id"].as_str().unwrap().to_owned();
    let waits = json!({ "checkpoint_id": id }).to_string();
    let (status, waited) = rig.raw("POST", "/v1/checkpoints/wait", &waits).await;
    assert_eq!(
        (status, &waited["size_bytes"]),
        (200, &json!(2048)),
        "{waited}"
    );
    let (_, listed) = rig.raw("GET", "/v1/checkpoints", "").await;
    let entry = &listed["checkpoints"][0];
    assert_eq!(
        (&entry["id"], &entry["name"]),
        (&json!(id), &json!("first"))
    );
    assert_eq!(entry["size_human"], "2.0 KiB");
    assert!(entry["created_at"].is_string());
    assert_eq!(rig.raw("GET", "/v1/checkpoint", "").await.1, listed);
    assert_eq!(
        rig.raw("GET", &format!("/v1/checkpoint/{id}"), "").await.1,
        *entry
    );

    let (status, _) = rig.raw("POST", "/v1/checkpoint/restore", &waits).await;
    assert_eq!(status, 200);
    let path = format!("/v1/checkpoints/{id}");
    let deleted = rig.raw("DELETE", &path, "").await;
    assert_eq!(deleted, (200, json!({ "deleted": true, "ok": true })));
    for (method, path, body) in [
        ("DELETE", path.as_str(), ""),
        ("GET", &path, ""),
        ("POST", &format!("{path}/restore"), ""),
        ("POST", "/v1/checkpoints/wait", &waits),
        ("GET", "/v1/checkpoints/..%2Fservices", ""),
    ] {
        let (status, answer) = rig.raw(method, path, body).await;
        assert_eq!(
            (status, &answer["code"]),
            (404, &json!("not_found")),
            "{method} {path}"
        );
    }
    let (status, _) = rig
        .raw("POST", "/v1/checkpoints", r#"{"name":"a\nb"}"#)
        .await;
    assert_eq!(status, 400);
    assert_eq!(rig.dir().join("checkpoints").read_dir().unwrap().count(), 0);
}

#[tokio::test]
async fn one_at_a_time() {
    let rig = Rig::new().await;
    set_hooks(
        &rig,
        json!({ "before": ["sh", "-c", "while ! test -e go; do sleep 0.01; done"] }),
    );
    let id = rig
        .client
        .begin_checkpoint(None, &Secrets::default())
        .await
        .unwrap();
    let (_, shown) = rig.raw("GET", &format!("/v1/checkpoints/{id}"), "").await;
    assert_eq!(shown["state"], "creating");
    for (method, path) in [
        ("POST", "/v1/checkpoints".to_owned()),
        ("POST", format!("/v1/checkpoints/{id}/restore")),
        ("DELETE", format!("/v1/checkpoints/{id}")),
    ] {
        let (status, answer) = rig.raw(method, &path, "").await;
        assert_eq!(
            (status, &answer["code"]),
            (409, &json!("conflict")),
            "{method} {path}"
        );
    }
    fs::write(rig.workspace().join("go"), "").unwrap();
    in_time(rig.client.wait_checkpoint(&id)).await.unwrap();
}

#[tokio::test]
async fn hooks_run_around_the_copy() {
    let rig = Rig::new().await;
    let after = ["sh", "-c", "rm ready; echo done >> after"];
    set_hooks(
        &rig,
        json!({ "before": ["touch", "ready"], "after": after }),
    );
    let id = create(&rig).await;
    assert!(!rig.workspace().join("ready").exists());
    assert!(
        rig.dir()
            .join("checkpoints")
            .join(&id)
            .join("files/ready")
            .exists()
    );

    // One that fails: no checkpoint, but what it may have begun is ended.
    set_hooks(
        &rig,
        json!({ "before": ["sh", "-c", "touch ready; echo why; exit 4"], "after": after }),
    );
    let failed = rig
        .client
        .create_checkpoint(None, &Secrets::default())
        .await
        .unwrap_err();
    assert_eq!(failed.message, "the `before` command exited with 4");
    assert_eq!(failed.log_tail, ["why"]);
    assert_eq!(
        fs::read_to_string(rig.workspace().join("after")).unwrap(),
        "done\ndone\n"
    );
    assert_eq!(rig.client.checkpoints().await.unwrap().len(), 1);

    // The other one fails: the checkpoint is there, and it is said.
    set_hooks(&rig, json!({ "after": ["false"] }));
    let failed = rig
        .client
        .create_checkpoint(None, &Secrets::default())
        .await
        .unwrap_err();
    assert!(
        failed
            .message
            .contains("is made, but the `after` command exited with 1"),
        "{failed}"
    );
    assert_eq!(rig.client.checkpoints().await.unwrap().len(), 2);
}

/// Writes the same number to two files, one after the other, as fast as it can; also from a child in
/// a session of its own.
fn pairs() -> gabion::model::ServiceSpec {
    script(
        "import os
name = 'child' if os.fork() == 0 else 'parent'
if name == 'child': os.setsid()
first, second = (os.open(f'{part}-{name}', os.O_CREAT | os.O_WRONLY) for part in ('first', 'second'))
number = 0
while True:
    number += 1
    os.pwrite(first, b'%020d' % number, 0)
    os.pwrite(second, b'%020d' % number, 0)
    if number == 1: print('writes')",
    )
}

#[tokio::test]
async fn a_copy_is_of_one_moment() {
    let rig = Rig::new().await;
    // Enough besides to let the writers go far while it is copied.
    for number in 0..300 {
        fs::write(rig.workspace().join(number.to_string()), vec![7; 20_000]).unwrap();
    }
    rig.run("writer", &pairs()).await;
    rig.lines("writer", 2).await;
    for _ in 0..5 {
        let id = create(&rig).await;
        let files = rig.dir().join("checkpoints").join(&id).join("files");
        for name in ["parent", "child"] {
            let number = |part: &str| {
                let text = fs::read_to_string(files.join(format!("{part}-{name}"))).unwrap();
                text.parse::<u64>().unwrap()
            };
            let (first, second) = (number("first"), number("second"));
            assert!(first == second || first == second + 1, "{first} {second}");
        }
        assert!(!rig.dir().join("frozen.json").exists());
        let read = || fs::read_to_string(rig.workspace().join("first-child")).unwrap();
        let before = read();
        // It goes on.
        while read() == before {
            rig.get("writer").await;
        }
    }
}

/// What the test below compares: the files of one generation, or of the other.
fn generation(workspace: &Path) -> Result<String, String> {
    let mut texts = Vec::new();
    for number in 0..40 {
        let path = workspace
            .join(format!("d{}", number % 4))
            .join(number.to_string());
        texts.push(fs::read_to_string(&path).map_err(|error| format!("{path:?}: {error}"))?);
    }
    texts.push(fs::read_to_string(workspace.join("top")).map_err(|error| error.to_string())?);
    texts.dedup();
    match &texts[..] {
        [one] => Ok(one.clone()),
        _ => Err(format!("a mixture: {texts:?}")),
    }
}

fn write_generation(workspace: &Path, text: &str) {
    for number in 0..40 {
        let folder = workspace.join(format!("d{}", number % 4));
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join(number.to_string()), text).unwrap();
    }
    fs::write(workspace.join("top"), text).unwrap();
}

#[tokio::test]
async fn killed_at_any_moment_it_is_the_old_or_the_new_state() {
    let mut rig = Rig::new().await;
    let seed = fastrand::u64(..);
    let mut random = fastrand::Rng::with_seed(seed);
    write_generation(&rig.workspace(), "one");
    rig.run("service", &exec(&["sleep", "601"])).await;
    let one = create(&rig).await;
    write_generation(&rig.workspace(), "two");
    rig.put("service", &exec(&["sleep", "602"])).await;
    let two = create(&rig).await;
    let mut outcomes = std::collections::BTreeMap::<_, u32>::new();
    for round in 0..24 {
        let told = |what: &str| format!("{what}, seed {seed}, round {round}");
        let id = if random.bool() { &one } else { &two };
        let took = std::time::Duration::from_micros(random.u64(0..120_000));
        let (client, secrets) = (rig.client.clone(), Secrets::default());
        let restoring = client.restore_checkpoint(id, &secrets);
        let cut = tokio::time::timeout(took, restoring).await.is_err();
        // Half of the times in the middle of taking one.
        if round % 2 == 0 {
            let creating = client.create_checkpoint(None, &secrets);
            let took = std::time::Duration::from_micros(random.u64(0..30_000));
            let _ = tokio::time::timeout(took, creating).await;
        }
        match random.bool() {
            true => rig.kill_supervisor().await,
            false => rig.relaunch(Signal::KILL).await,
        }
        let found = generation(&rig.workspace()).unwrap_or_else(|error| panic!("{}", told(&error)));
        let service = rig.get("service").await;
        let number = match found.as_str() {
            "one" => "601",
            _ => "602",
        };
        assert_eq!(
            service.args,
            [number],
            "{}",
            told("files and definitions differ")
        );
        for checkpoint in rig.client.checkpoints().await.unwrap() {
            let files = rig
                .dir()
                .join("checkpoints")
                .join(&checkpoint.id)
                .join("files");
            generation(&files).unwrap_or_else(|error| panic!("{}", told(&error)));
        }
        *outcomes.entry((cut, found)).or_default() += 1;
        assert!(
            !rig.dir().join("restore.json").exists(),
            "{}",
            told("the journal")
        );
    }
    rig.until_state("service", ServiceState::Running).await;
    println!("{outcomes:?}");
}

#[tokio::test]
async fn a_supervisor_that_dies_leaves_nobody_frozen() {
    let mut rig = Rig::new().await;
    for number in 0..3000 {
        fs::write(rig.workspace().join(number.to_string()), "x").unwrap();
    }
    rig.run("service", &sleeper()).await;
    let pid = rig.get("service").await.pid.unwrap();
    let (client, secrets) = (rig.client.clone(), Secrets::default());
    let creating = tokio::spawn(async move { client.create_checkpoint(None, &secrets).await });
    let note = rig.dir().join("frozen.json");
    let state = || {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        stat.rsplit_once(") ")
            .map(|(_, rest)| rest.starts_with('T'))
    };
    while !(note.exists() && state() == Some(true)) {
        tokio::task::yield_now().await;
    }
    rig.kill_supervisor().await;
    assert!(creating.await.unwrap().is_err());
    assert!(!note.exists());
    assert_eq!(state(), Some(false));
    assert_eq!(rig.get("service").await.pid, Some(pid));
    assert_eq!(rig.client.checkpoints().await.unwrap(), []);
    let shelf = rig.dir().join("checkpoints");
    let drafts = || shelf.read_dir().map_or(0, Iterator::count);
    while drafts() > 0 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn processes_are_held_and_do_not_outlive_a_restore() {
    let rig = Rig::new().await;
    let id = create(&rig).await;
    // No service runs here, only this.
    let program = "n=0; while :; do n=$((n+1)); echo $n > one; echo $n > two; done";
    let body = json!({ "command": program });
    let (status, process) = rig.raw("POST", "/v1/processes", &body.to_string()).await;
    assert_eq!(status, 201, "{process}");
    while !rig.workspace().join("two").exists() {
        tokio::task::yield_now().await;
    }
    let copied = create(&rig).await;
    let files = rig.dir().join("checkpoints").join(&copied).join("files");
    let number = |name: &str| -> u64 {
        // Empty for the moment between the opening of the file and the writing.
        let text = fs::read_to_string(files.join(name)).unwrap();
        text.trim().parse().unwrap_or_default()
    };
    let (one, two) = (number("one"), number("two"));
    assert!(one == 0 || two == 0 || one - two <= 1, "{one} {two}");

    restore(&rig, &id).await;
    assert!(!rig.workspace().join("one").exists());
    let path = format!("/v1/processes/{}", process["pid"]);
    let (_, ended) = rig.raw("GET", &path, "").await;
    assert_eq!(ended["status"], "stopped", "{ended}");
}
