//! What people and scripts see: stdout, stderr and exit code of every command, as snapshots.

mod common;

use std::io::{BufRead, BufReader, Write};
use std::process::{Command, Output, Stdio};

use common::{Project, Run, free_port};
use serde_json::Value;

/// Three services that come up one after another, so that the order of lines is fixed.
const CHAIN: &str = "version: 1
stack: chain
sandboxes:
  data:
    services:
      store: { command: 'echo store is up; exec sleep 1000', health: { log: is up } }
      seed: { kind: task, command: echo seeded, needs: [store] }
  web:
    needs: [data]
    services:
      api:
        command: 'echo api says $GREETING; exec sleep 1000'
        env: { GREETING: hello }
        health: { log: api says }
        needs: [data/seed]
      worker: { cmd: sleep, args: ['1000'], needs: [api] }
";

/// One sandbox with one service.
const BOX: &str = "version: 1
stack: one
sandboxes:
  box:
    services:
      svc: { command: 'echo first; echo second; exec sleep 1000', health: { log: second } }
";

/// With neighbouring lines of things that were done in the order of their text: what does not
/// depend on each other is done in any order.
fn sorted(text: &str) -> String {
    let mut lines: Vec<&str> = text.split('\n').collect();
    for done in lines.chunk_by_mut(|a, b| a.starts_with("  ✓") && b.starts_with("  ✓")) {
        if done.len() > 1 {
            done.sort_unstable();
        }
    }
    lines.join("\n")
}

/// What was typed and what came of it.
fn transcript(project: &Project, commands: &[&[&str]]) -> String {
    let mut text = String::new();
    for args in commands {
        let run = project.run(args);
        let mut shown = sorted(&shown(&run));
        if args[0] == "status" {
            // How wide its columns are depends on pids.
            while shown.contains("   ") {
                shown = shown.replace("   ", "  ");
            }
        }
        text.push_str(&format!("$ gabion {}\n{shown}\n", args.join(" ")));
    }
    text
}

fn shown(run: &Run) -> String {
    let mut text = run.stdout();
    if !run.stderr().is_empty() {
        text.push_str(&format!("--- stderr\n{}", run.stderr()));
    }
    match run.code() {
        Some(0) => text,
        Some(code) => format!("{text}--- exit {code}\n"),
        None => format!("{text}--- killed\n"),
    }
}

/// A snapshot without what differs from run to run.
macro_rules! golden {
    ($project:expr, $text:expr) => {{
        let mut settings = insta::Settings::clone_current();
        let folder = regex_escape($project.dir.path().to_str().unwrap());
        settings.add_filter(&folder, "[DIR]");
        settings.add_filter(r" +\d+(\.\d+)? (ms|s)\n", "  [TIME]\n");
        settings.add_filter(r"\b(in|after|About) \d+(\.\d+)? (ms|s)\b", "$1 [TIME]");
        // A forecast and a sign of life are there only when something takes long.
        settings.add_filter(r" About \[TIME\][^.]*\.", "");
        settings.add_filter(r"  · .*\n", "");
        settings.add_filter(r"isolation (none|strict)\b", "isolation [ISOLATION]");
        settings.add_filter(r"Isolation: .*", "Isolation: [ISOLATION]");
        // What a machine without control groups of ours cannot do.
        settings.add_filter(r" +(sandbox|service)  .* writable cgroup.*\n", "");
        settings.add_filter(r"(running +yes +)\d+ +", "$1[PID]  ");
        settings.add_filter(r"\b\d+s( ago)?\b", "[AGE]$1");
        settings.bind(|| insta::assert_snapshot!($text));
    }};
}

fn regex_escape(text: &str) -> String {
    text.replace('.', r"\.")
}

fn piped(project: &Project, args: &[&str], input: &str) -> Run {
    let mut command = project.command(args);
    command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    child
        .stdin
        .take()
        .unwrap()
        .write_all(input.as_bytes())
        .unwrap();
    Run(child.wait_with_output().unwrap())
}

fn shell(project: &Project, line: &str) -> Output {
    let gabion = project.command(&[]);
    let mut command = Command::new("bash");
    command
        .args(["-c", line])
        .current_dir(project.dir.path())
        .env_clear();
    for (key, value) in gabion.get_envs() {
        command.env(key, value.unwrap_or_default());
    }
    command
        .env("GABION", gabion.get_program())
        .output()
        .unwrap()
}

#[test]
fn help_is_the_reference_of_the_command_line() {
    let project = Project::empty();
    let commands = "init validate plan apply watch status logs exec start stop restart send signal \
                    destroy platforms schema completions";
    let mut text = transcript(&project, &[&["--help"]]);
    for command in commands.split_whitespace() {
        text.push_str(&transcript(&project, &[&[command, "--help"]]));
    }
    let too_wide: Vec<&str> = text
        .lines()
        .filter(|line| line.chars().count() > 80)
        .collect();
    assert_eq!(too_wide, Vec::<&str>::new());
    // clap leaves spaces in its empty lines.
    let text: Vec<&str> = text.lines().map(str::trim_end).collect();
    let text = text.join("\n");
    golden!(project, text);
}

#[test]
fn validate() {
    let project = Project::new(CHAIN);
    let mut text = transcript(&project, &[&["validate"]]);
    project.edit("needs: [store]", "needs: [stroe]");
    text.push_str(&transcript(
        &project,
        &[&["validate"], &["validate", "--format", "github"]],
    ));
    golden!(project, text);
    for format in ["text", "json", "sarif", "github"] {
        let run = project.run(&["validate", "--format", format]);
        assert_eq!(run.code(), Some(65), "{run}");
        if matches!(format, "json" | "sarif") {
            serde_json::from_str::<Value>(&run.stdout()).unwrap();
        }
    }
    for args in [&["plan"][..], &["apply", "--yes"]] {
        let run = project.run(args);
        assert_eq!(run.code(), Some(65), "gabion {args:?}\n{run}");
        assert_eq!(run.stdout(), "", "gabion {args:?}\n{run}");
    }
}

#[test]
fn from_nothing_to_nothing_in_a_pipe() {
    let project = Project::new(CHAIN);
    let mut text = transcript(
        &project,
        &[
            &["status"],
            &["logs"],
            &["plan"],
            &["apply", "--yes"],
            &["plan"],
            &["status"],
            &["logs", "data"],
            &["start", "web"],
            &["restart", "web/api"],
            &["stop", "web/worker"],
            &["status", "web"],
        ],
    );
    project.edit("GREETING: hello", "GREETING: goodbye");
    text.push_str(&transcript(
        &project,
        &[
            &["plan", "web/api"],
            &["start", "web/worker"],
            &["apply", "web/api", "--yes"],
            &["plan", "--destroy"],
            &["destroy"],
            &["destroy", "--yes"],
            &["destroy", "--yes"],
        ],
    ));
    golden!(project, text);
}

#[test]
fn a_failing_apply() {
    let project = Project::new(
        "version: 1
stack: failing
sandboxes:
  box:
    services:
      fine: { cmd: sleep, args: ['1000'] }
      broken:
        command: |
          echo a reason that is so long that it does not fit into the eighty columns of a terminal >&2
          exit 3
        restart: 'no'
        health: { log: never }
        needs: [fine]
      dependent: { cmd: sleep, args: ['1000'], needs: [broken] }
      silent: { command: exit 4, kind: task, needs: [{ service: broken, condition: started }] }
",
    );
    // Only one of the failures at a time: which comes first is not fixed.
    let text = transcript(
        &project,
        &[&["apply", "box/dependent", "--yes"], &["status"]],
    );
    golden!(project, text);
    // Evidence is what this run wrote, not what an earlier one did.
    let again = project.run(&["apply", "box/broken", "--yes"]);
    assert_eq!(again.stderr().matches("a reason").count(), 1, "{again}");
    let run = project.run(&["apply", "box/silent", "--yes"]);
    assert_eq!(run.code(), Some(1), "{run}");
}

#[test]
fn plans_for_scripts() {
    let project = Project::new(CHAIN);
    let run = project.run(&["plan", "--detailed-exitcode"]);
    assert_eq!(run.code(), Some(2), "{run}");
    let plan: Value = serde_json::from_str(&project.ok(&["plan", "--json"]).stdout()).unwrap();
    assert_eq!(plan["version"], 1);
    assert_eq!(plan["summary"]["add"], 6);
    for action in plan["actions"].as_array().unwrap() {
        for field in ["address", "kind", "cause", "changes", "after"] {
            assert!(!action[field].is_null(), "{field} of {action}");
        }
    }
    let events = project.ok(&["apply", "--yes", "--json"]).stdout();
    let events: Vec<Value> = events
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(events.first().unwrap()["event"], "apply_started");
    assert_eq!(events.last().unwrap()["event"], "apply_finished");
    let run = project.run(&["plan", "--detailed-exitcode"]);
    assert_eq!(run.code(), Some(0), "{run}");
}

#[test]
fn the_shape_of_status_json() {
    let port = free_port();
    let project = Project::new(&format!(
        "version: 1
stack: shape
sandboxes:
  box:
    services:
      job: {{ kind: task, command: 'true' }}
      web:
        cmd: python3
        args: [-m, http.server, '{port}', --bind, 127.0.0.1]
        health_port: {port}
"
    ));
    project.ok(&["apply", "--yes"]);
    project.ok(&["restart", "box/web"]);
    let mut status = project.status(&[]);
    let pid = status["services"][1]["pid"].as_u64().unwrap();
    assert!(std::path::Path::new(&format!("/proc/{pid}")).exists());
    assert_eq!(status["services"][1]["ports"], serde_json::json!([port]));
    // What differs from run to run is only there.
    for row in status["services"].as_array_mut().unwrap() {
        for field in ["pid", "ports", "started_at"] {
            if !row[field].is_null() {
                row[field] = format!("[{field}]").into();
            }
        }
        if !row["last_exit"].is_null() {
            row["last_exit"]["at"]
                .as_str()
                .unwrap()
                .parse::<jiff::Timestamp>()
                .unwrap();
            row["last_exit"]["at"] = "[at]".into();
        }
    }
    for row in status["sandboxes"].as_array_mut().unwrap() {
        assert!(row["supervisor_pid"].as_u64().is_some());
        assert!(row["keeper_pid"].as_u64().is_some());
        row["supervisor_pid"] = "[pid]".into();
        row["keeper_pid"] = "[pid]".into();
        row["isolation"] = "[isolation]".into();
    }
    insta::assert_json_snapshot!(status);
}

#[test]
fn what_needs_no_manifest() {
    let project = Project::empty();
    golden!(
        project,
        transcript(
            &project,
            &[
                &["plan"],
                &["platforms"],
                &["frobnicate"],
                &["apply", "--json"]
            ]
        )
    );
    let schema: Value = serde_json::from_str(&project.ok(&["schema"]).stdout()).unwrap();
    assert!(schema["properties"]["sandboxes"].is_object());
    serde_json::from_str::<Value>(&project.ok(&["schema", "plan"]).stdout()).unwrap();
    serde_json::from_str::<Value>(&project.ok(&["platforms", "--json"]).stdout()).unwrap();
}

#[test]
fn init_writes_a_manifest_that_works() {
    let project = Project::empty();
    let mut text = transcript(&project, &[&["init"], &["init"]]);
    project.edit("8123", &free_port().to_string());
    project.edit("# stack: my-stack", "stack: fresh");
    text.push_str(&transcript(&project, &[&["validate"], &["plan"]]));
    golden!(project, text);
    let applied = project.ok(&["apply", "--yes"]);
    assert!(applied.stderr().contains("✓ app/check"), "{applied}");
    project.ok(&["destroy", "--yes"]);
}

#[test]
fn logs() {
    let project = Project::new(
        "version: 1
stack: logging
sandboxes:
  box:
    services:
      one: { command: 'echo one 1; echo one 2; echo one 3 >&2; exec sleep 1000', health: { log: one 3 } }
      talker:
        command: 'echo ready; until test -e go; do sleep 0.02; done; echo gone on; exec sleep 1000'
        health: { log: ready }
        needs: [one]
    workspace: .
",
    );
    project.ok(&["apply", "--yes"]);
    let text = transcript(
        &project,
        &[
            &["logs"],
            &["logs", "box/one"],
            &["logs", "box/one", "--tail", "1"],
            &["logs", "--since", "2126-01-01T00:00:00Z"],
            &["logs", "--since", "1h", "box/talker"],
            &["logs", "--since", "yesterday"],
            &["logs", "box/on"],
        ],
    );
    golden!(project, text);

    let stamped = project.ok(&["logs", "box/talker", "--timestamps"]).stdout();
    let (time, line) = stamped.trim_end().split_once(' ').unwrap();
    time.parse::<jiff::Timestamp>().unwrap();
    assert_eq!(line, "ready");

    // Followed: what is there, then what comes, as it comes.
    let mut follow = project
        .command(&["logs", "-f", "box/talker"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(follow.stdout.take().unwrap()).lines();
    assert_eq!(lines.next().unwrap().unwrap(), "ready");
    project.write("go", "");
    assert_eq!(lines.next().unwrap().unwrap(), "gone on");
    follow.kill().unwrap();
    follow.wait().unwrap();
}

#[test]
fn exec() {
    let project = Project::new(&BOX.replace(
        "box:\n",
        "box:\n    env: { COLOUR: blue }\n    workspace: .\n",
    ));
    let text = transcript(
        &project,
        &[
            &["exec", "box", "--", "true"],
            &["exec", "bxo", "--", "true"],
            &["exec", "box"],
        ],
    );
    project.ok(&["apply", "--yes"]);
    let more = transcript(
        &project,
        &[
            &[
                "exec",
                "box",
                "--",
                "sh",
                "-c",
                "echo out; echo err >&2; exit 7",
            ],
            &["exec", "box", "--", "sh", "-c", "echo $COLOUR $PWD"],
            &["exec", "box", "--", "sh", "-c", "kill -TERM $$"],
            &["exec", "box", "--", "no-such-command"],
            &["exec", "box", "--", "ls", "-d", "."],
        ],
    );
    golden!(project, text + &more);
    let counted = piped(&project, &["exec", "box", "--", "wc", "-c"], "12345");
    assert_eq!(counted.stdout().trim(), "5", "{counted}");
}

#[test]
fn mistyped_addresses() {
    let project = Project::new(CHAIN);
    golden!(
        project,
        transcript(
            &project,
            &[
                &["plan", "web/aip"],
                &["apply", "--yes", "api"],
                &["restart", "wbe"],
                &["stop", "elsewhere/entirely"],
                &["logs", "web/Api"],
                &["status", "data/stroe"],
            ],
        )
    );
    let run = project.run(&["plan", "web/aip"]);
    assert_eq!(run.code(), Some(64), "{run}");
}

#[test]
fn completion() {
    let project = Project::new(CHAIN);
    for shell in ["bash", "elvish", "fish", "powershell", "zsh"] {
        let script = project.ok(&["completions", shell]).stdout();
        assert!(
            script.contains("gabion") && script.contains("COMPLETE"),
            "{shell}: {script}"
        );
    }
    let complete = |words: &[&str]| {
        let args: Vec<&str> = ["--", "gabion"].iter().chain(words).copied().collect();
        let mut command = project.command(&args);
        command
            .env("COMPLETE", "bash")
            .env("_CLAP_COMPLETE_INDEX", words.len().to_string())
            .env("_CLAP_IFS", "\n")
            .env("_CLAP_COMPLETE_COMP_TYPE", "9")
            .env("_CLAP_COMPLETE_SPACE", "true");
        let run = Run(command.output().unwrap());
        assert_eq!(run.stderr(), "");
        run.stdout()
            .lines()
            .map(ToOwned::to_owned)
            .collect::<Vec<_>>()
    };
    assert_eq!(complete(&["restart", "web/"]), ["web/api", "web/worker"]);
    assert_eq!(
        complete(&["exec", "d"]),
        ["data", "data/seed", "data/store"]
    );
    assert_eq!(complete(&["destr"]), ["destroy"]);
    assert!(complete(&["logs", ""]).contains(&"data/seed".to_owned()));
    project.write("gabion.yaml", "not: [valid");
    assert_eq!(complete(&["restart", "web/"]), Vec::<String>::new());
}

#[test]
fn colour_on_request_only() {
    let project = Project::new(CHAIN);
    let coloured = |args: &[&str], env: &[(&str, &str)]| {
        let mut command = project.command(args);
        command.envs(env.iter().copied());
        let run = Run(command.output().unwrap());
        (run.stdout() + &run.stderr()).contains('\u{1b}')
    };
    assert!(!coloured(&["plan"], &[]), "a pipe has no colour");
    assert!(coloured(&["plan", "--color", "always"], &[]));
    assert!(coloured(&["plan"], &[("GABION_COLOR", "always")]));
    assert!(!coloured(
        &["plan", "--color", "never"],
        &[("GABION_COLOR", "always")]
    ));
    assert!(!coloured(&["plan"], &[("NO_COLOR", "1")]));
    assert!(!coloured(&["plan", "web/aip"], &[("NO_COLOR", "1")]));
    assert!(coloured(
        &["plan", "web/aip", "--color", "always"],
        &[("NO_COLOR", "1")]
    ));
}

#[test]
fn a_reader_that_goes_away_is_no_error() {
    let project = Project::new(CHAIN);
    let output = shell(&project, "set -o pipefail; \"$GABION\" plan | head -1");
    assert_eq!(String::from_utf8_lossy(&output.stderr), "");
    assert_eq!(
        String::from_utf8_lossy(&output.stdout),
        "chain on local: 2 sandboxes, 4 services\n"
    );
    let output = shell(&project, "\"$GABION\" schema | true; echo ${PIPESTATUS[0]}");
    assert_eq!(String::from_utf8_lossy(&output.stderr), "");
    assert_eq!(String::from_utf8_lossy(&output.stdout), "0\n");
}

#[test]
fn the_question() {
    let project = Project::new(BOX);
    let mut text = String::new();
    for (what, input) in [("n", "n\n"), ("nothing", "\n"), ("the end of input", "")] {
        let run = piped(&project, &["apply"], input);
        text.push_str(&format!(
            "$ gabion apply, answered with {what}\n{}\n",
            shown(&run)
        ));
        assert!(
            !project.home.join("sandboxes").exists(),
            "something was done"
        );
    }
    golden!(project, text);
    let run = piped(&project, &["apply"], "y\n");
    assert_eq!(run.code(), Some(0), "{run}");
    assert_eq!(project.services()["box/svc"]["state"], "running");
    let run = piped(&project, &["destroy"], "no\n");
    assert_eq!(run.code(), Some(1), "{run}");
    assert_eq!(project.services()["box/svc"]["state"], "running");
}

#[test]
fn where_the_manifest_is_looked_for() {
    let project = Project::new(CHAIN);
    project.write("deep/er/other.yaml", BOX);
    let named = |args: &[&str], folder: &str, env: Option<&str>| {
        let mut command = project.command(args);
        command.current_dir(project.path(folder));
        command.envs(env.map(|file| ("GABION_FILE", file)));
        Run(command.output().unwrap()).stdout()
    };
    assert!(
        named(&["validate"], "deep/er", None).starts_with("chain is valid"),
        "the nearest parent"
    );
    assert!(named(&["validate", "-f", "other.yaml"], "deep/er", None).starts_with("one is valid"));
    assert!(named(&["-f", "other.yaml", "validate"], "deep/er", None).starts_with("one is valid"));
    assert!(named(&["validate"], "deep/er", Some("other.yaml")).starts_with("one is valid"));
    let both = named(
        &["-f", "../../gabion.yaml", "validate"],
        "deep/er",
        Some("other.yaml"),
    );
    assert!(
        both.starts_with("chain is valid"),
        "the option wins: {both}"
    );
    project.write("deep/gabion.yml", BOX);
    assert!(
        named(&["validate"], "deep/er", None).starts_with("one is valid"),
        "the nearest"
    );
}

#[test]
fn nobody_is_less_isolated_than_they_asked_for() {
    for manifest in [
        "version: 1\nsandboxes:\n  a:\n    isolation: strict\n",
        "version: 1\ndefaults: { isolation: strict }\nsandboxes:\n  a: {}\n",
    ] {
        let project = Project::new(manifest);
        // On a machine without namespaces, which any is for those in a namespace that may have no more.
        let none = "echo 0 > /proc/sys/user/max_user_namespaces && exec \"$@\"";
        let gabion = project.command(&["apply", "--yes"]);
        let mut without = Command::new("unshare");
        without.args(["-Ur", "sh", "-c", none, "sh"]);
        without.arg(gabion.get_program()).args(gabion.get_args());
        without
            .current_dir(project.path("."))
            .env("GABION_HOME", &project.home);
        let run = Run(without.output().expect("unshare runs"));
        assert_eq!(run.code(), Some(65), "{run}");
        assert!(
            run.stderr().contains("cannot honour `isolation: strict`"),
            "{run}"
        );
        assert!(!project.home.exists(), "something was made");
    }
}

#[test]
fn strict_isolation_is_had_and_told() {
    let project = Project::new(
        "version: 1
stack: walls
sandboxes:
  a:
    isolation: strict
    services:
      web: { command: 'touch /etc/made-by-a-test; ls /proc; exec sleep 600' }
  b:
    isolation: none
",
    );
    project.ok(&["apply", "--yes"]);
    let status = project.status(&[]);
    assert_eq!(status["sandboxes"][0]["isolation"], "strict");
    assert_eq!(status["sandboxes"][1]["isolation"], "none");
    let pid = status["services"][0]["pid"].as_u64().unwrap();
    let namespace = |pid: &str| std::fs::read_link(format!("/proc/{pid}/ns/pid")).unwrap();
    assert_ne!(namespace(&pid.to_string()), namespace("self"));
    assert!(!std::path::Path::new("/etc/made-by-a-test").exists());
    let exec = project.ok(&[
        "exec",
        "a",
        "--",
        "sh",
        "-c",
        "echo $$; touch /usr/x || true",
    ]);
    assert!(exec.stderr().contains("Read-only file system"), "{exec}");
    let run = project.run(&["exec", "a", "--", "sh", "-c", "exit 7"]);
    assert_eq!(run.code(), Some(7));
    project.ok(&["destroy", "--yes"]);
}
