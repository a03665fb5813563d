//! What somebody sets by hand that the manifest does not name.

use serde_json::{Value, json};

use super::ask;
use crate::projects::{no_changes, on};
use crate::served::Served;

#[test]
fn topics_and_a_repository_that_somebody_has_set_are_seen_and_taken_back() {
    let served = Served::start();
    let sandbox = "  web:\n    services: { api: { command: exec sleep 1000 } }\n";
    let project = on(&served, "pocketenv", sandbox);
    project.ok(&["apply", "--yes"]);
    no_changes(&project);
    let show = || {
        ask(
            &served,
            "GET",
            "sandbox.getSandbox?id=shop-web",
            Value::Null,
        )
    };
    let id = show()["sandbox"]["id"].clone();
    for (key, value) in [
        ("topics", json!(["theirs"])),
        ("repo", json!("file:///nowhere")),
    ] {
        let mut details = json!({ "$type": "io.pocketenv.sandbox.defs#sandboxDetailsPref" });
        details[key] = value;
        let body = json!({ "sandboxId": id, "preferences": [details] });
        ask(&served, "POST", "sandbox.putPreferences", body);
        let plan = project.ok(&["plan"]).stdout();
        assert!(plan.contains(key), "{plan}");
        project.ok(&["apply", "--yes"]);
        assert_eq!(show()["sandbox"][key], Value::Null, "{key}");
        no_changes(&project);
    }
    assert_eq!(project.services()["web/api"]["state"], "running");
}
