//! Commands, signals, logs, checkpoints and files.

use serde_json::Value;

use super::project;
use crate::common::eventually;
use crate::projects::{no_changes, on};
use crate::served::Served;

#[test]
fn commands_have_their_streams_and_exit_codes_and_the_environment_of_where_they_run() {
    let served = Served::start();
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
    let served = Served::start();
    let services = r#"  web:
    services:
      loud:
        command: "trap 'echo heard' HUP; echo one; echo two >&2; while :; do sleep 0.05; done"
        health: { log: one }
"#;
    let project = on(&served, "sprites", services);
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
    let served = Served::start();
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
fn what_there_is_where_it_is_reached_and_files() {
    let served = Served::start();
    let project = project(&served);
    project.ok(&["apply", "--yes"]);
    let listed = project
        .ok(&["sandboxes", "--platform", "cloud", "--json"])
        .stdout();
    assert!(listed.contains("\"stack\": \"shop\""), "{listed}");
    let shown = project.ok(&["show", "web", "--json"]).stdout();
    let shown: Value = serde_json::from_str(&shown).unwrap();
    assert_eq!(shown["check"]["status"], "healthy", "{shown}");
    project.write("note", "kept");
    let inside = format!("/tmp/gabion-cp-{}", std::process::id());
    project.ok(&["cp", "note", &format!("web:{inside}")]);
    let back = project.ok(&["cp", &format!("web:{inside}"), "-"]);
    assert_eq!(back.stdout(), "kept");
    project.ok(&["ports"]);
    project.ok(&["destroy", "--yes"]);
}
