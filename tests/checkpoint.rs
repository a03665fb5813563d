//! Checkpoints, forks and atomic applies, as a user runs them.
#![cfg(target_os = "linux")]

mod common;

use common::{Project, free_port};
use serde_json::Value;

/// Two sandboxes; `web` runs in a folder of the user's own.
const MANIFEST: &str = "version: 1
stack: keep
sandboxes:
  data:
    services:
      db: { command: 'test -e first || echo 1 > first; exec sleep 600' }
  web:
    workspace: site
    services:
      api: { command: 'exec sleep 601', needs: [data/db] }
";

fn project() -> Project {
    let project = Project::new(MANIFEST);
    project.write("site/page", "one");
    project.ok(&["apply", "--yes"]);
    project
}

#[test]
fn create_list_restore_delete() {
    let project = project();
    let said = project.ok(&["checkpoint", "list", "web"]).stdout();
    assert_eq!(
        said,
        "web: no checkpoints. Make one with: gabion checkpoint create web\n"
    );
    let said = project
        .ok(&["checkpoint", "create", "web", "first"])
        .stdout();
    assert!(
        said.starts_with("web: checkpoint cp_") && said.contains(" (first) made, 3 B in "),
        "{said}"
    );
    let id = project
        .ok(&["checkpoint", "create", "web", "--no-wait"])
        .stdout();
    project.ok(&["checkpoint", "wait", "web", id.trim()]);
    let listed = project
        .ok(&["checkpoint", "list", "web", "--json"])
        .stdout();
    let listed: Value = serde_json::from_str(&listed).unwrap();
    let listed = listed["checkpoints"].as_array().unwrap();
    assert_eq!(listed.len(), 2);
    assert_eq!(
        (&listed[0]["name"], listed[1]["id"].as_str()),
        (&"first".into(), Some(id.trim()))
    );
    assert_eq!(listed[0]["running"], serde_json::json!(["api"]));
    let table = project.ok(&["checkpoint", "list", "web"]).stdout();
    assert!(table.starts_with("ID           NAME   MADE"), "{table}");

    project.write("site/page", "two");
    project.write("site/more", "two");
    let pid = project.pid("web/api");
    let none = project.run(&["checkpoint", "restore", "web", "first"]);
    assert_eq!(none.code(), Some(64), "{none}");
    let said = project
        .ok(&["checkpoint", "restore", "web", "first", "--yes"])
        .stdout();
    assert!(
        said.contains("web: rewound to cp_") && said.ends_with("  started  api\n"),
        "{said}"
    );
    assert_eq!(project.read("site/page"), "one");
    assert!(!project.path("site/more").exists());
    assert_ne!(project.pid("web/api"), pid);
    // As the manifest says, so there is nothing to do.
    project.ok(&["plan", "--detailed-exitcode"]);

    // Also while it is stopped, where it stays so.
    project.edit(
        "    workspace: site\n",
        "    workspace: site\n    state: stopped\n",
    );
    project.ok(&["apply", "--yes"]);
    project.write("site/page", "three");
    project.ok(&["checkpoint", "create", "web", "third"]);
    project.ok(&["checkpoint", "restore", "web", "first", "--yes"]);
    assert_eq!(project.read("site/page"), "one");
    project.ok(&["checkpoint", "restore", "web", "third", "--yes"]);
    assert_eq!(project.read("site/page"), "three");
    assert_eq!(project.services()["web/api"]["state"], "stopped");

    let unknown = project.run(&["checkpoint", "delete", "web", "fourth"]);
    assert_eq!(unknown.code(), Some(64), "{unknown}");
    project.ok(&["checkpoint", "create", "web", "first"]);
    let twice = project.run(&["checkpoint", "delete", "web", "first"]);
    assert!(
        twice
            .stderr()
            .contains("2 checkpoints of `web` are called `first`"),
        "{twice}"
    );
    project.ok(&["checkpoint", "delete", "web", "third", id.trim()]);
    let nowhere = project.run(&["checkpoint", "list", "nowhere"]);
    assert_eq!(nowhere.code(), Some(64), "{nowhere}");
}

#[test]
fn the_workspace_may_hold_gabions_own_state() {
    let project = Project::new(
        "version: 1
stack: own
sandboxes:
  all:
    workspace: .
    services:
      one: { command: 'exec sleep 600' }
",
    );
    project.write("deep/file", "one");
    project.ok(&["apply", "--yes"]);
    project.ok(&["checkpoint", "create", "all", "a"]);
    project.write("deep/file", "two");
    project.write("state/mine", "of nobody's business");
    project.ok(&["checkpoint", "restore", "all", "a", "--yes"]);
    assert_eq!(project.read("deep/file"), "one");
    // What is gabion's was neither copied nor rewound.
    assert_eq!(project.read("state/mine"), "of nobody's business");
    assert_eq!(project.services()["all/one"]["state"], "running");
    project.ok(&["checkpoint", "list", "all"]);
}

#[test]
fn forks() {
    let port = free_port();
    let project = Project::new(&format!(
        "version: 1
stack: fork
sandboxes:
  data:
    services:
      db:
        cmd: python3
        args: [-m, http.server, --bind, 127.0.0.1, '{port}']
        health_port: {port}
      side: {{ command: 'exec sleep 600' }}
"
    ));
    project.ok(&["apply", "--yes"]);
    let path = "state/sandboxes/fork/data/workspace/file";
    project.write(path, "one");
    project.ok(&["checkpoint", "create", "data", "one"]);
    project.write(path, "two");
    let taken = project.run(&["fork", "data", "copy"]);
    assert_eq!(taken.code(), Some(1), "{taken}");
    let says = format!("`db` of the fork would need port {port}, which is in use");
    assert!(taken.stderr().contains(&says), "{taken}");
    assert!(!project.path("state/sandboxes/fork/copy").exists());

    let forked = project.ok(&["fork", "data", "copy", "--stopped"]);
    assert!(
        forked.stderr().contains("the next apply deletes it"),
        "{forked}"
    );
    assert_eq!(project.services()["copy/db"]["state"], "stopped");
    assert_eq!(
        project.read("state/sandboxes/fork/copy/workspace/file"),
        "two"
    );
    project.ok(&["stop", "data/db"]);
    let forked = project.ok(&["fork", "data", "old", "--from", "one"]);
    assert!(
        forked.stdout().contains("  started  db, side\n"),
        "{forked}"
    );
    assert_eq!(
        project.read("state/sandboxes/fork/old/workspace/file"),
        "one"
    );
    assert_eq!(project.services()["old/db"]["state"], "running");
    let again = project.run(&["fork", "data", "old"]);
    assert!(
        again.stderr().contains("there is a sandbox `old` already"),
        "{again}"
    );
    // Nothing is left of the checkpoints that the forks were made of.
    let listed = project
        .ok(&["checkpoint", "list", "data", "--json"])
        .stdout();
    let listed: Value = serde_json::from_str(&listed).unwrap();
    assert_eq!(listed["checkpoints"].as_array().unwrap().len(), 1);
    project.ok(&["apply", "--yes"]);
    assert!(!project.path("state/sandboxes/fork/old").exists());
}

#[test]
fn an_atomic_apply_that_fails_leaves_what_was() {
    let project = project();
    let before = project.read("gabion.yaml");
    project.write("state/sandboxes/keep/data/workspace/rows", "old");
    project.write(
        "gabion.yaml",
        &(before
            .replace("exec sleep 601', ", "echo broken > page; exit 3', restart: no, health: { exec: [\"true\"], timeout: 5s }, ")
            .replace("sleep 600'", "sleep 700'")
            .replace("test -e first ||", "echo new > rows;")
            + "  more:\n    services:\n      extra: { command: 'exec sleep 603' }\n"),
    );
    let failed = project.run(&["apply", "--atomic", "--yes"]);
    assert_eq!(failed.code(), Some(1), "{failed}");
    let says = failed.stderr();
    assert!(!says.contains("Nothing was rolled back"), "{failed}");
    for line in [
        "  data: as it was before\n",
        "  web: as it was before\n",
        "  more: removed again\n",
        "Everything is as it was before the apply.\n",
    ] {
        assert!(says.contains(line), "{failed}");
    }
    assert_eq!(project.read("site/page"), "one");
    assert_eq!(
        project.read("state/sandboxes/keep/data/workspace/rows"),
        "old"
    );
    assert!(!project.path("state/sandboxes/keep/more").exists());
    project.write("gabion.yaml", &before);
    project.ok(&["plan", "--detailed-exitcode"]);
    for sandbox in ["data", "web"] {
        let listed = project.ok(&["checkpoint", "list", sandbox]).stdout();
        assert!(listed.contains("no checkpoints"), "{listed}");
        // A sandbox itself cannot be brought back.
    }
    project.edit("sleep 600'", "sleep 701'");
    project.ok(&["apply", "--atomic", "--yes"]);
    let (start, _) = before.split_once("  web:").unwrap();
    project.write("gabion.yaml", start);
    let refused = project.run(&["apply", "--atomic", "--yes"]);
    assert_eq!(refused.code(), Some(1), "{refused}");
    assert!(
        refused.stderr().contains("the plan deletes sandbox `web`"),
        "{refused}"
    );
    assert_eq!(project.services()["web/api"]["state"], "running");
}
