//! `gabion watch` on real processes: it follows the manifest, heals, and holds deletions.

mod common;

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use common::{Project, eventually};

const MANIFEST: &str = "version: 1
stack: watched
sandboxes:
  box:
    services:
      one: { command: exec sleep 1001 }
      two: { command: exec sleep 1002 }
";

/// A running `gabion watch` and what it says.
struct Watch {
    child: Child,
    lines: Receiver<String>,
    /// Said, but not expected yet.
    unread: Vec<String>,
}

impl Watch {
    fn start(project: &Project, args: &[&str]) -> Self {
        let args: Vec<&str> = ["watch", "--interval", "100ms"]
            .iter()
            .chain(args)
            .copied()
            .collect();
        Self::of(&mut project.command(&args))
    }

    fn of(command: &mut Command) -> Self {
        let mut child = command
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit())
            .spawn()
            .unwrap();
        let (sender, lines) = channel();
        let stdout = BufReader::new(child.stdout.take().unwrap());
        std::thread::spawn(move || {
            for line in stdout.lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    break;
                }
            }
        });
        Self {
            child,
            lines,
            unread: Vec::new(),
        }
    }

    /// Waits for a line that contains all of `parts`, and takes it out: lines may come in any order.
    fn expect(&mut self, parts: &[&str]) -> String {
        let wanted = |line: &String| parts.iter().all(|part| line.contains(part));
        loop {
            if let Some(at) = self.unread.iter().position(wanted) {
                return self.unread.remove(at);
            }
            match self.lines.recv_timeout(Duration::from_secs(60)) {
                Ok(line) => self.unread.push(line),
                Err(_) => panic!("no line with {parts:?} in\n{}", self.unread.join("\n")),
            }
        }
    }

    fn interrupt(mut self) {
        Command::new("kill")
            .args(["-INT", &self.child.id().to_string()])
            .output()
            .unwrap();
        assert!(self.child.wait().unwrap().success());
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
#[cfg(target_os = "linux")]
fn it_follows_the_manifest_where_no_more_folders_can_be_watched() {
    let project = Project::new(&MANIFEST.replace("box:\n", "box:\n    isolation: none\n"));
    let mut watch = Watch::of(&mut common::blind(&project.command(&["watch"])));
    watch.expect(&["box/two", "started"]);
    project.edit("sleep 1002", "sleep 2002");
    watch.expect(&["box/two", "gabion.yaml changed", "restarted"]);
    watch.interrupt();
}

#[test]
fn it_follows_the_manifest_and_keeps_everything_while_it_is_broken() {
    let project = Project::new(MANIFEST);
    let mut watch = Watch::start(&project, &[]);
    watch.expect(&["watched on local", "Watching gabion.yaml"]);
    watch.expect(&["box/two", "started"]);
    let one = project.pid("box/one");

    project.edit("sleep 1002", "sleep 2002");
    watch.expect(&["box/two", "gabion.yaml changed", "restarted"]);
    assert_eq!(project.pid("box/one"), one);

    let good = project.read("gabion.yaml");
    let two = project.pid("box/two");
    project.write(
        "gabion.yaml",
        &good.replace("command: exec sleep 2002", "comand: exec sleep 3"),
    );
    watch.expect(&["not valid, nothing changed"]);
    watch.expect(&["did you mean"]);
    assert_eq!((project.pid("box/one"), project.pid("box/two")), (one, two));

    // An editor that saves by renaming.
    project.write(
        "gabion.yaml.new",
        &good.replace(
            "services:",
            "services:\n      three: { command: exec sleep 3 }",
        ),
    );
    std::fs::rename(project.path("gabion.yaml.new"), project.path("gabion.yaml")).unwrap();
    watch.expect(&["box/three", "started"]);
    assert_eq!((project.pid("box/one"), project.pid("box/two")), (one, two));

    watch.interrupt();
    assert_eq!(project.pid("box/one"), one);
}

#[test]
fn it_heals_what_died_or_was_taken_away() {
    let project = Project::new(MANIFEST);
    let mut watch = Watch::start(&project, &[]);
    watch.expect(&["box/one", "started"]);
    watch.expect(&["box/two", "started"]);

    // A killed service: its supervisor brings it back, watch says so.
    let pid = project.pid("box/one");
    Command::new("kill")
        .args(["-9", &pid.to_string()])
        .output()
        .unwrap();
    watch.expect(&["box/one", "was killed (signal KILL)", "running again"]);
    assert_ne!(project.pid("box/one"), pid);

    // A service that was stopped by hand.
    project.ok(&["stop", "box/two"]);
    watch.expect(&["box/two", "was found stopped", "started"]);

    // A keeper that was killed, with everything in its sandbox.
    let status = project.status(&[]);
    let keeper = status["sandboxes"][0]["keeper_pid"].as_u64().unwrap();
    Command::new("kill")
        .args(["-9", &keeper.to_string()])
        .output()
        .unwrap();
    watch.expect(&["box", "was down", "started"]);
    eventually("both run again", || {
        project
            .services()
            .values()
            .all(|row| row["state"] == "running")
    });
    watch.interrupt();
}

#[test]
fn deletions_are_held_until_they_are_allowed() {
    let project = Project::new(MANIFEST);
    let mut watch = Watch::start(&project, &[]);
    watch.expect(&["box/two", "started"]);
    let two = project.pid("box/two");
    project.edit("      two: { command: exec sleep 1002 }\n", "");
    watch.expect(&["box/two", "no longer in the manifest"]);
    assert_eq!(project.pid("box/two"), two);
    watch.interrupt();

    let mut watch = Watch::start(&project, &["--allow-delete", "--on-exit", "stop"]);
    watch.expect(&["box/two", "deleted"]);
    let left: Vec<String> = project.services().into_keys().collect();
    assert_eq!(left, ["box/one"]);
    watch.interrupt();
    assert_eq!(project.services()["box/one"]["state"], "stopped");
}

#[test]
fn a_changed_source_restarts_its_service() {
    let project = Project::new(
        "version: 1
stack: sources
sandboxes:
  box:
    services:
      one: { command: exec sleep 1001, watch: [{ path: src }] }
      two: { command: exec sleep 1002 }
",
    );
    project.write("src/deep/main.txt", "1");
    let mut watch = Watch::start(&project, &[]);
    watch.expect(&["Watching gabion.yaml, 1 source file"]);
    watch.expect(&["box/two", "started"]);
    watch.expect(&["box/one", "started"]);
    let two = project.pid("box/two");
    project.write("src/deep/main.txt", "12");
    watch.expect(&["box/one", "deep/main.txt changed", "restarted"]);
    assert_eq!(project.pid("box/two"), two);
    watch.interrupt();
}

#[test]
fn a_manifest_that_is_gone_is_a_broken_one() {
    let project = Project::new(MANIFEST);
    let mut watch = Watch::start(&project, &[]);
    watch.expect(&["box/one", "started"]);
    watch.expect(&["box/two", "started"]);
    let (one, text) = (project.pid("box/one"), project.read("gabion.yaml"));
    std::fs::remove_file(project.path("gabion.yaml")).unwrap();
    watch.expect(&["gabion.yaml", "not valid, nothing changed"]);
    project.write("gabion.yaml", &text);
    watch.expect(&["gabion.yaml", "is valid again"]);
    assert_eq!(project.pid("box/one"), one);
    watch.interrupt();
}

#[test]
fn what_ended_by_itself_is_left_to_its_restart_policy() {
    let project = Project::new(
        "version: 1
stack: policy
sandboxes:
  box:
    workspace: .
    services:
      once: { command: echo run >> runs, restart: 'no' }
      other: { command: exec sleep 1001 }
",
    );
    let mut watch = Watch::start(&project, &[]);
    watch.expect(&["box/once", "started"]);
    watch.expect(&["box/other", "started"]);
    // Each healing of the other one is a look by the clock that could have started it again.
    for _ in 0..3 {
        project.ok(&["stop", "box/other", "--lock-timeout", "1m"]);
        watch.expect(&["box/other", "was found stopped", "started"]);
    }
    assert_eq!(project.read("runs"), "run\n");
    watch.interrupt();
}

#[test]
fn a_new_manifest_ends_a_round_that_waits() {
    let project = Project::new(
        "version: 1
stack: ears
sandboxes:
  box:
    services:
      slow: { command: exec sleep 1001, health: { log: never, timeout: 1h } }
      other: { command: exec sleep 1002 }
",
    );
    let mut watch = Watch::start(&project, &[]);
    watch.expect(&["box/slow", "starting, no line with `never`"]);
    // Drift is told while the round goes on, and so is a broken manifest.
    let pid = project.pid("box/other");
    Command::new("kill")
        .args(["-9", &pid.to_string()])
        .output()
        .unwrap();
    eventually("the other one is back", || {
        project.services()["box/other"]["pid"]
            .as_u64()
            .is_some_and(|now| now != pid)
    });
    let good = project.read("gabion.yaml");
    project.write("gabion.yaml", &good.replace("services:", "servces:"));
    watch.expect(&["gabion.yaml", "not valid"]);
    project.write(
        "gabion.yaml",
        &good.replace(", health: { log: never, timeout: 1h }", ""),
    );
    watch.expect(&["box/slow", "started"]);
    watch.interrupt();
}
