//! Pocketenv: one manifest from its first apply to its destruction, against `gabion serve`.

use gabion::serve::pocketenv::seal::public_key;
use serde_json::{Value, json};

use crate::common::{Project, Run, free_port};
use crate::rig::{Cloud, TOKEN, elsewhere, no_changes};

/// What no output may show.
const SECRET: &str = "planted-secret-4cc1e9";

/// A project on the cloud, whose only sandbox has these services.
fn project(cloud: &Cloud, services: &str) -> Project {
    let project = Project::new(&format!(
        "version: 1
stack: shop
platforms:
  cloud: {{ kind: pocketenv, url: '{}', token: '${{secret.token}}', public_key: '{}' }}
secrets:
  token: {{ file: /dev/null }}
  db: {{ file: /dev/null }}
sandboxes:
  web:
    platform: cloud
    description: the shop
    topics: [demo]
    env: {{ MODE: dev }}
    services:
{services}",
        cloud.url,
        public_key(),
    ));
    for (name, value) in [("token", TOKEN), ("db", SECRET)] {
        let file = project.path(name);
        std::fs::write(&file, value).unwrap();
        let from = format!("{name}: {{ file: /dev/null }}");
        let to = format!("{name}: {{ file: '{}' }}", file.display());
        project.edit(&from, &to);
    }
    project
}

/// Runs it with all that it can tell; nothing of that may be secret.
fn ok(project: &Project, args: &[&str]) -> Run {
    let args: Vec<_> = ["-vvv"].iter().chain(args).copied().collect();
    let run = project.ok(&args);
    for planted in [TOKEN, SECRET] {
        let shown = run.stdout().contains(planted) || run.stderr().contains(planted);
        assert!(!shown, "{args:?} shows {planted}");
    }
    run
}

/// Asks the server as any client does.
fn ask(cloud: &Cloud, method: &str, operation: &str, body: Value) -> Value {
    let url = format!("{}/xrpc/io.pocketenv.{operation}", cloud.url);
    let mut curl = std::process::Command::new("curl");
    curl.args([
        "-s",
        "-X",
        method,
        "-H",
        &format!("Authorization: Bearer {TOKEN}"),
    ]);
    if !body.is_null() {
        curl.args([
            "-H",
            "Content-Type: application/json",
            "-d",
            &body.to_string(),
        ]);
    }
    let output = curl.arg(&url).output().unwrap();
    serde_json::from_slice(&output.stdout).unwrap_or(Value::Null)
}

/// The service of a sandbox by its name.
fn service(cloud: &Cloud, name: &str) -> Value {
    let all = ask(
        cloud,
        "GET",
        "service.getServices?sandboxId=shop-web",
        Value::Null,
    );
    let all = all["services"].as_array().unwrap().clone();
    let found = all.into_iter().find(|service| service["name"] == name);
    found.unwrap_or(Value::Null)
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
    let cloud = Cloud::new();
    let port = free_port();
    let project = project(
        &cloud,
        &format!(
            "      setup: {{ kind: task, command: 'echo done >/tmp/gabion-shop-web/setup' }}
      db:
        command: exec sleep 1000
        env: {{ PASSWORD: 'x${{secret.db}}y' }}
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
    ok(&project, &["apply", "--yes"]);
    assert_eq!(inside(&project, "cat /tmp/gabion-shop-web/setup"), "done");
    assert_eq!(inside(&project, "echo $MODE"), "dev");
    let environment = format!("tr '\\0' '\\n' </proc/{}/environ", pid(&project, "db"));
    let environment = inside(&project, &environment);
    assert!(
        environment.contains(&format!("PASSWORD=x{SECRET}y")),
        "{environment}"
    );
    assert!(environment.contains("MODE=dev"));
    assert_eq!(service(&cloud, "off")["status"], "STOPPED");

    // On this machine and on any other one, there is nothing to do.
    let (_, from) = cloud.requests(0);
    assert!(no_changes(&ok(&project, &["plan"])));
    let (mut requests, _) = cloud.requests(from);
    requests.sort();
    let wanted = [
        "getActorSandboxes",
        "getExposedPorts",
        "getProfile",
        "getSandbox",
        "getServices",
    ];
    assert_eq!(requests, wanted);
    let other = elsewhere(&project);
    assert!(no_changes(&ok(&other, &["plan"])));

    // Only what was edited is another process after that.
    let before = [pid(&project, "db"), pid(&project, "api")];
    project.edit("exec sleep 1000", "exec sleep 1001");
    ok(&project, &["apply", "--yes"]);
    assert_ne!(pid(&project, "db"), before[0]);
    assert_eq!(pid(&project, "api"), before[1]);

    // What is broken by hand is seen, and healed.
    let api = service(&cloud, "api")["id"].as_str().unwrap().to_owned();
    ask(
        &cloud,
        "POST",
        &format!("service.stopService?serviceId={api}"),
        Value::Null,
    );
    let details = json!({
        "$type": "io.pocketenv.sandbox.defs#sandboxDetailsPref", "topics": ["other"],
    });
    let sandbox = ask(&cloud, "GET", "sandbox.getSandbox?id=shop-web", Value::Null);
    let body = json!({ "sandboxId": sandbox["sandbox"]["id"], "preferences": [details] });
    ask(&cloud, "POST", "sandbox.putPreferences", body);
    let body = json!({ "port": port });
    ask(&cloud, "POST", "sandbox.unexposePort?id=shop-web", body);
    let plan = ok(&project, &["plan"]).stdout();
    assert!(plan.contains("api") && plan.contains("topics"), "{plan}");
    ok(&project, &["apply", "--yes"]);
    assert!(no_changes(&ok(&project, &["plan"])));
    assert_eq!(service(&cloud, "api")["status"], "RUNNING");
    let ports = ok(&project, &["ports"]).stdout();
    assert!(ports.contains(&port.to_string()), "{ports}");

    // Nothing of another owner is touched, and nothing of ours is left.
    ask(
        &cloud,
        "POST",
        "sandbox.createSandbox",
        json!({ "base": "openclaw" }),
    );
    ok(&project, &["destroy", "--yes"]);
    let sandboxes = ok(&project, &["sandboxes", "--platform", "cloud"]).stdout();
    assert!(!sandboxes.contains("shop"), "{sandboxes}");
    let did = ask(&cloud, "GET", "actor.getProfile", Value::Null);
    let list = format!(
        "actor.getActorSandboxes?did={}",
        did["did"].as_str().unwrap()
    );
    assert_eq!(ask(&cloud, "GET", &list, Value::Null)["total"], 1);
}

#[test]
fn files_variables_and_logs() {
    let cloud = Cloud::new();
    let project = project(
        &cloud,
        "      api: { command: 'echo hello; exec sleep 1000', health: { log: hello } }\n",
    );
    ok(&project, &["apply", "--yes"]);
    assert!(
        ok(&project, &["logs", "web/api"])
            .stdout()
            .contains("hello")
    );
    let bytes: Vec<u8> = (0..200_000u32)
        .map(|at| at.to_le_bytes()[0] ^ at.to_le_bytes()[1])
        .collect();
    std::fs::write(project.path("file"), &bytes).unwrap();
    ok(&project, &["cp", "file", "web:/tmp/gabion-shop-web/a/file"]);
    ok(&project, &["cp", "web:/tmp/gabion-shop-web/a/file", "back"]);
    assert_eq!(std::fs::read(project.path("back")).unwrap(), bytes);
    ok(&project, &["env", "set", "web", "COLOUR=red"]);
    assert!(
        ok(&project, &["env", "list", "web"])
            .stdout()
            .contains("COLOUR")
    );
}
