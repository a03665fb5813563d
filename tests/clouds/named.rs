//! Miosa where the entry says `services: named`: services are the platform's own, by their names.

use gabion::serve::Faults;
use gabion::serve::faults::Plan;
use gabion::serve::miosa::Switches;
use serde_json::{Value, json};

use crate::common::{Project, eventually, free_port};
use crate::projects::{flat, no_changes, no_changes_elsewhere, on};
use crate::served::Served;

const PATH: &str = "/api/v1/sandboxes";

fn served(switches: &[&str]) -> Served {
    Served::new(Faults::default(), Switches::read(switches).unwrap())
}

/// A task, a service with a port behind it, and one with a secret behind that. Either writes down each of its
/// starts.
fn project(served: &Served, kind: &str) -> Project {
    let port = free_port();
    on(
        served,
        kind,
        &format!(
            r#"  web:
    services:
      setup: {{ kind: task, command: "echo once >>setup.txt" }}
      db:
        command: "echo $$ >>db.txt; exec python3 -m http.server --bind 127.0.0.1 {port}"
        health: {{ tcp: {port} }}
        needs: [setup]
      api:
        command: "echo $$ >>api.txt; echo mode $MODE; test -n \"$PASS\" && exec sleep 1000"
        env: {{ MODE: slow, PASS: "${{secret.pass}}" }}
        health: {{ log: mode }}
        needs: [db]
"#
        ),
    )
}

fn path_of(served: &Served, rest: &str) -> String {
    let (_, body) = served.ask("GET", PATH, Value::Null);
    let mut all = body["data"].as_array().unwrap().iter();
    let id = all.find(|it| it["name"] == "shop-web").unwrap()["id"].clone();
    format!("{PATH}/{}{rest}", id.as_str().unwrap())
}

fn names(served: &Served) -> Vec<String> {
    let (status, body) = served.ask("GET", &path_of(served, "/services"), Value::Null);
    assert_eq!(status, 200, "{body}");
    let name = |it: &Value| it["name"].as_str().unwrap().to_owned();
    let mut names: Vec<_> = body["data"].as_array().unwrap().iter().map(name).collect();
    names.sort();
    names
}

fn act(served: &Served, method: &str, rest: &str, body: Value) {
    let (status, body) = served.ask(method, &path_of(served, rest), body);
    assert!(status < 300, "{method} {rest}: {status} {body}");
}

/// Removes a named service, or a process that stands for one.
fn remove(served: &Served, name: &str) {
    let service = path_of(served, &format!("/services/{name}"));
    if served.ask("DELETE", &service, Value::Null).0 == 404 {
        let (_, body) = served.ask("GET", &path_of(served, "/processes"), Value::Null);
        let mut all = body["data"].as_array().unwrap().iter();
        let process = all.find(|it| it["name"] == name).unwrap();
        act(
            served,
            "DELETE",
            &format!("/processes/{}", process["pid"]),
            Value::Null,
        );
    }
}

/// How often each was started.
fn starts(project: &Project) -> [usize; 3] {
    ["setup", "db", "api"].map(|it| {
        let file = format!("{it}.txt");
        let run = project.ok(&["exec", "web", "--", "cat", &file]);
        run.stdout().lines().count()
    })
}

/// Applies, edits, breaks and destroys where the page leaves something open.
fn converges(kind: &str, switches: &[&str]) {
    let served = served(switches);
    let project = project(&served, kind);
    project.ok(&["apply", "--yes"]);
    no_changes(&project);
    no_changes_elsewhere(&project);
    assert_eq!(starts(&project), [1, 1, 1]);
    project.edit("MODE: slow", "MODE: fast");
    project.ok(&["apply", "--yes"]);
    no_changes(&project);
    assert_eq!(starts(&project), [1, 1, 2], "{switches:?}");
    let logs = project.ok(&["logs", "web/api"]).stdout();
    assert!(logs.contains("mode fast"), "{logs}");

    // By hand: one is stopped, the other one is gone.
    act(&served, "POST", "/services/db/stop", json!({}));
    remove(&served, "api");
    let plan = project.run(&["plan", "--detailed-exitcode"]);
    assert_eq!(plan.code(), Some(2), "{plan}");
    project.ok(&["apply", "--yes"]);
    no_changes(&project);
    assert_eq!(starts(&project), [1, 2, 3], "{switches:?}");

    project.ok(&["stop", "web/db"]);
    project.ok(&["start", "web/db"]);
    project.ok(&["restart", "web/api"]);
    assert_eq!(starts(&project), [1, 3, 4], "{switches:?}");
    no_changes(&project);
    project.ok(&["destroy", "--yes"]);
    assert_eq!(served.count(), 0, "{switches:?}");
}

const NAMED: &str = "miosa, services: named";

macro_rules! switches {
    ($($name:ident: $kind:expr, $switches:expr;)*) => {$(
        #[test]
        fn $name() {
            converges($kind, &$switches);
        }
    )*};
}

switches! {
    converges_with_all_that_may_be_told: NAMED, [];
    converges_with_services_that_tell_only_their_state: NAMED, ["short-services"];
    converges_with_short_commands: NAMED, ["command-bytes=30"];
    converges_with_bare_records: NAMED, ["bare"];
    converges_where_services_are_not_listed:
        "miosa, services: named, lists_services: false", ["no-service-list"];
    converges_where_services_have_no_environment:
        "miosa, services: named, service_env: false", ["no-service-env"];
    converges_with_everything_at_once:
        "miosa, services: named, lists_services: false, service_env: false",
        ["no-service-list", "no-service-env", "short-services", "bare", "command-bytes=30",
         "replace-metadata", "list-without-metadata", "keep-exited", "flat-errors"];
}

#[test]
fn what_needs_a_process_stays_one_and_what_is_not_ours_is_left_alone() {
    let served = served(&["stdin"]);
    let project = on(
        &served,
        "miosa, services: named, stdin: true",
        "  web:
    services:
      api: { cmd: sleep, args: ['1000'] }
      once: { cmd: sleep, args: ['1000'], restart: 'no' }
      reads: { command: 'while read line; do echo got $line; done', stdin_open: true }
",
    );
    project.ok(&["apply", "--yes"]);
    assert_eq!(names(&served), ["api"]);
    no_changes(&project);
    project.ok(&["send", "web/reads", "hello"]);
    eventually("the line", || {
        project
            .ok(&["logs", "web/reads"])
            .stdout()
            .contains("got hello")
    });
    let refused = project.run(&["send", "web/api", "hello"]);
    assert_eq!(refused.code(), Some(1), "{refused}");
    project.ok(&["signal", "web/api", "STOP"]);

    let foreign = json!({ "name": "foreign", "command": "exec sleep 1000" });
    act(&served, "POST", "/services", foreign);
    no_changes(&project);
    project.edit(
        "      once:",
        "      foreign: { cmd: sleep, args: ['2000'] }\n      once:",
    );
    for command in [&["plan"][..], &["apply", "--yes"]] {
        let refused = project.run(command);
        assert_eq!(refused.code(), Some(1), "{refused}");
        let says = "has a service `foreign` that gabion has not made";
        assert!(refused.stdout().contains(says), "{refused}");
    }
    // A process may have that name.
    project.edit("'2000'] }", "'2000'], restart: 'no' }");
    project.ok(&["apply", "--yes"]);
    no_changes(&project);
    project.edit("'2000'], restart: 'no' }", "'2000'] }");
    project.edit("      foreign: { cmd: sleep, args: ['2000'] }\n", "");
    project.edit("      api: { cmd: sleep, args: ['1000'] }\n", "");
    project.ok(&["apply", "--yes"]);
    assert_eq!(names(&served), ["foreign"]);
    let (_, foreign) = served.ask("GET", &path_of(&served, "/services/foreign"), Value::Null);
    let foreign = foreign.get("data").unwrap_or(&foreign);
    assert_eq!(foreign["command"], "exec sleep 1000");
    assert_eq!(foreign["status"], "running");
}

#[test]
fn what_was_made_anew_by_hand_is_made_as_it_was() {
    let served = served(&[]);
    let project = project(&served, NAMED);
    project.ok(&["apply", "--yes"]);
    act(&served, "DELETE", "/services/db", Value::Null);
    let other = json!({ "name": "db", "command": "exec sleep 1000" });
    act(&served, "POST", "/services", other);
    let plan = project.run(&["plan", "--detailed-exitcode"]);
    assert!(plan.stdout().contains("web/db"), "{plan}");
    project.ok(&["apply", "--yes"]);
    no_changes(&project);
    assert_eq!(starts(&project), [1, 2, 1]);
}

#[test]
fn what_a_restore_brings_back_is_made_as_it_is_to_be_now() {
    for switches in [&[][..], &["short-services"]] {
        let served = served(switches);
        let project = on(
            &served,
            NAMED,
            "  web:
    services:
      api: { command: 'echo $MODE >mode.txt; exec sleep 1000', env: { MODE: slow } }
",
        );
        project.ok(&["apply", "--yes"]);
        project.ok(&["checkpoint", "create", "web", "one"]);
        project.edit("MODE: slow", "MODE: fast");
        project.ok(&["apply", "--yes"]);
        project.ok(&["checkpoint", "restore", "web", "one", "--yes"]);
        project.ok(&["apply", "--yes"]);
        no_changes(&project);
        let mode = || {
            project
                .ok(&["exec", "web", "--", "cat", "mode.txt"])
                .stdout()
        };
        eventually("the mode", || mode() == "fast\n");

        // As after a stop of the whole machine.
        act(&served, "POST", "/stop", json!({}));
        project.ok(&["apply", "--yes"]);
        no_changes(&project);
        assert_eq!(project.services()["web/api"]["state"], "running");
    }
}

#[test]
fn services_become_named_ones_and_processes_again() {
    let served = served(&[]);
    let project = project(&served, "miosa");
    project.ok(&["apply", "--yes"]);
    assert!(names(&served).is_empty());
    project.edit("kind: miosa", "kind: miosa, services: named");
    project.ok(&["apply", "--yes"]);
    no_changes(&project);
    assert_eq!(names(&served), ["api", "db"]);
    assert_eq!(starts(&project), [1, 2, 2]);
    project.edit("services: named", "services: processes");
    project.ok(&["apply", "--yes"]);
    no_changes(&project);
    assert!(names(&served).is_empty());
    assert_eq!(starts(&project), [1, 3, 3]);
}

#[test]
fn a_log_is_followed_and_a_fork_and_a_restore_bring_services_with_them() {
    let served = served(&[]);
    let project = on(
        &served,
        NAMED,
        "  web:
    services:
      api: { command: 'echo begun; while [ ! -e go ]; do sleep 0.1; done; echo gone; exec sleep 1000' }
",
    );
    project.ok(&["apply", "--yes"]);
    let mut follower = project
        .command(&["logs", "web/api", "--follow"])
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines =
        std::io::BufRead::lines(std::io::BufReader::new(follower.stdout.take().unwrap()));
    let mut next = || lines.next().unwrap().unwrap();
    assert!(next().contains("begun"));
    project.ok(&["exec", "web", "--", "touch", "go"]);
    assert!(next().contains("gone"));
    follower.kill().unwrap();
    follower.wait().unwrap();

    project.ok(&["checkpoint", "create", "web", "one"]);
    let forked = project.ok(&["fork", "web", "copy"]);
    assert!(forked.stdout().contains("started  api"), "{forked}");
    assert_eq!(project.services()["copy/api"]["state"], "running");
    project.ok(&["checkpoint", "restore", "web", "one", "--yes"]);
    project.ok(&["apply", "--yes"]);
    no_changes(&project);
    assert_eq!(served.count(), 1);
}

/// However an answer goes wrong, nothing is made twice, and the next apply comes to an end.
#[test]
fn nothing_is_made_twice_whatever_becomes_of_an_answer() {
    for request in [
        "POST **/services",
        "DELETE **/services/*",
        "GET **/services/*",
    ] {
        for fault in [
            "after=lost",
            "before=lost",
            "after=500",
            "before=503",
            "after=truncated",
        ] {
            let faults = Faults::new(Plan::default());
            let served = Served::new(faults, Switches::default());
            let project = project(&served, NAMED);
            let rule = format!("{request}:{fault}@1");
            let plan = || Plan {
                rules: vec![rule.parse().unwrap()],
                ..Plan::default()
            };
            served.faults.reset(plan());
            project.run(&["apply", "--yes"]);
            project.edit("MODE: slow", "MODE: fast");
            served.faults.reset(plan());
            project.run(&["apply", "--yes"]);
            served.faults.reset(Plan::default());
            project.ok(&["apply", "--yes"]);
            no_changes(&project);
            assert_eq!(names(&served), ["api", "db"], "{rule}");
            let [setup, db, api] = starts(&project);
            assert_eq!((setup, db), (1, 1), "{rule}");
            assert!(api <= 2, "{rule}: {api}");
        }
    }
}

#[test]
fn a_setting_that_is_none_is_refused() {
    let served = served(&[]);
    let project = project(&served, "miosa, services: both");
    let refused = project.run(&["plan"]);
    assert_ne!(refused.code(), Some(0), "{refused}");
    let said = flat(&refused);
    assert!(
        said.contains("neither `processes` nor `named`"),
        "{refused}"
    );
}
