//! `gabion apply --atomic`: all of it, or back to what was.

use crate::common::Project;
use crate::projects::{flat, no_changes, on};
use crate::served::Served;

fn project(served: &Served, kind: &str) -> Project {
    on(
        served,
        kind,
        "  web:
    services:
      api:
        command: 'echo one; exec sleep 1000'
        health: { log: one, timeout: 10s }
",
    )
}

/// What fails is taken back: the old definition runs, and the files are the old ones.
#[test]
fn on_sprites_what_fails_is_taken_back() {
    let served = Served::start();
    let project = project(&served, "sprites");
    let sh = |script: &str| project.ok(&["exec", "web", "--", "sh", "-c", script]);
    project.ok(&["apply", "--yes"]);
    sh("echo old >kept.txt");
    let works = project.read("gabion.yaml");
    project.edit("echo one;", "echo new >kept.txt; exit 3;");
    let failed = project.run(&["apply", "--yes", "--atomic"]);
    assert_eq!(failed.code(), Some(1), "{failed}");
    let says = "Everything is as it was before the apply.";
    assert!(flat(&failed).contains(says), "{failed}");
    project.write("gabion.yaml", &works);
    no_changes(&project);
    assert_eq!(project.services()["web/api"]["state"], "running");
    assert_eq!(sh("cat kept.txt").stdout(), "old\n");
}

#[test]
fn where_checkpoints_hold_no_definitions_it_does_not_begin() {
    for kind in ["iris", "miosa", "pocketenv"] {
        let served = Served::start();
        let project = project(&served, kind);
        project.ok(&["apply", "--yes"]);
        let works = project.read("gabion.yaml");
        project.edit("echo one;", "echo two;");
        let refused = project.run(&["apply", "--yes", "--atomic"]);
        assert_eq!(refused.code(), Some(1), "{refused}");
        let says =
            "nothing was changed: checkpoints of `web` do not hold how its services are defined";
        assert!(flat(&refused).contains(says), "{refused}");
        project.write("gabion.yaml", &works);
        no_changes(&project);
    }
}
