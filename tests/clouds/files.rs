//! Files of a sandbox, as a manifest has them: on Pocketenv, against `gabion serve`.

use std::io::{BufRead, BufReader};
use std::process::Stdio;

use gabion::serve::faults::Plan;
use serde_json::Value;

use crate::common::Project;
use crate::projects::{
    RESTART, SECRET, flat, no_changes, no_changes_elsewhere, on, planned, pocketenv_writes,
};
use crate::served::Served;

/// Where files are written in these tests.
const AT: &str = "/tmp/gabion-files";

/// A project whose sandbox has these files, in the words of a manifest.
fn project(served: &Served, files: &str) -> Project {
    let files = files.replace("AT", AT);
    let service = "    services:\n      api: { command: 'exec sleep 1000' }\n";
    on(
        served,
        "pocketenv",
        &format!("  web:\n    files: {files}\n{service}"),
    )
}

/// Writes other files into the manifest.
fn edit(project: &Project, from: &str, to: &str) {
    project.edit(&from.replace("AT", AT), &to.replace("AT", AT));
}

/// The paths of the files that the platform tells of, sorted.
fn there(project: &Project) -> Vec<String> {
    let list = project.ok(&["file", "list", "web", "--json"]).stdout();
    let list: Value = serde_json::from_str(&list).expect("JSON");
    let path = |it: &Value| it["name"].as_str().expect("a path").replace(AT, "AT");
    list.as_array().expect("a list").iter().map(path).collect()
}

/// Attaches a file by hand.
fn set_by_hand(project: &Project, path: &str, content: &str) {
    project.write("content", content);
    let path = path.replace("AT", AT);
    let mut set = project.command(&["file", "set", "web", &path]);
    let content = std::fs::File::open(project.path("content")).expect("a file");
    assert!(set.stdin(content).status().expect("an end").success());
}

fn unset_by_hand(project: &Project, path: &str) {
    project.ok(&["file", "unset", "web", &path.replace("AT", AT)]);
}

/// What a file in the sandbox holds.
fn inside(project: &Project, path: &str) -> String {
    let path = path.replace("AT", AT);
    project.ok(&["exec", "web", "--", "cat", &path]).stdout()
}

#[test]
fn files_come_change_and_go_with_the_manifest() {
    let served = Served::start();
    let project = project(
        &served,
        r#"{ AT/app.conf: "listen 8080", AT/tls/key: { from: key }, AT/db: "to ${secret.pass}\n" }"#,
    );
    project.write("key", "${secret.pass} is left\n\n");
    let plan = project.ok(&["plan"]).stdout();
    assert!(!plan.contains("listen"), "{plan}");
    project.ok(&["apply", "--yes"]);
    assert_eq!(there(&project), ["AT/app.conf", "AT/db", "AT/tls/key"]);
    assert_eq!(inside(&project, "AT/app.conf"), "listen 8080");
    assert_eq!(inside(&project, "AT/tls/key"), "${secret.pass} is left\n\n");
    assert_eq!(inside(&project, "AT/db"), format!("to {SECRET}\n"));
    let status = project.status(&[]);
    let shown = &status["sandboxes"][0]["files"];
    assert_eq!(shown[0], format!("{AT}/app.conf"));

    // They are asked for once, and nothing is to do, here and elsewhere.
    let from = served.requests(0).len();
    no_changes(&project);
    let asked = served.requests(from);
    let files = asked.iter().filter(|it| it.contains("file."));
    assert_eq!(
        files.collect::<Vec<_>>(),
        ["GET /xrpc/io.pocketenv.file.getFiles"]
    );
    no_changes_elsewhere(&project);

    let text = project.ok(&["import", "cloud", "shop-web"]).stdout();
    let remark = format!("# files: {AT}/app.conf, {AT}/");
    assert!(text.contains(&remark) && !text.contains("of web"), "{text}");

    // One changes, one goes, one comes: the sandbox is started again for it, and that is said.
    edit(&project, "listen 8080", "listen 8081");
    edit(&project, "AT/db:", "AT/new:");
    let plan = project.ok(&["plan"]).stdout();
    let says = [
        "restart, its definition changed".to_owned(),
        format!("files.{AT}/app.conf  (secret changed)"),
        format!("{AT}/db of web}} → (none)"),
        format!("(none) → ${{secret.{AT}/new of web}}"),
        "start, its sandbox restarts".to_owned(),
    ];
    for says in says {
        assert!(plan.contains(&says), "{says}: {plan}");
    }
    assert!(!plan.contains("listen"), "{plan}");
    assert_eq!(planned(&project.ok(&["plan", "--json"])), RESTART);
    let from = served.requests(0).len();
    project.ok(&["apply", "--yes"]);
    // What is attached is not written in a sandbox that runs. The mark has their ids last.
    assert_eq!(
        pocketenv_writes(&served, from)[..8],
        [
            "sandbox.stopSandbox",
            "file.deleteFile",
            "sandbox.putPreferences",
            "file.deleteFile",
            "file.addFile",
            "file.addFile",
            "sandbox.putPreferences",
            "sandbox.startSandbox",
        ]
    );
    assert_eq!(there(&project), ["AT/app.conf", "AT/new", "AT/tls/key"]);
    assert_eq!(inside(&project, "AT/app.conf"), "listen 8081");
    assert_eq!(inside(&project, "AT/new"), format!("to {SECRET}\n"));
    no_changes(&project);
    no_changes_elsewhere(&project);

    // So it is with a secret and a file that are changed elsewhere.
    for (changed, path) in [("pass.txt", "AT/new"), ("key", "AT/tls/key")] {
        project.write(changed, "changed");
        let plan = project.ok(&["plan"]).stdout();
        let path = path.replace("AT", AT);
        assert!(
            plan.contains(&format!("files.{path}  (secret changed)")),
            "{plan}"
        );
        assert_eq!(planned(&project.ok(&["plan", "--json"])), RESTART);
        project.ok(&["apply", "--yes"]);
        no_changes_elsewhere(&project);
    }
    assert_eq!(inside(&project, "AT/new"), "to changed\n");
    assert_eq!(inside(&project, "AT/tls/key"), "changed");

    // A plan that is kept does not outlive a content that it has found unchanged.
    project.edit("    services:", "    topics: [kept]\n    services:");
    project.ok(&["plan", "--out", "plan.json"]);
    project.write("key", "changed again");
    let stale = project.run(&["apply", "--yes", "plan.json"]);
    assert_eq!(stale.code(), Some(1), "{stale}");
    let says = format!("the value of the secret `{AT}/tls/key of web` changed");
    assert!(flat(&stale).contains(&says), "{stale}");
    project.ok(&["apply", "--yes"]);
    assert_eq!(inside(&project, "AT/tls/key"), "changed again");

    let manifest = project.read("gabion.yaml");
    let line = manifest.lines().find(|line| line.contains("files:"));
    project.edit(&format!("{}\n", line.expect("files")), "");
    assert_eq!(planned(&project.ok(&["plan", "--json"])), RESTART);
    project.ok(&["apply", "--yes"]);
    assert_eq!(there(&project), [""; 0]);
    no_changes(&project);
    no_changes_elsewhere(&project);
}

#[test]
fn what_is_done_to_them_by_hand_is_healed_and_what_was_attached_by_hand_stays() {
    let served = Served::start();
    let project = project(&served, "{ AT/ours: wanted }");
    project.ok(&["apply", "--yes"]);
    set_by_hand(&project, "AT/theirs", "theirs");
    no_changes(&project);
    for change in ["set", "unset", "move"] {
        match change {
            "set" => set_by_hand(&project, "AT/ours", "changed"),
            "unset" => unset_by_hand(&project, "AT/ours"),
            _ => move_by_hand(&served, "AT/ours", "AT/elsewhere"),
        }
        let plan = project.ok(&["plan"]).stdout();
        assert!(
            plan.contains(&format!("files.{AT}/ours")),
            "{change}: {plan}"
        );
        assert!(!plan.contains("theirs"), "{change}: {plan}");
        assert_eq!(planned(&project.ok(&["plan", "--json"])), RESTART);
        project.ok(&["apply", "--yes"]);
        assert_eq!(there(&project), ["AT/ours", "AT/theirs"], "{change}");
        assert_eq!(inside(&project, "AT/ours"), "wanted", "{change}");
        assert_eq!(inside(&project, "AT/theirs"), "theirs", "{change}");
        no_changes_elsewhere(&project);
    }

    // Its path is not taken, and nothing is stopped for that.
    edit(
        &project,
        "AT/ours: wanted",
        "AT/ours: wanted, AT/theirs: mine",
    );
    let refused = project.run(&["apply", "--yes"]);
    assert_eq!(refused.code(), Some(1), "{refused}");
    let said = refused
        .stdout()
        .split_whitespace()
        .collect::<Vec<_>>()
        .join(" ");
    let says = format!("has a file at `{AT}/theirs` that gabion has not attached");
    assert!(said.contains(&says), "{refused}");
    assert!(project.services()["web/api"]["state"] == "running");
    unset_by_hand(&project, "AT/theirs");
    // Nor if it comes once that is planned.
    project.ok(&["plan", "--out", "plan.json"]);
    set_by_hand(&project, "AT/theirs", "theirs");
    let refused = project.run(&["apply", "--yes", "plan.json"]);
    assert_eq!(refused.code(), Some(1), "{refused}");
    assert!(
        flat(&refused).contains("that gabion has not attached"),
        "{refused}"
    );
    assert_eq!(there(&project), ["AT/ours", "AT/theirs"]);
    unset_by_hand(&project, "AT/theirs");
    project.ok(&["apply", "--yes"]);
    assert_eq!(inside(&project, "AT/theirs"), "mine");
    no_changes(&project);
    edit(&project, ", AT/theirs: mine", "");
    project.ok(&["apply", "--yes"]);
    assert_eq!(there(&project), ["AT/ours"]);
    no_changes_elsewhere(&project);
}

/// Gives the only file at this path another one.
fn move_by_hand(served: &Served, from: &str, to: &str) {
    let list = "/xrpc/io.pocketenv.file.getFiles";
    let (_, answer) = served.ask("GET", list, Value::Null);
    let mut files = answer["files"].as_array().expect("files").iter();
    let file = files.find(|it| it["path"] == from.replace("AT", AT).as_str());
    let id = file.expect("the file")["id"].clone();
    let file = serde_json::json!({ "path": to.replace("AT", AT), "content": "" });
    let body = serde_json::json!({ "id": id, "file": file });
    let (status, _) = served.ask("POST", "/xrpc/io.pocketenv.file.updateFile", body);
    assert_eq!(status, 200);
}

#[test]
fn whatever_breaks_off_a_change_of_files_the_next_apply_writes_them() {
    let served = Served::start();
    for fault in ["before=500", "after=500", "after=lost"] {
        let project = project(&served, "{ AT/app: first, AT/old: old }");
        let meet = |operation: &str, times: usize, files: &[(&str, &str)]| {
            let rule = format!("POST /xrpc/io.pocketenv.{operation}:{fault}@{times}");
            served.faults.reset(Plan {
                rules: vec![rule.parse().expect("a rule")],
                ..Plan::default()
            });
            let what = format!("{operation} {fault} {times}");
            let first = project.run(&["apply", "--yes"]);
            let met = served.faults.requests().iter().any(|it| it.fault.is_some());
            assert!(met, "{what}: {first}");
            served.faults.reset(Plan::default());
            project.ok(&["apply", "--yes"]);
            no_changes(&project);
            let paths: Vec<_> = files.iter().map(|(path, _)| *path).collect();
            assert_eq!(there(&project), paths, "{what}");
            for (path, content) in files {
                assert_eq!(inside(&project, path), *content, "{what}: {path}");
            }
        };
        for operation in [
            "file.addFile",
            "sandbox.stopSandbox",
            "sandbox.startSandbox",
        ] {
            meet(operation, 1, &[("AT/app", "first"), ("AT/old", "old")]);
            project.ok(&["destroy", "--yes"]);
        }
        project.ok(&["apply", "--yes"]);
        let mut before = "{ AT/app: first, AT/old: old }".to_owned();
        for (number, (operation, times)) in [
            ("sandbox.stopSandbox", 1),
            ("file.deleteFile", 1),
            ("file.deleteFile", 2),
            ("sandbox.putPreferences", 1),
            ("sandbox.putPreferences", 2),
            ("file.addFile", 1),
            ("file.addFile", 2),
            ("sandbox.startSandbox", 1),
        ]
        .into_iter()
        .enumerate()
        {
            // One goes, one changes, one comes.
            let (path, content) = (format!("AT/new{number}"), format!("content{number}"));
            let after = format!("{{ AT/app: {content}, {path}: new }}");
            edit(&project, &before, &after);
            meet(operation, times, &[("AT/app", &content), (&path, "new")]);
            before = after;
        }
        project.ok(&["destroy", "--yes"]);
        assert_eq!(served.count(), 0);
    }
}

#[test]
fn an_apply_that_is_killed_anywhere_in_a_change_of_files_is_finished_by_the_next() {
    let served = Served::start();
    let project = project(&served, "{ AT/app: killed0, AT/gone0: gone }");
    project.ok(&["apply", "--yes"]);
    for event in 1.. {
        let content = format!("killed{event}");
        edit(&project, &format!("killed{}", event - 1), &content);
        edit(
            &project,
            &format!("gone{}", event - 1),
            &format!("gone{event}"),
        );
        let mut command = project.command(&["apply", "--yes", "--json"]);
        let mut apply = command.stdout(Stdio::piped()).spawn().expect("gabion");
        let mut lines = BufReader::new(apply.stdout.take().expect("a pipe")).lines();
        let heard = lines.by_ref().take(event).count();
        apply.kill().expect("a process");
        apply.wait().expect("an end");
        project.ok(&["apply", "--yes"]);
        no_changes(&project);
        let gone = format!("AT/gone{event}");
        assert_eq!(there(&project), ["AT/app", &gone], "event {event}");
        assert_eq!(inside(&project, "AT/app"), content, "event {event}");
        if heard < event {
            break;
        }
    }
}

#[test]
fn another_provider_writes_them_too() {
    let served = Served::start();
    let files = format!("  web: {{ files: {{ {AT}/app: text }} }}\n");
    let project = on(&served, "pocketenv, provider: modal", &files);
    project.ok(&["apply", "--yes"]);
    assert_eq!(inside(&project, "AT/app"), "text");
    no_changes(&project);
}

#[test]
fn a_file_that_cannot_be_written_is_missed() {
    let served = Served::start();
    let project = project(&served, "{ /proc/none/app: text, AT/app: text }");
    let failed = project.run(&["apply", "--yes"]);
    assert_eq!(failed.code(), Some(1), "{failed}");
    let says = "the platform has not written `/proc/none/app`";
    assert!(flat(&failed).contains(says), "{failed}");
    edit(&project, "/proc/none/app", "AT/other");
    project.ok(&["apply", "--yes"]);
    no_changes(&project);
}

#[test]
fn only_where_a_platform_has_them() {
    let served = Served::start();
    for kind in ["iris", "sprites", "miosa", "local"] {
        let sandbox = "  web:\n    files: { /etc/app.conf: text }\n";
        let project = on(&served, "iris", sandbox);
        match kind {
            "local" => project.edit("platform: cloud", "platform: local"),
            kind => project.edit("kind: iris", &format!("kind: {kind}")),
        }
        let refused = project.run(&["plan"]);
        assert_eq!(refused.code(), Some(65), "{refused}");
        for says in [
            "cannot honour `files`",
            "gabion.yaml:11:5",
            "`gabion cp`",
            kind,
        ] {
            assert!(refused.stderr().contains(says), "{says}: {refused}");
        }
    }
}
