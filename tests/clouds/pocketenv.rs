//! Pocketenv: one manifest from its first apply to its destruction, against `gabion serve`.

mod backups;
mod claim;
mod drift;
mod keys;

use std::time::Duration;

use gabion::model::ServiceAddress;
use gabion::platforms::LogQuery;
use gabion::platforms::cloud::http::Connections;
use gabion::serve::faults::Plan;
use serde_json::{Value, json};

use crate::common::{Project, eventually, free_port};
use crate::projects::{SECRET, flat, no_changes, no_changes_elsewhere, on};
use crate::served::{OTHER, Served};
use crate::sweep::stage::Step;
use crate::sweep::{POCKETENV, stage};

/// A project whose only sandbox has these services.
fn project(served: &Served, services: &str) -> Project {
    let sandbox = "  web:
    description: the shop
    topics: [demo]
    env: { MODE: dev }
    services:
";
    on(served, "pocketenv", &format!("{sandbox}{services}"))
}

/// Asks for an operation, as somebody else who works there would.
fn ask(served: &Served, method: &str, operation: &str, body: Value) -> Value {
    let path = format!("/xrpc/io.pocketenv.{operation}");
    served.ask(method, &path, body).1
}

/// The service of a sandbox by its name.
fn service(served: &Served, name: &str) -> Value {
    let list = "service.getServices?sandboxId=shop-web";
    let all = ask(served, "GET", list, Value::Null);
    let mut all = all["services"].as_array().unwrap().iter();
    let found = all.find(|service| service["name"] == name);
    found.cloned().unwrap_or_default()
}

/// What a command in the sandbox writes.
fn inside(project: &Project, script: &str) -> String {
    let run = project.ok(&["exec", "web", "--", "/bin/sh", "-c", script]);
    run.stdout().trim().to_owned()
}

/// The process that a service was started as.
fn pid(project: &Project, service: &str) -> String {
    inside(project, &format!("cat /tmp/gabion-shop-web/{service}.pid"))
}

#[test]
fn a_manifest_from_its_first_apply_to_its_destruction() {
    let served = Served::start();
    let port = free_port();
    let project = project(
        &served,
        &format!(
            "      setup: {{ kind: task, command: 'echo done >/tmp/gabion-shop-web/setup' }}
      db:
        command: exec sleep 1000
        env: {{ PASSWORD: 'x${{secret.pass}}y' }}
        needs: [setup]
      api:
        cmd: python3
        args: [-u, -m, http.server, '{port}', --bind, 127.0.0.1]
        ports: [{port}]
        health: {{ tcp: {port} }}
        needs: [db]
      off: {{ command: exec sleep 1002, state: stopped }}
"
        ),
    );
    project.ok(&["apply", "--yes"]);
    assert_eq!(inside(&project, "cat /tmp/gabion-shop-web/setup"), "done");
    assert_eq!(inside(&project, "echo $MODE"), "dev");
    let environment = format!("tr '\\0' '\\n' </proc/{}/environ", pid(&project, "db"));
    let environment = inside(&project, &environment);
    assert!(
        environment.contains(&format!("PASSWORD=x{SECRET}y")),
        "{environment}"
    );
    assert!(environment.contains("MODE=dev"));
    assert_eq!(service(&served, "off")["status"], "STOPPED");

    // On this machine and on any other one, there is nothing to do.
    let from = served.requests(0).len();
    no_changes(&project);
    let mut requests = served.requests(from);
    requests.sort();
    let wanted = [
        "actor.getActorSandboxes",
        "actor.getProfile",
        "sandbox.getExposedPorts",
        "sandbox.getSandbox",
        "service.getServices",
    ];
    assert_eq!(
        requests,
        wanted.map(|it| format!("GET /xrpc/io.pocketenv.{it}"))
    );
    no_changes_elsewhere(&project);

    // Only what was edited is another process after that.
    let before = [pid(&project, "db"), pid(&project, "api")];
    project.edit("exec sleep 1000", "exec sleep 1001");
    project.ok(&["apply", "--yes"]);
    assert_ne!(pid(&project, "db"), before[0]);
    assert_eq!(pid(&project, "api"), before[1]);

    // What is broken by hand is seen, and healed.
    let api = service(&served, "api")["id"].as_str().unwrap().to_owned();
    ask(
        &served,
        "POST",
        &format!("service.stopService?serviceId={api}"),
        Value::Null,
    );
    let details = json!({
        "$type": "io.pocketenv.sandbox.defs#sandboxDetailsPref", "topics": ["other"],
    });
    let sandbox = ask(
        &served,
        "GET",
        "sandbox.getSandbox?id=shop-web",
        Value::Null,
    );
    let body = json!({ "sandboxId": sandbox["sandbox"]["id"], "preferences": [details] });
    ask(&served, "POST", "sandbox.putPreferences", body);
    let body = json!({ "port": port });
    ask(&served, "POST", "sandbox.unexposePort?id=shop-web", body);
    let plan = project.ok(&["plan"]).stdout();
    assert!(plan.contains("api") && plan.contains("topics"), "{plan}");
    project.ok(&["apply", "--yes"]);
    no_changes(&project);
    assert_eq!(service(&served, "api")["status"], "RUNNING");
    let ports = project.ok(&["ports"]).stdout();
    assert!(ports.contains(&port.to_string()), "{ports}");

    // Nothing of another owner is touched, and nothing of ours is left.
    ask(
        &served,
        "POST",
        "sandbox.createSandbox",
        json!({ "base": "openclaw" }),
    );
    project.ok(&["destroy", "--yes"]);
    let sandboxes = project.ok(&["sandboxes", "--platform", "cloud"]).stdout();
    assert!(!sandboxes.contains("shop"), "{sandboxes}");
    let did = ask(&served, "GET", "actor.getProfile", Value::Null);
    let list = format!(
        "actor.getActorSandboxes?did={}",
        did["did"].as_str().unwrap()
    );
    assert_eq!(ask(&served, "GET", &list, Value::Null)["total"], 1);
}

#[test]
fn what_somebody_else_has_is_listed_and_left_alone() {
    let served = Served::start();
    let project = project(&served, "      api: { command: 'exec sleep 1000' }\n");
    project.ok(&["apply", "--yes"]);
    let theirs = |method: &str, operation: &str, body: Value| {
        let path = format!("/xrpc/io.pocketenv.{operation}");
        served.ask_as(OTHER, method, &path, body).1
    };
    let base = json!({ "base": "openclaw" });
    let made = theirs("POST", "sandbox.createSandbox", base);
    let they = theirs("GET", "actor.getProfile", Value::Null);

    let listed = |args: &[&str]| -> Vec<(Value, Value)> {
        let command = ["sandboxes", "--platform", "cloud", "--json"];
        let listed = project.ok(&[&command, args].concat()).stdout();
        let listed: Value = serde_json::from_str(&listed).unwrap();
        let all = listed["sandboxes"].as_array().unwrap().iter();
        all.map(|it| (it["id"].clone(), it["stack"].clone()))
            .collect()
    };
    for name in ["did", "handle"] {
        let actor = ["--actor", they[name].as_str().unwrap()];
        assert_eq!(listed(&actor), [(made["id"].clone(), Value::Null)]);
    }
    let own = listed(&[]);
    assert!(own.len() == 1 && own[0].1 == "shop", "{own:?}");

    no_changes(&project);
    project.ok(&["destroy", "--yes"]);
    assert_eq!(served.count(), 1);
}

#[test]
fn files_variables_and_logs() {
    let served = Served::start();
    let project = project(
        &served,
        "      api: { command: 'echo hello; exec sleep 1000', health: { log: hello } }\n",
    );
    project.ok(&["apply", "--yes"]);
    assert!(project.ok(&["logs", "web/api"]).stdout().contains("hello"));
    let bytes: Vec<u8> = (0..200_000u32)
        .map(|at| at.to_le_bytes()[0] ^ at.to_le_bytes()[1])
        .collect();
    std::fs::write(project.path("file"), &bytes).unwrap();
    project.ok(&["cp", "file", "web:/tmp/gabion-shop-web/a/file"]);
    project.ok(&["cp", "web:/tmp/gabion-shop-web/a/file", "back"]);
    assert_eq!(std::fs::read(project.path("back")).unwrap(), bytes);
    project.ok(&["env", "set", "web", "COLOUR=red"]);
    assert!(
        project
            .ok(&["env", "list", "web"])
            .stdout()
            .contains("COLOUR")
    );
}

#[test]
fn what_is_attached_is_there_once_the_sandbox_starts_again() {
    let served = Served::start();
    let project = project(&served, "      api: { command: exec sleep 1000 }\n");
    project.ok(&["apply", "--yes"]);
    let path = "/tmp/gabion-shop-web/attached";
    let set_file = |content: &str| {
        project.write("content", content);
        let mut set = project.command(&["file", "set", "web", path]);
        let content = std::fs::File::open(project.path("content")).unwrap();
        assert!(set.stdin(content).status().unwrap().success());
    };
    let start_again = || {
        project.edit("    env: { MODE", "    state: stopped\n    env: { MODE");
        project.ok(&["apply", "--yes"]);
        project.edit("    state: stopped\n", "");
        project.ok(&["apply", "--yes"]);
    };
    set_file("first\n");
    assert_eq!(
        project.ok(&["file", "list", "web"]).stdout(),
        format!("{path}\n")
    );
    start_again();
    assert_eq!(inside(&project, &format!("cat {path}")), "first");
    // The platform itself cannot change the content of one.
    set_file("second\n");
    assert_eq!(
        project.ok(&["file", "list", "web"]).stdout(),
        format!("{path}\n")
    );
    start_again();
    assert_eq!(inside(&project, &format!("cat {path}")), "second");
    project.ok(&["file", "unset", "web", path]);
    assert_eq!(
        project.ok(&["file", "list", "web"]).stdout(),
        "web: no files\n"
    );

    project.ok(&["volume", "set", "web", "data=/var/lib/a"]);
    project.ok(&["volume", "set", "web", "data=/var/lib/b"]);
    let list = project.ok(&["volume", "list", "web", "--json"]).stdout();
    let list: Value = serde_json::from_str(&list).unwrap();
    assert_eq!(list, json!([{ "name": "data", "path": "/var/lib/b" }]));
    project.ok(&["volume", "unset", "web", "data"]);
    project.ok(&["volume", "unset", "web", "data"]);
    assert_eq!(
        project.ok(&["volume", "list", "web"]).stdout(),
        "web: no volumes\n"
    );
}

#[test]
fn folders_go_by_the_storage_and_are_there_whole() {
    let served = Served::start();
    let sandbox = "  web: { services: { api: { command: exec sleep 1000 } } }\n";
    let project = on(&served, "pocketenv", sandbox);
    project.ok(&["apply", "--yes"]);
    std::fs::create_dir_all(project.path("from/deep/empty")).unwrap();
    // More than a request of the protocol's own holds.
    let large = "0123456789abcdef".repeat(100_000);
    project.write("from/large", &large);
    let from = served.requests(0).len();
    project.ok(&["cp", "from", "web:to"]);
    project.ok(&["cp", "web:to", "back"]);
    let asked = served.requests(from).join("\n");
    for request in ["POST /cp", "pullDirectory", "pushDirectory", "GET /cp/"] {
        assert!(asked.contains(request), "{request}: {asked}");
    }
    assert!(project.read("back/large") == large);
    assert!(project.path("back/deep/empty").is_dir());
    // What went wrong is told, and nothing is here.
    let refused = project.run(&["cp", "web:to/large/none/.", "away"]);
    assert_ne!(refused.code(), Some(0), "{refused}");
    assert!(!project.path("away").exists());
    // A token goes to nobody who could be overheard.
    let entry = "kind: pocketenv,";
    project.edit(
        entry,
        &format!("{entry} storage_url: 'http://storage.example',"),
    );
    let refused = project.run(&["plan"]);
    assert!(flat(&refused).contains("`storage_url`"), "{refused}");
}

#[test]
fn services_need_their_provider_when_the_manifest_is_read() {
    let served = Served::start();
    let kind = "pocketenv, provider: modal";
    let sandbox = "  web:\n    services:\n      a: { command: exec sleep 1000 }\n";
    let refused = on(&served, kind, sandbox).run(&["plan"]);
    assert_eq!(refused.code(), Some(65), "{refused}");
    for says in [
        "cannot honour `services`",
        "gabion.yaml:11:5",
        "needs `provider: cloudflare` in the platform's entry",
    ] {
        assert!(refused.stderr().contains(says), "{says}: {refused}");
    }
    on(&served, kind, "  web: { services: {} }\n").ok(&["plan"]);
}

#[test]
fn of_a_repository_only_its_url_is_understood_there() {
    let served = Served::start();
    let sandbox = "  web:\n    repo: { url: 'https://example.org/r.git', ref: v1, depth: 1 }\n";
    let refused = on(&served, "pocketenv", sandbox).run(&["plan"]);
    assert_eq!(refused.code(), Some(65), "{refused}");
    for says in [
        "cannot honour `repo.ref`",
        "cannot honour `repo.depth`",
        "gabion.yaml:11:",
    ] {
        assert!(refused.stderr().contains(says), "{says}: {refused}");
    }
    let sandbox = "  web: { repo: { url: 'https://example.org/r.git' } }\n";
    on(&served, "pocketenv", sandbox).ok(&["plan"]);
}

#[test]
fn a_follower_whose_reader_has_gone_ends_even_if_its_questions_fail() {
    let served = Served::start();
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    let runtime = runtime.enable_all().build().unwrap();
    // Tasks get on while something is awaited.
    let turn = || runtime.block_on(async { tokio::time::sleep(Duration::from_millis(1)).await });
    let stage = stage(&POCKETENV, &served, "shop", 16);
    let connections = Connections::default();
    let (loaded, desired) = stage.load(Step::Make);
    let mut platforms = stage.platforms(&loaded, &connections);
    let reader = runtime.block_on(async {
        stage.apply(Step::Make).await.unwrap();
        platforms.observe(&desired).await.unwrap();
        let service: ServiceAddress = "web/s5".parse().unwrap();
        let query = LogQuery {
            follow: true,
            ..LogQuery::default()
        };
        let platform = platforms.of(&service.sandbox).unwrap();
        platform.logs(&service, query).await.unwrap()
    });
    served.faults.reset(Plan {
        rules: vec!["* **:before=500".parse().unwrap()],
        ..Plan::default()
    });
    eventually("the follower asks in vain", || {
        turn();
        !served.requests(0).is_empty()
    });
    drop((reader, platforms, connections));
    eventually("the follower has ended", || {
        turn();
        runtime.metrics().num_alive_tasks() == 0
    });
}

#[test]
fn a_task_that_has_ended_is_not_run_again_though_it_could_not_be_stopped_or_is_described_anew() {
    let served = Served::start();
    let noted = "/tmp/gabion-shop-web/starts";
    let task = format!("      setup: {{ kind: task, command: 'echo x >>{noted}' }}\n");
    let project = project(&served, &task);
    served.faults.reset(Plan {
        rules: vec!["* **stopService:before=500".parse().unwrap()],
        ..Plan::default()
    });
    let failed = project.run(&["apply", "--yes"]);
    assert_eq!(failed.code(), Some(1), "{failed}");
    served.faults.reset(Plan::default());
    project.ok(&["apply", "--yes"]);
    no_changes(&project);
    project.edit("kind: task,", "kind: task, description: prepares,");
    project.ok(&["apply", "--yes"]);
    no_changes(&project);
    assert_eq!(inside(&project, &format!("cat {noted}")), "x");
    project.edit("echo x", "echo y");
    project.ok(&["apply", "--yes"]);
    no_changes(&project);
    assert_eq!(inside(&project, &format!("cat {noted}")), "x\ny");
}

#[test]
fn a_backup_brings_files_back() {
    let served = Served::start();
    let project = project(&served, "      api: { command: 'exec sleep 1000' }\n");
    project.ok(&["apply", "--yes"]);
    let write = |text: &str| {
        let line = format!("echo {text} >state.txt");
        project.ok(&["exec", "web", "--", "sh", "-c", &line]);
    };
    write("old");
    // An answer that is lost is no second backup.
    served.faults.reset(Plan {
        rules: vec![
            "POST /xrpc/io.pocketenv.sandbox.createBackup:after=lost@1"
                .parse()
                .unwrap(),
        ],
        ..Plan::default()
    });
    project.ok(&["checkpoint", "create", "web", "before"]);
    let listed = project.ok(&["checkpoint", "list", "web", "--json"]);
    assert_eq!(listed.stdout().matches("bkp_").count(), 1, "{listed}");
    write("new");
    project.ok(&["checkpoint", "restore", "web", "before", "--yes"]);
    let read = project.ok(&["exec", "web", "--", "cat", "state.txt"]);
    assert_eq!(read.stdout(), "old\n");
    project.ok(&["apply", "--yes"]);
    no_changes(&project);
}
