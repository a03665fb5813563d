//! What runs in a sandbox beside its services, and sandboxes that are restarted with all of it.

use std::io::{BufRead, BufReader, Write};
use std::process::Stdio;

use serde_json::{Value, json};

use crate::common::terminal::Terminal;
use crate::common::{Project, eventually};
use crate::projects::{flat, no_changes, on};
use crate::served::Served;

const SERVICE: &str = "  web:
    services:
      api: { cmd: sleep, args: [\"1000\"] }
";

fn processes(project: &Project) -> Vec<Value> {
    let listed = project.ok(&["ps", "web", "--json"]).stdout();
    let listed: Value = serde_json::from_str(&listed).expect("JSON");
    listed["processes"].as_array().expect("a list").clone()
}

#[test]
fn a_command_on_sprites_is_joined() {
    let served = Served::start();
    let project = on(&served, "sprites", SERVICE);
    project.ok(&["apply", "--yes"]);
    let script = "echo begun; while read line; do echo got $line; done; exit 7";
    let mut exec = project.command(&["exec", "web", "--", "sh", "-c", script]);
    let exec = exec.stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut exec = exec.spawn().expect("gabion runs");
    eventually("the command is listed", || processes(&project).len() == 1);
    let listed = processes(&project).remove(0);
    let id = listed["id"].as_str().expect("text");
    // One only listens, another one speaks.
    let mut listener = project.command(&["attach", "web", id]);
    let listener = listener.stdin(Stdio::null()).stdout(Stdio::piped());
    let mut listener = listener.spawn().expect("gabion runs");
    let mut heard = BufReader::new(listener.stdout.take().expect("its output")).lines();
    let mut next = || heard.next().expect("a line").expect("text");
    let mut first = exec.stdin.take().expect("its input");
    writeln!(first, "one").expect("it reads");
    while next() != "got one" {}
    let mut speaker = project.command(&["attach", "web", id, "--stdin"]);
    let speaker = speaker.stdin(Stdio::piped()).stdout(Stdio::null());
    let mut speaker = speaker.spawn().expect("gabion runs");
    let mut words = speaker.stdin.take().expect("its input");
    writeln!(words, "two").expect("it reads");
    while next() != "got two" {}
    // Its end is the command's, and all hear of that.
    drop(words);
    for child in [&mut speaker, &mut listener, &mut exec] {
        assert_eq!(child.wait().expect("an end").code(), Some(7));
    }
    let gone = project.run(&["attach", "web", id]);
    assert_eq!(gone.code(), Some(1), "{gone}");
    assert!(flat(&gone).contains("there is no process"), "{gone}");
    no_changes(&project);
}

#[test]
fn a_command_on_sprites_has_the_terminal_and_is_joined_on_another_one() {
    let served = Served::start();
    let project = on(&served, "sprites", SERVICE);
    project.ok(&["apply", "--yes"]);
    let script = "test -t 0 && test -t 2 || exit 1; echo in $TERM; \
                  while read line; do stty size; echo got $line; test $line != end || exit 9; done";
    let mut exec = Terminal::gabion(
        &project,
        &["exec", "web/api", "--", "sh", "-c", script],
        &[],
    );
    exec.expect("in xterm-256color");
    exec.send("one\n");
    exec.expect("24 80\r\ngot one");
    exec.resize(100, 30);
    exec.type_until("two\n", "30 100\r\ngot two");
    let listed = processes(&project).remove(0);
    assert_eq!(listed["terminal"], true, "{listed}");
    let id = listed["id"].as_str().expect("text");
    let mut other = Terminal::gabion(&project, &["attach", "web", id, "--stdin"], &[]);
    other.type_until("three\n", "got three");
    exec.expect("got three");
    let mut listener = project.command(&["attach", "web", id]);
    let listener = listener.stdin(Stdio::null()).stdout(Stdio::piped());
    let mut listener = listener.spawn().expect("gabion runs");
    // It leaves, and the command stays.
    other.send("\u{1d}");
    let (seen, code) = other.end();
    assert_eq!(code, Some(0), "{seen}");
    assert!(
        seen.ends_with(&format!("Left: `{id}` goes on.\r\n")),
        "{seen}"
    );
    let heard = BufReader::new(listener.stdout.take().expect("its output")).lines();
    let heard = heard.map(|line| line.expect("text"));
    exec.send("four\n");
    let mut heard = heard.skip_while(|line| !line.contains("got four"));
    assert!(heard.next().is_some(), "its end");
    exec.send("end\n");
    let (seen, code) = exec.end();
    assert_eq!(code, Some(9), "{seen}");
    assert_eq!(listener.wait().expect("an end").code(), Some(9));
    no_changes(&project);
}

#[test]
fn ctrl_c_on_a_terminal_is_for_the_command_on_sprites() {
    let served = Served::start();
    let project = on(&served, "sprites", SERVICE);
    project.ok(&["apply", "--yes"]);
    let mut exec = Terminal::gabion(&project, &["exec", "web", "--", "cat"], &[]);
    exec.send("word\n");
    exec.expect("word\r\nword");
    exec.send("\u{3}");
    let (seen, code) = exec.end();
    assert_eq!(code, Some(130), "{seen}");
    assert_eq!(processes(&project), Vec::<Value>::new());
}

#[test]
fn a_command_on_sprites_is_listed_while_it_runs_and_is_ended_by_its_id() {
    let served = Served::start();
    let project = on(&served, "sprites", SERVICE);
    project.ok(&["apply", "--yes"]);
    let mut exec = project.command(&["exec", "web", "--", "sleep", "1234"]);
    let exec = exec.stdout(Stdio::null()).stderr(Stdio::null()).spawn();
    let mut exec = exec.expect("gabion runs");
    eventually("the command is listed", || processes(&project).len() == 1);
    let listed = processes(&project).remove(0);
    assert_eq!(listed["command"], "sleep 1234");
    assert!(listed["started_at"].is_string(), "{listed}");
    let table = project.ok(&["ps", "web"]).stdout();
    assert!(table.contains("sleep 1234"), "{table}");
    let id = listed["id"].as_str().expect("text");
    project.ok(&["kill", "web", id, "--signal", "INT"]);
    assert_eq!(exec.wait().expect("an end").code(), Some(130));
    assert_eq!(processes(&project), Vec::<Value>::new());
    no_changes(&project);
}

fn process_of_somebody(served: &Served, kind: &str) {
    let project = on(served, kind, SERVICE);
    project.ok(&["apply", "--yes"]);
    assert_eq!(processes(&project), Vec::<Value>::new());
    let path = "/api/v1/sandboxes";
    let (_, all) = served.ask("GET", path, Value::Null);
    let id = all["data"][0]["id"].as_str().expect("an id").to_owned();
    let path = format!("{path}/{id}/processes");
    let (status, _) = served.ask("POST", &path, json!({ "command": "exec sleep 1234" }));
    assert_eq!(status, 201);
    let listed = processes(&project);
    assert_eq!(listed.len(), 1);
    assert_eq!(listed[0]["command"], "exec sleep 1234");
    let id = listed[0]["id"].as_str().expect("text");
    let refused = project.run(&["kill", "web", id, "--signal", "INT"]);
    assert_eq!(refused.code(), Some(1), "{refused}");
    assert!(flat(&refused).contains("leave out --signal"), "{refused}");
    // A service is none of them.
    let told = project.services()["web/api"]["pid"].clone();
    if let Some(pid) = told.as_u64() {
        let refused = project.run(&["kill", "web", &pid.to_string()]);
        assert_eq!(refused.code(), Some(1), "{refused}");
    }
    project.ok(&["kill", "web", id]);
    assert_eq!(processes(&project), Vec::<Value>::new());
    no_changes(&project);
    project.ok(&["destroy", "--yes"]);
}

#[test]
fn a_process_on_miosa_that_is_no_service_is_listed_and_ended() {
    let served = Served::start();
    process_of_somebody(&served, "miosa");
    process_of_somebody(&served, "miosa, services: named");
}

/// What was stopped by hand is down at the end; where a start of the sandbox `starts_all`, it begins before.
fn a_sandbox_is_restarted(kind: &str, starts_all: bool) -> (Served, Project) {
    let served = Served::start();
    let project = on(
        &served,
        kind,
        "  web:
    services:
      db: { command: 'echo db >> starts; exec sleep 1000' }
      api:
        command: '[ -n \"$PASS\" ] && echo api >> starts; exec sleep 1000'
        env: { PASS: '${secret.pass}' }
        needs: [db]
      idle: { command: 'echo idle >> starts; exec sleep 1000' }
",
    );
    project.ok(&["apply", "--yes"]);
    project.ok(&["stop", "web/idle"]);
    let starts = || {
        let text = project.ok(&["exec", "web/db", "--", "cat", "starts"]);
        let text = text.stdout();
        let of = |name: &str| text.lines().filter(|line| *line == name).count();
        ["db", "api", "idle"].map(of)
    };
    eventually("all have begun", || !starts().contains(&0));
    let before = starts();
    project.ok(&["restart", "--sandbox", "web"]);
    eventually("those that ran have begun again", || {
        let now = starts();
        assert!(now[2] == before[2] || starts_all, "{now:?}");
        now[0] > before[0] && now[1] > before[1]
    });
    let services = project.services();
    assert_eq!(services["web/db"]["state"], "running");
    assert_eq!(services["web/api"]["state"], "running");
    assert_eq!(services["web/idle"]["state"], "stopped");
    let refused = project.run(&["restart", "--sandbox", "web/api"]);
    assert_eq!(refused.code(), Some(64), "{refused}");
    project.ok(&["apply", "--yes"]);
    no_changes(&project);
    (served, project)
}

/// How often this was asked for.
fn asked(served: &Served, end: &str) -> usize {
    let all = served.requests(0);
    let of_it = |it: &&String| it.starts_with("POST") && it.ends_with(end);
    all.iter().filter(of_it).count()
}

#[test]
fn a_sprite_is_restarted_with_all_that_runs_in_it() {
    let (served, _project) = a_sandbox_is_restarted("sprites", false);
    assert_eq!(asked(&served, "/restart"), 1);
}

#[test]
fn a_sandbox_on_pocketenv_is_restarted_with_all_that_runs_in_it() {
    let (served, _project) = a_sandbox_is_restarted("pocketenv", true);
    assert_eq!(asked(&served, ".stopSandbox"), 1);
}

#[test]
fn a_sandbox_on_miosa_is_restarted_with_all_that_runs_in_it() {
    let (served, _project) = a_sandbox_is_restarted("miosa", false);
    assert_eq!(asked(&served, "/stop"), 1);
}
