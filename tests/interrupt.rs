//! Killed, interrupted or doubled: the next apply goes on from what is really there.

mod common;

use std::io::{BufRead, BufReader, Read};
use std::process::{Child, Command, Stdio};

use common::{Project, eventually};
use serde_json::Value;

fn twenty(stack: &str) -> String {
    let mut text = format!("version: 1\nstack: {stack}\nsandboxes:\n  one:\n    services:\n");
    for index in 0..20 {
        if index == 10 {
            text += "  two:\n    services:\n";
        }
        let needs = match index {
            0 => String::new(),
            10 => ", needs: [one/s9]".to_owned(),
            _ => format!(", needs: [s{}]", (index + index % 2) - 2),
        };
        text += &format!("      s{index}: {{ cmd: sleep, args: ['1000']{needs} }}\n");
    }
    text
}

fn kill(child: &Child, signal: &str) {
    Command::new("kill")
        .args([signal, &child.id().to_string()])
        .output()
        .unwrap();
}

fn states(project: &Project) -> Vec<(String, String)> {
    let services = project.services();
    let state =
        |(address, row): (String, Value)| (address, row["state"].as_str().unwrap().to_owned());
    services.into_iter().map(state).collect()
}

/// How many processes run `sleep` for this project: a doubled service would be one more.
fn sleepers(project: &Project) -> usize {
    let sleeps = |pid: &&u32| {
        std::fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|name| name == "sleep\n")
    };
    project.processes().iter().filter(sleeps).count()
}

#[test]
fn an_apply_killed_at_any_event_is_finished_by_the_next() {
    let undisturbed = Project::new(&twenty("undisturbed"));
    let run = undisturbed.ok(&["apply", "--yes", "--json"]);
    let events = run.stdout().lines().count();
    let expected = states(&undisturbed);
    assert_eq!(expected.len(), 20);
    assert!(events > 80, "{events} events");

    // Each of the workers takes every fourth event, in a project of its own.
    std::thread::scope(|scope| {
        for worker in 0..4 {
            let expected = &expected;
            scope.spawn(move || {
                let project = Project::new(&twenty("killed"));
                for event in (1..=events).skip(worker).step_by(4) {
                    kill_and_go_on(&project, event, expected);
                }
            });
        }
    });
}

fn kill_and_go_on(project: &Project, event: usize, expected: &[(String, String)]) {
    let mut apply = project
        .command(&["apply", "--yes", "--json"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(apply.stdout.take().unwrap()).lines();
    for _ in 0..event {
        lines.next();
    }
    kill(&apply, "-9");
    apply.wait().unwrap();
    let again = project.run(&["apply", "--yes"]);
    assert_eq!(again.code(), Some(0), "killed at event {event}\n{again}");
    assert_eq!(states(project), expected, "killed at event {event}");
    assert_eq!(sleepers(project), 20, "killed at event {event}");
    let plan = project.ok(&["plan"]);
    assert!(
        plan.stdout().contains("No changes"),
        "killed at event {event}\n{plan}"
    );
    project.ok(&["destroy", "--yes"]);
    assert_eq!(
        project.processes(),
        Vec::<u32>::new(),
        "killed at event {event}"
    );
}

const SLOW: &str = "version: 1
stack: slow
sandboxes:
  box:
    services:
      slow:
        command: 'until test -e go; do sleep 0.05; done; echo up; exec sleep 1000'
        health: { log: up }
      after: { cmd: sleep, args: ['1000'], needs: [slow] }
    workspace: .
";

/// An apply that is waiting for `box/slow`.
fn waiting(project: &Project) -> Child {
    let apply = project
        .command(&["apply", "--yes"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    eventually("box/slow is starting", || {
        project
            .services()
            .get("box/slow")
            .is_some_and(|row| row["state"] == "starting")
    });
    apply
}

fn end(apply: Child) -> (Option<i32>, String) {
    let output = apply.wait_with_output().unwrap();
    (
        output.status.code(),
        String::from_utf8_lossy(&output.stderr).into_owned(),
    )
}

#[test]
fn the_first_ctrl_c_awaits_what_runs_and_starts_nothing_new() {
    let project = Project::new(SLOW);
    let mut apply = waiting(&project);
    kill(&apply, "-INT");
    // It says so before anything else can end it.
    let mut story = apply.stderr.take().unwrap();
    let mut text = String::new();
    let mut byte = [0];
    while !text.contains("Stopping") && story.read(&mut byte).unwrap() == 1 {
        text.push(char::from(byte[0]));
    }
    project.write("go", "");
    let (code, _) = end(apply);
    assert_eq!(code, Some(130));
    let services = project.services();
    assert_eq!(services["box/slow"]["state"], "running");
    assert_eq!(services["box/after"]["state"], "stopped");
    let pid = project.pid("box/slow");
    project.ok(&["apply", "--yes"]);
    assert_eq!(project.pid("box/slow"), pid);
    assert_eq!(project.services()["box/after"]["state"], "running");
}

#[test]
fn the_second_ctrl_c_stops_at_once_and_the_start_goes_on_by_itself() {
    let project = Project::new(SLOW);
    let apply = waiting(&project);
    let pid = project.pid("box/slow");
    kill(&apply, "-INT");
    kill(&apply, "-TERM");
    let (code, story) = end(apply);
    assert_eq!(code, Some(130), "{story}");
    assert!(story.contains("interrupted"), "{story}");
    project.write("go", "");
    project.ok(&["apply", "--yes"]);
    assert_eq!(project.pid("box/slow"), pid);
}

#[test]
fn a_second_apply_is_told_who_is_at_work_and_leaves_or_waits() {
    let project = Project::new(SLOW);
    let first = waiting(&project);
    let refused = project.run(&["apply", "--yes"]);
    assert_eq!(refused.code(), Some(1), "{refused}");
    assert!(
        refused.stderr().contains("locked by `gabion apply`"),
        "{refused}"
    );
    assert!(
        refused.stderr().contains(&first.id().to_string()),
        "{refused}"
    );

    let mut second = project
        .command(&["apply", "--yes", "--lock-timeout", "5m"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut said = BufReader::new(second.stderr.take().unwrap());
    let mut line = String::new();
    said.read_line(&mut line).unwrap();
    assert!(line.contains("waiting"), "{line}");
    project.write("go", "");
    assert_eq!(end(first).0, Some(0));
    assert_eq!(end(second).0, Some(0));

    // The lock dies with its holder.
    std::fs::remove_file(project.path("go")).unwrap();
    project.ok(&["stop", "box/slow"]);
    let mut killed = waiting(&project);
    kill(&killed, "-9");
    killed.wait().unwrap();
    project.write("go", "");
    project.ok(&["apply", "--yes"]);
}
