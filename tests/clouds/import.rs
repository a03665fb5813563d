//! `gabion import`: what others have made with the platform's own API becomes a manifest, and a stack's.

use gabion::serve::faults::Plan;
use serde_json::{Value, json};

use crate::common::Project;
use crate::projects::{elsewhere, flat, nothing_in, on};
use crate::served::{Served, TOKEN};

/// A value that was set by somebody else.
const VALUE: &str = "planted-value-5d20";

/// A project that has a platform and nothing on it.
fn empty(served: &Served, kind: &str) -> Project {
    let project = on(served, kind, "");
    project.edit("sandboxes:\n", "sandboxes: {}\n");
    project
}

/// Writes what is there as the project's manifest, with the access to the platform that it had.
fn imported(project: &Project, what: &[&str]) -> String {
    let before = project.read("gabion.yaml");
    let args: Vec<_> = ["import", "cloud"].iter().chain(what).copied().collect();
    let text = project.ok(&args).stdout();
    assert!(!text.contains(VALUE) && !text.contains(TOKEN), "{text}");
    let (head, _) = before.split_once("defaults:").expect("a head");
    let (_, body) = text.split_once("sandboxes:").expect("sandboxes");
    project.write("gabion.yaml", &format!("{head}sandboxes:{body}"));
    text
}

/// The plan, with the value in the environment.
fn no_changes(project: &Project) {
    let plan = with_value(project, &["plan"]);
    assert!(plan.contains("No changes"), "{plan}");
}

fn with_value(project: &Project, args: &[&str]) -> String {
    let mut command = project.command(args);
    let run = command.env("COLOUR", VALUE).output().expect("gabion runs");
    let said = String::from_utf8_lossy(&run.stderr).into_owned();
    assert!(run.status.success(), "{args:?}\n{said}");
    String::from_utf8_lossy(&run.stdout).into_owned() + &said
}

fn pid_of(answer: &Value) -> u64 {
    answer["pid"].as_u64().expect("a pid")
}

/// A Pocketenv sandbox with a service that runs, made by hand; the service's process.
fn by_hand_on_pocketenv(served: &Served) -> String {
    let ask = |operation: &str, body: Value| {
        let path = format!("/xrpc/io.pocketenv.{operation}");
        let (status, answer) = served.ask("POST", &path, body);
        assert!(status < 300, "{operation}: {status} {answer}");
        answer
    };
    let made = ask(
        "sandbox.createSandbox",
        json!({ "base": "openclaw", "provider": "cloudflare" }),
    );
    let id = made["id"].as_str().expect("an id").to_owned();
    let service = json!({ "service": {
        "name": "worker", "command": "exec sleep 1000", "description": "made by hand",
    }});
    ask(&format!("service.addService?sandboxId={id}"), service);
    for (name, path) in [
        ("data", "/tmp/by-hand/data"),
        ("no name", "/tmp/by-hand/other"),
    ] {
        let volume = json!({ "sandboxId": id, "name": name, "path": path });
        ask("volume.addVolume", json!({ "volume": volume }));
    }
    let file = json!({ "sandboxId": id, "path": "/tmp/by-hand/file", "content": VALUE });
    ask("file.addFile", json!({ "file": file }));
    id
}

#[test]
fn what_was_made_on_pocketenv_by_hand_is_adopted_as_it_runs() {
    let served = Served::start();
    let project = empty(&served, "pocketenv");
    let id = by_hand_on_pocketenv(&served);
    let text = imported(&project, &[&id]);
    assert!(text.contains("command: \"exec sleep 1000\""), "{text}");
    assert!(text.contains("description: \"made by hand\""), "{text}");
    let volumes = "volumes: {\"data\":\"/tmp/by-hand/data\"}";
    assert!(text.contains(volumes), "{text}");
    assert!(text.contains("# volumes: no name: "), "{text}");
    assert!(text.contains("# files: /tmp/by-hand/file: "), "{text}");

    // Not ours yet, so nothing of it is touched, and it is in the way.
    let plan = project.ok(&["plan"]).stdout();
    assert!(plan.contains("create"), "{plan}");
    let said = flat(&project.ok(&["import", "cloud", "--adopt"]));
    assert!(
        said.contains("adopted; nothing that runs was touched"),
        "{said}"
    );
    no_changes(&project);
    let again = flat(&project.ok(&["import", "cloud", "--adopt"]));
    assert!(again.contains("is of this stack already"), "{again}");

    // Another stack does not get it by accident.
    project.edit("stack: shop", "stack: other");
    let refused = project.run(&["import", "cloud", &id, "--adopt"]);
    assert!(
        flat(&refused).contains("is of the stack `shop`"),
        "{refused}"
    );
    project.ok(&[
        "import",
        "cloud",
        &id,
        "--adopt",
        "--take-over-from",
        "shop",
    ]);
    no_changes(&project);
    project.ok(&["destroy", "--yes"]);
    assert_eq!(served.count(), 0);
}

#[test]
fn what_was_made_on_iris_by_hand_is_adopted_as_it_runs() {
    let served = Served::start();
    let project = empty(&served, "iris");
    project.write(
        "gabion.yaml",
        &project.read("gabion.yaml").replace(
            "sandboxes: {}\n",
            "sandboxes:\n  box:\n    name: mine\n    services:\n      worker: { command: exec sleep 1000, env: { COLOUR: '${env.COLOUR}' } }\n",
        ),
    );
    with_value(&project, &["apply", "--yes"]);
    let status = with_value(&project, &["status", "--json"]);
    let json: Value = serde_json::from_str(&status).expect("JSON");
    let before = pid_of(&json["services"][0]);
    let text = imported(&project, &["mine"]);
    assert!(text.contains("COLOUR: \"${env.COLOUR}\""), "{text}");
    project.edit("stack: shop", "stack: other");
    let refused = project
        .command(&["import", "cloud", "mine", "--adopt"])
        .env("COLOUR", VALUE)
        .output()
        .expect("gabion runs");
    assert!(!refused.status.success());
    with_value(
        &project,
        &[
            "import",
            "cloud",
            "mine",
            "--adopt",
            "--take-over-from",
            "shop",
        ],
    );
    no_changes(&project);
    let status = with_value(&project, &["status", "--json"]);
    let json: Value = serde_json::from_str(&status).expect("JSON");
    assert_eq!(pid_of(&json["services"][0]), before);
    with_value(&project, &["destroy", "--yes"]);
}

#[test]
fn a_sprite_is_written_without_values_and_adopted_where_its_services_may_restart() {
    let served = Served::start();
    let project = empty(&served, "sprites");
    let (status, _) = served.ask(
        "POST",
        "/v1/sprites",
        json!({ "name": "by-hand", "labels": ["front"] }),
    );
    assert!(status < 300, "{status}");
    let service = json!({
        "cmd": "sleep", "args": ["1000"], "env": { "COLOUR": VALUE }, "needs": [], "http_port": 8080,
    });
    let (status, _) = served.ask("PUT", "/v1/sprites/by-hand/services/worker", service);
    assert!(status < 300, "{status}");
    let text = project.ok(&["import", "cloud"]).stdout();
    for line in [
        "name: \"by-hand\"",
        "topics: [\"front\"]",
        "cmd: \"sleep\"",
        "args: [\"1000\"]",
        "COLOUR: \"${env.COLOUR}\"",
        "http_port: 8080",
        "# vcpus, memory, disk: Sprites does not tell the size of a sprite",
    ] {
        assert!(text.contains(line), "{line} in {text}");
    }
    let stopped = "/v1/sprites/by-hand/services/idle";
    served.ask("PUT", stopped, json!({ "cmd": "sleep", "args": ["1000"] }));
    served.ask("POST", &format!("{stopped}/stop"), Value::Null);
    let worker = || {
        served
            .ask("GET", "/v1/sprites/by-hand/services/worker", Value::Null)
            .1
    };
    let before = pid_of(&worker()["state"]);

    imported(&project, &["by-hand"]);
    let refused = project
        .command(&["import", "cloud", "--adopt"])
        .env("COLOUR", VALUE)
        .output()
        .expect("gabion runs");
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(said.contains("this restarts worker"), "{said}");
    assert_eq!(pid_of(&worker()["state"]), before);

    let said = with_value(&project, &["import", "cloud", "--adopt", "--restart"]);
    assert!(said.contains("adopted; restarted: worker"), "{said}");
    no_changes(&project);
    let after = worker();
    assert_eq!(after["env"]["COLOUR"], VALUE);
    let (_, idle) = served.ask("GET", stopped, Value::Null);
    assert_eq!(idle["state"]["status"], "stopped");
    let (_, sprite) = served.ask("GET", "/v1/sprites/by-hand", Value::Null);
    let labels = sprite["labels"].as_array().expect("labels");
    assert!(labels.contains(&json!("front")), "{labels:?}");
    let said = with_value(&project, &["import", "cloud", "--adopt", "--restart"]);
    assert!(said.contains("is of this stack already"), "{said}");
    assert_eq!(worker()["state"]["pid"], after["state"]["pid"]);
    with_value(&project, &["destroy", "--yes"]);
    assert_eq!(served.count(), 0);
}

#[test]
fn a_sprite_that_has_lost_its_labels_is_still_of_the_stack_whose_services_it_runs() {
    let served = Served::start();
    let project = empty(&served, "sprites");
    project.edit(
        "sandboxes: {}\n",
        "sandboxes:\n  box:\n    name: mine\n    services:\n      worker: { command: exec sleep 1000 }\n",
    );
    project.ok(&["apply", "--yes"]);
    let (status, _) = served.ask("PUT", "/v1/sprites/mine", json!({ "labels": [] }));
    assert_eq!(status, 200);
    project.edit("stack: shop", "stack: other");
    let adopt = ["import", "cloud", "mine", "--adopt", "--restart"];
    let refused = project.run(&adopt);
    assert!(
        flat(&refused).contains("is of the stack `shop`"),
        "{refused}"
    );
    let wanted = ["--take-over-from", "shop"];
    project.ok(&adopt.iter().chain(&wanted).copied().collect::<Vec<_>>());
    assert!(project.ok(&["plan"]).stdout().contains("No changes"));
    project.ok(&["destroy", "--yes"]);
    assert_eq!(served.count(), 0);
}

#[test]
fn an_adoption_that_breaks_off_anywhere_is_finished_by_doing_it_again() {
    for (request, said) in [
        ("PUT **/services/idle", "adopted; restarted: worker"),
        ("POST **/services/idle/stop", "adopted; restarted: worker"),
        ("PUT **/services/worker", "adopted; restarted: worker"),
        (
            "PUT /v1/sprites/by-hand",
            "adopted; nothing that runs was touched",
        ),
    ] {
        let served = Served::start();
        let project = empty(&served, "sprites");
        let sprite = "/v1/sprites/by-hand";
        served.ask("POST", "/v1/sprites", json!({ "name": "by-hand" }));
        let sleep = json!({ "cmd": "sleep", "args": ["1000"] });
        for service in ["idle", "worker"] {
            served.ask(
                "PUT",
                &format!("{sprite}/services/{service}"),
                sleep.clone(),
            );
        }
        let stop = format!("{sprite}/services/idle/stop");
        served.ask("POST", &stop, Value::Null);
        imported(&project, &[]);

        served.faults.reset(Plan {
            rules: vec![format!("{request}:before=500").parse().expect("a rule")],
            ..Plan::default()
        });
        let adopt = ["import", "cloud", "--adopt", "--restart"];
        let run = project.run(&adopt);
        assert_eq!(run.code(), Some(1), "{request}: {run}");
        served.faults.reset(Plan::default());
        let run = project.ok(&adopt);
        assert!(run.stderr().contains(said), "{request}: {run}");
        nothing_in(&project.ok(&["plan"]));
        nothing_in(&elsewhere(&project, &["plan"]));
        let state = |service: &str| project.services()[service]["state"].clone();
        assert_eq!(state("by-hand/idle"), "stopped", "{request}");
        assert_eq!(state("by-hand/worker"), "running", "{request}");
    }
}

#[test]
fn processes_on_miosa_become_services_and_a_file_is_never_written_over() {
    let served = Served::start();
    let project = empty(&served, "miosa");
    let path = "/api/v1/sandboxes";
    let (_, made) = served.ask("POST", path, json!({ "name": "by-hand" }));
    let made = made.get("data").unwrap_or(&made).clone();
    let id = made["id"].as_str().expect("an id");
    let process = json!({ "command": "exec sleep 1000", "name": "worker" });
    let (status, _) = served.ask("POST", &format!("{path}/{id}/processes"), process);
    assert!(status < 300, "{status}");
    project.ok(&["import", "cloud", "by-hand", "--out", "found.yaml"]);
    let text = project.read("found.yaml");
    for line in [
        "stack: imported",
        "kind: miosa",
        "worker:",
        "command: \"exec sleep 1000\"",
    ] {
        assert!(text.contains(line), "{line} in {text}");
    }
    let refused = project.run(&["import", "cloud", "by-hand", "--out", "found.yaml"]);
    assert!(
        flat(&refused).contains("nothing is ever written over"),
        "{refused}"
    );
    let refused = project.run(&["import", "cloud", "nobody"]);
    assert!(
        flat(&refused).contains("there is no sandbox `nobody`"),
        "{refused}"
    );
    assert_eq!(project.read("found.yaml"), text);
}

#[test]
fn processes_on_miosa_are_adopted_as_they_run() {
    let served = Served::start();
    let project = empty(&served, "miosa");
    let path = "/api/v1/sandboxes";
    let make = |name: &str| {
        let metadata = json!({ "theirs": { "kept": true } });
        let (_, made) = served.ask("POST", path, json!({ "name": name, "metadata": metadata }));
        let made = made.get("data").unwrap_or(&made).clone();
        format!("{path}/{}", made["id"].as_str().expect("an id"))
    };
    let (one, _other) = (make("by-hand"), make("other"));
    for (name, command) in [("worker", "exec sleep 1000"), ("extra", "exec sleep 2000")] {
        let process = json!({ "command": command, "name": name });
        let (status, _) = served.ask("POST", &format!("{one}/processes"), process);
        assert!(status < 300, "{status}");
    }
    imported(&project, &["by-hand"]);
    let adopt = ["import", "cloud", "--adopt"];
    let refused = project.run(&adopt);
    assert_eq!(refused.code(), Some(1), "{refused}");
    let said = flat(&refused);
    assert!(said.contains("listed by their project"), "{refused}");
    assert!(said.contains("lists_account: true"), "{refused}");

    project.edit("kind: miosa", "kind: miosa, lists_account: true");
    let said = flat(&project.ok(&adopt));
    let untouched = "adopted; nothing that runs was touched";
    assert!(said.contains(untouched), "{said}");
    no_changes(&project);
    nothing_in(&elsewhere(&project, &["plan"]));
    let pids = || {
        let services = project.services();
        ["by-hand/extra", "by-hand/worker"].map(|it| pid_of(&services[it]))
    };
    let [extra, worker] = pids();
    let refused = project.run(&["signal", "by-hand/extra", "CONT"]);
    assert!(
        flat(&refused).contains("was adopted as it ran"),
        "{refused}"
    );
    let said = flat(&project.ok(&adopt));
    assert!(said.contains("is of this stack already"), "{said}");

    project.edit("exec sleep 1000", "exec sleep 1001");
    project.ok(&["apply", "--yes"]);
    no_changes(&project);
    let [same, edited] = pids();
    assert_eq!(same, extra);
    assert_ne!(edited, worker);
    let (_, record) = served.ask("GET", &one, Value::Null);
    let record = record.get("data").unwrap_or(&record);
    assert_eq!(record["metadata"]["theirs"]["kept"], true, "{record}");

    project.edit("stack: shop", "stack: thief");
    let take = [
        "import",
        "cloud",
        "by-hand",
        "--adopt",
        "--take-over-from",
        "shop",
    ];
    let refused = project.run(&take);
    assert!(flat(&refused).contains("from another stack"), "{refused}");
    project.edit("stack: thief", "stack: shop");
    project.ok(&["destroy", "--yes"]);
    assert_eq!(served.count(), 1);
}

#[test]
fn named_services_on_miosa_are_written_down_and_adopted_as_they_are() {
    let served = Served::start();
    let project = empty(&served, "miosa, services: named, lists_account: true");
    let path = "/api/v1/sandboxes";
    let (_, made) = served.ask("POST", path, json!({ "name": "by-hand" }));
    let made = made.get("data").unwrap_or(&made).clone();
    let one = format!("{path}/{}", made["id"].as_str().expect("an id"));
    let act = |rest: &str, body: Value| {
        let (status, _) = served.ask("POST", &format!("{one}{rest}"), body);
        assert!(status < 300, "{rest}: {status}");
    };
    for (name, command) in [("api", "exec sleep 1000"), ("idle", "exec sleep 2000")] {
        act("/services", json!({ "name": name, "command": command }));
    }
    act("/services/idle/stop", json!({}));
    act(
        "/processes",
        json!({ "name": "worker", "command": "exec sleep 3000" }),
    );

    imported(&project, &["by-hand"]);
    let said = flat(&project.ok(&["import", "cloud", "--adopt"]));
    let untouched = "adopted; nothing that runs was touched";
    assert!(said.contains(untouched), "{said}");
    let services = project.services();
    let state = |name: &str| services[format!("by-hand/{name}").as_str()]["state"].clone();
    assert_eq!(state("api"), "running");
    assert_eq!(state("idle"), "stopped");
    // What was a process is to be a named service, like the others.
    let plan = project.run(&["plan", "--detailed-exitcode"]);
    assert_eq!(plan.code(), Some(2), "{plan}");
    let shown = plan.stdout();
    assert!(shown.contains("by-hand/worker"), "{plan}");
    assert!(
        !shown.contains("by-hand/api") && !shown.contains("by-hand/idle"),
        "{plan}"
    );
    let pid = |name: &str| {
        let (_, told) = served.ask("GET", &format!("{one}/services/{name}"), Value::Null);
        told.get("data").unwrap_or(&told)["pid"].clone()
    };
    let api = pid("api");
    assert!(!api.is_null());
    project.ok(&["apply", "--yes"]);
    no_changes(&project);
    nothing_in(&elsewhere(&project, &["plan"]));
    assert_eq!(pid("api"), api);

    // From here on they are as any other.
    project.edit("exec sleep 1000", "exec sleep 1001");
    project.ok(&["apply", "--yes"]);
    no_changes(&project);
    assert_ne!(pid("api"), api);
    project.ok(&["destroy", "--yes"]);
    assert_eq!(served.count(), 0);
}
