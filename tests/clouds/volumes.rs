//! Volumes of a sandbox, as a manifest has them: on Pocketenv, against `gabion serve`.

use std::io::{BufRead, BufReader};
use std::process::Stdio;

use gabion::serve::faults::Plan;
use serde_json::{Value, json};

use crate::common::Project;
use crate::projects::{RESTART, no_changes, no_changes_elsewhere, on, planned, pocketenv_writes};
use crate::served::Served;

/// Where volumes are mounted in these tests.
const AT: &str = "/tmp/gabion-volumes";

/// A project whose sandbox has these volumes, in the words of a manifest.
fn project(served: &Served, volumes: &str) -> Project {
    let volumes = volumes.replace("AT", AT);
    let service = "    services:\n      api: { command: 'exec sleep 1000' }\n";
    on(
        served,
        "pocketenv",
        &format!("  web:\n    volumes: {volumes}\n{service}"),
    )
}

/// Writes other volumes into the manifest.
fn edit(project: &Project, from: &str, to: &str) {
    project.edit(&from.replace("AT", AT), &to.replace("AT", AT));
}

/// What the platform tells of the sandbox's volumes: names and paths, sorted.
fn there(project: &Project) -> Vec<(String, String)> {
    let list = project.ok(&["volume", "list", "web", "--json"]).stdout();
    let list: Value = serde_json::from_str(&list).expect("JSON");
    let text = |it: &Value, key: &str| it[key].as_str().unwrap_or_default().replace(AT, "AT");
    let all = list.as_array().expect("a list").iter();
    all.map(|it| (text(it, "name"), text(it, "path"))).collect()
}

fn pairs(wanted: &[(&str, &str)]) -> Vec<(String, String)> {
    let owned = |(name, path): &(&str, &str)| ((*name).to_owned(), (*path).to_owned());
    wanted.iter().map(owned).collect()
}

/// Whether a volume is mounted at a path.
fn is_mounted(project: &Project, path: &str) -> bool {
    let path = path.replace("AT", AT);
    let run = project.run(&["exec", "web", "--", "test", "-d", &path]);
    run.code() == Some(0)
}

#[test]
fn volumes_come_change_and_go_with_the_manifest() {
    let served = Served::start();
    let project = project(&served, "{ data: AT/data, cache: AT/cache }");
    project.ok(&["apply", "--yes"]);
    assert_eq!(
        there(&project),
        pairs(&[("cache", "AT/cache"), ("data", "AT/data")])
    );
    assert!(is_mounted(&project, "AT/data") && is_mounted(&project, "AT/cache"));
    let status = project.status(&[]);
    let shown = &status["sandboxes"][0]["volumes"];
    assert_eq!(
        *shown,
        json!({ "cache": format!("{AT}/cache"), "data": format!("{AT}/data") })
    );

    // They are asked for once, and nothing is to do, here and elsewhere.
    let from = served.requests(0).len();
    no_changes(&project);
    let asked = served.requests(from);
    let volumes = asked.iter().filter(|it| it.contains("volume."));
    assert_eq!(
        volumes.collect::<Vec<_>>(),
        ["GET /xrpc/io.pocketenv.volume.getVolumes"]
    );
    no_changes_elsewhere(&project);

    // One moves, one goes, one comes: the sandbox is started again for it, and that is said.
    edit(
        &project,
        "{ data: AT/data, cache: AT/cache }",
        "{ data: AT/moved, new: AT/new }",
    );
    let plan = project.ok(&["plan"]).stdout();
    let says = [
        "web".to_owned(),
        "restart, its definition changed".to_owned(),
        format!("volumes.cache  {AT}/cache → (none)"),
        format!("volumes.data   {AT}/data → {AT}/moved"),
        format!("volumes.new    (none) → {AT}/new"),
        "start, its sandbox restarts".to_owned(),
    ];
    for says in says {
        assert!(plan.contains(&says), "{says}: {plan}");
    }
    assert_eq!(planned(&project.ok(&["plan", "--json"])), RESTART);
    let from = served.requests(0).len();
    project.ok(&["apply", "--yes"]);
    // What is attached is not mounted in a sandbox that runs.
    assert_eq!(
        pocketenv_writes(&served, from)[..6],
        [
            "sandbox.stopSandbox",
            "volume.deleteVolume",
            "sandbox.putPreferences",
            "volume.updateVolume",
            "volume.addVolume",
            "sandbox.startSandbox",
        ]
    );
    assert_eq!(
        there(&project),
        pairs(&[("data", "AT/moved"), ("new", "AT/new")])
    );
    assert!(is_mounted(&project, "AT/moved") && is_mounted(&project, "AT/new"));
    no_changes(&project);
    no_changes_elsewhere(&project);

    // Two change their places.
    edit(
        &project,
        "{ data: AT/moved, new: AT/new }",
        "{ data: AT/new, new: AT/moved }",
    );
    project.ok(&["apply", "--yes"]);
    assert_eq!(
        there(&project),
        pairs(&[("data", "AT/new"), ("new", "AT/moved")])
    );
    no_changes(&project);

    edit(
        &project,
        "    volumes: { data: AT/new, new: AT/moved }\n",
        "",
    );
    assert_eq!(planned(&project.ok(&["plan", "--json"])), RESTART);
    project.ok(&["apply", "--yes"]);
    assert_eq!(there(&project), []);
    no_changes(&project);
    no_changes_elsewhere(&project);
}

#[test]
fn what_is_done_to_them_by_hand_is_healed_and_what_was_attached_by_hand_stays() {
    let served = Served::start();
    let project = project(&served, "{ data: AT/data }");
    project.ok(&["apply", "--yes"]);
    let by_hand = |args: &[&str]| {
        let args: Vec<_> = args.iter().map(|it| it.replace("AT", AT)).collect();
        let args: Vec<_> = args.iter().map(String::as_str).collect();
        project.ok(&args);
    };
    by_hand(&["volume", "set", "web", "theirs=AT/theirs"]);
    no_changes(&project);
    for change in [
        &["volume", "set", "web", "data=AT/elsewhere"][..],
        &["volume", "unset", "web", "data"][..],
    ] {
        by_hand(change);
        assert_eq!(
            planned(&project.ok(&["plan", "--json"])),
            RESTART,
            "{change:?}"
        );
        project.ok(&["apply", "--yes"]);
        assert_eq!(
            there(&project),
            pairs(&[("data", "AT/data"), ("theirs", "AT/theirs")])
        );
        no_changes(&project);
    }

    // Its path cannot be had by another one, and it is not removed for that.
    edit(&project, "data: AT/data", "data: AT/data, mine: AT/theirs");
    let refused = project.run(&["apply", "--yes"]);
    assert_eq!(refused.code(), Some(1), "{refused}");
    let said = refused
        .stdout()
        .split_whitespace()
        .collect::<Vec<_>>()
        .join(" ");
    assert!(
        said.contains(&format!(
            "has volume `theirs` at `{AT}/theirs` that gabion has not attached"
        )),
        "{refused}"
    );
    assert_eq!(project.services()["web/api"]["state"], "running");
    // It is named by the manifest from here on, so it is the manifest's.
    edit(&project, "mine: AT/theirs", "theirs: AT/theirs");
    project.ok(&["apply", "--yes"]);
    no_changes(&project);
    edit(&project, ", theirs: AT/theirs", "");
    project.ok(&["apply", "--yes"]);
    assert_eq!(there(&project), pairs(&[("data", "AT/data")]));
    no_changes_elsewhere(&project);
}

#[test]
fn whatever_breaks_off_a_change_of_volumes_the_next_apply_mounts_them() {
    let served = Served::start();
    for fault in ["before=500", "after=500", "after=lost"] {
        let project = project(&served, "{ data: AT/data, cache: AT/cache }");
        let meet = |operation: &str, volumes: &[(&str, &str)]| {
            let rule = format!("POST /xrpc/io.pocketenv.{operation}:{fault}@1");
            served.faults.reset(Plan {
                rules: vec![rule.parse().expect("a rule")],
                ..Plan::default()
            });
            let first = project.run(&["apply", "--yes"]);
            let met = served.faults.requests().iter().any(|it| it.fault.is_some());
            assert!(met, "{operation} {fault}: {first}");
            served.faults.reset(Plan::default());
            project.ok(&["apply", "--yes"]);
            no_changes(&project);
            assert_eq!(there(&project), pairs(volumes), "{operation} {fault}");
            for (_, path) in volumes {
                assert!(is_mounted(&project, path), "{operation} {fault}: {path}");
            }
        };
        let whole = [("cache", "AT/cache"), ("data", "AT/data")];
        for operation in [
            "volume.addVolume",
            "sandbox.stopSandbox",
            "sandbox.startSandbox",
        ] {
            meet(operation, &whole);
            project.ok(&["destroy", "--yes"]);
        }
        project.ok(&["apply", "--yes"]);
        let mut before = "{ data: AT/data, cache: AT/cache }".to_owned();
        for (number, operation) in [
            "sandbox.stopSandbox",
            "volume.deleteVolume",
            "sandbox.putPreferences",
            "volume.updateVolume",
            "volume.addVolume",
            "sandbox.startSandbox",
        ]
        .into_iter()
        .enumerate()
        {
            // One goes, one moves, one comes.
            let (path, name) = (format!("AT/{number}"), format!("cache{number}"));
            let after = format!("{{ data: {path}, {name}: AT/cache }}");
            edit(&project, &before, &after);
            meet(operation, &[(&name, "AT/cache"), ("data", &path)]);
            before = after;
        }
        project.ok(&["destroy", "--yes"]);
        assert_eq!(served.count(), 0);
    }
}

#[test]
fn an_apply_that_is_killed_anywhere_in_a_change_of_volumes_is_finished_by_the_next() {
    let served = Served::start();
    let project = project(&served, "{ data: AT/data }");
    project.ok(&["apply", "--yes"]);
    let mut before = "AT/data".to_owned();
    for event in 1.. {
        let after = format!("AT/killed{event}");
        edit(&project, &before, &after);
        before = after;
        let mut command = project.command(&["apply", "--yes", "--json"]);
        let mut apply = command.stdout(Stdio::piped()).spawn().expect("gabion");
        let mut lines = BufReader::new(apply.stdout.take().expect("a pipe")).lines();
        let heard = lines.by_ref().take(event).count();
        apply.kill().expect("a process");
        apply.wait().expect("an end");
        project.ok(&["apply", "--yes"]);
        no_changes(&project);
        assert_eq!(
            there(&project),
            pairs(&[("data", &before)]),
            "event {event}"
        );
        assert!(is_mounted(&project, &before), "event {event}");
        if heard < event {
            break;
        }
    }
}

#[test]
fn another_provider_mounts_them_too() {
    let served = Served::start();
    let volumes = format!("  web: {{ volumes: {{ data: {AT}/data }} }}\n");
    let project = on(&served, "pocketenv, provider: modal", &volumes);
    project.ok(&["apply", "--yes"]);
    assert!(is_mounted(&project, "AT/data"));
    no_changes(&project);
}

#[test]
fn only_where_a_platform_has_them() {
    let served = Served::start();
    for kind in ["iris", "sprites", "miosa", "local"] {
        let sandbox = "  web:\n    volumes: { data: /var/lib/data }\n";
        let project = on(&served, "iris", sandbox);
        match kind {
            "local" => project.edit("platform: cloud", "platform: local"),
            kind => project.edit("kind: iris", &format!("kind: {kind}")),
        }
        let refused = project.run(&["plan"]);
        assert_eq!(refused.code(), Some(65), "{refused}");
        for says in ["cannot honour `volumes`", "gabion.yaml:11:5", kind] {
            assert!(refused.stderr().contains(says), "{says}: {refused}");
        }
    }
}
