//! URLs that only a platform can tell, in the definitions of services.

use serde_json::Value;

use crate::common::{Project, free_port};
use crate::projects::{flat, no_changes, no_changes_elsewhere, on, planned};
use crate::served::Served;

/// A server behind a URL, a service that is told it, and one that has nothing to do with it.
fn project(served: &Served, kind: &str, ports: &str) -> Project {
    let port = free_port();
    let ports = ports.replace("PORT", &port.to_string());
    on(
        served,
        kind,
        &format!(
            r#"  web:
    services:
      api:
        command: "echo $$; exec python3 -m http.server --bind 127.0.0.1 {port}"
        {ports}
        health: {{ tcp: {port} }}
      user:
        command: "echo $$; echo at ${{services.web/api.url}} and $API; exec sleep 1000"
        env: {{ API: "${{services.web/api.url}}/x" }}
        health: {{ log: and }}
      apart: {{ command: "echo $$; exec sleep 1000" }}
"#
        ),
    )
}

fn plan(project: &Project) -> Value {
    serde_json::from_str(&project.ok(&["plan", "--json"]).stdout()).expect("JSON")
}

/// The processes that services have said they are, the last ones.
fn starts(project: &Project) -> [String; 3] {
    ["web/api", "web/user", "web/apart"].map(|service| {
        let log = project.ok(&["logs", service]).stdout();
        let found = log.lines().rfind(|line| {
            let last = line.split_whitespace().last();
            last.is_some_and(|word| word.bytes().all(|byte| byte.is_ascii_digit()))
        });
        found
            .unwrap_or_else(|| panic!("{service}: {log}"))
            .to_owned()
    })
}

fn url(project: &Project) -> String {
    project.ok(&["url", "web/api"]).stdout().trim().to_owned()
}

/// Whether the service was told this URL, in its command line and in its environment.
fn is_told(project: &Project, url: &str) -> bool {
    let log = project.ok(&["logs", "web/user"]).stdout();
    log.contains(&format!("at {url} and {url}/x"))
}

/// From a first plan, which cannot know the URL, over a plan file, to another machine.
fn a_url_is_told_once_it_is_known(kind: &str, ports: &str) -> (Served, Project) {
    let served = Served::start();
    let project = project(&served, kind, ports);
    let text = project.ok(&["plan"]).stdout();
    let words = text.split_whitespace().collect::<Vec<_>>().join(" ");
    let shown = "API ${services.web/api.url}/x (known after apply)";
    assert!(words.contains(shown), "{text}");
    let markdown = project.ok(&["plan", "--format", "markdown"]).stdout();
    assert!(markdown.contains("(known after apply)"), "{markdown}");
    let json = plan(&project);
    let actions = json["actions"].as_array().expect("actions").iter();
    let upsert = actions.clone().find(|it| it["id"] == "web/user:upsert");
    let upsert = upsert.expect("an upsert");
    assert_eq!(upsert["changes"][1]["known_after_apply"], true, "{upsert}");
    let after = upsert["after"].as_array().expect("a list");
    assert!(after.contains(&"web/api:start".into()), "{upsert}");

    project.ok(&["plan", "--out", "plan.json"]);
    project.ok(&["apply", "plan.json", "--yes"]);
    let url = url(&project);
    assert!(url.starts_with("http://127.0.0.1:"), "{url}");
    assert!(is_told(&project, &url));
    no_changes(&project);
    no_changes_elsewhere(&project);
    (served, project)
}

#[test]
fn the_public_url_of_a_sprite_and_what_becomes_of_its_users_when_it_moves() {
    let (served, project) = a_url_is_told_once_it_is_known("sprites", "http_port: PORT");
    let (before, old) = (starts(&project), url(&project));
    project.edit(
        "exec sleep 1000\"\n        env",
        "exec sleep 1001\"\n        env",
    );
    project.ok(&["plan", "--out", "plan.json"]);
    let was = served.url.clone();
    let served = served.moved();
    project.edit(&was, &served.url);

    let stale = project.run(&["apply", "plan.json", "--yes"]);
    assert!(
        flat(&stale).contains(&format!("web/api: was reached at {old}")),
        "{stale}"
    );
    project.edit("sleep 1001", "sleep 1000");
    let moved = ["web/user:stop", "web/user:upsert", "web/user:start"];
    assert_eq!(planned(&project.ok(&["plan", "--json"])), moved);
    project.ok(&["apply", "--yes"]);
    assert_ne!(url(&project), old);
    assert!(is_told(&project, &url(&project)));
    no_changes(&project);
    let after = starts(&project);
    assert_eq!([&after[0], &after[2]], [&before[0], &before[2]]);
    assert_ne!(after[1], before[1]);
    project.ok(&["destroy", "--yes"]);
}

#[test]
fn a_sprite_is_told_its_own_url_before_it_starts() {
    let served = Served::start();
    let project = project(&served, "sprites", "http_port: PORT");
    project.edit(
        "echo $$; exec python3",
        "echo I am at ${sandboxes.web.url}; exec python3",
    );
    project.ok(&["apply", "--yes"]);
    let log = project.ok(&["logs", "web/api"]).stdout();
    assert!(log.contains(&format!("I am at {}", url(&project))), "{log}");
    no_changes(&project);
    project.ok(&["destroy", "--yes"]);
}

#[test]
fn the_preview_of_a_port_on_miosa_and_what_becomes_of_its_users_without_it() {
    let (served, project) = a_url_is_told_once_it_is_known("miosa", "http_port: PORT");
    let (before, old) = (starts(&project), url(&project));
    let port = old.rsplit(':').next().expect("a port").to_owned();
    project.ok(&["unexpose", "web", &port]);
    // Nobody is stopped for a URL that nothing in the plan would bring back.
    let run = project.run(&["plan", "--json"]);
    assert_eq!(planned(&run), [""; 0]);
    let plan: Value = serde_json::from_str(&run.stdout()).expect("JSON");
    let problem = plan["problems"][0].to_string();
    assert!(
        problem.contains("web/user") && problem.contains("not exposed"),
        "{problem}"
    );
    project.ok(&["expose", "web", &port]);
    no_changes(&project);
    assert_eq!(starts(&project), before);
    project.ok(&["destroy", "--yes"]);
    drop(served);
}

#[test]
fn an_exposed_port_on_pocketenv() {
    let (_served, project) = a_url_is_told_once_it_is_known("pocketenv", "ports: [PORT]");
    let old = url(&project);
    let before = starts(&project);
    // The service comes back, and its port with it: nothing is new to who was told.
    project.ok(&["restart", "web/api"]);
    assert_eq!(url(&project), old);
    no_changes(&project);
    assert_eq!(starts(&project)[1..], before[1..]);
    project.ok(&["destroy", "--yes"]);
}

#[test]
fn on_iris_it_is_refused_where_it_is_written() {
    let served = Served::start();
    let project = project(&served, "iris", "http_port: 80");
    let refused = project.run(&["plan"]);
    let said = refused.stderr();
    assert!(
        said.contains("error[M035]") && said.contains("platform `cloud`"),
        "{said}"
    );
    assert_eq!(refused.code(), Some(65));
}
