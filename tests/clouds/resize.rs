//! Another size for a sandbox on Miosa, whatever the platform makes of it.

use gabion::serve::miosa::Switches;
use serde_json::Value;

use crate::common::{Project, Run};
use crate::projects::{flat, no_changes, on};
use crate::served::Served;

const PATH: &str = "/api/v1/sandboxes";

fn project(served: &Served, kind: &str) -> Project {
    let project = on(
        served,
        kind,
        "  web:
    vcpus: 2
    memory: 4GiB
    disk: 10GiB
    services: { api: { cmd: sleep, args: [\"1000\"] } }
",
    );
    project.ok(&["apply", "--yes"]);
    no_changes(&project);
    project
}

fn served(resize: &str) -> Served {
    let switches = Switches::read([format!("resize={resize}")]).expect("switches");
    Served::new(Default::default(), switches)
}

/// Every sandbox of the account.
fn all(served: &Served) -> Vec<Value> {
    let (_, body) = served.ask("GET", PATH, Value::Null);
    body["data"].as_array().expect("a list").clone()
}

fn in_place(resize: &str) {
    let served = served(resize);
    let project = project(&served, "miosa, resizes_in_place: true");
    let id = all(&served)[0]["id"].clone();
    let text = format!("{PATH}/{}/resources", id.as_str().expect("an id"));
    project.edit("vcpus: 2", "vcpus: 4");
    project.edit("memory: 4GiB", "memory: 6GiB");
    project.ok(&["apply", "--yes"]);
    let (_, told) = served.ask("GET", &text, Value::Null);
    assert_eq!(told["data"]["cpu_count"], 4);
    assert_eq!(told["data"]["memory_mb"], 6144);
    let now = all(&served);
    assert_eq!((now.len(), &now[0]["id"]), (1, &id));
    assert_eq!(project.services()["web/api"]["state"], "running");
    no_changes(&project);
    // A change of something else asks for no size.
    let from = served.faults.requests().len();
    project.edit("    disk:", "    topics: [front]\n    disk:");
    project.ok(&["apply", "--yes"]);
    let asked = served.requests(from);
    assert!(
        asked.iter().all(|it| !it.ends_with("/resources")),
        "{asked:?}"
    );
    project.ok(&["destroy", "--yes"]);
}

#[test]
fn a_sandbox_gets_another_size_at_once_or_when_it_is_resumed() {
    in_place("live");
    in_place("restart");
}

fn refused(served: &Served, project: &Project) -> Run {
    project.edit("vcpus: 2", "vcpus: 4");
    let failed = project.run(&["apply", "--yes"]);
    assert_eq!(failed.code(), Some(1), "{failed}");
    assert!(!all(served).is_empty());
    failed
}

#[test]
fn without_the_setting_a_size_is_not_changed() {
    let served = served("live");
    let project = project(&served, "miosa");
    let failed = refused(&served, &project);
    let said = format!("{}{}", failed.stdout(), failed.stderr());
    assert!(said.contains("cannot change its `vcpus`"), "{failed}");
    assert_eq!(all(&served)[0]["cpu_count"], 2);
    assert_eq!(project.services()["web/api"]["state"], "running");
}

#[test]
fn a_size_that_is_not_changed_is_told() {
    let served = served("never");
    let project = project(&served, "miosa, resizes_in_place: true");
    let failed = refused(&served, &project);
    assert!(flat(&failed).contains("has left the size of"), "{failed}");
    project.edit("vcpus: 4", "vcpus: 2");
    project.ok(&["apply", "--yes"]);
    no_changes(&project);
}

/// The id of the sandbox that was made, which is not of the stack.
fn told_other(served: &Served, failed: &Run, before: &Value) -> String {
    let now = all(served);
    let other = now.iter().find(|it| it["id"] != before["id"]);
    let other = other.expect("another one")["id"].as_str().expect("text");
    let says = format!("another sandbox of the new size, {other},");
    assert!(flat(failed).contains(&says), "{failed}");
    other.to_owned()
}

#[test]
fn a_sandbox_that_was_made_beside_is_told_with_its_id() {
    let served = served("copy");
    let project = project(&served, "miosa, resizes_in_place: true");
    let before = all(&served).remove(0);
    let failed = refused(&served, &project);
    let other = told_other(&served, &failed, &before);
    // What there was is as it was, once the manifest says so again.
    project.edit("vcpus: 4", "vcpus: 2");
    project.ok(&["apply", "--yes"]);
    no_changes(&project);
    project.ok(&["destroy", "--yes"]);
    let left = all(&served);
    assert_eq!((left.len(), &left[0]["id"]), (1, &Value::from(other)));
}

#[test]
fn a_sandbox_that_was_replaced_is_made_anew_by_the_next_apply() {
    let served = served("replace");
    let project = project(&served, "miosa, resizes_in_place: true");
    let before = all(&served).remove(0);
    let failed = refused(&served, &project);
    let other = told_other(&served, &failed, &before);
    assert!(flat(&failed).contains("and removed `web`"), "{failed}");
    project.ok(&["apply", "--yes"]);
    no_changes(&project);
    let made = all(&served);
    let made = made.iter().find(|it| it["id"] != *other);
    assert_eq!(made.expect("a new one")["cpu_count"], 4);
}
