//! An account with more sprites than one page of its list tells of.

use std::time::Duration;

use gabion::serve::faults::Plan;
use serde_json::{Value, json};

use super::PATH;
use crate::projects::{no_changes, no_changes_elsewhere, on};
use crate::served::Served;

const TWO: &str = r#"  a: { services: { api: { cmd: sleep, args: ["1000"] } } }
  b: { services: { api: { cmd: sleep, args: ["1000"] } } }
"#;

#[test]
fn services_are_read_while_further_pages_are_listed() {
    let served = Served::start();
    let project = on(&served, "sprites", TWO);
    project.ok(&["apply", "--yes"]);
    // Behind those of the stack, up to the third page.
    for number in 0..99 {
        let name = format!("theirs-{number:02}");
        let (status, _) = served.ask("POST", PATH, json!({ "name": name }));
        assert_eq!(status, 201);
    }
    served.faults.reset(Plan {
        latency: Duration::from_millis(100),
        ..Plan::default()
    });
    no_changes(&project);

    let requests = served.requests(0);
    let list = format!("GET {PATH}");
    let last_page = requests.iter().rposition(|it| *it == list);
    for sandbox in ["a", "b"] {
        let services = format!("GET {PATH}/shop-{sandbox}/services");
        let read = requests.iter().position(|it| *it == services);
        assert!(read.is_some() && read < last_page, "{requests:?}");
    }
    // Three pages, and the services of those of the stack: no more than that.
    assert_eq!(requests.len(), 5, "{requests:?}");
    no_changes_elsewhere(&project);
}

#[test]
fn what_cannot_be_read_is_unknown_one_sprite_or_all_of_them() {
    let served = Served::start();
    let project = on(&served, "sprites", TWO);
    project.ok(&["apply", "--yes"]);
    for (rule, unknown) in [
        ("GET /v1/sprites:before=500", ["a", "b"].as_slice()),
        ("GET /v1/sprites/shop-b/services:before=500", &["b"]),
    ] {
        served.faults.reset(Plan {
            rules: vec![rule.parse().unwrap()],
            ..Plan::default()
        });
        let run = project.run(&["plan", "--json"]);
        let plan: Value = serde_json::from_str(&run.stdout()).unwrap();
        assert_eq!(plan["actions"], json!([]), "{rule}: {run}");
        let problems = plan["problems"].as_array().unwrap().iter();
        let addresses: Vec<_> = problems.map(|it| it["address"].clone()).collect();
        assert_eq!(addresses, unknown, "{rule}: {run}");
    }
    served.faults.reset(Plan::default());
    no_changes(&project);
}
