//! The client of Miosa against `gabion serve`: protocol page miosa, §8 and §9.

use gabion::serve::Faults;
use gabion::serve::faults::Plan;
use gabion::serve::miosa::Switches;
use serde_json::{Value, json};

use crate::common::{Project, eventually, free_port};
use crate::served::{Served, TOKEN};

const PATH: &str = "/api/v1/sandboxes";

/// A value that must not be seen anywhere.
const SECRET: &str = "planted-secret-93ac";

fn served(switches: &[&str]) -> Served {
    Served::new(Faults::default(), Switches::read(switches).unwrap())
}

/// A task, a service with a port behind it, and one with a secret behind that.
fn project(served: &Served) -> Project {
    let port = free_port();
    let url = &served.url;
    let project = Project::new(&format!(
        r#"version: 1
stack: shop
secrets:
  token: {{ file: token.txt }}
  pass: {{ file: pass.txt }}
platforms:
  cloud: {{ kind: miosa, url: "{url}", token: "${{secret.token}}" }}
sandboxes:
  web:
    platform: cloud
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
    ));
    project.write("token.txt", TOKEN);
    project.write("pass.txt", SECRET);
    project
}

fn no_changes(project: &Project) {
    let plan = project.ok(&["plan"]);
    assert!(plan.stdout().contains("No changes"), "{plan}");
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
    let elsewhere = project.path("elsewhere");
    let other = |args: &[&str]| {
        let mut command = project.command(args);
        command.env("GABION_HOME", &elsewhere).output().unwrap()
    };
    let plan = String::from_utf8(other(&["plan"]).stdout).unwrap();
    assert!(plan.contains("No changes"), "{plan}");
    // The list, and the processes of the one sandbox.
    assert_eq!(served.faults.requests().len() - before, 2);
    project.edit("MODE: slow", "MODE: fast");
    let plan = String::from_utf8(other(&["plan"]).stdout).unwrap();
    assert!(plan.contains("MODE") && plan.contains("fast"), "{plan}");
    assert!(!plan.contains("web/db"), "{plan}");
}

#[test]
fn no_output_shows_the_token_or_a_secret() {
    let served = served(&[]);
    let project = project(&served);
    let mut said = String::new();
    for args in [
        &["plan"][..],
        &["apply", "--yes"],
        &["plan", "--json"],
        &["status", "--json"],
        &["exec", "web", "--", "sh", "-c", "echo done"],
        &["destroy", "--yes"],
    ] {
        let args: Vec<_> = ["-vvv"].into_iter().chain(args.iter().copied()).collect();
        let run = project.ok(&args);
        said += &format!("{run}");
    }
    assert!(said.contains("done"), "{said}");
    for planted in [TOKEN, SECRET] {
        assert!(!said.contains(planted), "{planted} is in {said}");
    }
    let mut folders = vec![project.home.clone()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
            match entry.file_type().unwrap().is_dir() {
                true => folders.push(entry.path()),
                false => {
                    let text = std::fs::read(entry.path()).unwrap_or_default();
                    let text = String::from_utf8_lossy(&text).into_owned();
                    for planted in [TOKEN, SECRET] {
                        assert!(!text.contains(planted), "{planted}: {:?}", entry.path());
                    }
                }
            }
        }
    }
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
