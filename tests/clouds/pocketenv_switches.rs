//! Pocketenv where it behaves otherwise than usual, as users have met it: `gabion serve --pocketenv`.

use gabion::serve::Faults;
use gabion::serve::pocketenv::Switches;
use serde_json::Value;

use crate::common::Project;
use crate::projects::{flat, no_changes, on, planned};
use crate::served::{NAMING, Served};

const SERVICES: &str = "  web:
    services:
      db: { command: exec sleep 1000 }
      api: { command: 'echo up; exec sleep 1001', needs: [db], health: { log: up } }
";

fn served(switches: &[&str]) -> Served {
    Served::new(Faults::default(), Switches::read(switches).unwrap())
}

/// A project with one sandbox and no services, which only `cloudflare` has.
fn elsewhere(served: &Served, settings: &str) -> Project {
    let kind = format!("pocketenv, provider: modal{settings}");
    on(served, &kind, "  web: { services: {} }\n")
}

/// The states of the services, by name.
fn states(served: &Served) -> Vec<(String, String)> {
    let path = "/xrpc/io.pocketenv.service.getServices?sandboxId=shop-web";
    let (_, body) = served.ask("GET", path, Value::Null);
    let all = body["services"].as_array().unwrap().iter();
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let mut all: Vec<_> = all
        .map(|it| (text(&it["name"]), text(&it["status"])))
        .collect();
    all.sort();
    all
}

fn status(served: &Served) -> Value {
    let path = "/xrpc/io.pocketenv.sandbox.getSandbox?id=shop-web";
    served.ask("GET", path, Value::Null).1["sandbox"]["status"].clone()
}

#[test]
fn converges_where_bodies_are_not_minded() {
    converges(&served(&["lenient"]));
}

#[test]
fn converges_where_a_first_start_is_swallowed() {
    // One is added and not started, and started then.
    converges(&served(&["silent-starts=1"]));
}

/// Applies, plans and destroys.
fn converges(served: &Served) {
    let project = on(served, "pocketenv", SERVICES);
    project.ok(&["apply", "--yes"]);
    no_changes(&project);
    let running = |name: &str| (name.to_owned(), "RUNNING".to_owned());
    assert_eq!(states(served), ["api", "db"].map(running));
    project.ok(&["destroy", "--yes"]);
    assert_eq!(served.count(), 0);
}

#[test]
fn a_service_that_silently_stays_stopped_is_noticed() {
    let served = served(&["silent-starts=2"]);
    let project = on(&served, "pocketenv", SERVICES);
    let failed = project.run(&["apply", "--yes"]);
    assert_eq!(failed.code(), Some(1), "{failed}");
    let said = flat(&failed);
    assert!(said.contains("the platform has not started it"), "{failed}");
    assert_eq!(states(&served), [("db".to_owned(), "STOPPED".to_owned())]);
    project.ok(&["apply", "--yes"]);
    no_changes(&project);
}

#[test]
fn a_token_tells_whose_it_is_where_the_profile_is_empty() {
    let served = served(&["empty-profile"]);
    let project = on(&served, "pocketenv", SERVICES);
    let failed = project.run(&["plan"]);
    assert!(!failed.0.status.success(), "{failed}");
    let said = format!("{}{}", failed.stdout(), failed.stderr());
    assert!(said.contains("does not tell whose the token is"), "{said}");

    project.write("token.txt", NAMING);
    project.ok(&["apply", "--yes"]);
    no_changes(&project);
    project.ok(&["destroy", "--yes"]);
    assert_eq!(served.count(), 0);
}

#[test]
fn a_provider_that_takes_its_time_is_awaited() {
    let served = served(&["initializing=6"]);
    let project = elsewhere(&served, "");
    project.ok(&["apply", "--yes"]);
    assert_eq!(status(&served), "RUNNING");
    no_changes(&project);
    project.ok(&["destroy", "--yes"]);
    assert_eq!(served.count(), 0);
}

#[test]
fn a_provider_that_never_comes_up_is_not_awaited_for_ever() {
    let served = served(&["stuck"]);
    let project = elsewhere(&served, ", ready_timeout: 100ms");
    // Made, and then found as it is: it is not made again, and no apply takes it for done.
    for _ in 0..2 {
        let failed = project.run(&["apply", "--yes"]);
        assert_eq!(failed.code(), Some(1), "{failed}");
        let said = flat(&failed);
        for says in [
            "`modal` has not brought the sandbox up",
            "it is made and marked as this stack's, but still `INITIALIZING` after 0.1 s",
            "can be destroyed",
        ] {
            assert!(said.contains(says), "{says}: {failed}");
        }
        assert_eq!(served.count(), 1);
    }
    let plan = project.run(&["plan", "--json", "--detailed-exitcode"]);
    assert_eq!(plan.code(), Some(2), "{plan}");
    assert_eq!(planned(&plan), ["web:start"], "{plan}");
    project.ok(&["destroy", "--yes"]);
    assert_eq!(served.count(), 0);
}
