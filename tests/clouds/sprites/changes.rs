//! Plans and applies: what is edited, what is changed by hand, what fails and what is interrupted.

use gabion::serve::faults::Plan;
use serde_json::{Value, json};

use super::{SPRITE, pids, project, service};
use crate::common::{eventually, free_port};
use crate::projects::{elsewhere, no_changes, no_changes_elsewhere, on, planned};
use crate::served::Served;

#[test]
fn an_edit_restarts_one_service_and_nothing_is_left_after_destroy() {
    let served = Served::start();
    let project = project(&served);
    let first = project.ok(&["plan"]);
    assert!(first.stdout().contains("web/api"), "{first}");
    project.ok(&["apply", "--yes"]);
    no_changes(&project);
    let before = pids(&project);
    let status = project.services();
    assert_eq!(status["web/setup"]["state"], "completed");
    let read = |file: &str| project.ok(&["exec", "web", "--", "cat", file]).stdout();
    assert_eq!(read("ran.txt"), "once\n");
    let log = project.ok(&["logs", "web/api"]).stdout();
    assert!(log.contains("mode slow"), "{log}");

    project.edit("MODE: slow", "MODE: fast");
    let plan = planned(&project.ok(&["plan", "--json"]));
    assert_eq!(plan, ["web/api:stop", "web/api:upsert", "web/api:start"]);
    project.ok(&["apply", "--yes"]);
    no_changes(&project);
    let after = pids(&project);
    assert_eq!([after[0], after[2]], [before[0], before[2]]);
    assert_ne!(after[1], before[1]);
    let log = project.ok(&["logs", "web/api", "--tail", "1"]).stdout();
    assert!(log.contains("mode fast"), "{log}");
    assert_eq!(read("ran.txt"), "once\n");

    // A task is not run again because of what is only told of it, and run again because of what it does.
    project.edit("kind: task,", "kind: task, description: the first,");
    let plan = planned(&project.ok(&["plan", "--json"]));
    assert_eq!(plan, ["web/setup:upsert"]);
    project.ok(&["apply", "--yes"]);
    no_changes(&project);
    assert_eq!(read("ran.txt"), "once\n");
    project.edit("echo once", "echo twice");
    project.ok(&["apply", "--yes"]);
    no_changes(&project);
    assert_eq!(read("ran.txt"), "once\ntwice\n");
    assert_eq!(pids(&project), after);

    project.ok(&["destroy", "--yes"]);
    assert_eq!(served.count(), 0);
    assert!(project.ok(&["plan"]).stdout().contains("web"));
}

#[test]
fn what_was_changed_by_hand_is_in_the_plan_and_healed() {
    let served = Served::start();
    let project = project(&served);
    project.ok(&["apply", "--yes"]);
    let before = pids(&project);
    let healed = |expected: &[&str]| {
        let plan = project.ok(&["plan", "--json"]);
        assert_eq!(planned(&plan), expected, "{plan}");
        project.ok(&["apply", "--yes"]);
        no_changes(&project);
    };

    // A stopped service, and a removed one.
    served.ask("POST", &format!("{}/stop", service("api")), Value::Null);
    served.ask("DELETE", &service("idle"), Value::Null);
    healed(&[
        "web/api:upsert",
        "web/api:start",
        "web/idle:upsert",
        "web/idle:start",
    ]);

    // A definition, but for what only gabion knows of it.
    let (_, mut definition) = served.ask("GET", &service("api"), Value::Null);
    definition["env"]["MODE"] = json!("odd");
    definition["env"]["PASS"] = json!("another secret");
    definition["env"]["EXTRA"] = json!("1");
    definition["needs"] = json!([]);
    served.ask(
        "PUT",
        &format!("{}?duration=1ms", service("api")),
        definition,
    );
    let plan = project.ok(&["plan"]);
    for field in ["MODE", "PASS", "EXTRA", "needs"] {
        assert!(plan.stdout().contains(field), "{field}: {plan}");
    }
    assert!(plan.stdout().contains("odd → slow"), "{plan}");
    assert!(!plan.stdout().contains("another secret"), "{plan}");
    healed(&["web/api:stop", "web/api:upsert", "web/api:start"]);

    // What is public, and a label.
    let (_, sprite) = served.ask("GET", SPRITE, Value::Null);
    let labels = sprite["labels"].as_array().unwrap().iter();
    let mut labels: Vec<_> = labels.filter(|it| **it != "front").cloned().collect();
    labels.push(json!("of somebody else"));
    let body = json!({ "url_settings": { "auth": "public" }, "labels": labels });
    served.ask("PUT", SPRITE, body);
    healed(&["web:update"]);
    let (_, sprite) = served.ask("GET", SPRITE, Value::Null);
    assert_eq!(sprite["url_settings"]["auth"], "sprite");
    let labels = sprite["labels"].as_array().unwrap();
    assert!(labels.contains(&json!("front")) && labels.contains(&json!("of somebody else")));

    assert_eq!(pids(&project)[0], before[0]);
    project.ok(&["destroy", "--yes"]);
    assert_eq!(served.count(), 0);
}

#[test]
fn another_machine_knows_all_from_the_platform() {
    let served = Served::start();
    let project = project(&served);
    project.ok(&["apply", "--yes"]);
    let before = served.faults.requests().len();
    no_changes_elsewhere(&project);
    // The list, and the services of the one sprite.
    assert_eq!(served.faults.requests().len() - before, 2);
    project.edit("description: does nothing", "description: waits");
    let plan = elsewhere(&project, &["plan"]).stdout();
    assert!(plan.contains("does nothing → waits"), "{plan}");
    assert!(!plan.contains("web/db"), "{plan}");
    elsewhere(&project, &["apply", "--yes"]);
    no_changes(&project);
}

#[test]
fn services_are_stopped_and_started_as_wanted() {
    let served = Served::start();
    let project = project(&served);
    project.edit("description: does nothing", "state: stopped");
    project.ok(&["apply", "--yes"]);
    no_changes(&project);
    let state =
        |name: &str| served.ask("GET", &service(name), Value::Null).1["state"]["status"].clone();
    assert_eq!(state("idle"), "stopped");
    project.edit("stop: { grace: 2s }", "state: stopped");
    project.ok(&["apply", "--yes"]);
    no_changes(&project);
    assert_eq!(state("api"), "stopped");
    project.edit(
        "{ cmd: sleep, args: [\"1000\"], state: stopped }",
        "{ cmd: sleep, args: [\"1000\"] }",
    );
    project.ok(&["apply", "--yes"]);
    no_changes(&project);
    assert_eq!(state("idle"), "running");

    let before = project.pid("web/db");
    project.ok(&["restart", "web/db"]);
    assert_ne!(project.pid("web/db"), before);
    project.ok(&["stop", "web/idle"]);
    assert_eq!(state("idle"), "stopped");
    project.ok(&["start", "web/idle"]);
    assert_eq!(state("idle"), "running");
    no_changes(&project);
}

#[test]
fn a_start_that_fails_shows_what_was_said() {
    let served = Served::start();
    let port = free_port();
    let services = format!(
        r#"  web:
    services:
      broken: {{ command: "echo no luck; exit 3" }}
      deaf:
        command: "echo alive; exec sleep 1000"
        health: {{ tcp: {{ port: {port} }}, timeout: 1s }}
      missing: {{ cmd: /no/such/program }}
      failing: {{ kind: task, command: "echo so it goes; exit 4" }}
      late: {{ kind: task, command: "exec sleep 1000", timeout: 1s, stop: {{ grace: 1s }} }}
      after: {{ cmd: sleep, args: ["1000"], needs: [failing] }}
"#
    );
    let project = on(&served, "sprites", &services);
    let run = project.run(&["apply", "--yes"]);
    assert_eq!(run.code(), Some(1), "{run}");
    let said = run.stderr();
    for evidence in [
        "no luck",
        "not ready after 1.0 s",
        &format!("port {port} not open yet"),
        "alive",
        "exited with 4",
        "so it goes",
        "still running after 1.0 s",
    ] {
        assert!(said.contains(evidence), "{evidence}: {run}");
    }
    let status = project.services();
    assert_eq!(status["web/failing"]["state"], "failed");
    assert_eq!(status["web/failing"]["last_exit"]["code"], 4);
    assert!(status.get("web/after").is_none_or(|it| it["pid"].is_null()));
}

#[test]
fn an_apply_that_was_killed_is_gone_on_with() {
    let served = Served::start();
    let services = r#"  web:
    services:
      slow: { kind: task, command: "echo began >>ran.txt; until test -e go; do sleep 0.05; done" }
      after: { cmd: sleep, args: ["1000"], needs: [slow] }
"#;
    let project = on(&served, "sprites", services);
    let mut apply = project.command(&["apply", "--yes"]).spawn().unwrap();
    let began = || {
        let cat = project.run(&["exec", "web", "--", "cat", "ran.txt"]);
        cat.0.status.success() && cat.stdout() == "began\n"
    };
    eventually("the task runs", began);
    apply.kill().unwrap();
    apply.wait().unwrap();
    let plan = project.ok(&["plan", "--json"]);
    assert!(
        planned(&plan).contains(&"web/slow:run".to_owned()),
        "{plan}"
    );
    project.ok(&["exec", "web", "--", "touch", "go"]);
    project.ok(&["apply", "--yes"]);
    no_changes(&project);
    assert_eq!(
        project
            .ok(&["exec", "web", "--", "cat", "ran.txt"])
            .stdout(),
        "began\n"
    );
}

#[test]
fn a_name_that_is_taken_by_a_sprite_still_being_made_is_waited_for() {
    let served = Served::start();
    let project = project(&served);
    // It is made, the answer is lost, and it cannot be read for a while.
    let rules = [
        "POST /v1/sprites:after=lost@1",
        "GET /v1/sprites/shop-web:before=404@1-4",
    ];
    served.faults.reset(Plan {
        rules: rules.map(|rule| rule.parse().unwrap()).into(),
        ..Plan::default()
    });
    project.ok(&["apply", "--yes"]);
    no_changes(&project);
    assert_eq!(served.count(), 1);
}
