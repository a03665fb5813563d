//! Checkpoints, which are backups of one folder that the platform keeps for a time.

use jiff::{SignedDuration, Timestamp};
use serde_json::Value;

use crate::common::Project;
use crate::projects::{flat, on};
use crate::served::Served;

const SERVICE: &str = "  web:\n    services: { api: { command: exec sleep 1000 } }\n";

fn inside(project: &Project, script: &str) -> String {
    let run = project.ok(&["exec", "web", "--", "/bin/sh", "-c", script]);
    run.stdout().trim().to_owned()
}

fn listed(project: &Project) -> Vec<Value> {
    let list = project
        .ok(&["checkpoint", "list", "web", "--json"])
        .stdout();
    let list: Value = serde_json::from_str(&list).unwrap();
    list["checkpoints"].as_array().unwrap().clone()
}

fn kept_for(checkpoint: &Value) -> SignedDuration {
    let time = |key: &str| -> Timestamp { checkpoint[key].as_str().unwrap().parse().unwrap() };
    time("expires_at").duration_since(time("created_at"))
}

#[test]
fn a_checkpoint_is_of_the_entrys_folder_and_is_kept_for_a_time() {
    let served = Served::start();
    let project = on(&served, "pocketenv, backup_directory: data", SERVICE);
    project.ok(&["apply", "--yes"]);
    let create = [
        "checkpoint",
        "create",
        "web",
        "before",
        "--expires-in",
        "7d",
    ];
    let missing = project.run(&create);
    assert_eq!(missing.code(), Some(1), "{missing}");
    let said = flat(&missing);
    assert!(said.contains("there is no folder `data`"), "{said}");

    inside(&project, "mkdir data; echo old | tee data/a b");
    let folder = inside(&project, "cd data && pwd");
    let made = project.ok(&create).stdout();
    assert!(
        made.contains(&format!("of {folder} made, kept until ")),
        "{made}"
    );
    project.ok(&["checkpoint", "create", "web", "usual"]);
    let all = listed(&project);
    assert_eq!(all.len(), 2);
    for checkpoint in &all {
        assert_eq!(checkpoint["directory"], *folder);
    }
    assert_eq!(kept_for(&all[0]), SignedDuration::from_hours(7 * 24));
    assert_eq!(kept_for(&all[1]), SignedDuration::from_hours(3 * 24));
    let list = project.ok(&["checkpoint", "list", "web"]).stdout();
    for shown in ["EXPIRES", "DIRECTORY", &folder] {
        assert!(list.contains(shown), "{shown} in {list}");
    }

    inside(&project, "echo new | tee data/a b data/c");
    project.ok(&["checkpoint", "restore", "web", "before", "--yes"]);
    let now = inside(&project, "cat data/a b; ls data");
    assert_eq!(now, "old\nnew\na");
}

#[test]
fn a_provider_without_backups_and_a_backup_that_is_not_there() {
    let served = Served::start();
    let sandbox = "  web: { services: {} }\n";
    let project = on(&served, "pocketenv, provider: modal", sandbox);
    project.ok(&["apply", "--yes"]);
    let refused = project.run(&["checkpoint", "create", "web", "one"]);
    assert_eq!(refused.code(), Some(1), "{refused}");
    let says = "Sandbox provider does not support backup";
    assert!(flat(&refused).contains(says), "{refused}");
    let unknown = project.run(&["checkpoint", "restore", "web", "one", "--yes"]);
    assert_eq!(unknown.code(), Some(64), "{unknown}");
    assert!(
        flat(&unknown).contains("has no checkpoint `one`"),
        "{unknown}"
    );
}
