//! The client of Miosa against `gabion serve`: protocol page miosa, §8 and §9.

use std::io::{BufRead, BufReader};

use gabion::serve::Faults;
use gabion::serve::faults::Plan;
use gabion::serve::miosa::Switches;
use serde_json::{Value, json};

use crate::common::{Project, Run, eventually, free_port};
use crate::projects::{elsewhere, flat, no_changes, no_changes_elsewhere, on};
use crate::served::Served;

const PATH: &str = "/api/v1/sandboxes";

fn served(switches: &[&str]) -> Served {
    Served::new(Faults::default(), Switches::read(switches).unwrap())
}

/// A task, a service with a port behind it, and one with a secret behind that.
fn project(served: &Served) -> Project {
    let port = free_port();
    on(
        served,
        "miosa",
        &format!(
            r#"  web:
    services:
      setup: {{ kind: task, command: "echo once >>ran.txt" }}
      db:
        command: "echo port {port}; exec python3 -m http.server --bind 127.0.0.1 {port}"
        health: {{ tcp: {port} }}
        needs: [setup]
      api:
        command: "echo mode $MODE; exec sleep 1000"
        env: {{ MODE: slow, PASS: "${{secret.pass}}" }}
        needs: [db]
"#
        ),
    )
}

fn one(served: &Served) -> Value {
    let (_, body) = served.ask("GET", PATH, Value::Null);
    let all = body["data"].as_array().unwrap().clone();
    let alive: Vec<_> = all
        .into_iter()
        .filter(|it| it["state"] != "destroyed")
        .collect();
    assert_eq!(alive.len(), 1, "{alive:?}");
    alive[0].clone()
}

fn path_of(served: &Served, rest: &str) -> String {
    format!("{PATH}/{}{rest}", one(served)["id"].as_str().unwrap())
}

fn pids(project: &Project) -> [u64; 2] {
    ["web/db", "web/api"].map(|service| project.pid(service))
}

#[test]
fn what_a_sandbox_has_used_is_shown() {
    let served = Served::start();
    let project = on(&served, "miosa", "  web: {}\n");
    project.ok(&["apply", "--yes"]);
    let shown = project.ok(&["show", "web", "--json"]).stdout();
    let shown: Value = serde_json::from_str(&shown).expect("JSON");
    let usage = &shown["usage"];
    assert!(usage["total"]["runtime_seconds"].is_number(), "{shown}");
    assert!(usage["last_hour"]["points"].is_array(), "{shown}");
    let asked = served.requests(0);
    let metrics = asked.iter().filter(|it| it.ends_with("/metrics"));
    assert_eq!(metrics.count(), 1, "{asked:#?}");
}

#[test]
fn an_edit_restarts_one_service_and_what_was_broken_by_hand_is_healed() {
    let served = served(&[]);
    let project = project(&served);
    project.ok(&["apply", "--yes"]);
    no_changes(&project);
    let [db, api] = pids(&project);
    assert!(
        project
            .ok(&["logs", "web/api"])
            .stdout()
            .contains("mode slow")
    );

    project.edit("MODE: slow", "MODE: fast");
    project.ok(&["apply", "--yes"]);
    let [same, other] = pids(&project);
    assert_eq!(same, db);
    assert_ne!(other, api);
    assert!(
        project
            .ok(&["logs", "web/api"])
            .stdout()
            .contains("mode fast")
    );

    // A process, and the sandbox's settings.
    served.ask(
        "DELETE",
        &path_of(&served, &format!("/processes/{db}")),
        Value::Null,
    );
    served.ask(
        "PATCH",
        &path_of(&served, ""),
        json!({ "always_on": false, "name": "mine" }),
    );
    let plan = project.run(&["plan", "--detailed-exitcode"]);
    assert!(plan.stdout().contains("web/db"), "{plan}");
    project.ok(&["apply", "--yes"]);
    no_changes(&project);
    let [healed, kept] = pids(&project);
    assert_ne!(healed, db);
    assert_eq!(kept, other);
    assert_eq!(one(&served)["always_on"], true);

    // Somebody else's process and sandbox.
    let body = json!({ "command": "exec sleep 1000", "name": "foreign" });
    served.ask("POST", &path_of(&served, "/processes"), body);
    served.ask("POST", PATH, json!({ "name": "foreign" }));
    no_changes(&project);
    project.ok(&["destroy", "--yes"]);
    assert_eq!(one(&served)["name"], "foreign");
    assert_eq!(served.count(), 1);
}

#[test]
fn another_machine_knows_all_from_the_platform() {
    let served = served(&[]);
    let project = project(&served);
    project.ok(&["apply", "--yes"]);
    let before = served.faults.requests().len();
    no_changes_elsewhere(&project);
    // The list, and the processes of the one sandbox.
    assert_eq!(served.faults.requests().len() - before, 2);
    project.edit("MODE: slow", "MODE: fast");
    let plan = elsewhere(&project, &["plan"]).stdout();
    assert!(plan.contains("MODE") && plan.contains("fast"), "{plan}");
    assert!(!plan.contains("web/db"), "{plan}");
}

#[test]
fn a_sandbox_that_was_paused_or_stopped_is_brought_up_with_what_ran_in_it() {
    let served = served(&["unresumable=2", "unready=2"]);
    let project = project(&served);
    project.ok(&["apply", "--yes"]);
    let [db, api] = pids(&project);
    served.ask("POST", &path_of(&served, "/pause"), json!({}));
    project.ok(&["apply", "--yes"]);
    // A pause keeps what runs.
    assert_eq!(pids(&project), [db, api]);
    served.ask("POST", &path_of(&served, "/stop"), json!({}));
    project.ok(&["apply", "--yes"]);
    let [other, _] = pids(&project);
    assert_ne!(other, db);
    no_changes(&project);
}

#[test]
fn what_ignores_a_stop_is_awaited_until_it_is_killed() {
    let served = served(&[]);
    let project = project(&served);
    project.edit("exec sleep 1000", "trap '' TERM; while :; do sleep 1; done");
    project.ok(&["apply", "--yes"]);
    project.edit("MODE: slow", "MODE: fast");
    project.ok(&["apply", "--yes"]);
    let (_, body) = served.ask("GET", &path_of(&served, "/processes"), Value::Null);
    assert_eq!(body["data"].as_array().unwrap().len(), 2, "{body}");
    no_changes(&project);
}

#[test]
fn a_signal_and_a_line_of_input_reach_a_service() {
    let served = served(&["stdin"]);
    let project = project(&served);
    project.edit("kind: miosa", "kind: miosa, stdin: true");
    project.edit(
        "exec sleep 1000",
        "trap 'echo got USR1' USR1; while :; do read line && echo got $line; done",
    );
    project.ok(&["apply", "--yes"]);
    let log = || project.ok(&["logs", "web/api"]).stdout();
    project.ok(&["send", "web/api", "hello"]);
    eventually("the line", || log().contains("got hello"));
    project.ok(&["signal", "web/api", "USR1"]);
    eventually("the signal", || log().contains("got USR1"));
}

/// However an answer goes wrong, nothing is made twice, and the next apply comes to an end.
#[test]
fn nothing_is_made_twice_whatever_becomes_of_an_answer() {
    for request in ["POST /api/v1/sandboxes", "POST **/processes", "PATCH **"] {
        for fault in [
            "after=lost",
            "before=lost",
            "after=500",
            "before=503",
            "after=truncated",
            "before=429/1",
        ] {
            let rule = format!("{request}:{fault}@1");
            let faults = Faults::new(Plan {
                rules: vec![rule.parse().unwrap()],
                ..Plan::default()
            });
            let served = Served::new(faults, Switches::default());
            let project = project(&served);
            project.run(&["apply", "--yes"]);
            project.ok(&["apply", "--yes"]);
            no_changes(&project);
            let (_, body) = served.ask("GET", &path_of(&served, "/processes"), Value::Null);
            assert_eq!(body["data"].as_array().unwrap().len(), 2, "{rule}: {body}");
            assert_eq!(served.count(), 1, "{rule}");
            let task = served.ask(
                "GET",
                &path_of(&served, "/fs/read?path=ran.txt"),
                Value::Null,
            );
            assert_eq!(task.1["content"], "once\n", "{rule}");
        }
    }
}

/// Applies, plans, edits and destroys where the page leaves something open.
fn converges(switches: &[&str]) {
    let served = served(switches);
    let project = project(&served);
    project.ok(&["apply", "--yes"]);
    no_changes(&project);
    let [db, api] = pids(&project);
    project.edit("MODE: slow", "MODE: fast");
    project.ok(&["apply", "--yes"]);
    no_changes(&project);
    let [same, other] = pids(&project);
    assert_eq!(same, db, "{switches:?}");
    assert_ne!(other, api, "{switches:?}");
    project.ok(&["logs", "web/api"]);
    served.ask(
        "DELETE",
        &path_of(&served, &format!("/processes/{other}")),
        Value::Null,
    );
    project.ok(&["apply", "--yes"]);
    no_changes(&project);
    project.ok(&["destroy", "--yes"]);
    assert_eq!(served.count(), 0, "{switches:?}");
}

macro_rules! switches {
    ($($name:ident: $switches:expr;)*) => {$(
        #[test]
        fn $name() {
            converges(&$switches);
        }
    )*};
}

switches! {
    converges_with_bare_records: ["bare"];
    converges_with_numbers_as_texts: ["pid-string"];
    converges_with_state_instead_of_status: ["state-key"];
    converges_without_start_times: ["no-started-at"];
    converges_without_names: ["no-name"];
    converges_with_short_commands: ["command-bytes=20"];
    converges_with_processes_that_have_ended: ["keep-exited"];
    converges_with_logs_as_text: ["logs=text"];
    converges_with_logs_as_lines: ["logs=lines"];
    converges_with_logs_as_a_string: ["logs=string"];
    converges_with_logs_under_logs: ["logs=logs"];
    converges_where_metadata_is_replaced: ["replace-metadata"];
    converges_where_lists_leave_metadata_out: ["list-without-metadata"];
    converges_where_lists_tell_what_was_destroyed: ["list-destroyed"];
    converges_with_paged_lists: ["paged"];
    converges_where_a_stop_is_told: ["stopped"];
    converges_where_sandboxes_take_their_time: ["provisioning=3", "unready=3"];
    converges_with_flat_errors: ["flat-errors"];
    converges_with_everything_at_once: [
        "bare", "pid-string", "state-key", "no-started-at", "command-bytes=30",
        "keep-exited", "logs=lines", "replace-metadata", "list-without-metadata", "list-destroyed",
        "paged", "stopped", "flat-errors",
    ];
}

#[test]
fn what_is_paused_goes_on_where_it_was_and_an_apply_resumes_it() {
    let served = served(&[]);
    let project = project(&served);
    project.ok(&["apply", "--yes"]);
    let before = pids(&project);
    project.ok(&["pause", "web"]);
    assert_eq!(one(&served)["state"], "paused");
    project.ok(&["resume", "web"]);
    assert_eq!(pids(&project), before);
    no_changes(&project);
    project.ok(&["pause", "web"]);
    let plan = project.run(&["plan", "--detailed-exitcode"]);
    assert_eq!(plan.code(), Some(2), "{plan}");
    project.ok(&["apply", "--yes"]);
    no_changes(&project);
}

#[test]
fn a_snapshot_is_restored_and_forked() {
    let served = served(&[]);
    let project = project(&served);
    let write = |text: &str| {
        let line = format!("echo {text} >state.txt");
        project.ok(&["exec", "web", "--", "sh", "-c", &line]);
    };
    let read = |sandbox: &str| {
        let run = project.ok(&["exec", sandbox, "--", "cat", "state.txt"]);
        run.stdout().trim().to_owned()
    };
    project.ok(&["apply", "--yes"]);
    write("old");
    project.ok(&["checkpoint", "create", "web", "before"]);
    write("new");

    project.ok(&["fork", "web", "copy", "--from", "before", "--stopped"]);
    assert_eq!([read("copy"), read("web")], ["old", "new"]);
    let plan = project.ok(&["plan"]);
    assert!(plan.stdout().contains("- copy"), "{plan}");

    project.ok(&["checkpoint", "restore", "web", "before", "--yes"]);
    assert_eq!(read("web"), "old");
    // What the restore has ended is started again, and the fork goes.
    project.ok(&["apply", "--yes"]);
    no_changes(&project);
    no_changes_elsewhere(&project);
    let ran = project.ok(&["exec", "web", "--", "cat", "ran.txt"]);
    assert_eq!(ran.stdout(), "once\n");
    assert_eq!(served.count(), 1);
}

#[test]
fn a_fork_runs_what_its_source_runs() {
    let served = served(&[]);
    let services = "  web:
    services:
      after: { command: 'echo after; exec sleep 1000', needs: [first] }
      first: { command: 'echo first; exec sleep 1000', env: { PASS: '${secret.pass}' } }
";
    let project = on(&served, "miosa", services);
    project.ok(&["apply", "--yes"]);
    let forked = project.ok(&["fork", "web", "copy"]);
    assert!(
        forked.stdout().contains("started  after, first"),
        "{forked}"
    );
    let services = project.services();
    for service in ["copy/after", "copy/first"] {
        assert_eq!(services[service]["state"], "running", "{service}");
    }
    project.ok(&["exec", "copy/first", "--", "sh", "-c", "test -n \"$PASS\""]);
    let again = project.run(&["fork", "web", "copy"]);
    assert!(
        again.stderr().contains("there is a sandbox `copy` already"),
        "{again}"
    );
    // The fork is the stack's, and not in the manifest.
    project.ok(&["apply", "--yes"]);
    assert_eq!(served.count(), 1);
}

#[test]
fn a_restore_that_makes_another_sandbox_is_told_with_its_id() {
    let served = served(&["restore-elsewhere"]);
    let project = project(&served);
    project.ok(&["apply", "--yes"]);
    let before = pids(&project);
    let own = one(&served)["id"].clone();
    project.ok(&["checkpoint", "create", "web", "before"]);
    let restored = project.run(&["checkpoint", "restore", "web", "before", "--yes"]);
    assert_eq!(restored.code(), Some(1), "{restored}");
    let (_, body) = served.ask("GET", PATH, Value::Null);
    let mut all = body["data"].as_array().unwrap().iter();
    let other = all.find(|it| it["id"] != own).unwrap()["id"].clone();
    let other = other.as_str().unwrap();
    let said = flat(&restored);
    assert!(
        said.contains(&format!("another sandbox of it, {other}")),
        "{restored}"
    );
    // What there was goes on as it did, and the other one is nobody's.
    no_changes(&project);
    assert_eq!(pids(&project), before);
    project.ok(&["destroy", "--yes"]);
    assert_eq!(one(&served)["id"], other);
}

#[test]
fn a_command_reads_what_gabion_is_given() {
    let served = served(&[]);
    let project = project(&served);
    project.ok(&["apply", "--yes"]);
    // No text, and nothing that a shell may take for itself.
    let bytes: Vec<u8> = (0..=255).chain(*b"'$HOME`\n\"").collect();
    std::fs::write(project.path("input"), &bytes).unwrap();
    for address in ["web", "web/api"] {
        let input = std::fs::File::open(project.path("input")).unwrap();
        let mut command = project.command(&["exec", address, "--", "od", "-An", "-v", "-tx1"]);
        let run = Run(command.stdin(input).output().unwrap());
        assert_eq!(run.code(), Some(0), "{run}");
        let shown = run.stdout();
        let read = shown.split_whitespace();
        let read: Vec<_> = read.map(|it| u8::from_str_radix(it, 16).unwrap()).collect();
        assert_eq!(read, bytes, "{address}");
    }
    let left = project.ok(&[
        "exec",
        "web",
        "--",
        "sh",
        "-c",
        "ls /tmp | grep gabion-input || true",
    ]);
    assert_eq!(left.stdout(), "");
    // Its exit code is its own.
    let input = std::fs::File::open(project.path("input")).unwrap();
    let mut command = project.command(&["exec", "web", "--", "sh", "-c", "exit 7"]);
    let run = Run(command.stdin(input).output().unwrap());
    assert_eq!(run.code(), Some(7), "{run}");
}

#[test]
fn a_log_is_followed_from_where_it_is() {
    let served = served(&[]);
    let project = project(&served);
    project.edit(
        "exec sleep 1000",
        "while [ ! -e go ]; do sleep 0.1; done; echo gone; exec sleep 1000",
    );
    project.ok(&["apply", "--yes"]);
    let mut command = project.command(&["logs", "web/api", "--follow"]);
    let follower = command.stdout(std::process::Stdio::piped()).spawn();
    let mut follower = follower.unwrap();
    let mut lines = BufReader::new(follower.stdout.take().unwrap()).lines();
    let mut next = || lines.next().unwrap().unwrap();
    assert!(next().contains("mode slow"));
    project.ok(&["exec", "web", "--", "touch", "go"]);
    assert!(next().contains("gone"));
    follower.kill().unwrap();
    follower.wait().unwrap();
    let refused = project.run(&["logs", "web/api", "--since", "10m"]);
    let said = flat(&refused);
    assert!(
        said.contains("does not tell when a line was written"),
        "{refused}"
    );
}
