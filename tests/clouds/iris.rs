//! The client of iris against `gabion serve`.

use serde_json::{Value, json};

use crate::common::{Project, free_port};
use crate::projects::{elsewhere, no_changes, no_changes_elsewhere, on};
use crate::served::Served;

/// Asks the gateway, as somebody else who works there would.
fn gateway(served: &Served, method: &str, body: Value) -> Value {
    let path = format!("/iris.v1.SandboxService/{method}");
    let (status, answer) = served.ask("POST", &path, body);
    assert_eq!(status, 200, "{method}: {answer}");
    answer
}

/// A task, a service with a port before it, and one with a secret behind both.
fn project(served: &Served) -> Project {
    let port = free_port();
    on(
        served,
        "iris",
        &format!(
            r#"  data:
    services:
      db:
        command: "exec python3 -m http.server --bind 127.0.0.1 {port}"
        health: {{ tcp: {port} }}
      setup: {{ kind: task, command: "echo once", needs: [db] }}
  web:
    env: {{ STAGE: test }}
    services:
      api:
        command: 'test -n "$PASS" && echo mode $MODE && exec sleep 1000'
        env: {{ MODE: slow, PASS: "${{secret.pass}}" }}
        health: {{ log: mode }}
        needs: [data/setup]
      worker: {{ cmd: sleep, args: ["1000"], needs: [api], health: {{ exec: 'test "$STAGE" = test' }} }}
"#
        ),
    )
}

#[test]
fn an_edit_restarts_one_service_and_what_was_broken_by_hand_is_healed() {
    let served = Served::start();
    let project = project(&served);
    let foreign = gateway(&served, "CreateSandbox", json!({ "name": "foreign" }));
    project.ok(&["apply", "--yes"]);
    no_changes(&project);
    let pids = || ["data/db", "web/api", "web/worker"].map(|it| project.pid(it));
    let [db, api, worker] = pids();

    project.edit("MODE: slow", "MODE: fast");
    project.ok(&["apply", "--yes"]);
    let [same, other, kept] = pids();
    assert_eq!((same, kept), (db, worker));
    assert_ne!(other, api);
    assert!(
        project
            .ok(&["logs", "web/api"])
            .stdout()
            .contains("mode fast")
    );

    // By hand: a service stopped, another one's definition changed, a third one's taken away.
    project.ok(&["stop", "web/worker"]);
    let plan = project.ok(&["plan"]).stdout();
    assert!(
        plan.contains("web/worker") && plan.contains("found stopped"),
        "{plan}"
    );
    project.ok(&["apply", "--yes"]);
    no_changes(&project);

    project.ok(&["destroy", "--yes"]);
    let listed = gateway(&served, "ListSandboxes", json!({}));
    let alive = listed["sandboxes"].as_array().unwrap();
    assert_eq!(alive.len(), 1, "{alive:?}");
    assert_eq!(alive[0]["id"], foreign["sandbox"]["id"]);
    assert_eq!(served.count(), 1);
}

#[test]
fn another_machine_knows_all_from_the_platform() {
    let served = Served::start();
    let project = project(&served);
    project.ok(&["apply", "--yes"]);
    no_changes_elsewhere(&project);
    project.edit("MODE: slow", "MODE: fast");
    let plan = elsewhere(&project, &["plan"]).stdout();
    assert!(plan.contains("MODE") && plan.contains("fast"), "{plan}");
    assert!(!plan.contains("web/worker"), "{plan}");
    elsewhere(&project, &["apply", "--yes"]);
    no_changes(&project);
    project.ok(&["destroy", "--yes"]);
}

#[test]
fn what_is_not_ours_is_not_taken() {
    let served = Served::start();
    let project = project(&served);
    // In use by somebody, under the name that ours would have.
    let made = gateway(&served, "CreateSandbox", json!({ "name": "shop-web" }));
    let domain = made["sandbox"]["domain"].as_str().unwrap();
    let path = domain.strip_prefix(&served.url).unwrap();
    let token = made["data_plane_token"].as_str().unwrap();
    let put = served.ask_as(
        token,
        "PUT",
        &format!("{path}/v1/services/theirs"),
        json!({ "cmd": "sleep", "args": ["1000"] }),
    );
    assert_eq!(put.0, 200, "{put:?}");
    let run = project.run(&["apply", "--yes"]);
    assert_eq!(run.code(), Some(1));
    let says = "a sandbox `shop-web`";
    assert!(run.stderr().contains(says), "{run}");
    // The next one finds the other sandbox as it was made.
    project.edit("  web:\n", "  web:\n    name: shop-web-2\n");
    project.ok(&["apply", "--yes"]);
    no_changes(&project);
    project.ok(&["destroy", "--yes"]);
    assert_eq!(served.count(), 1);
}

#[test]
fn a_service_of_somebody_else_is_a_problem_of_the_plan() {
    let served = Served::start();
    let project = project(&served);
    project.ok(&["apply", "--yes"]);
    let listed = gateway(&served, "ListSandboxes", json!({}));
    let mut all = listed["sandboxes"].as_array().unwrap().iter();
    let sandbox = all.find(|it| it["name"] == "shop-web").unwrap();
    let path = sandbox["domain"].as_str().unwrap();
    let path = path.strip_prefix(&served.url).unwrap();
    let pass = gateway(
        &served,
        "IssueDataPlaneToken",
        json!({ "sandbox_id": sandbox["id"] }),
    );
    let token = pass["data_plane_token"].as_str().unwrap();
    let foreign = format!("{path}/v1/services/foreign");
    let body = json!({ "cmd": "sleep", "args": ["1000"] });
    let put = served.ask_as(token, "PUT", &foreign, body);
    assert_eq!(put.0, 200, "{put:?}");
    no_changes(&project);
    project.edit(
        "      worker:",
        "      foreign: { cmd: sleep, args: ['2000'] }\n      worker:",
    );
    let refused = project.run(&["plan"]);
    assert_eq!(refused.code(), Some(1), "{refused}");
    let says = "has a service `foreign` that gabion has not made";
    assert!(refused.stdout().contains(says), "{refused}");
    project.edit("      foreign: { cmd: sleep, args: ['2000'] }\n", "");
    no_changes(&project);
    let (_, kept) = served.ask_as(token, "GET", &foreign, Value::Null);
    assert_eq!(kept["args"], json!(["1000"]), "{kept}");
}

#[test]
fn files_commands_and_checkpoints() {
    let served = Served::start();
    let project = project(&served);
    project.ok(&["apply", "--yes"]);
    assert_eq!(
        project
            .ok(&["exec", "web", "--", "sh", "-c", "echo $STAGE"])
            .stdout(),
        "test\n"
    );
    let run = project.run(&["exec", "web/api", "--", "sh", "-c", "echo $MODE; exit 7"]);
    assert_eq!((run.code(), run.stdout().as_str()), (Some(7), "slow\n"));
    project.write("note", "kept");
    let temp = project.path("inside").display().to_string();
    project.ok(&[
        "cp",
        "note",
        &format!("web:/tmp/{}", temp.replace('/', "-")),
    ]);
    let back = project.ok(&["cp", &format!("web:/tmp/{}", temp.replace('/', "-")), "-"]);
    assert_eq!(back.stdout(), "kept");
    project.ok(&["checkpoint", "create", "web", "first"]);
    project.ok(&["stop", "web/worker"]);
    let restored = project
        .ok(&["checkpoint", "restore", "web", "first", "--yes"])
        .stdout();
    assert!(restored.contains("worker"), "{restored}");
    no_changes(&project);
    let listed = project.ok(&["sandboxes", "--json"]).stdout();
    let listed: Value = serde_json::from_str(&listed).unwrap();
    let stacks: Vec<_> = listed["sandboxes"]
        .as_array()
        .unwrap()
        .iter()
        .map(|it| &it["stack"])
        .collect();
    assert_eq!(stacks, ["shop", "shop"]);
    project.ok(&["destroy", "--yes"]);
}

#[test]
fn a_sandbox_that_is_to_be_down_is_suspended_and_goes_on_as_the_manifest_has_it_then() {
    let served = Served::start();
    let web = |more: &str| {
        format!(
            "  web:\n{more}    env: {{ MODE: slow }}\n    services:\n      api: {{ command: exec sleep 1000 }}\n"
        )
    };
    let project = on(&served, "iris", &web(""));
    project.ok(&["apply", "--yes"]);
    // Down, and changed at the same time.
    project.edit("MODE: slow", "MODE: fast");
    project.edit("    env:", "    state: stopped\n    env:");
    project.ok(&["apply", "--yes"]);
    no_changes(&project);
    no_changes_elsewhere(&project);
    // What it was made from cannot be read now.
    project.edit("MODE: fast", "MODE: faster");
    no_changes(&project);
    project.edit("    state: stopped\n", "    protect: true\n");
    project.ok(&["apply", "--yes"]);
    no_changes(&project);
    let mode = project.ok(&["exec", "web/api", "--", "printenv", "MODE"]);
    assert_eq!(mode.stdout(), "faster\n");

    // Nor can it be read that it is protected, until it is up.
    project.edit(
        "    protect: true\n",
        "    protect: true\n    state: stopped\n",
    );
    project.ok(&["apply", "--yes"]);
    let refused = project.run(&["destroy", "--yes"]);
    assert_eq!(refused.code(), Some(1), "{refused}");
    assert!(refused.stderr().contains("it is protected"), "{refused}");
    assert_eq!(served.count(), 1);
}
