//! What is left alone, what is refused, and what is not told.

use serde_json::{Value, json};

use super::{PATH, SPRITE, project, service, sprites};
use crate::common::{Project, Run};
use crate::projects::{flat, no_changes, on};
use crate::served::{Served, TOKEN};

#[test]
fn what_is_not_ours_is_neither_shown_nor_touched() {
    let served = Served::start();
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
    let refused = project.run(&["plan"]);
    let says = "has a service `later` that gabion has not made";
    assert!(refused.stdout().contains(says), "{refused}");
    assert_eq!(project.run(&["apply", "--yes"]).code(), Some(1));
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
    let served = Served::start();
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
fn what_sprites_cannot_honour_is_refused_with_its_place() {
    let served = Served::start();
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
    let project = on(&served, "sprites", services);
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
    let served = Served::start();
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
fn what_a_sprite_was_made_with_is_not_changed_and_the_plan_says_so() {
    let served = Served::start();
    let sandbox =
        "  web:\n    memory: 1GiB\n    services:\n      a: { command: exec sleep 1000 }\n";
    let project = on(&served, "sprites", sandbox);
    project.ok(&["apply", "--yes"]);
    project.edit("1GiB", "2GiB");
    let plan = project.run(&["plan"]);
    assert_eq!(plan.code(), Some(1), "{plan}");
    let says = "platform `cloud` cannot change its `memory`";
    let stdout = plan.stdout();
    let words: Vec<_> = stdout.split_whitespace().collect();
    assert!(words.join(" ").contains(says), "{plan}");
}
