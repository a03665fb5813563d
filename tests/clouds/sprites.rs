//! The client of Sprites against `gabion serve`: protocol page sprites, §2 to §7.

use gabion::serve::Faults;
use gabion::serve::miosa::Switches;
use serde_json::{Value, json};

use crate::common::{Project, Run, eventually, free_port};
use crate::served::{Served, TOKEN};
use crate::sweep::{Runs, Swept, sweep};

const PATH: &str = "/v1/sprites";

/// A value that must not be seen anywhere.
const SECRET: &str = "planted-secret-93ac";

fn served() -> Served {
    Served::new(Faults::default(), Switches::default())
}

/// A project whose sandboxes are sprites of that server.
fn project_of(served: &Served, sandboxes: &str) -> Project {
    let url = &served.url;
    let project = Project::new(&format!(
        r#"version: 1
stack: shop
secrets:
  token: {{ file: token.txt }}
  pass: {{ file: pass.txt }}
platforms:
  cloud: {{ kind: sprites, url: "{url}", token: "${{secret.token}}" }}
defaults: {{ platform: cloud }}
sandboxes:
{sandboxes}"#
    ));
    project.write("token.txt", TOKEN);
    project.write("pass.txt", SECRET);
    project
}

/// A task, a service with a port behind it, and one with a secret behind that; and one by itself.
fn project(served: &Served) -> Project {
    let port = free_port();
    project_of(
        served,
        &format!(
            r#"  web:
    topics: [front]
    env: {{ TIER: one }}
    services:
      setup: {{ kind: task, command: "echo once >>ran.txt" }}
      db:
        command: "echo port {port}; exec python3 -m http.server --bind 127.0.0.1 {port}"
        http_port: {port}
        health: {{ http: {{ port: {port}, path: / }} }}
        needs: [setup]
      api:
        command: "echo mode $MODE; exec sleep 1000"
        env: {{ MODE: slow, PASS: "${{secret.pass}}" }}
        health: {{ log: mode }}
        stop: {{ grace: 2s }}
        needs: [db]
      idle: {{ cmd: sleep, args: ["1000"], description: does nothing }}
"#
        ),
    )
}

const SPRITE: &str = "/v1/sprites/shop-web";

fn service(name: &str) -> String {
    format!("{SPRITE}/services/{name}")
}

fn no_changes(project: &Project) {
    let plan = project.ok(&["plan"]);
    assert!(plan.stdout().contains("No changes"), "{plan}");
}

/// What is said, however it is broken into lines.
fn flat(run: &Run) -> String {
    let words: Vec<_> = run.stderr().split_whitespace().map(str::to_owned).collect();
    words.join(" ")
}

/// The plan's actions, as `address:kind`.
fn planned(run: &Run) -> Vec<String> {
    let plan: Value = serde_json::from_str(&run.stdout()).expect("JSON");
    let actions = plan["actions"].as_array().expect("actions").iter();
    let id = |action: &Value| action["id"].as_str().expect("text").to_owned();
    actions.map(id).collect()
}

fn pids(project: &Project) -> [u64; 3] {
    ["web/db", "web/api", "web/idle"].map(|service| project.pid(service))
}

/// Names of the sprites that there are.
fn sprites(served: &Served) -> Vec<String> {
    let (_, body) = served.ask("GET", PATH, Value::Null);
    let all = body["sprites"].as_array().expect("sprites").iter();
    let name = |sprite: &Value| sprite["name"].as_str().expect("text").to_owned();
    all.map(name).collect()
}

#[test]
fn an_edit_restarts_one_service_and_nothing_is_left_after_destroy() {
    let served = served();
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
    let served = served();
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
    let served = served();
    let project = project(&served);
    project.ok(&["apply", "--yes"]);
    let before = served.faults.requests().len();
    let elsewhere = project.path("elsewhere");
    let other = |args: &[&str]| {
        let mut command = project.command(args);
        Run(command.env("GABION_HOME", &elsewhere).output().unwrap())
    };
    let plan = other(&["plan"]);
    assert!(plan.stdout().contains("No changes"), "{plan}");
    // The list, and the services of the one sprite.
    assert_eq!(served.faults.requests().len() - before, 2);
    project.edit("description: does nothing", "description: waits");
    let plan = other(&["plan"]).stdout();
    assert!(plan.contains("does nothing → waits"), "{plan}");
    assert!(!plan.contains("web/db"), "{plan}");
    let applied = other(&["apply", "--yes"]);
    assert!(applied.0.status.success(), "{applied}");
    no_changes(&project);
}

#[test]
fn what_is_not_ours_is_neither_shown_nor_touched() {
    let served = served();
    let project = project(&served);
    // The name of one that is wanted, but without a mark; and one with another stack's.
    served.ask("POST", PATH, json!({ "name": "shop-web" }));
    let labels = json!({ "name": "other", "labels": ["gabion:shop2/web", "gabion-spec.0.x"] });
    served.ask("POST", PATH, labels);
    let refused = project.run(&["apply", "--yes"]);
    assert_eq!(refused.code(), Some(1), "{refused}");
    assert!(flat(&refused).contains("not of this sandbox"), "{refused}");
    let (_, sprite) = served.ask("GET", SPRITE, Value::Null);
    assert_eq!(sprite["labels"], json!([]));
    served.ask("DELETE", SPRITE, Value::Null);
    project.ok(&["apply", "--yes"]);

    // Services: another one, one with the mark of another, and one whose name is wanted next.
    let (_, api) = served.ask("GET", &service("api"), Value::Null);
    for name in ["cron", "later", "copy"] {
        let mut body = json!({ "cmd": "sleep", "args": ["1000"] });
        if name == "copy" {
            body["env"] = api["env"].clone();
        }
        served.ask("PUT", &format!("{}?duration=1ms", service(name)), body);
    }
    no_changes(&project);
    let pid = |name: &str| served.ask("GET", &service(name), Value::Null).1["state"]["pid"].clone();
    let foreign = ["cron", "later", "copy"].map(pid);
    project.edit("      idle: {", "      later: {");
    let refused = project.run(&["apply", "--yes"]);
    let said = flat(&refused);
    assert!(
        said.contains("has a service `later` that gabion has not made"),
        "{refused}"
    );
    let refused = project.run(&["destroy", "--yes"]);
    assert!(flat(&refused).contains("copy, cron, later"), "{refused}");
    assert_eq!(["cron", "later", "copy"].map(pid), foreign);
    for name in ["cron", "later", "copy"] {
        served.ask("DELETE", &service(name), Value::Null);
    }
    project.ok(&["destroy", "--yes"]);
    assert_eq!(sprites(&served), ["other"]);
}

#[test]
fn damaged_labels_are_not_taken_for_an_absent_sandbox() {
    let served = served();
    let project = project(&served);
    project.ok(&["apply", "--yes"]);
    served.ask("PUT", SPRITE, json!({ "labels": ["gabion:shop/web"] }));
    let plan = project.run(&["plan"]);
    assert!(
        format!("{plan}").contains("labels of sprite `shop-web` are damaged"),
        "{plan}"
    );
    assert_eq!(sprites(&served), ["shop-web"]);
}

#[test]
fn services_are_stopped_and_started_as_wanted() {
    let served = served();
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
    let served = served();
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
    let project = project_of(&served, &services);
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
    let served = served();
    let services = r#"  web:
    services:
      slow: { kind: task, command: "echo began >>ran.txt; until test -e go; do sleep 0.05; done" }
      after: { cmd: sleep, args: ["1000"], needs: [slow] }
"#;
    let project = project_of(&served, services);
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
fn commands_have_their_streams_and_exit_codes_and_the_environment_of_where_they_run() {
    let served = served();
    let project = project(&served);
    project.ok(&["apply", "--yes"]);
    let run = project.run(&[
        "exec",
        "web",
        "--",
        "sh",
        "-c",
        "echo $TIER; echo oops >&2; exit 7",
    ]);
    assert_eq!(
        (run.stdout().as_str(), run.code()),
        ("one\n", Some(7)),
        "{run}"
    );
    assert!(run.stderr().contains("oops"), "{run}");
    let line = "test \"$PASS\" = planted-secret-93ac && echo $MODE";
    let run = project.ok(&["exec", "web/api", "--", "sh", "-c", line]);
    assert_eq!(run.stdout(), "slow\n");
    let run = project.ok(&[
        "exec",
        "web",
        "--",
        "sh",
        "-c",
        "ls /tmp | grep gabion-env; true",
    ]);
    assert_eq!(run.stdout(), "");

    let mut command = project.command(&["exec", "web", "--", "wc", "-c"]);
    let input = "x".repeat(300_000);
    command
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    std::io::Write::write_all(&mut stdin, input.as_bytes()).unwrap();
    drop(stdin);
    let output = child.wait_with_output().unwrap();
    assert_eq!(String::from_utf8(output.stdout).unwrap().trim(), "300000");
    let line = "seq 1 50000";
    let run = project.ok(&["exec", "web", "--", "sh", "-c", line]);
    let last = run.stdout().lines().last().map(str::to_owned);
    assert_eq!(
        (run.stdout().lines().count(), last.as_deref()),
        (50000, Some("50000"))
    );
}

#[test]
fn signals_and_logs() {
    let served = served();
    let services = r#"  web:
    services:
      loud:
        command: "trap 'echo heard' HUP; echo one; echo two >&2; while :; do sleep 0.05; done"
        health: { log: one }
"#;
    let project = project_of(&served, services);
    project.ok(&["apply", "--yes"]);
    project.ok(&["signal", "web/loud", "HUP"]);
    let logs = |args: &[&str]| project.ok(&[&["logs", "web/loud"], args].concat()).stdout();
    eventually("the signal is heard", || logs(&[]).contains("heard"));
    let lines = logs(&["--stream", "stderr"]);
    assert!(lines.starts_with("two\n"), "{lines}");
    assert!(
        !lines.contains("one") && !lines.contains("heard"),
        "{lines}"
    );
    let lines = logs(&["--tail", "1"]);
    assert!(
        lines.lines().count() == 1 && lines.contains("heard"),
        "{lines}"
    );

    let mut command = project.command(&["logs", "-f", "web/loud"]);
    let mut following = command
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let out = following.stdout.take().unwrap();
    let mut lines = std::io::BufRead::lines(std::io::BufReader::new(out));
    let mut next = || lines.next().unwrap().unwrap();
    while !next().contains("heard") {}
    project.ok(&["signal", "web/loud", "SIGHUP"]);
    while !next().contains("heard") {}
    following.kill().unwrap();
    following.wait().unwrap();
}

#[test]
fn checkpoints_rewind_files_and_definitions() {
    let served = served();
    let project = project(&served);
    project.ok(&["apply", "--yes"]);
    project.ok(&["exec", "web", "--", "sh", "-c", "echo old >note.txt"]);
    let made = project.ok(&["checkpoint", "create", "web", "before"]);
    assert!(made.stdout().contains("v0"), "{made}");
    project.ok(&["exec", "web", "--", "sh", "-c", "echo new >note.txt"]);
    project.edit("MODE: slow", "MODE: fast");
    project.edit("      idle: {", "      more: {");
    project.ok(&["apply", "--yes"]);
    let restored = project.ok(&["checkpoint", "restore", "web", "before", "--yes"]);
    assert!(restored.stdout().contains("idle"), "{restored}");
    assert_eq!(
        project
            .ok(&["exec", "web", "--", "cat", "note.txt"])
            .stdout(),
        "old\n"
    );
    let plan = project.ok(&["plan"]).stdout();
    assert!(
        plan.contains("slow → fast") && plan.contains("web/more"),
        "{plan}"
    );
    project.ok(&["apply", "--yes"]);
    no_changes(&project);
    let listed = project.ok(&["checkpoint", "list", "web"]).stdout();
    assert!(listed.contains("before"), "{listed}");
    project.ok(&["checkpoint", "delete", "web", "before"]);
    let listed = project.ok(&["checkpoint", "list", "web"]).stdout();
    assert!(!listed.contains("before"), "{listed}");
}

#[test]
fn no_output_and_no_file_shows_the_token_or_a_secret() {
    let served = served();
    let project = project(&served);
    let mut said = String::new();
    for args in [
        &["plan", "--out", "plan.json"][..],
        &["apply", "--yes", "plan.json"],
        &["plan", "--json"],
        &["status", "--json"],
        &["exec", "web/api", "--", "sh", "-c", "echo done"],
        &["checkpoint", "create", "web"],
    ] {
        let args: Vec<_> = ["-vvv"].into_iter().chain(args.iter().copied()).collect();
        said += &format!("{}", project.ok(&args));
    }
    assert!(said.contains("done"), "{said}");
    // A server that says what it was sent.
    let mut body = served.ask("GET", &service("api"), Value::Null).1;
    body["cmd"] = json!("");
    let (_, answer) = served.ask("PUT", &service("api"), body);
    assert!(answer["message"].is_string());
    project.write("pass.txt", "planted-secret-93ac-2");
    said += &format!("{}", project.ok(&["-vvv", "apply", "--yes"]));
    said += &format!("{}", project.ok(&["-vvv", "destroy", "--yes"]));
    for planted in [TOKEN, SECRET] {
        assert!(!said.contains(planted), "{planted} is in {said}");
    }
    let mut folders = vec![project.dir.path().to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
            let name = entry.file_name();
            if entry.file_type().unwrap().is_dir() {
                folders.push(entry.path());
            } else if name != "token.txt" && name != "pass.txt" {
                let text = std::fs::read(entry.path()).unwrap_or_default();
                let text = String::from_utf8_lossy(&text).into_owned();
                for planted in [TOKEN, SECRET] {
                    assert!(!text.contains(planted), "{planted}: {:?}", entry.path());
                }
            }
        }
    }
}

#[test]
fn what_sprites_cannot_honour_is_refused_with_its_place() {
    let served = served();
    let services = r#"  web:
    state: stopped
    base: debian
    services:
      a:
        command: x
        user: nobody
        container: true
        image: x
        restart: { policy: always, max_restarts: 3 }
        stop: { signal: INT }
        health: { notify: true }
        http_port: 80
      b: { command: x, http_port: 81, limits: { memory: 1Gi }, restart: no }
"#;
    let project = project_of(&served, services);
    let run = project.run(&["plan"]);
    assert_eq!(run.code(), Some(65), "{run}");
    let said = run.stderr();
    for field in [
        "state: stopped",
        "base",
        "user",
        "container",
        "image",
        "restart.policy: always",
        "restart.max_restarts",
        "stop.signal",
        "health.notify",
        "limits",
        "restart: no",
    ] {
        let refused = format!("platform `cloud` (kind `sprites`) cannot honour `{field}`");
        assert!(said.contains(&refused), "{field}: {run}");
    }
    assert!(said.contains("both have an `http_port`"), "{run}");
    assert!(said.contains("gabion.yaml:12:5"), "{run}");
    assert!(served.faults.requests().is_empty());
}

#[test]
fn without_a_token_a_used_platform_is_an_error_and_an_unused_one_is_left_out() {
    let manifest = r#"version: 1
stack: shop
platforms:
  cloud: { kind: sprites }
sandboxes:
  web: { platform: cloud, profiles: [cloud] }
"#;
    let project = Project::new(manifest);
    project.ok(&["plan"]);
    let run = project.run(&["plan", "--profile", "cloud"]);
    let said = run.stderr();
    assert!(
        said.contains("platform `cloud` (kind `sprites`) has no token"),
        "{run}"
    );
    assert!(said.contains("SPRITES_TOKEN or SPRITE_TOKEN"), "{run}");
    let served = served();
    let mut command = project.command(&["plan", "--profile", "cloud"]);
    command
        .env("SPRITE_TOKEN", TOKEN)
        .env("SPRITES_API_URL", &served.url);
    let run = Run(command.output().unwrap());
    assert!(run.stdout().contains("web"), "{run}");
    assert!(!served.faults.requests().is_empty());
    let mut command = project.command(&["plan", "--profile", "cloud"]);
    command
        .env("SPRITE_TOKEN", TOKEN)
        .env("SPRITES_API_URL", "http://10.0.0.1");
    let run = Run(command.output().unwrap());
    assert!(run.stderr().contains("not safe for a token"), "{run}");
}

#[test]
fn what_there_is_where_it_is_reached_and_files() {
    let served = served();
    let project = project(&served);
    project.ok(&["apply", "--yes"]);
    let listed = project
        .ok(&["sandboxes", "--platform", "cloud", "--json"])
        .stdout();
    assert!(listed.contains("\"stack\": \"shop\""), "{listed}");
    project.write("note", "kept");
    let inside = format!("/tmp/gabion-cp-{}", std::process::id());
    project.ok(&["cp", "note", &format!("web:{inside}")]);
    let back = project.ok(&["cp", &format!("web:{inside}"), "-"]);
    assert_eq!(back.stdout(), "kept");
    project.ok(&["ports"]);
    project.ok(&["destroy", "--yes"]);
}

const SWEPT: Swept = Swept {
    kind: "sprites",
    path: "",
    asks: |_, path| path.ends_with("/exec"),
};

#[test]
fn some_faults_at_some_requests() {
    sweep(&SWEPT, Runs::Some(12));
}

#[test]
#[ignore = "takes many minutes"]
fn every_fault_at_every_request() {
    sweep(&SWEPT, Runs::All);
}
