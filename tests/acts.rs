//! The commands that are acts rather than state, on local sandboxes: what there is, where it is
//! reached, files, variables.

mod common;

use std::io::Write;
use std::process::Stdio;

use common::{Project, Run, free_port};
use gabion::supervisor::Client;
use serde_json::{Value, json};

const SECRET: &str = "planted-secret-value";

fn project(port: u16) -> Project {
    let project = Project::new(&format!(
        "version: 1
stack: acts
secrets: {{ key: {{ file: key.txt }} }}
sandboxes:
  web:
    description: the shop
    workspace: site
    env: {{ MODE: dev, API_KEY: '${{secret.key}}' }}
    services:
      api: {{ command: 'exec sleep 600', ports: [{port}] }}
      idle: {{ command: 'exec sleep 600' }}
"
    ));
    project.write("key.txt", SECRET);
    project.write("site/page.html", "hello");
    project.ok(&["apply", "--yes"]);
    project
}

fn parsed(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

#[test]
fn what_there_is_and_where_it_is_reached() {
    let port = free_port();
    let project = project(port);
    let listed = parsed(&project.ok(&["sandboxes", "--json"]).stdout());
    let expected = json!({
        "platform": "local", "id": "acts/web", "name": "acts-web", "state": "running", "stack": "acts",
        "description": "the shop", "url": null, "created_at": null,
    });
    assert_eq!(listed["sandboxes"], json!([expected]));
    let table = project.ok(&["sandboxes", "--limit", "5"]).stdout();
    assert!(
        table.contains("local     acts-web  running  acts"),
        "{table}"
    );
    assert_eq!(
        project.ok(&["sandboxes", "--offset", "1"]).stdout(),
        "There are none.\n"
    );

    let url = format!("http://127.0.0.1:{port}\n");
    assert_eq!(project.ok(&["url", "web/api"]).stdout(), url);
    assert_eq!(project.ok(&["url", "web"]).stdout(), url);
    let run = project.run(&["url", "web/idle"]);
    assert_eq!(run.code(), Some(1));
    assert!(
        run.stderr().contains("`web/idle` declares no port"),
        "{}",
        run.stderr()
    );
    let ports = parsed(&project.ok(&["ports", "--json"]).stdout());
    assert_eq!(
        ports["ports"],
        json!([{ "sandbox": "web", "service": "api", "port": port, "url": url.trim() }])
    );

    let shown = parsed(&project.ok(&["show", "web/api", "--json"]).stdout());
    assert_eq!(
        (&shown["state"], &shown["definition"]["ports"]),
        (&json!("running"), &json!([port]))
    );
    let shown = project.ok(&["show", "web"]).stdout();
    assert!(
        shown.contains("state: running\n") && shown.contains("MODE: dev\n"),
        "{shown}"
    );
    assert!(!shown.contains(SECRET), "{shown}");
}

#[test]
fn sandboxes_need_no_manifest() {
    let project = project(free_port());
    let elsewhere = Project::empty();
    let mut command = elsewhere.command(&["sandboxes", "--json"]);
    let home = project.command(&[]);
    let home = home.get_envs().find(|(name, _)| *name == "GABION_HOME");
    command.env("GABION_HOME", home.unwrap().1.unwrap());
    let output = command.output().unwrap();
    let listed = parsed(&String::from_utf8(output.stdout).unwrap());
    assert_eq!(listed["sandboxes"][0]["name"], "acts-web");
    let run = project.run(&["sandboxes", "--platform", "nowhere"]);
    assert_eq!(run.code(), Some(64));
}

#[test]
fn files_are_copied_both_ways() {
    let project = project(free_port());
    assert_eq!(project.ok(&["cp", "web:page.html", "-"]).stdout(), "hello");
    project.ok(&["cp", "web:page.html", "."]);
    assert_eq!(project.read("page.html"), "hello");

    // More than a pipe or a request holds.
    let large = "0123456789abcdef".repeat(200_000);
    project.write("large", &large);
    project.ok(&["cp", "large", "web:new/folder/"]);
    assert!(project.read("site/new/folder/large") == large);
    project.ok(&["cp", "web:new/folder/large", "back"]);
    assert!(project.read("back") == large);

    let mut command = project.command(&["cp", "-", "web:said"]);
    let mut child = command.stdin(Stdio::piped()).spawn().unwrap();
    child
        .stdin
        .take()
        .unwrap()
        .write_all(b"from stdin")
        .unwrap();
    assert!(child.wait().unwrap().success());
    assert_eq!(project.read("site/said"), "from stdin");
    // Nothing half done is left beside it.
    let names = std::fs::read_dir(project.path("site")).unwrap();
    assert_eq!(names.count(), 3);

    for (args, says) in [
        (
            ["cp", "web:missing", "."],
            "missing: No such file or directory",
        ),
        (["cp", "web:new", "-"], "new: Is a directory"),
        (["cp", "web:new", "page.html"], "page.html: it is no folder"),
        (["cp", "page.html", "web:new"], "new: it is a folder"),
        (["cp", "a", "b"], "one end of a copy has to be in a sandbox"),
        (["cp", "nowhere", "web:x"], "nowhere: No such file"),
    ] {
        let run = project.run(&args);
        assert_ne!(run.code(), Some(0), "{args:?}");
        assert!(run.stderr().contains(says), "{args:?}: {}", run.stderr());
    }
    assert!(!project.path("missing").exists());
}

#[test]
fn folders_are_copied_both_ways() {
    let project = project(free_port());
    std::fs::create_dir_all(project.path("from/deep/empty")).unwrap();
    project.write("from/deep/a b", "text");
    std::os::unix::fs::symlink("deep/a b", project.path("from/link")).unwrap();
    let there = |path: &str| project.path("site").join(path);
    // As `docker cp` does it: what is there already is copied into.
    project.ok(&["cp", "from", "web:to"]);
    assert_eq!(project.read("site/to/deep/a b"), "text");
    assert!(there("to/deep/empty").is_dir());
    assert!(there("to/link").is_symlink());
    project.ok(&["cp", "from", "web:to"]);
    assert_eq!(project.read("site/to/from/link"), "text");
    project.ok(&["cp", "from/.", "web:to/from/deep"]);
    assert_eq!(project.read("site/to/from/deep/link"), "text");

    project.ok(&["cp", "web:to/from/deep", "back"]);
    assert_eq!(project.read("back/link"), "text");
    project.ok(&["cp", "web:to/from/deep", "back"]);
    assert_eq!(project.read("back/deep/link"), "text");
    project.write("back/a b", "other");
    project.ok(&["cp", "web:to/from/deep/.", "back"]);
    assert_eq!(project.read("back/a b"), "text");
    // No archive is left anywhere.
    let list = [
        "exec",
        "web",
        "--",
        "find",
        "/tmp",
        "-maxdepth",
        "1",
        "-name",
        ".gabion-cp*",
    ];
    assert_eq!(project.ok(&list).stdout(), "");
}

#[test]
fn variables_are_listed_without_values_and_what_cannot_be_done_is_said() {
    let project = project(free_port());
    assert_eq!(project.ok(&["env", "list", "web"]).stdout(), "MODE\n");
    assert_eq!(project.ok(&["secret", "list", "web"]).stdout(), "API_KEY\n");
    for (args, says) in [
        (
            &["env", "set", "web", "A=1"][..],
            "platform `local` cannot attach variables to sandboxes",
        ),
        (
            &["volume", "list", "web"],
            "platform `local` cannot attach volumes to sandboxes",
        ),
        (
            &["expose", "web", "80"],
            "platform `local` cannot expose ports",
        ),
        (&["vscode", "web"], "platform `local` cannot open an editor"),
        (
            &["sandboxes", "--platform", "local", "--catalogue"],
            "cannot show a catalogue",
        ),
    ] {
        let run = project.run(args);
        assert_eq!(run.code(), Some(1), "{args:?}");
        assert!(run.stderr().contains(says), "{args:?}: {}", run.stderr());
    }
}

#[test]
fn a_plan_says_what_keeps_sandboxes_apart() {
    let project = Project::new(
        "version: 1\nstack: acts\nsandboxes:\n  box:\n    isolation: none\n    services: { a: { command: sleep 600 } }\n",
    );
    let plan = parsed(&project.ok(&["plan", "--json"]).stdout());
    assert_eq!(plan["isolation"], json!({ "box": "none" }));
    let says = "Isolation: none (process groups only).";
    assert!(project.ok(&["plan"]).stdout().contains(says));
    let markdown = project.ok(&["plan", "--format", "markdown"]).stdout();
    assert!(
        markdown.contains("none (process groups only)"),
        "{markdown}"
    );
}

#[test]
fn what_import_writes_of_a_sandbox_here_is_what_it_is() {
    let project = Project::new(
        "version: 1
stack: shop
sandboxes:
  web:
    description: the front
    env: { MODE: dev }
    services:
      db:
        command: 'echo up; exec sleep 1000'
        env: { A: one }
        health: { log: up, timeout: 20s, retries: 3 }
        restart: { policy: always, backoff: 200ms }
        stop: { signal: INT, grace: 1s }
        limits: { files: 1000 }
        stdin_open: true
      api: { cmd: sleep, args: ['2000'], needs: [db], tty: true }
      seed: { kind: task, command: 'true', timeout: 1m, needs: [{ service: db, restart: true }] }
      idle: { cmd: sleep, args: ['3000'], state: stopped }
      web: { cmd: sleep, args: ['3000'], state: stopped, health: { http: { port: 80, status: [200, 300-399] }, restart: true } }
      told: { cmd: sleep, args: ['3000'], state: stopped, health: { notify: true } }
      asked: { cmd: sleep, args: ['3000'], state: stopped, health: { exec: 'test -e here' } }
      open: { cmd: sleep, args: ['3000'], state: stopped, health_port: 81 }
",
    );
    project.ok(&["apply", "--yes"]);
    let written = project
        .ok(&["import", "local", "web", "--stack", "shop"])
        .stdout();
    // What a variable holds is not written.
    assert!(
        !written.contains("dev") && !written.contains("one"),
        "{written}"
    );
    assert!(!written.contains("not written here: "), "{written}");
    project.write("imported.yaml", &written);
    let mut plan = project.command(&["plan", "-f", "imported.yaml"]);
    let plan = Run(plan.env("MODE", "dev").env("A", "one").output().unwrap());
    assert!(plan.stdout().contains("No changes"), "{plan}\n{written}");
    project.ok(&["destroy", "--yes"]);
}

/// Has the supervisor of `acts/web` start a process that is no service.
fn start_process(project: &Project, command: &str) -> String {
    let folder = project.home.join("sandboxes/acts/web");
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    let runtime = runtime.enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let client = Client::open(&folder).expect("a socket").expect("a sandbox");
        let request = client.request(reqwest::Method::POST, "/v1/processes");
        // As what the variables of the sandbox need.
        let body = json!({ "command": command, "secret_values": { "key": SECRET } });
        let answer = request.json(&body).send().await.expect("an answer");
        let process: Value = answer.json().await.expect("a process");
        assert!(process["pid"].is_u64(), "{process}");
        process["pid"].to_string()
    })
}

#[test]
fn what_runs_beside_services_is_listed_and_ended_and_ends_with_its_sandbox() {
    let project = project(free_port());
    let processes = || {
        let listed = parsed(&project.ok(&["ps", "web", "--json"]).stdout());
        listed["processes"].as_array().expect("a list").clone()
    };
    let none = project.ok(&["ps", "web"]).stdout();
    assert_eq!(none, "Nothing runs beside services.\n");
    let pid = start_process(&project, "exec sleep 700");
    let listed = processes();
    assert_eq!(listed[0]["id"], json!(pid));
    assert_eq!(listed[0]["command"], "exec sleep 700");
    let api = project.pid("web/api").to_string();
    let refused = project.run(&["kill", "web", &api]);
    assert_eq!(refused.code(), Some(1), "{refused}");
    assert!(refused.stderr().contains("gabion ps web"), "{refused}");
    let refused = project.run(&["kill", "web", &pid, "--signal", "INT"]);
    assert!(refused.stderr().contains("leave out --signal"), "{refused}");
    project.ok(&["kill", "web", &pid]);
    assert_eq!(processes(), Vec::<Value>::new());

    // It outlives a restart of the services, and not one of the sandbox.
    start_process(&project, "exec sleep 700");
    project.ok(&["stop", "web/idle"]);
    project.ok(&["restart", "web/api"]);
    assert_eq!(processes().len(), 1);
    let before = project.pid("web/api");
    project.ok(&["restart", "--sandbox", "web"]);
    assert_eq!(processes(), Vec::<Value>::new());
    assert_ne!(project.pid("web/api"), before);
    assert_eq!(project.services()["web/idle"]["state"], "stopped");
    let refused = project.run(&["restart", "--sandbox", "web/api"]);
    assert_eq!(refused.code(), Some(64), "{refused}");
    project.ok(&["apply", "--yes"]);
    assert!(project.ok(&["plan"]).stdout().contains("No changes"));
}
