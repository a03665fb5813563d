//! An apply to a cloud that is killed, or that is not the only one: the next one goes on from what is really
//! there, and nothing is made twice.

use std::io::{BufRead, BufReader};
use std::process::Stdio;

use crate::common::{Project, eventually};
use crate::projects::{no_changes, no_changes_elsewhere, on};
use crate::served::Served;

/// A task and services with needs. Each notes every start.
fn project(served: &Served, kind: &str) -> Project {
    let mut text = String::from(
        "  web:
    services:
      setup: { kind: task, command: 'echo setup >>starts.txt' }
",
    );
    for (name, needs) in [("a", "[setup]"), ("b", "[a]"), ("c", "[]")] {
        text.push_str(&format!(
            "      {name}: {{ command: 'echo {name} >>starts.txt; exec sleep 1000', needs: {needs} }}\n"
        ));
    }
    on(served, kind, &text)
}

/// All is as it should be, and every start was the only one.
fn is_whole(project: &Project, what: &str) {
    no_changes(project);
    let noted = project.ok(&["exec", "web", "--", "cat", "starts.txt"]);
    let noted = noted.stdout();
    let mut starts: Vec<_> = noted.lines().collect();
    starts.sort_unstable();
    assert_eq!(starts, ["a", "b", "c", "setup"], "{what}");
}

/// Kills applies at each event of `part` in turn, of those that one has.
fn kill_at_events(kind: &str, part: impl Fn(usize) -> Vec<usize>) {
    let served = Served::start();
    let project = project(&served, kind);
    let run = project.ok(&["apply", "--yes", "--json"]);
    let events = run.stdout().lines().count();
    assert!(events > 10, "{events} events");
    is_whole(&project, "undisturbed");
    for event in part(events) {
        project.ok(&["destroy", "--yes"]);
        let mut command = project.command(&["apply", "--yes", "--json"]);
        let mut apply = command.stdout(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(apply.stdout.take().unwrap()).lines();
        for _ in 0..event {
            lines.next();
        }
        apply.kill().unwrap();
        apply.wait().unwrap();
        project.ok(&["apply", "--yes"]);
        is_whole(&project, &format!("killed at event {event}"));
        // On Pocketenv a sandbox is made before it can be marked, so one may be left that nobody knows of.
        let lost = if kind == "pocketenv" { event } else { 0 };
        let count = served.count();
        assert!(
            (1..=1 + lost).contains(&count),
            "{count} sandboxes, killed at event {event}"
        );
    }
    project.ok(&["destroy", "--yes"]);
    assert!(kind == "pocketenv" || served.count() == 0);
}

/// Some, from the first to the last.
fn some(events: usize) -> Vec<usize> {
    vec![1, events / 3, events * 2 / 3, events - 1]
}

fn all(events: usize) -> Vec<usize> {
    (1..=events).collect()
}

fn apply_twice_at_once(kind: &str) {
    let served = Served::start();
    let project = project(&served, kind);
    let spawned = [0, 1].map(|_| {
        let mut command = project.command(&["apply", "--yes"]);
        command.stdout(Stdio::null()).stderr(Stdio::null());
        command.spawn().unwrap()
    });
    for mut apply in spawned {
        apply.wait().unwrap();
    }
    project.ok(&["apply", "--yes"]);
    is_whole(&project, "two at once");
    assert_eq!(served.count(), 1);
}

/// As [`apply_twice_at_once`], without a lock between the two: they are on two machines.
fn apply_on_two_machines(kind: &str) {
    let served = Served::start();
    let project = project(&served, kind);
    let other = tempfile::tempdir().unwrap();
    let spawned = [None, Some(other.path())].map(|home| {
        let mut command = project.command(&["apply", "--yes"]);
        if let Some(home) = home {
            command.env("GABION_HOME", home);
        }
        command.stdout(Stdio::null()).stderr(Stdio::null());
        command.spawn().unwrap()
    });
    for mut apply in spawned {
        apply.wait().unwrap();
    }
    project.ok(&["apply", "--yes"]);
    no_changes(&project);
    no_changes_elsewhere(&project);
    assert_eq!(served.count(), 1);
}

macro_rules! clouds {
    ($($kind:ident),*) => {$(
        mod $kind {
            #[test]
            fn an_apply_killed_at_some_events_is_finished_by_the_next() {
                super::kill_at_events(stringify!($kind), super::some);
            }

            #[test]
            #[ignore = "takes minutes: .ci/run does it"]
            fn an_apply_killed_at_any_event_is_finished_by_the_next() {
                super::kill_at_events(stringify!($kind), super::all);
            }

            #[test]
            fn of_two_applies_at_once_nothing_is_made_twice() {
                super::apply_twice_at_once(stringify!($kind));
            }
        }
    )*};
}

clouds!(iris, miosa, pocketenv, sprites);

mod miosa_with_named_services {
    const KIND: &str = "miosa, services: named";

    #[test]
    fn an_apply_killed_at_some_events_is_finished_by_the_next() {
        super::kill_at_events(KIND, super::some);
    }

    #[test]
    fn of_two_applies_at_once_nothing_is_made_twice() {
        super::apply_twice_at_once(KIND);
    }
}

macro_rules! on_two_machines {
    ($($kind:ident),*) => {$(
        #[test]
        fn $kind() {
            super::apply_on_two_machines(stringify!($kind));
        }
    )*};
}

/// Not on iris: nothing there says which of two sandboxes of one name is the older.
mod of_applies_on_two_machines_at_once_one_sandbox_is_left {
    on_two_machines!(miosa, pocketenv, sprites);
}

/// An apply was killed when the definition of a run was stored and the process of an earlier one went on.
fn another_process_is_in_the_place_of_a_task(kind: &str) {
    let served = Served::start();
    let task = "echo run >>runs.txt; until test -e go; do sleep 0.05; done";
    let sandboxes =
        format!("  web: {{ services: {{ slow: {{ kind: task, command: '{task}' }} }} }}\n");
    let project = on(&served, kind, &sandboxes);
    let has_run = |times: usize| {
        eventually("the task runs", || {
            let runs = project.run(&["exec", "web", "--", "cat", "runs.txt"]);
            runs.0.status.success() && runs.stdout() == "run\n".repeat(times)
        });
    };
    let apply = || project.command(&["apply", "--yes"]).spawn().unwrap();
    let mut killed = apply();
    has_run(1);
    killed.kill().unwrap();
    killed.wait().unwrap();
    // Nothing but this tells that the process is the one of this run.
    project.ok(&[
        "exec",
        "web",
        "--",
        "sh",
        "-c",
        "rm /tmp/gabion-task-*.begun",
    ]);
    let mut next = apply();
    has_run(2);
    project.ok(&["exec", "web", "--", "touch", "go"]);
    assert!(next.wait().unwrap().success());
    no_changes(&project);
}

mod a_run_that_never_began_is_begun {
    #[test]
    fn iris() {
        super::another_process_is_in_the_place_of_a_task("iris");
    }

    #[test]
    fn sprites() {
        super::another_process_is_in_the_place_of_a_task("sprites");
    }
}
