//! Every command that acts on sandboxes and services, on every cloud: it does what it says, or says that it
//! cannot. The same in a table: `docs/operations.md`.

use std::fs::File;

use crate::common::{Project, Run, eventually, free_port};
use crate::projects::{no_changes, on};
use crate::served::Served;

/// One act after another on the same sandbox.
struct Act {
    args: Vec<String>,
    /// What it prints where it works.
    shows: String,
    /// What it says where it cannot, on iris, Sprites, Pocketenv and Miosa.
    cannot: [&'static str; 4],
}

const ALL: [&str; 4] = [""; 4];
const KINDS: [&str; 4] = ["iris", "sprites", "pocketenv", "miosa"];

fn act(line: &str, shows: &str, cannot: [&'static str; 4]) -> Act {
    Act {
        args: line.split(' ').map(str::to_owned).collect(),
        shows: shows.to_owned(),
        cannot,
    }
}

/// Those for whom a whole family of acts is missing.
fn only_on(kinds: &[&str], says: &'static str) -> [&'static str; 4] {
    KINDS.map(|kind| match kinds.contains(&kind) {
        true => "",
        false => says,
    })
}

fn acts(port: u16) -> Vec<Act> {
    let exposing = only_on(&["pocketenv", "miosa"], "cannot expose ports");
    let variables = only_on(
        &["pocketenv", "miosa"],
        "cannot attach variables to sandboxes",
    );
    let mut secrets = only_on(
        &["pocketenv", "miosa"],
        "cannot attach secrets to sandboxes",
    );
    let unset = secrets;
    secrets[3] = "cannot tell secrets from variables";
    let set = unset;
    let keys = only_on(&["pocketenv"], "cannot give keys to sandboxes");
    let deletes = only_on(&["iris", "sprites", "miosa"], "when their time is over");
    let passing = only_on(
        &["pocketenv"],
        "cannot remove checkpoints when a time is over",
    );
    let pauses = only_on(&["iris", "miosa"], "cannot pause sandboxes");
    let extends = only_on(&["miosa"], "cannot give sandboxes more time");
    let links = only_on(&["miosa"], "cannot make links that let others in");
    let ports = only_on(
        &["sprites", "pocketenv", "miosa"],
        "cannot tell where ports are reached",
    );
    let mut url = ports;
    url[1] = "is not exposed";
    vec![
        act("sandboxes --platform cloud", "shop", ALL),
        act(
            "sandboxes --platform cloud --limit 1 --offset 1",
            "There are none",
            ALL,
        ),
        act(
            "sandboxes --platform cloud --catalogue",
            "openclaw",
            only_on(&["pocketenv"], "cannot show a catalogue"),
        ),
        act(
            "sandboxes --platform cloud --actor did:plc:nobody",
            "There are none",
            only_on(&["pocketenv"], "cannot list what belongs to others"),
        ),
        act("show web", "running", ALL),
        act("show web/api", "MODE", ALL),
        act("logs web/api --tail 1", "ready", ALL),
        act("exec web -- echo said", "said\n", ALL),
        act("exec web/api -- printenv MODE", "slow\n", ALL),
        act("cp input web:/tmp/acts/copy", "", ALL),
        act("cp web:/tmp/acts/copy -", "typed\n", ALL),
        act("cp folder web:/tmp/acts/folder", "", ALL),
        act("exec web -- cat /tmp/acts/folder/deep/link", "typed\n", ALL),
        act("cp web:/tmp/acts/folder back", "", ALL),
        act("exec web -- ls -A /tmp/acts", "copy\nfolder\n", ALL),
        act("fs mkdir --parents web:/tmp/acts/new/deep", "", ALL),
        act("fs list web:/tmp/acts/new", "deep/", ALL),
        act("fs stat web:/tmp/acts/copy", "6 B", ALL),
        act("fs copy web:/tmp/acts/copy web:/tmp/acts/new/copy", "", ALL),
        act(
            "fs move web:/tmp/acts/new/copy web:/tmp/acts/moved",
            "",
            ALL,
        ),
        act("fs chmod 600 web:/tmp/acts/moved", "", ALL),
        act("fs remove --recursive web:/tmp/acts/new", "", ALL),
        act("exec web -- ls -A /tmp/acts", "copy\nfolder\nmoved\n", ALL),
        act(
            "upgrade web",
            "web: upgraded",
            only_on(&["sprites"], "does not support upgrading"),
        ),
        act("stop web/api", "", ALL),
        act("start web/api", "", ALL),
        act("restart web/api", "", ALL),
        act(
            "restart --sandbox web",
            "",
            [
                "cannot restart a sandbox itself: what runs in it outlives that it is suspended",
                "",
                "",
                "",
            ],
        ),
        act("share web", "?share=", links),
        act("share web --token", "?share=", links),
        act("share web --list", "read", links),
        act("unshare web nothing", "", links),
        act(
            "ps web",
            "Nothing runs beside services",
            only_on(
                &["sprites", "miosa"],
                "cannot tell what runs beside services",
            ),
        ),
        act(
            "attach web 0",
            "",
            KINDS.map(|kind| match kind {
                "sprites" => "there is no process `0` in `web`",
                _ => "cannot join what runs already",
            }),
        ),
        act(
            "kill web 0",
            "",
            [
                "cannot end what runs beside services",
                "there is no process `0` in `web`",
                "cannot end what runs beside services",
                "there is no process `0` in `web`",
            ],
        ),
        act(
            "signal web/api USR1",
            "",
            only_on(
                &["iris", "sprites", "miosa"],
                "does not support sending signals",
            ),
        ),
        act(
            "send web/other hello",
            "",
            [
                "stdin_open",
                "does not support writing to a service",
                "does not support writing to a service",
                "stdin: true",
            ],
        ),
        act("checkpoint create web one", "one", ALL),
        act("checkpoint list web", "one", ALL),
        act("checkpoint restore web one --yes", "", ALL),
        act("checkpoint delete web one", "", deletes),
        act("checkpoint create web two --expires-in 1d", "two", passing),
        act(
            "fork web copy",
            "copy: forked from web",
            [
                "",
                "cannot make a copy of a sprite",
                "cannot make a copy of a sandbox",
                "",
            ],
        ),
        act("pause web", "web: paused", pauses),
        act("resume web", "web: goes on", pauses),
        act("extend web", "its time begins again", extends),
        act("extend web --for 2h", "has 2h from now on", extends),
        act("ports web", &port.to_string(), ports),
        act(&format!("expose web {port}"), "http", exposing),
        act(&format!("url web --port {port}"), "http", url),
        act(&format!("unexpose web {port}"), "", exposing),
        act(
            "vscode web",
            "http",
            only_on(&["pocketenv"], "cannot open an editor"),
        ),
        act("env set web COLOUR=red", "", variables),
        act("env list web", "COLOUR\n", variables),
        act("env unset web COLOUR", "", variables),
        act("secret set web KEY", "", set),
        act("secret list web", "KEY\n", secrets),
        act("secret unset web KEY", "", unset),
        act("key set web tailscale", "", keys),
        act("key list web", "tailscale", keys),
    ]
}

/// With something to read on its standard input.
fn run(project: &Project, args: &[&str]) -> Run {
    let mut command = project.command(args);
    let input = File::open(project.path("input")).unwrap();
    Run(command.stdin(input).output().unwrap())
}

fn each_acts_or_says_that_it_cannot(kind: &'static str) {
    let at = KINDS.iter().position(|it| *it == kind).unwrap();
    let served = Served::start();
    let port = free_port();
    let sandboxes = format!(
        r#"  web:
    services:
      api:
        command: "trap 'echo heard' USR1; echo ready; while :; do sleep 0.05; done"
        env: {{ MODE: slow }}
        health: {{ log: ready }}
      other: {{ cmd: sleep, args: ["1000"], ports: [{port}] }}
"#
    );
    let project = on(&served, kind, &sandboxes);
    project.write("input", "typed\n");
    std::fs::create_dir_all(project.path("folder/deep/empty")).unwrap();
    project.write("folder/text", "typed\n");
    std::os::unix::fs::symlink("../text", project.path("folder/deep/link")).unwrap();
    project.ok(&["apply", "--yes"]);
    let mut wrong = Vec::new();
    for act in acts(port) {
        let args: Vec<_> = act.args.iter().map(String::as_str).collect();
        let run = run(&project, &args);
        let says = act.cannot[at];
        let words: Vec<_> = run.stderr().split_whitespace().map(str::to_owned).collect();
        let right = match says {
            "" => run.code() == Some(0) && run.stdout().contains(&act.shows),
            says => run.code() == Some(1) && words.join(" ").contains(says),
        };
        if !right {
            wrong.push(format!("{args:?}, `{}`, `{says}`: {run}", act.shows));
        }
    }
    assert!(wrong.is_empty(), "{kind}:\n{}", wrong.join("\n"));
    assert_eq!(project.read("back/deep/link"), "typed\n");
    assert!(project.path("back/deep/empty").is_dir());
    if kind != "pocketenv" {
        let logs = || project.ok(&["logs", "web/api"]).stdout();
        eventually("the signal is heard", || logs().contains("heard"));
    }
    // Not one of them has left anything that is not wanted, but for a fork.
    project.ok(&["apply", "--yes"]);
    no_changes(&project);
    assert_eq!(served.count(), 1);
}

/// A sandbox that is not to run, and one that is to again.
fn a_sandbox_is_stopped_and_started(kind: &str) {
    let served = Served::start();
    let service = "    services: { api: { cmd: sleep, args: [\"1000\"] } }\n";
    let project = on(&served, kind, &format!("  web:\n{service}"));
    project.ok(&["apply", "--yes"]);
    let sandbox = || project.status(&[])["sandboxes"][0]["state"].clone();
    assert_eq!(sandbox(), "running");
    project.edit("  web:\n", "  web:\n    state: stopped\n");
    project.ok(&["apply", "--yes"]);
    no_changes(&project);
    assert_eq!(sandbox(), "stopped");
    project.edit("    state: stopped\n", "");
    project.ok(&["apply", "--yes"]);
    no_changes(&project);
    assert_eq!(sandbox(), "running");
    assert_eq!(project.services()["web/api"]["state"], "running");
    project.ok(&["destroy", "--yes"]);
    assert_eq!(served.count(), 0);
}

#[test]
fn on_iris() {
    each_acts_or_says_that_it_cannot("iris");
}

#[test]
fn on_sprites() {
    // A sprite sleeps by itself, and wakes for whoever asks it.
    each_acts_or_says_that_it_cannot("sprites");
}

#[test]
fn on_pocketenv() {
    each_acts_or_says_that_it_cannot("pocketenv");
    a_sandbox_is_stopped_and_started("pocketenv");
}

#[test]
fn on_miosa() {
    each_acts_or_says_that_it_cannot("miosa");
    a_sandbox_is_stopped_and_started("miosa");
}
