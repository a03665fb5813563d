//! The main promise, on real processes: what the manifest says comes up in order, and an edit does
//! what the plan says and nothing else.

mod common;

use common::{Project, Run, blind, eventually, free_port};
use serde_json::Value;

fn quickstart() -> (Project, [String; 4]) {
    let [store, api] = [free_port(), free_port()];
    let vars = [
        "--var".into(),
        format!("store_port={store}"),
        "--var".into(),
        format!("api_port={api}"),
    ];
    (Project::example("quickstart"), vars)
}

fn with<'a>(vars: &'a [String; 4], rest: &[&'a str]) -> Vec<&'a str> {
    vars.iter()
        .map(String::as_str)
        .chain(rest.iter().copied())
        .collect()
}

fn get(port: &str, path: &str) -> String {
    use std::io::{Read, Write};
    let mut stream = std::net::TcpStream::connect(format!("127.0.0.1:{port}")).unwrap();
    write!(stream, "GET {path} HTTP/1.0\r\n\r\n").unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    text
}

#[test]
fn the_quickstart_comes_up_changes_and_goes_away() {
    let (project, vars) = quickstart();
    let run = |rest: &[&str]| project.ok(&with(&vars, rest));
    let api_port = vars[3].split_once('=').unwrap().1.to_owned();

    // A plan of everything, then everything.
    let plan = run(&["plan"]);
    assert!(plan.stdout().contains("Plan: "), "{plan}");
    let applied = run(&["apply", "--yes"]);
    assert!(applied.stderr().contains("✓ web/api"), "{applied}");
    assert!(get(&api_port, "/").contains("Hello, world! Visit 1."));

    let before = project.services();
    assert_eq!(before.len(), 4);
    for (address, row) in &before {
        let ready = row["ready"] == Value::Bool(true) && row["state"] == "running";
        let completed = row["kind"] == "task" && row["state"] == "completed";
        assert!(ready || completed, "{address}: {row}");
    }

    // Nothing to do, said so.
    let again = run(&["plan", "--detailed-exitcode"]);
    assert!(
        again.stdout().to_lowercase().contains("no changes"),
        "{again}"
    );
    let again = run(&["apply", "--yes"]);
    assert!(
        again.stdout().to_lowercase().contains("no changes"),
        "{again}"
    );

    // One edited argument: one change, one new pid.
    project.edit("GREETING: Hello", "GREETING: Goodbye");
    let plan = project.run(&with(&vars, &["plan", "--detailed-exitcode"]));
    assert_eq!(plan.code(), Some(2), "{plan}");
    assert!(
        plan.stdout().contains("0 to add, 1 to change, 0 to delete"),
        "{plan}"
    );
    assert!(plan.stdout().contains("GREETING"), "{plan}");
    run(&["apply", "--yes"]);
    let after = project.services();
    for (address, row) in &after {
        let same = row["pid"] == before[address]["pid"];
        assert_eq!(same, address != "web/api", "{address}");
    }
    assert!(get(&api_port, "/").contains("Goodbye, world! Visit 2."));

    // A service that leaves the manifest is deleted, and nothing else happens.
    let text = project.read("gabion.yaml");
    let start = text.find("      clock:").unwrap();
    project.write("gabion.yaml", &text[..start]);
    let plan = run(&["plan"]);
    assert!(
        plan.stdout().contains("0 to add, 0 to change, 1 to delete"),
        "{plan}"
    );
    run(&["apply", "--yes"]);
    let left = project.services();
    assert_eq!(
        left.keys().collect::<Vec<_>>(),
        ["data/seed", "data/store", "web/api"]
    );
    for (address, row) in &left {
        assert_eq!(row["pid"], after[address]["pid"], "{address}");
    }

    // Nothing is left: no process, no socket, no folder.
    run(&["destroy", "--yes"]);
    assert_eq!(project.processes(), Vec::<u32>::new());
    let remains: Vec<_> = std::fs::read_dir(&project.home)
        .map(|entries| entries.flatten().map(|entry| entry.path()).collect())
        .unwrap_or_default();
    assert!(remains.is_empty(), "{remains:?}");
    let again = run(&["destroy", "--yes"]);
    assert!(again.stdout().contains("othing"), "{again}");
}

#[test]
fn a_failure_shows_its_evidence_and_spares_independent_services() {
    let project = Project::new(
        "version: 1
stack: evidence
sandboxes:
  box:
    services:
      broken: { command: 'echo the reason >&2; exit 3', restart: 'no', health: { log: never } }
      dependent: { command: exec sleep 1000, needs: [broken] }
      further: { command: exec sleep 1000, needs: [dependent] }
      independent: { command: exec sleep 1000 }
",
    );
    let run = project.run(&["apply", "--yes"]);
    assert_eq!(run.code(), Some(1), "{run}");
    let story = run.stderr();
    assert!(story.contains("✗ box/broken"), "{run}");
    assert!(story.contains("exited with 3"), "{run}");
    assert!(story.contains("│ the reason"), "{run}");
    assert!(story.contains("gabion logs box/broken"), "{run}");
    assert!(
        story.contains("box/dependent") && story.contains("needs box/broken"),
        "{run}"
    );
    let services = project.services();
    assert_eq!(services["box/independent"]["state"], "running");
    assert_eq!(services["box/dependent"]["state"], "stopped");
    assert_eq!(services["box/further"]["state"], "stopped");

    // Mended, the next apply does the rest and leaves the independent one alone.
    let pid = project.pid("box/independent");
    project.edit(
        "'echo the reason >&2; exit 3'",
        "'echo never; exec sleep 1000'",
    );
    project.ok(&["apply", "--yes"]);
    assert_eq!(project.services()["box/further"]["state"], "running");
    assert_eq!(project.pid("box/independent"), pid);
}

#[test]
fn secrets_reach_the_process_and_nothing_else() {
    let planted = "s3cr3t-planted-value";
    let project = Project::new(
        "version: 1
stack: hush
secrets: { token: { file: token } }
sandboxes:
  box:
    services:
      holder:
        command: test \"$TOKEN\" = \"x-$(cat expected)\" && echo matched && exec sleep 1000
        env: { TOKEN: 'x-${secret.token}' }
        env_file: more.env
        health: { log: matched }
    workspace: .
",
    );
    project.write("token", &format!("{planted}\n"));
    project.write("expected", planted);
    project.write("more.env", &format!("OTHER={planted}\n"));
    let mut said = String::new();
    for args in [
        &["plan"][..],
        &["plan", "--json"],
        &["-vvv", "apply", "--yes", "--json"],
        &["status", "--json"],
        &["logs"],
    ] {
        let run = project.ok(args);
        said += &(run.stdout() + &run.stderr());
    }
    project.write("token", "another");
    project.write("expected", "another");
    let plan = project.ok(&["plan"]);
    assert!(plan.stdout().contains("secret changed"), "{plan}");
    said += &plan.stdout();
    assert!(!said.contains(planted), "{said}");
    let found = std::process::Command::new("grep")
        .args(["-rl", planted])
        .arg(&project.home)
        .output()
        .unwrap();
    assert_eq!(String::from_utf8_lossy(&found.stdout), "");
}

#[test]
fn what_waits_for_another_sandbox_does_not_wait_for_the_dead() {
    let port = free_port();
    let project = Project::new(&format!(
        "version: 1
stack: shop
sandboxes:
  data:
    services:
      db: {{ command: sleep 0.2; echo no space left; exit 3, health: {{ tcp: {port}, timeout: 10m }} }}
  web:
    services:
      api: {{ cmd: sleep, args: [600], needs: [data/db] }}
"
    ));
    let run = project.run(&["apply", "--yes"]);
    assert_eq!(run.code(), Some(1), "{run}");
    let told = run.stderr();
    for part in ["exited with 3 after", "no space left", "needs data/db"] {
        assert!(told.contains(part), "{part}: {run}");
    }
    let api = &project.services()["web/api"];
    assert_eq!(api["state"], "stopped", "{api}");
}

#[test]
#[cfg(target_os = "linux")]
fn sandboxes_run_where_no_more_folders_can_be_watched() {
    let project = Project::new(
        "version: 1\nstack: blind\nsandboxes:\n  a:\n    isolation: none\n    services:\n      \
         s: { command: exec sleep 1000 }\n",
    );
    let applied = Run(blind(&project.command(&["apply", "--yes"]))
        .output()
        .unwrap());
    assert_eq!(applied.code(), Some(0), "{applied}");
    let pid = project.pid("a/s");
    std::fs::remove_dir_all(project.home.join("sandboxes")).unwrap();
    eventually("the service ends with its folder", || {
        !std::path::Path::new(&format!("/proc/{pid}")).exists()
    });
}
