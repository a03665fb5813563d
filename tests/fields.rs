//! Repositories, editors, limits and descriptions, through the command line and on real processes.
#![cfg(target_os = "linux")]

mod common;

use std::path::Path;

use common::{Project, free_port};
use serde_json::Value;

fn sh(dir: &Path, script: &str) {
    let mut command = std::process::Command::new("sh");
    command.arg("-euc").arg(script).current_dir(dir);
    for who in ["AUTHOR", "COMMITTER"] {
        command.env(format!("GIT_{who}_NAME"), "me");
        command.env(format!("GIT_{who}_EMAIL"), "me@example.org");
    }
    let output = command.env_remove("GIT_DIR").output().unwrap();
    assert!(output.status.success(), "{output:?}");
}

/// A bare repository `origin.git` beside the manifest.
fn with_origin(manifest: &str) -> Project {
    let project = Project::new(manifest);
    sh(
        project.dir.path(),
        "git init -q -b main work && cd work && echo one > file && git add file
         git commit -qm one && git clone -q --bare . ../origin.git",
    );
    project
}

const REPO: &str = "version: 1
stack: fields
sandboxes:
  web:
    description: the front
    topics: [shop, web]
    keep_alive: 10m
    repo: ./origin.git
    services:
      show: { kind: task, command: 'cat file; echo mine > file' }
      idle: { cmd: sleep, args: ['1000'] }
";

#[test]
fn a_repository_is_in_the_workspace_before_anything_starts() {
    let project = with_origin(REPO);
    project.ok(&["apply", "--yes"]);
    let logs = project.ok(&["logs", "web/show"]);
    assert!(logs.stdout().contains("one"), "{logs}");
    let status = project.status(&[]);
    let sandbox = &status["sandboxes"][0];
    assert_eq!(sandbox["description"], "the front");
    assert_eq!(sandbox["topics"], serde_json::json!(["shop", "web"]));
    assert_eq!(sandbox["keep_alive"], "10m");
    let url = sandbox["repo"]["url"].as_str().unwrap();
    assert!(url.ends_with("/origin.git"), "{url}");
    let text = project.ok(&["status"]).stdout();
    assert!(
        text.contains("the front; topics shop, web; repo /"),
        "{text}"
    );

    // Texts change in place: nothing is restarted.
    let before = project.pid("web/idle");
    project.edit("the front", "the back");
    project.edit("10m", "20m");
    project.ok(&["apply", "--yes"]);
    assert_eq!(project.pid("web/idle"), before);
    assert_eq!(
        project.status(&[])["sandboxes"][0]["description"],
        "the back"
    );

    // What services did in the clone is kept when the sandbox starts again.
    project.ok(&["stop", "web"]);
    project.ok(&["apply", "--yes"]);
    let logs = project.ok(&["logs", "web/idle"]);
    assert_eq!(logs.code(), Some(0));
    let file = project.ok(&["exec", "web", "--", "cat", "file"]);
    assert_eq!(file.stdout(), "mine\n");
    project.ok(&["destroy", "--yes"]);
}

#[test]
fn a_repository_that_cannot_be_cloned_says_so() {
    let project = with_origin(REPO);
    project.edit("./origin.git", "./nowhere.git");
    let run = project.run(&["apply", "--yes"]);
    assert_eq!(run.code(), Some(1), "{run}");
    let stderr = run.stderr();
    assert!(
        stderr.contains("cannot clone ") && stderr.contains("nowhere.git"),
        "{run}"
    );
    // Put right, it comes up.
    project.edit("./nowhere.git", "./origin.git");
    project.ok(&["apply", "--yes"]);
    project.ok(&["destroy", "--yes"]);
}

#[test]
fn an_editor_with_a_command_is_a_service() {
    let port = free_port();
    let project = Project::new(&format!(
        "version: 1
stack: fields
sandboxes:
  web:
    vscode: {{ command: [python3, -m, http.server, --bind, 127.0.0.1, '{port}'], port: {port} }}
"
    ));
    project.ok(&["apply", "--yes"]);
    let services = project.services();
    let editor = &services["web/vscode"];
    assert_eq!(editor["ready"], Value::Bool(true), "{editor}");
    assert_eq!(editor["ports"], serde_json::json!([port]));
    let plan = project.ok(&["plan", "--detailed-exitcode"]);
    assert_eq!(plan.code(), Some(0), "{plan}");
    // Left out, it goes; the platform has no editor of its own.
    project.write(
        "gabion.yaml",
        "version: 1\nstack: fields\nsandboxes: { web: { vscode: true } }\n",
    );
    let refused = project.run(&["validate"]);
    assert_eq!(refused.code(), Some(65), "{refused}");
    assert!(
        refused.stdout().contains("cannot honour `vscode: true`"),
        "{refused}"
    );
    project.edit("vscode: true", "vscode: false");
    project.ok(&["apply", "--yes"]);
    assert!(project.services().is_empty());
    project.ok(&["destroy", "--yes"]);
}

#[test]
fn changed_limits_are_another_process_and_a_changed_sandbox_comes_back_whole() {
    let support = gabion::supervisor::limit_support();
    if !(support.memory && support.cpu) {
        return;
    }
    let project = Project::new(
        "version: 1
stack: fields
sandboxes:
  web:
    vcpus: 2
    services:
      one: { cmd: sleep, args: ['1000'], limits: { memory: 64MiB, cpu: 0.5, files: 100 } }
      two: { cmd: sleep, args: ['1000'] }
",
    );
    project.ok(&["apply", "--yes"]);
    let (one, two) = (project.pid("web/one"), project.pid("web/two"));
    project.edit("64MiB", "128MiB");
    project.ok(&["apply", "--yes"]);
    assert_ne!(project.pid("web/one"), one);
    assert_eq!(project.pid("web/two"), two);
    project.edit("vcpus: 2", "vcpus: 1");
    let plan = project.ok(&["plan"]).stdout();
    assert!(plan.contains("vcpus"), "{plan}");
    project.ok(&["apply", "--yes"]);
    assert_ne!(project.pid("web/two"), two);
    let plan = project.ok(&["plan", "--detailed-exitcode"]);
    assert_eq!(plan.code(), Some(0), "{plan}");
    project.ok(&["destroy", "--yes"]);
}
