//! `gabion import --adopt` of a sandbox that is nobody's.

use gabion::platforms::cloud::http::tls;
use gabion::serve::faults::Plan;
use serde_json::{Value, json};

use super::ask;
use crate::projects::{flat, no_changes, on};
use crate::served::{OTHER, Served, runtime};

/// Makes a sandbox as a browser does without a user.
fn anonymous(served: &Served) -> Value {
    runtime().block_on(async {
        let http = reqwest::Client::builder().no_proxy();
        let http = http.tls_backend_preconfigured(tls::unused().expect("TLS"));
        let http = http.build().expect("a client");
        let url = format!("{}/xrpc/io.pocketenv.sandbox.createSandbox", served.url);
        let request = http.post(url).header("x-challenge", "solved");
        let request = request.json(&json!({ "base": "openclaw" }));
        let answer = request.send().await.expect("an answer");
        let text = answer.text().await.expect("a body");
        serde_json::from_str(&text).expect("JSON")
    })
}

#[test]
fn what_is_nobodys_is_claimed_and_adopted() {
    let served = Served::start();
    let made = anonymous(&served);
    let [id, name] = ["id", "name"].map(|key| made[key].as_str().unwrap());
    let sandbox = format!("  web:\n    name: {name}\n    services: {{}}\n");
    let project = on(&served, "pocketenv", &sandbox);
    let text = project.ok(&["import", "cloud", name]).stdout();
    assert!(text.contains(&format!("name: \"{name}\"")), "{text}");
    assert!(
        text.contains("# services: Pocketenv tells them only"),
        "{text}"
    );
    let listed = || project.ok(&["sandboxes", "--platform", "cloud"]).stdout();
    assert!(!listed().contains(name), "{}", listed());

    // What was answered is lost, and it is looked what became of it.
    served.faults.reset(Plan {
        rules: vec!["POST **claimSandbox:after=lost@1".parse().unwrap()],
        ..Plan::default()
    });
    let said = flat(&project.ok(&["import", "cloud", name, "--adopt"]));
    assert!(said.contains("web: claimed, and adopted"), "{said}");
    no_changes(&project);
    assert!(listed().contains(name), "{}", listed());
    let show = format!("sandbox.getSandbox?id={id}");
    let found = ask(&served, "GET", &show, Value::Null);
    let own = ask(&served, "GET", "actor.getProfile", Value::Null);
    assert_eq!(found["sandbox"]["owner"]["did"], own["did"]);
    let again = flat(&project.ok(&["import", "cloud", id, "--adopt"]));
    assert!(again.contains("is of this stack already"), "{again}");
    project.ok(&["destroy", "--yes"]);
    assert_eq!(served.count(), 0);
}

#[test]
fn what_has_an_owner_or_is_of_the_catalogue_is_not_claimed() {
    let served = Served::start();
    let create = "/xrpc/io.pocketenv.sandbox.createSandbox";
    let (_, theirs) = served.ask_as(OTHER, "POST", create, json!({ "base": "openclaw" }));
    for name in [theirs["name"].as_str().unwrap(), "openclaw"] {
        let sandbox = format!("  web:\n    name: {name}\n    services: {{}}\n");
        let project = on(&served, "pocketenv", &sandbox);
        let refused = project.run(&["import", "cloud", name, "--adopt"]);
        assert_eq!(refused.code(), Some(1), "{refused}");
        let says = format!("there is no sandbox `{name}`");
        assert!(flat(&refused).contains(&says), "{refused}");
    }
    let asked = served.requests(0);
    assert!(!asked.iter().any(|it| it.contains("claim")), "{asked:?}");
}
